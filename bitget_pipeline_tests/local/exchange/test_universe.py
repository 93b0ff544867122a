"""Which instruments exist, and when."""

from __future__ import annotations

import pytest

from bitget_pipeline.local.exchange.config import ExchangeConfig
from bitget_pipeline.local.exchange.universe import Universe

NOW = 1_795_212_600_000
DAY = 86_400_000


@pytest.fixture(scope="module")
def real() -> Universe:
    """As many instruments as the real exchange has."""
    return Universe(ExchangeConfig(), now_ms=NOW)


def test_counts_are_those_of_reality(real: Universe):
    """3,169 spot pairs, 805 USDT contracts, 49 USDC contracts, 10 coin contracts."""
    counts = {m: len(list(real.listed(m, now_ms=NOW))) for m in ("spot", "usdtm", "coinm", "usdcm")}
    assert counts == {"spot": 3169, "usdtm": 805, "coinm": 10, "usdcm": 49}


def test_names_a_naive_client_trips_over_are_there(real: Universe):
    """Non-ASCII, scaled, with a dollar sign, delivery contracts, and the same name on two markets."""
    futures = {i.symbol for i in real.listed("usdtm", now_ms=NOW)}
    assert {"BTCUSDT", "牛来USDT", "龙虾USDT", "1000BONKUSDT"} <= futures
    assert {"BTCUSDT", "$ALTUSDT"} <= {i.symbol for i in real.listed("spot", now_ms=NOW)}
    assert {"BTCUSD", "BTCUSDZ26", "ETHUSDH27"} <= {i.symbol for i in real.listed("coinm", now_ms=NOW)}
    assert "BTCPERP" in {i.symbol for i in real.listed("usdcm", now_ms=NOW)}


def test_every_status_of_the_lists_occurs(real: Universe):
    """halt, gray, offline on spot; maintain, limit_open, restrictedAPI, off, listed on futures."""
    assert {i.status for i in real.listed("spot", now_ms=NOW)} == {"", "halt", "gray", "offline"}
    futures = {i.status for i in real.listed("usdtm", now_ms=NOW)}
    assert futures == {"", "maintain", "limit_open", "restrictedAPI", "off", "listed"}


def test_symbols_come_and_go_on_the_same_dates_on_every_start(real: Universe):
    """A start ten days later knows the same listing dates, ids and decimals for every symbol both list."""
    later = Universe(ExchangeConfig(), now_ms=NOW + 10 * DAY)
    before = {i.name: i for i in real.listed("spot", now_ms=NOW)}
    after = {i.name: i for i in later.listed("spot", now_ms=NOW + 10 * DAY)}
    for name in before.keys() & after.keys():
        one, two = before[name], after[name]
        assert (one.listed_minute, one.closed_minute, one.index) == (two.listed_minute, two.closed_minute, two.index)
        assert (one.rate, one.price_decimals, one.path_offset) == (two.rate, two.price_decimals, two.path_offset)
    assert 5 <= len(before.keys() - after.keys()) <= 12
    assert 5 <= len(after.keys() - before.keys()) <= 12


def test_a_running_universe_lists_what_a_new_start_would():
    """Listings happen while the server runs."""
    config = ExchangeConfig(spot_instruments=800, usdtm_instruments=40)
    running = Universe(config, now_ms=NOW)
    started = Universe(config, now_ms=NOW + 30 * DAY)
    names = {i.symbol for i in running.listed("spot", now_ms=NOW + 30 * DAY)}
    assert names == {i.symbol for i in started.listed("spot", now_ms=NOW + 30 * DAY)}


def test_a_listing_date_can_be_asked_for():
    """`listed_days` makes the old instruments that many days old."""
    universe = Universe(ExchangeConfig(spot_instruments=20, listed_days=3), now_ms=NOW)
    btc = universe.find("spot", "BTCUSDT")
    assert btc is not None
    assert btc.listed_minute == (NOW // DAY - 3) * 1440
