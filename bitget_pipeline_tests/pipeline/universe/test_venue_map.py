"""The map of stand-ins, decided against both sides of the local exchange and stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.exchange.registry import substitute
from bitget_pipeline.history.client import HistoryClient, HttpAddress, Patience, VenueClient, opened, opened_for
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.stand_in import APART, Verdict
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.pipeline.universe.venue_map import VenueMapReport, decide_venue_map
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

CONFIG = ExchangeConfig(
    spot_instruments=60,
    usdtm_instruments=60,
    coinm=2,
    usdcm=2,
    active_per_market=30,
    trades_per_second=200.0,
    binance=True,
)
QUICK = Patience(attempts=3, deadline=60.0, first_wait=0.05, longest_wait=0.2)


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    """A local exchange that plays Binance too."""
    async with running(CONFIG) as server:
        yield server


@pytest.fixture
async def client(
    local_exchange: LocalExchange, exchange: Exchange, redis_client, redis_prefix
) -> AsyncIterator[HistoryClient]:
    """A client of the Bitget side."""
    budget = Budget(redis_client, redis_prefix, "test")
    async with opened(exchange, HttpAddress(local_exchange.rest_url), budget, patience=QUICK) as client:
        yield client


class Granted:
    """A budget that grants everything: lists are asked for more often here than every ten seconds."""

    async def reserve(self, *asked: object, along: object = ()) -> float:
        return 0.0

    async def penalise(self, *asked: object) -> None: ...

    succeeded = remaining = penalise


@pytest.fixture
async def substitutes(
    local_exchange: LocalExchange, redis_client, redis_prefix
) -> AsyncIterator[dict[Market, VenueClient]]:
    """A client of each side that stands in."""
    async with AsyncExitStack() as stack:
        clients = {}
        for market in (Market.SPOT, Market.USDTM):
            venue = substitute(market)
            assert venue is not None
            address = HttpAddress(local_exchange.binance.address.rest_url(market.value))
            clients[market] = await stack.enter_async_context(opened_for(venue, address, Granted(), patience=QUICK))
        yield clients


async def test_every_instrument_gets_a_stand_in_or_a_reason(
    client: HistoryClient,
    substitutes: dict[Market, VenueClient],
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    clock: Callable[[], int],
    local_exchange: LocalExchange,
) -> None:
    """
    Matched within the guard, in the right unit; renamed ones too; refused where it is another coin; frozen and unchanged
    while either side is dark; and stored only when something changed.
    """
    await discover(client, exchange, warehouse, versions, markets=list(Market), run_id="r", now_ms=clock)

    async def decided() -> VenueMapReport:
        return await decide_venue_map(client, substitutes, warehouse, run_id="r", now_ms=clock)

    first = await decided()
    assert first.frozen == {}
    found = {one.symbol: one for one in warehouse.stand_ins(venue="binance")}
    assert first.changed == len(found) == len(first.decided)
    assert found[Symbol(Market.SPOT, "BTCUSDT")].name == "BTCUSDT"
    scaled = found[Symbol(Market.USDTM, "PEPEUSDT")]
    assert (scaled.verdict, scaled.name, scaled.factor) == (Verdict.MATCHED, "1000PEPEUSDT", 1000.0)
    assert found[Symbol(Market.SPOT, "BGBUSDT")].verdict is Verdict.NOT_LISTED
    assert found[Symbol(Market.SPOT, "OPUSDT")].verdict is Verdict.APART
    assert found[Symbol(Market.COINM, "BTCUSD")].verdict is Verdict.NO_MARKET
    assert all(one.apart is not None and one.apart <= APART for one in found.values() if one.stands_in)
    assert first.count(Verdict.MATCHED) > 40

    assert (await decided()).changed == 0

    with local_exchange.binance.faulty("dark", "usdtm"):
        half = await decided()
    assert set(half.frozen) == {Market.USDTM}
    with local_exchange.faulty("dark"):
        none = await decided()
    assert set(none.frozen) == {Market.SPOT, Market.USDTM}
    held = await decide_venue_map(
        client, substitutes, warehouse, run_id="r", now_ms=clock, frozen={Market.SPOT: "binance_trade stands in"}
    )
    assert held.frozen == {Market.SPOT: "binance_trade stands in"}
    assert half.changed == none.changed == held.changed == 0
    after = {one.symbol: one for one in warehouse.stand_ins(Market.USDTM, venue="binance")}
    assert after == {symbol: one for symbol, one in found.items() if symbol.market is Market.USDTM}
