"""
What is stored against what happened: row by row, candle by candle, and each break with its repair.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from bitget_pipeline.exchange.registry import get
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.rollup import rollup
from bitget_pipeline.storage.warehouse import CoverageState, Warehouse

from ..pipeline.conftest import true_trades
from .scene import MINUTE, Scene


@dataclass
class Comparison:
    """Counts, and the first differences in words."""

    trades: int = 0
    lost: int = 0
    not_yet_found: int = 0
    doubled: int = 0
    invented: int = 0
    different: int = 0
    candles: int = 0
    candles_wrong: int = 0
    breaks: int = 0
    breaks_not_in_ledger: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether nothing at all differs."""
        return self.trades > 0 and not (
            self.lost
            or self.doubled
            or self.invented
            or self.different
            or self.candles_wrong
            or self.breaks_not_in_ledger
        )

    def say(self, text: str) -> None:
        """Keep the first differences."""
        if len(self.examples) < 12:
            self.examples.append(text)


async def compare(scene: Scene, within: Interval, *, last: bool = False) -> Comparison:
    """
    The trades of an interval; the `last` time whole minutes too, every break that the workers logged, and what was lost in
    single frames, which is found some time after its minute only.
    """
    found = Comparison()
    with await asyncio.to_thread(scene.open_warehouse) as warehouse:
        for symbol in scene.symbols:
            await _compare_symbol(scene, warehouse, symbol, within, found, last=last)
        if last:
            await asyncio.to_thread(_compare_breaks, scene, warehouse, found)
    return found


async def _compare_symbol(
    scene: Scene, warehouse: Warehouse, symbol: Symbol, within: Interval, found: Comparison, *, last: bool
) -> None:
    truth = {trade.trade_id: trade for trade in await true_trades(scene.exchange, symbol, within)}
    rows = await asyncio.to_thread(warehouse.trades, symbol, within, source="local")
    stored = {trade.trade_id: trade for trade in rows}
    found.trades += len(truth)
    found.doubled += len(rows) - len(stored)
    for lost in sorted(truth.keys() - stored.keys()):
        if not last and truth[lost].ts_ms // MINUTE * MINUTE in scene.lossy:
            found.not_yet_found += 1
            continue
        found.lost += 1
        found.say(f"{symbol} {lost}: lost, traded at {truth[lost].ts_ms}")
    for invented in sorted(stored.keys() - truth.keys()):
        found.invented += 1
        found.say(f"{symbol} {invented}: invented, {stored[invented]}")
    for known in truth.keys() & stored.keys():
        if truth[known] != stored[known]:
            found.different += 1
            found.say(f"{symbol} {known}: stored {stored[known]}, traded {truth[known]}")
    first, end = -(-within.start_ms // MINUTE) * MINUTE, within.end_ms // MINUTE * MINUTE
    if not last or end <= first:
        return
    whole = Interval(first, end)
    bars = await asyncio.to_thread(_live_bars, warehouse, symbol, whole)
    traded = sorted(truth.values(), key=lambda trade: (trade.ts_ms, trade.trade_id))
    for bar in rollup([trade for trade in traded if whole.start_ms <= trade.ts_ms < whole.end_ms], Resolution.M1):
        found.candles += 1
        ours = bars.get(bar.open_ms)
        wanted = (bar.first, bar.high, bar.low, bar.last, bar.trades)
        if ours is None or ours[:5] != wanted or abs(ours[5] - bar.base_volume) > 1e-9 * bar.base_volume:
            found.candles_wrong += 1
            found.say(f"{symbol} minute {bar.open_ms}: stored {ours}, of the trades {wanted} {bar.base_volume}")


def _live_bars(warehouse: Warehouse, symbol: Symbol, within: Interval) -> dict[int, tuple[float, ...]]:
    rows = warehouse.query(
        "SELECT toUnixTimestamp64Milli(open_time) AS ms, first, high, low, last, trades, base_volume "
        "FROM candles_live_final WHERE market = {market:String} AND symbol = {symbol:String} AND resolution = '1m' "
        "AND source = 'local' AND ms >= {start:Int64} AND ms < {end:Int64}",
        {"market": symbol.market.value, "symbol": symbol.name, "start": within.start_ms, "end": within.end_ms},
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def _compare_breaks(scene: Scene, warehouse: Warehouse, found: Comparison) -> None:
    """Every break that was logged, after the scene's start, has to stand in the ledger as repaired."""
    time_of = get("bitget").trade_time_ms
    complete: dict[Symbol, list[Interval]] = {}
    for symbol in scene.symbols:
        standing = warehouse.coverage("trades", symbol=symbol)
        complete[symbol] = sorted(one.interval for one in standing if one.state is CoverageState.COMPLETE)
    for line in scene.worker_log.read_text(errors="replace").splitlines():
        if '"live.gap_found"' not in line:
            continue
        try:
            said = json.loads(line)
        except ValueError:
            continue  # the line of one who was killed while he wrote it
        symbol = Symbol.parse(said["symbol"])
        start, end = time_of(int(said["after"])), time_of(int(said["before"]))
        found.breaks += 1
        for interval in complete[symbol]:
            if interval.start_ms <= start < interval.end_ms:
                start = interval.end_ms
        if start <= end:
            found.breaks_not_in_ledger += 1
            found.say(f"{symbol}: the break from {said['after']} to {said['before']} is not repaired in the ledger")
