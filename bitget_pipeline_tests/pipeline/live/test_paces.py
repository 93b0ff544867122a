"""A live run begins with what was learned of its symbols, or with what their stored trades show."""

from __future__ import annotations

import time

import pytest

from bitget_pipeline.feed.pace import SilenceRules
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.live.paces import guessed, learned_before, remembered
from bitget_pipeline.storage.paces import KnownPace
from bitget_pipeline.storage.trade_rows import Stored

from ..live_runner import stores_at

BTC, ETH, NEW = (Symbol(Market.SPOT, name) for name in ("BTCUSDT", "ETHUSDT", "NEWUSDT"))


@pytest.mark.parametrize(
    ("stored", "within"),
    [
        (Stored(86_400, 86_399.0, 3.0), 15.0),  # every second
        (Stored(1_440, 86_340.0, 60.0), 15 * 60.0),  # every minute
        (Stored(3_600, 82_800.0, 79_200.0), 40.0),  # every second for an hour, in a day in which nobody collected
        (Stored(8, 4_000.0, 900.0), None),
        (Stored(0, 0.0, 0.0), None),
    ],
)
def test_a_pace_is_guessed_from_the_seconds_that_had_trades(stored, within):
    """
    A time in which nobody collected makes no quiet symbol of a busy one; a few seconds tell nothing.
    """
    found = guessed({BTC: stored}, steady=0.0)
    if within is None:
        assert found == {}
    else:
        assert found[BTC].silence_within(SilenceRules()) == pytest.approx(within, rel=0.1)


def test_what_another_version_left_is_not_believed():
    """
    It is learned anew; what was known of too few arrivals as well.
    """
    known = {
        BTC: KnownPace({"mean": 4.0}, 1.0),
        ETH: KnownPace({"arrivals": 3, "fast": 1.0, "slow": 1.0, "pauses": []}, 1.0),
        NEW: KnownPace({"arrivals": 90, "fast": 1.0, "slow": 2.0, "pauses": [[0, 5.0]]}, 1.0),
    }
    assert set(remembered(known, steady=0.0)) == {NEW}


@pytest.mark.usefixtures("asked_patiently")
async def test_what_redis_does_not_know_the_stored_trades_tell(where):
    """
    One symbol was learned, of another there are trades of the last hour, and of the third there is nothing.
    """
    now = time.time_ns() // 1_000_000
    trades = [Trade(number, now - 3_600_000 + 2_000 * number, 1.0, 1.0, True) for number in range(100)]
    async with stores_at(where) as stores:
        await stores.paces.put({BTC: {"arrivals": 5_000, "fast": 1.0, "slow": 1.0, "pauses": []}})
        stores.warehouse.store_trades([TradeBatch(ETH, trades, now)], source="local", run_id="r")
        found = await learned_before(stores, [BTC, ETH, NEW], source="local", now_ms=now, steady=0.0)
    assert {symbol: pace.arrivals for symbol, pace in found.items()} == {BTC: 5_000, ETH: 30}
    assert found[ETH].per_second == pytest.approx(0.5)
