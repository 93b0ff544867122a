"""What stands in for Bitget, from our side to the local exchange's: the same clients, another venue, and the truth."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from bitget_pipeline.errors import ExchangeBusy, ExchangeUnavailable, RegionBlocked
from bitget_pipeline.exchange.contract import CandlesFrame, Channel, Frame, Subscription, Substitute, TradesFrame
from bitget_pipeline.exchange.registry import substitute
from bitget_pipeline.feed.connection import Connection, SocketAddress
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.guard.rate_limit import Priority
from bitget_pipeline.history.client import HttpAddress, Patience, VenueClient, opened_for, told_to_wait
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Status, Symbol

from .test_client import OwnBudget

CONFIG = ExchangeConfig(
    spot_instruments=20,
    usdtm_instruments=20,
    coinm=1,
    usdcm=3,
    active_per_market=4,
    trades_per_second=300.0,
    tick_seconds=0.02,
    binance=True,
)
QUICK = Patience(attempts=2, deadline=60.0, first_wait=0.01, longest_wait=0.05)
MINUTE = 60_000


@pytest.fixture
async def server() -> AsyncIterator[LocalExchange]:
    async with running(CONFIG) as exchange:
        yield exchange


@pytest.fixture(params=[Market.SPOT, Market.USDTM])
async def client(request: pytest.FixtureRequest, server: LocalExchange) -> AsyncIterator[VenueClient]:
    """A client of whoever stands in for the market."""
    venue = substitute(request.param)
    assert venue is not None
    address = HttpAddress(server.binance.address.rest_url(request.param.value))
    async with opened_for(venue, address, OwnBudget(), patience=QUICK) as opened:
        yield opened


def venue_of(client: VenueClient) -> Substitute:
    venue = substitute(client.exchange.markets[0])
    assert venue is not None
    return venue


async def ask(client: VenueClient, request: Any, read: Any) -> Any:
    return await client.fetch(request, read, priority=Priority.HEALTH)


async def truth(server: LocalExchange, what: str, **params: Any) -> list[dict[str, Any]]:
    url = f"{server.rest_url}/admin/truth/{what}"
    async with aiohttp.ClientSession() as session, session.get(url, params={"venue": "binance", **params}) as answer:
        return [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_lists_and_clock_are_understood(client: VenueClient, server: LocalExchange) -> None:
    """
    Every instrument that the exchange lists for the market, its price, and the time.
    """
    venue, (market,) = venue_of(client), client.exchange.markets
    listed = (await ask(client, venue.instruments(market), lambda *a: venue.read_instruments(market, *a))).instruments
    told = await truth(server, "instruments", market=market.value)
    wanted = {row["symbol"] for row in told if market is Market.SPOT or row["quote"] == "USDT"}
    assert {one.symbol.name for one in listed} == wanted
    assert {one.base for one in listed if one.status is Status.TRADING} > {"BTC", "ETH"}
    tickers = await ask(client, venue.tickers(market), lambda *a: venue.read_tickers(market, *a))
    assert wanted <= {one.symbol.name for one in tickers}
    before = server.now_ms()
    clock = await ask(client, venue.server_time(), venue.read_server_time)
    assert before <= clock <= server.now_ms()


async def test_bars_are_those_that_happened(client: VenueClient, server: LocalExchange) -> None:
    """
    A page ends before the asked bar and agrees with the truth to the last digit.
    """
    venue, (market,) = venue_of(client), client.exchange.markets
    symbol, end = Symbol(market, "BTCUSDT"), server.now_ms() // MINUTE * MINUTE - 20 * MINUTE
    request = venue.candle_page(symbol, Resolution.M1, end_ms=end, limit=100)
    bars = await ask(client, request, lambda *a: venue.read_candles(symbol, Resolution.M1, *a))
    place = {"market": market.value, "symbol": "BTCUSDT", "from": end - 100 * MINUTE, "to": end}
    told = await truth(server, "candles", **place)
    assert len(told) == 100
    assert [tuple(bar) for bar in bars] == [(row["open_ms"], *map(float, list(row.values())[1:])) for row in told]


async def test_trades_since_a_moment_can_be_fetched_without_a_hole(client: VenueClient, server: LocalExchange) -> None:
    """
    The first id since the moment, then page by page to the newest: exactly what happened.
    """
    venue, (market,) = venue_of(client), client.exchange.markets
    symbol, since = Symbol(market, "BTCUSDT"), server.now_ms() - 40_000
    first = await ask(
        client, venue.first_trade_since(symbol, since_ms=since), lambda *a: venue.read_first_trade(symbol, *a)
    )

    def read(status: int, body: bytes) -> Any:
        return venue.read_trades(symbol, status, body, received_ms=server.now_ms())

    newest = await ask(client, venue.recent_trades(symbol), read)
    found = {one.trade_id: one for one in newest}
    while min(found) > first:
        page = await ask(client, venue.trade_page(symbol, before_id=min(found)), read)
        found |= {one.trade_id: one for one in page}
    kind = {"kind": "joined"} if market is Market.USDTM else {}
    span = {"market": market.value, "symbol": "BTCUSDT", "from": since, "to": newest[-1].ts_ms}
    told = await truth(server, "trades", **kind, **span)
    kept = [one for number, one in sorted(found.items()) if number >= first and one.ts_ms < newest[-1].ts_ms]
    assert [(one.trade_id, one.ts_ms, one.price, one.size, one.buy) for one in kept] == [
        (int(row["trade_id"]), row["ts_ms"], float(row["price"]), float(row["size"]), row["side"] == "buy")
        for row in told
    ]


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.noise: list[Any] = []

    def frame(self, frame: Frame) -> None:
        self.frames.append(frame)

    def set_aside(self, *heard: object) -> None:
        self.noise.append(heard)

    silent = lost = connected = disconnected = set_aside  # type: ignore[assignment]

    async def until(self, true: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + 60
        while not true():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("market", [Market.SPOT, Market.USDTM])
async def test_the_socket_of_bitget_listens_to_it_too(server: LocalExchange, market: Market) -> None:
    """
    Trades without a hole in their ids, bars that say when they are final, a sign of life when asked for; and the
    announced end of a connection asks for its successor.
    """
    venue = substitute(market)
    assert venue is not None
    symbol, heard = Symbol(market, "BTCUSDT"), Heard()
    wanted = [Subscription(symbol, Channel.TRADE), Subscription(symbol, Channel.CANDLE_1M)]
    # Pings so rare that no second holds more messages than the exchange bears.
    rules = SessionRules(ping_every=0.4, pong_within=60.0, first_data_within=60.0)
    address = SocketAddress(server.binance.address.ws_url(market.value), open_within=60.0)
    connection = Connection("stand-in", venue, address, wanted, heard, clock=server.now_ms, rules=rules)
    running_one = asyncio.create_task(connection.run())
    try:
        await heard.until(lambda: connection.live() == set(wanted))
        await heard.until(lambda: server.binance.counters()["messages_received"] > 3)
    finally:
        connection.close()
        await running_one
    ids = [one.trade_id for frame in heard.frames if isinstance(frame, TradesFrame) for one in frame.batch.trades]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert {frame.final for frame in heard.frames if isinstance(frame, CandlesFrame)} <= {True, False}
    problems = [entry for entry in heard.noise if len(entry) == 3]
    assert problems == []


async def test_an_announced_end_asks_for_a_successor() -> None:
    """
    Before the connection is cut.
    """
    config = ExchangeConfig(
        spot_instruments=5, usdtm_instruments=5, coinm=1, usdcm=1, active_per_market=2, binance=True
    )
    venue = substitute(Market.SPOT)
    assert venue is not None
    ending = {"connection_lifetime": 600.0, "binance_notice_seconds": 599.9}
    async with running(ExchangeConfig(**{**vars(config), **ending})) as server:
        wanted = [Subscription(Symbol(Market.SPOT, "BTCUSDT"), Channel.TRADE)]
        address = SocketAddress(server.binance.address.ws_url("spot"), open_within=60.0)
        connection = Connection("old", venue, address, wanted, Heard(), clock=server.now_ms, rules=SessionRules())
        running_one = asyncio.create_task(connection.run())
        async with asyncio.timeout(60):
            await connection.renewal.wait()
        assert not running_one.done()
        connection.close()
        await running_one


@pytest.mark.parametrize(
    ("lever", "error"),
    [("dark", ExchangeUnavailable), ("html_502", ExchangeUnavailable), ("region_block", RegionBlocked)],
)
async def test_what_goes_wrong_there_is_told_as_what_it_is(
    client: VenueClient, server: LocalExchange, lever: str, error: type[Exception]
) -> None:
    """
    The same errors as of Bitget.
    """
    venue = venue_of(client)
    with server.binance.faulty(lever), pytest.raises(error):
        await ask(client, venue.server_time(), venue.read_server_time)


async def test_the_exchange_says_how_long_to_wait(client: VenueClient, server: LocalExchange) -> None:
    """
    `Retry-After` is heeded before our own idea of it.
    """
    venue = venue_of(client)
    with server.binance.faulty("rate_limit_storm"), pytest.raises(ExchangeBusy) as busy:
        await ask(client, venue.server_time(), venue.read_server_time)
    assert busy.value.retry_after == 1.0
    assert told_to_wait({"retry-after": " 7 "}) == 7.0
    assert told_to_wait({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}) == 0.0
    assert told_to_wait({}) == 0.0
