"""How far back a symbol's history reaches."""

from __future__ import annotations

from datetime import date

import pytest

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import days_of_month, months_between
from bitget_pipeline.market.target import HistoryTarget, begins_on, target_of


@pytest.mark.parametrize("text", ["BTCUSDT=2020-01-01", "usdtm:BTCUSDT=2021-02-03"])
def test_a_target_is_written_as_it_is_read(text: str) -> None:
    """
    What `settings` shows can be copied back.
    """
    assert str(HistoryTarget.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["BTCUSDT", "=2020-01-01", "BTCUSDT=soon", "nowhere:BTCUSDT=2020-01-01", "A|B=2020-01-01"]
)
def test_what_is_no_target_is_said(text: str) -> None:
    """
    In words for a person.
    """
    with pytest.raises(ValueError, match="is not"):
        HistoryTarget.parse(text)


def test_a_target_without_a_market_is_of_every_market() -> None:
    """
    And of several the earliest counts.
    """
    targets = [HistoryTarget.parse("BTCUSDT=2021-01-01"), HistoryTarget.parse("spot:BTCUSDT=2020-01-01")]
    assert target_of(Symbol(Market.SPOT, "BTCUSDT"), targets) == date(2020, 1, 1)
    assert target_of(Symbol(Market.USDTM, "BTCUSDT"), targets) == date(2021, 1, 1)
    assert target_of(Symbol(Market.SPOT, "ETHUSDT"), targets) is None


def test_a_history_begins_with_everybodys_or_earlier_by_a_target() -> None:
    """
    A target never shortens what every selected symbol gets.
    """
    targets = [HistoryTarget.parse("BTCUSDT=2021-01-01"), HistoryTarget.parse("ETHUSDT=2026-10-01")]

    def begins(name: str) -> date:
        return begins_on(Symbol(Market.SPOT, name), targets, days=30, today=date(2026, 10, 5))

    assert (begins("BTCUSDT"), begins("ETHUSDT"), begins("SOLUSDT")) == (date(2021, 1, 1), *[date(2026, 9, 5)] * 2)


def test_months_reach_up_to_the_grid() -> None:
    """
    From the month of the first day to the last one before the grid; none when the grid reaches back as far.
    """
    assert months_between(date(2025, 11, 20), date(2026, 2, 1)) == [
        date(2025, 11, 1),
        date(2025, 12, 1),
        date(2026, 1, 1),
    ]
    assert (
        months_between(date(2026, 2, 1), date(2026, 2, 1)) == months_between(date(2026, 5, 1), date(2026, 2, 1)) == []
    )
    assert len(days_of_month(date(2024, 2, 1))) == 29
