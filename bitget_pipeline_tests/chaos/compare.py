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

from ..pipeline.conftest import true_candles, true_trades
from .scene import MINUTE, Scene

BUILT = (Resolution.S1, Resolution.M1, Resolution.M5, Resolution.M15, Resolution.H1)
"""The bars that are built from live trades."""
UNIFIED = BUILT[1:]
"""Those that the exchange serves too."""


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
    The trades of an interval; the `last` time all their bars too, every break that the workers logged, and what was lost in
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
    if last:
        for resolution in BUILT:
            await asyncio.to_thread(_compare_built, warehouse, symbol, resolution, within, found)
        for resolution in UNIFIED:
            await _compare_unified(scene, warehouse, symbol, resolution, within, found)


def _compare_built(
    warehouse: Warehouse, symbol: Symbol, resolution: Resolution, within: Interval, found: Comparison
) -> None:
    """Every bar that touches the interval is made of all the trades that are stored of it, each once, and of no others."""
    step = resolution.ms
    buckets = Interval(within.start_ms // step * step, -(-within.end_ms // step) * step)
    bars = _live_bars(warehouse, symbol, resolution, buckets)
    for bar in rollup(warehouse.trades(symbol, buckets, source="local"), resolution):
        found.candles += 1
        ours = bars.pop(bar.open_ms, None)
        wanted = (bar.first, bar.high, bar.low, bar.last, bar.trades)
        if ours is None or ours[:5] != wanted or abs(ours[5] - bar.base_volume) > 1e-9 * bar.base_volume:
            found.candles_wrong += 1
            found.say(f"{symbol} {resolution} {bar.open_ms}: stored {ours}, of the trades {wanted} {bar.base_volume}")
    found.candles_wrong += len(bars)
    for open_ms, ours in list(bars.items())[:3]:
        found.say(f"{symbol} {resolution} {open_ms}: stored {ours}, and there is no trade of it")


def _live_bars(
    warehouse: Warehouse, symbol: Symbol, resolution: Resolution, within: Interval
) -> dict[int, tuple[float, ...]]:
    rows = warehouse.query(
        "SELECT toUnixTimestamp64Milli(open_time) AS ms, first, high, low, last, trades, base_volume "
        "FROM candles_live_final WHERE market = {market:String} AND symbol = {symbol:String} "
        "AND resolution = {resolution:String} AND source = 'local' AND ms >= {start:Int64} AND ms < {end:Int64}",
        _asked(symbol, resolution, within),
    )
    return {row[0]: tuple(row[1:]) for row in rows}


async def _compare_unified(
    scene: Scene, warehouse: Warehouse, symbol: Symbol, resolution: Resolution, within: Interval, found: Comparison
) -> None:
    """
    Every whole bar is the exchange's own, its open at the previous close included; those of its first whole bar, whose
    neighbour was not collected, and flat ones that nobody has proven yet, may be unknown.
    """
    step = resolution.ms
    first, end = -(-within.start_ms // step) * step, within.end_ms // step * step
    if end <= first:
        return
    rows = await asyncio.to_thread(
        warehouse.query,
        "SELECT toUnixTimestamp64Milli(open_time) AS ms, open, high, low, close, base_volume, open_known, trades "
        "FROM candles_unified WHERE market = {market:String} AND symbol = {symbol:String} "
        "AND resolution = {resolution:String} AND ms >= {start:Int64} AND ms < {end:Int64}",
        _asked(symbol, resolution, Interval(first, end)),
    )
    shown = {row[0]: row[1:] for row in rows}
    for bar in await true_candles(scene.exchange, symbol, Interval(first, end), resolution):
        ours = shown.get(bar.open_ms)
        if ours is None and not bar.base_volume:
            continue
        found.candles += 1
        if ours is not None and not ours[5]:
            right = ours[3] == bar.close and _close(ours[4], bar.base_volume)
        else:
            right = ours is not None and ours[:4] == bar[1:5] and _close(ours[4], bar.base_volume)
        if not right:
            found.candles_wrong += 1
            found.say(f"{symbol} {resolution} {bar.open_ms}: candles_unified shows {ours}, the exchange {tuple(bar)}")


def _close(ours: float, theirs: float) -> bool:
    return abs(ours - theirs) <= 1e-9 * abs(theirs)


def _asked(symbol: Symbol, resolution: Resolution, within: Interval) -> dict[str, object]:
    return {
        "market": symbol.market.value,
        "symbol": symbol.name,
        "resolution": resolution.value,
        "start": within.start_ms,
        "end": within.end_ms,
    }


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
