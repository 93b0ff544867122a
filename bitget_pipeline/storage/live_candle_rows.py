"""
Bars built from our trades, in `candles_live`.

Part of the warehouse (warehouse.py); called by pipeline/live/flush.py after every insert of trades, and by
pipeline/history/trades_history.py. One second is the base of everything that is being lived: a flush reads the trades of the
seconds it touched, makes 5s, 15s and 1m of seconds and 5m, 15m and 1h of minutes, so that neither a busy minute nor an
hour is read again for every second of it. Minutes of long ago are made of their trades directly: seconds are not kept
for ever. Every step may be repeated and done by several at once without changing the outcome.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ..market.candle import Resolution
from ..market.instrument import Symbol
from ..market.trade import TradeBatch
from .connection import Connection

BASE = (Resolution.S1, Resolution.M1)
"""What is always built: the others are sums of these."""

SECOND_MS = Resolution.S1.ms
MINUTE_MS = Resolution.M1.ms
DAY_MS = Resolution.D1.ms
LIVED_MS = 2 * Resolution.H1.ms
"""How long ago a minute may lie to be made of its seconds: far within the time for which these are kept."""
SECONDS_KEPT = 30 * 86_400
"""Seconds for which bars of a second are kept (the table's TTL)."""
_MOST_BUCKETS = 5_000
"""Of one statement; what one flush touches is far below."""

Touched = tuple[Symbol, int]

# One row per source: two sources are never mixed into one bar. The first and the last trade are those of the least and
# the greatest (ts, trade_id), packed into one integer, which is three times faster to compare than the pair (measured).
_FROM_TRADES = """
INSERT INTO candles_live
    (market, symbol, resolution, source, open_time, first, high, low, last,
     base_volume, quote_volume, trades, version, run_id)
SELECT
    market, symbol, resolution, source,
    fromUnixTimestamp64Milli(intDiv(ms, length) * length, 'UTC') AS open_time,
    argMin(price, position), max(price), min(price), argMax(price, position),
    sumKahan(size), sumKahan(price * size), count(), count() * 4294967296 + sum(version), {run_id:String}
FROM
(
    SELECT
        market, symbol, source, price, size, version, toUnixTimestamp64Milli(ts) AS ms,
        bitOr(bitShiftLeft(toUInt128(ms), 64), toUInt128(trade_id)) AS position
    FROM trades FINAL
    WHERE ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
        AND (market, symbol) IN (SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)})))
        AND (market, symbol, intDiv(toUnixTimestamp64Milli(ts), {region:Int64}) * {region:Int64}) IN (
            SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)}, {regions:Array(Int64)}))
        )
)
ARRAY JOIN {resolutions:Array(String)} AS resolution, {lengths:Array(Int64)} AS length
GROUP BY market, symbol, resolution, source, open_time
SETTINGS do_not_merge_across_partitions_select_final = 1
"""

# Exact, because every trade lies in one part alone: first and last are those of the first and the last part, volumes,
# counts and versions are sums. A bar of which any part is not retired is not.
_FROM_BARS = """
INSERT INTO candles_live
    (market, symbol, resolution, source, open_time, first, high, low, last,
     base_volume, quote_volume, trades, version, run_id, retired)
SELECT
    market, symbol, resolution, source,
    fromUnixTimestamp64Milli(intDiv(ms, length) * length, 'UTC') AS open_time,
    argMin(part_first, ms), max(part_high), min(part_low), argMax(part_last, ms),
    sumKahan(part_base), sumKahan(part_quote), sum(part_trades), sum(part_version), {run_id:String},
    min(retired)
FROM
(
    SELECT
        market, symbol, source, toUnixTimestamp64Milli(open_time) AS ms, first AS part_first, high AS part_high,
        low AS part_low, last AS part_last, base_volume AS part_base, quote_volume AS part_quote,
        trades AS part_trades, version AS part_version, retired
    FROM candles_live FINAL
    WHERE resolution = {part:String}
        AND open_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
        AND open_time < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
        AND (market, symbol) IN (SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)})))
        AND (market, symbol, intDiv(toUnixTimestamp64Milli(open_time), {region:Int64}) * {region:Int64}) IN (
            SELECT arrayJoin(arrayZip({markets:Array(String)}, {symbols:Array(String)}, {regions:Array(Int64)}))
        )
)
ARRAY JOIN {resolutions:Array(String)} AS resolution, {lengths:Array(Int64)} AS length
WHERE (market, symbol, resolution, intDiv(ms, length) * length) IN (
    SELECT arrayJoin(arrayZip(
        {touched_markets:Array(String)}, {touched_symbols:Array(String)},
        {touched_resolutions:Array(String)}, {touched_buckets:Array(Int64)}
    ))
)
GROUP BY market, symbol, resolution, source, open_time
SETTINGS do_not_merge_across_partitions_select_final = 1
"""


class LiveCandleRows(Connection):
    """Bars made of single trades."""

    def build_candles(
        self, batches: Iterable[TradeBatch], resolutions: Sequence[Resolution] = (), *, run_id: str, now_ms: int
    ) -> int:
        """
        Build the bars anew that these trades, which are stored, belong to: seconds, minutes, and `resolutions`; returns
        how many (symbol, minute) pairs that were.

        `now_ms` is market time. A bar's version grows with its trades, so of two who build at once the one who saw
        more wins.
        """
        lived: set[Touched] = set()
        past: set[Touched] = set()
        for batch in batches:
            symbol = batch.symbol
            for second in {trade[1] // SECOND_MS * SECOND_MS for trade in batch.trades}:
                if second >= now_ms - LIVED_MS:
                    lived.add((symbol, second))
                else:
                    past.add((symbol, second // MINUTE_MS * MINUTE_MS))
        built = self.recompute_candles(past, resolutions, run_id=run_id)
        if not lived:
            return built
        finer, longer = _split(resolutions)
        for part in _parts(lived, SECOND_MS):
            self._of_trades(part, SECOND_MS, (Resolution.S1,), run_id)
        self._of_bars(lived, Resolution.S1, finer[1:], run_id)
        self._of_bars(lived, Resolution.M1, longer, run_id)
        return built + len({(symbol, ms // MINUTE_MS) for symbol, ms in lived})

    def recompute_candles(
        self, touched: Iterable[Touched], resolutions: Sequence[Resolution] = (), *, run_id: str = ""
    ) -> int:
        """
        Build the bars anew of the touched minutes from all their trades: seconds, minutes, and `resolutions`; returns how
        many (symbol, minute) pairs that were.

        `touched` holds symbols with any moment of the minute (Unix ms UTC).
        """
        minutes = {(symbol, ms // MINUTE_MS * MINUTE_MS) for symbol, ms in touched}
        finer, longer = _split(resolutions)
        gone = (time.time() - SECONDS_KEPT) * 1000
        for part in _parts(minutes, MINUTE_MS):
            kept = part[-1][1] >= gone
            self._of_trades(part, MINUTE_MS, tuple(one for one in finer if kept or one is not Resolution.S1), run_id)
        self._of_bars(minutes, Resolution.M1, longer, run_id)
        return len(minutes)

    def _of_trades(
        self, regions: Sequence[Touched], region_ms: int, resolutions: tuple[Resolution, ...], run_id: str
    ) -> None:
        self.command_with_lists(_FROM_TRADES, _parameters(regions, region_ms, resolutions, run_id))

    def _of_bars(
        self, touched: Iterable[Touched], part: Resolution, resolutions: tuple[Resolution, ...], run_id: str
    ) -> None:
        """Sum the bars of `part` into those of the resolutions that hold a touched moment."""
        if not resolutions:
            return
        region_ms = resolutions[-1].ms
        inside: dict[Touched, set[int]] = {}
        for symbol, ms in touched:
            inside.setdefault((symbol, ms // region_ms * region_ms), set()).add(ms)
        for regions in _parts(inside, region_ms):
            buckets = [
                (region[0], one, bucket)
                for region in regions
                for one in resolutions
                for bucket in {ms // one.ms * one.ms for ms in inside[region]}
            ]
            wanted = {
                "part": part.value,
                "touched_markets": [symbol.market.value for symbol, _, _ in buckets],
                "touched_symbols": [symbol.name for symbol, _, _ in buckets],
                "touched_resolutions": [one.value for _, one, _ in buckets],
                "touched_buckets": [bucket for _, _, bucket in buckets],
            }
            self.command_with_lists(_FROM_BARS, _parameters(regions, region_ms, resolutions, run_id) | wanted)


def _split(resolutions: Iterable[Resolution]) -> tuple[tuple[Resolution, ...], tuple[Resolution, ...]]:
    """Those made of trades or seconds, and those made of minutes, the base included; ascending."""
    ordered = sorted({*BASE, *resolutions}, key=lambda one: one.ms)
    return (
        tuple(one for one in ordered if one.ms <= MINUTE_MS),
        tuple(one for one in ordered if one.ms > MINUTE_MS),
    )


def _parts(touched: Iterable[Touched], region_ms: int) -> Iterator[list[Touched]]:
    """The regions that hold a touched moment, each once: those of one day at a time and not too many."""
    by_day: dict[int, set[Touched]] = {}
    for symbol, ms in touched:
        start = ms // region_ms * region_ms
        by_day.setdefault(start // DAY_MS, set()).add((symbol, start))
    for regions in by_day.values():
        ordered = iter(sorted(regions, key=lambda pair: (pair[0].market, pair[0].name, pair[1])))
        while part := list(islice(ordered, _MOST_BUCKETS)):
            yield part


def _parameters(
    regions: Sequence[Touched], region_ms: int, resolutions: Sequence[Resolution], run_id: str
) -> dict[str, object]:
    starts = [start for _, start in regions]
    return {
        "resolutions": [one.value for one in resolutions],
        "lengths": [one.ms for one in resolutions],
        "region": region_ms,
        "start": min(starts),
        "end": max(starts) + region_ms,
        "markets": [symbol.market.value for symbol, _ in regions],
        "symbols": [symbol.name for symbol, _ in regions],
        "regions": starts,
        "run_id": run_id,
    }
