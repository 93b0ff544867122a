"""Days of a symbol are asked for together, and each gets what is its own."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta

import pytest

from bitget_pipeline.errors import StoreUnavailable
from bitget_pipeline.market.coverage import CoverageState, Evidence
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.history.days_ahead import HOLDS_FOR, MOST_DAYS, DaysAhead
from bitget_pipeline.storage.day_rows import DayBefore

BTC, ETH = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.SPOT, "ETHUSDT")
FIRST = date(2026, 3, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(20)]


class Ledger:
    """Of each day: a bar in its third minute, and a statement about its first hour. One about everything lies under all."""

    def __init__(self) -> None:
        self.asked: list[tuple[Symbol, int]] = []
        self.now = 0.0
        self.away = 0

    async def __call__(self, symbol: Symbol, span: Interval) -> DayBefore:
        await asyncio.sleep(0)
        self.asked.append((symbol, (span.end_ms - span.start_ms) // 86_400_000))
        if self.away:
            self.away -= 1
            raise StoreUnavailable("ClickHouse is away")
        hours = [self.hour(symbol, day) for day in DAYS]
        return DayBefore(
            [self.below(symbol), *(one for one in hours if one.interval.start_ms in span)],
            frozenset(one.interval.start_ms + 120_000 for one in hours if one.interval.start_ms in span),
        )

    def hour(self, symbol: Symbol, day: date) -> Evidence:
        start = Interval.of_day(day).start_ms
        return Evidence(symbol, "candles_1m", Interval(start, start + 3_600_000), CoverageState.UNKNOWN)

    def below(self, symbol: Symbol) -> Evidence:
        return Evidence(symbol, "candles_1m", Interval(0, Interval.of_day(DAYS[-1]).end_ms), CoverageState.UNAVAILABLE)

    def own(self, symbol: Symbol, day: date) -> DayBefore:
        opens = frozenset({Interval.of_day(day).start_ms + 120_000})
        return DayBefore([self.below(symbol), self.hour(symbol, day)], opens)


async def test_each_day_gets_what_is_its_own_and_a_week_is_one_question() -> None:
    """
    Forward or backward, by several at once; another symbol and a day that lies apart are questions of their own.
    """
    ledger = Ledger()
    keys = [*((BTC, day) for day in DAYS), *((ETH, day) for day in reversed(DAYS[:5])), (ETH, DAYS[9])]
    ahead = DaysAhead(keys, ledger, clock=lambda: ledger.now)
    found = await asyncio.gather(*(ahead.of(*key) for key in keys))
    assert found == [ledger.own(*key) for key in keys]
    assert ledger.asked == [(BTC, MOST_DAYS), (BTC, MOST_DAYS), (BTC, 4), (ETH, 5), (ETH, 1)]


async def test_what_was_found_long_ago_or_not_at_all_is_asked_for_again() -> None:
    """
    Another process may have written meanwhile. A store that is away fails the day that asked, not those after it.
    """
    ledger = Ledger()
    ahead = DaysAhead([(BTC, day) for day in DAYS[:4]], ledger, clock=lambda: ledger.now)
    ledger.away = 1
    with pytest.raises(StoreUnavailable):
        await ahead.of(BTC, DAYS[0])
    for day in DAYS[1:3]:
        assert await ahead.of(BTC, day) == ledger.own(BTC, day)
    ledger.now = HOLDS_FOR + 1
    assert await ahead.of(BTC, DAYS[3]) == ledger.own(BTC, DAYS[3])
    assert ledger.asked == [(BTC, 4)] * 3
