"""Discovery and selection: every instrument kept, broken lists refused, one market's failure borne alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.history.client import HistoryClient
from bitget_pipeline.market.instrument import Market, Status, Symbol
from bitget_pipeline.market.universe import Reason, SelectionRules
from bitget_pipeline.pipeline.universe.discover import DiscoveryReport, discover, refresh_tickers
from bitget_pipeline.pipeline.universe.select import choose_universe
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

MARKETS = tuple(Market)
HOUR = 3_600_000


class Discoveries:
    """A discovery whose clock can be moved."""

    def __init__(
        self,
        client: HistoryClient,
        exchange: Exchange,
        warehouse: Warehouse,
        versions: Versions,
        clock: Callable[[], int],
    ) -> None:
        self.client, self.exchange, self.warehouse, self.versions = client, exchange, warehouse, versions
        self._clock = clock
        self.later = 0

    def now_ms(self) -> int:
        return self._clock() + self.later

    async def __call__(self) -> DiscoveryReport:
        return await discover(
            self.client,
            self.exchange,
            self.warehouse,
            self.versions,
            markets=MARKETS,
            run_id="run-1",
            now_ms=self.now_ms,
        )


@pytest.fixture
def discovery(
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    clock: Callable[[], int],
) -> Discoveries:
    return Discoveries(client, exchange, warehouse, versions, clock)


async def test_every_instrument_of_every_market_is_stored_once(discovery, local_exchange):
    """
    All that is listed is there; a second discovery without changes adds no row.
    """
    first = await discovery()
    assert not first.failed
    listed = {market: local_exchange.venue.config.instruments_of(market.value) for market in MARKETS}
    assert first.listed >= sum(listed.values()) * 0.9
    assert {market: one.listed for market, one in first.markets.items()} == {
        market: one.new for market, one in first.markets.items()
    }
    assert len(discovery.warehouse.instruments()) == first.listed

    second = await discovery()
    assert all((one.new, one.changed) == (0, 0) for one in second.markets.values())


async def test_a_truncated_list_is_rejected_with_an_incident(discovery, local_exchange):
    """
    Half of the instruments gone at once is not believed: nothing changes, an incident says why.
    """
    await discovery()
    before = discovery.warehouse.instruments(Market.SPOT, retired=False)
    with local_exchange.faulty("truncated_instruments", "/spot/public/symbols"):
        report = await discovery()
    assert [one.market for one in report.failed] == [Market.SPOT]
    assert "shrank" in report.markets[Market.SPOT].error
    assert discovery.warehouse.instruments(Market.SPOT, retired=False) == before
    (incident,) = discovery.warehouse.open_incidents("shrunk_list")
    told = incident.details
    assert (incident.market, len(told["missing"])) == (Market.SPOT, told["before"] - told["now"])
    assert "bitget-pipeline symbols accept-list spot" in incident.what
    assert "bitget-pipeline symbols accept-list spot" in report.markets[Market.SPOT].error

    assert not (await discovery()).failed
    assert discovery.warehouse.open_incidents("shrunk_list") == []  # the list is whole again


async def test_a_list_that_stays_short_for_a_day_is_believed(discovery, local_exchange):
    """
    Twelve answers alike over a day and not one before: then what it lacks counts as missing, an hour later as gone.
    """
    await discovery()
    before = {one.symbol for one in discovery.warehouse.instruments(Market.SPOT, retired=False)}
    with local_exchange.faulty("truncated_instruments", "/spot/public/symbols", keep=0.8):
        for _ in range(12):
            assert (await discovery()).markets[Market.SPOT].error
            discovery.later += 2 * HOUR
        (incident,) = discovery.warehouse.open_incidents("shrunk_list")
        report = await discovery()
        assert not report.failed
        gone = set(report.markets[Market.SPOT].missing)
        assert {symbol.name for symbol in gone} == set(incident.details["missing"])
        assert gone < before
        discovery.later += HOUR + 1000
        assert set((await discovery()).markets[Market.SPOT].retired) == gone
    ((details,),) = discovery.warehouse.query("SELECT details FROM incidents_final WHERE closed_at IS NOT NULL")
    assert "the same in 13 complete answers over 24 hours" in details
    assert discovery.warehouse.open_incidents("shrunk_list") == []


async def test_lists_that_are_short_in_other_ways_are_not_believed_together(discovery, local_exchange):
    """
    Each time another part is missing: that is trouble, however long it lasts; and no list is believed before its own day.
    """
    await discovery()
    for round_ in range(14):
        with local_exchange.faulty("truncated_instruments", "/spot/public/symbols", keep=0.5 if round_ % 2 else 0.8):
            report = await discovery()
        assert [one.market for one in report.failed] == [Market.SPOT]
        discovery.later += 2 * HOUR
    (incident,) = discovery.warehouse.open_incidents("shrunk_list")
    assert incident.details["answers"] < 12


async def test_a_list_that_a_person_accepted_is_believed_at_once(discovery, local_exchange):
    """
    That list alone: one that lacks still others has to be accepted anew.
    """
    await discovery()
    with local_exchange.faulty("truncated_instruments", "/spot/public/symbols", keep=0.8):
        await discovery()
    (incident,) = discovery.warehouse.open_incidents("shrunk_list")
    discovery.warehouse.note_on_incident(incident, {"accepted": True})

    with local_exchange.faulty("truncated_instruments", "/spot/public/symbols", keep=0.4):
        assert (await discovery()).failed
    (incident,) = discovery.warehouse.open_incidents("shrunk_list")
    assert not incident.details["accepted"]
    discovery.warehouse.note_on_incident(incident, {"accepted": True})
    with local_exchange.faulty("truncated_instruments", "/spot/public/symbols", keep=0.4):
        report = await discovery()
    assert not report.failed
    assert len(report.markets[Market.SPOT].missing) == len(incident.details["missing"])


async def test_a_status_that_nobody_knows_is_told_once_and_collected_on(discovery, local_exchange):
    """
    The exchange renames a status: an incident names the word and the symbol, which counts as restricted, until it is back.
    """
    await discovery()
    symbol = Symbol(Market.SPOT, "SOLUSDT")
    local_exchange.fault("status", str(symbol), status="trading_2")
    assert not (await discovery()).failed
    (incident,) = discovery.warehouse.open_incidents("unknown_status")
    assert (incident.market, incident.details["words"]) == (Market.SPOT, {"trading_2": ["SOLUSDT"]})
    assert "'trading_2' of SOLUSDT" in incident.what
    assert status_of(discovery.warehouse, symbol) is Status.RESTRICTED
    await discovery()
    assert discovery.warehouse.query("SELECT count() FROM incidents WHERE kind = 'unknown_status'") == [(1,)]

    local_exchange.fault("status", str(symbol), status="online")
    await discovery()
    assert discovery.warehouse.open_incidents("unknown_status") == []
    assert status_of(discovery.warehouse, symbol) is Status.TRADING


async def test_one_market_in_trouble_does_not_lose_the_others(discovery, local_exchange):
    """
    Spot answers with an error for good: futures are stored, spot says what is wrong.
    """
    with local_exchange.faulty("error_code", "/spot/public/symbols", code="40017"):
        report = await discovery()
    assert [one.market for one in report.failed] == [Market.SPOT]
    assert report.markets[Market.USDTM].listed > 0


async def test_an_instrument_is_retired_only_after_an_hour_of_absence(discovery, local_exchange):
    """
    Once missing is not gone; missing again an hour later is; its rows stay.
    """
    await discovery()
    victim = discovery.warehouse.instruments(Market.USDTM)[-1].symbol
    local_exchange.fault("delisting", str(victim))

    first = await discovery()
    assert first.markets[Market.USDTM].missing == [victim]
    assert status_of(discovery.warehouse, victim) is not Status.RETIRED

    discovery.later = HOUR + 1000
    second = await discovery()
    assert second.markets[Market.USDTM].retired == [victim]
    assert status_of(discovery.warehouse, victim) is Status.RETIRED


async def test_selection_follows_the_real_volume_and_pins(discovery, local_exchange):
    """
    The most traded of each market by 24-hour volume in USDT, and what a person pinned.
    """
    await discovery()
    warehouse = discovery.warehouse
    markets = (Market.SPOT, Market.USDTM)
    report = await refresh_tickers(
        discovery.client, discovery.exchange, warehouse, markets=markets, source="local", run_id="run-1"
    )
    assert not report.failed
    volumes = {one.symbol: one.usdt_volume_24h for one in warehouse.tickers()}
    tradable = {one.symbol for one in warehouse.instruments() if one.status is Status.TRADING}
    ranked = sorted((s for s in volumes if s.market is Market.SPOT and s in tradable), key=lambda s: -volumes[s])
    pinned = ranked[-1]
    warehouse.pin(pinned)

    rules = SelectionRules(markets=markets, min_volume_24h=0.0, top_n=3)
    universe = choose_universe(warehouse, rules, run_id="run-1", now_ms=discovery.now_ms)
    spot = [one.symbol for one in universe.chosen if one.symbol.market is Market.SPOT]
    assert set(spot) == {*ranked[:3], pinned}
    assert {one.symbol for one in universe.chosen if one.reason is Reason.PINNED} == {pinned}
    assert [member.symbol for member in warehouse.current_universe() if member.symbol.market is Market.SPOT] == spot


def test_without_any_discovery_the_fallback_is_chosen(warehouse):
    """
    The very first discovery failed: three symbols that always exist are followed all the same.
    """
    rules = SelectionRules(markets=(Market.SPOT, Market.USDTM))
    universe = choose_universe(warehouse, rules, run_id="run-1", now_ms=lambda: 1_800_000_000_000)
    names = {"BTCUSDT", "ETHUSDT", "SOLUSDT"}
    assert {one.symbol for one in universe.chosen} == {
        Symbol(market, name) for market in rules.markets for name in names
    }


def status_of(warehouse: Warehouse, symbol: Symbol) -> Status:
    return next(one.status for one in warehouse.instruments(symbol.market) if one.symbol == symbol)
