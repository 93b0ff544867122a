"""The HTTP client: clear errors, bounded patience, and the way through a proxy, for the sockets too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bitget_pipeline.errors import ExchangeUnavailable, RegionBlocked
from bitget_pipeline.exchange.contract import Channel, Exchange, Frame, Subscription, TradesFrame
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.connection import Connection, SocketAddress
from bitget_pipeline.feed.session import SessionRules
from bitget_pipeline.guard.rate_limit import BudgetRules, Priority
from bitget_pipeline.guard.rate_limit import RateBudget as Model
from bitget_pipeline.history.client import HttpAddress, Patience, Tally, opened
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol

QUICK = Patience(attempts=3, deadline=5.0, first_wait=0.01, longest_wait=0.05)


class OwnBudget:
    """The rule of the budget for one process, without Redis."""

    def __init__(self) -> None:
        self._model = Model(BudgetRules(), now=asyncio.get_running_loop().time())

    async def reserve(self, endpoint: str, per_second: float, priority: Priority) -> float:
        return self._model.ask(endpoint, per_second, priority, now=asyncio.get_running_loop().time())

    async def penalise(self, endpoint: str, per_second: float, seconds: float) -> None:
        self._model.penalise(endpoint, per_second, seconds, now=asyncio.get_running_loop().time())

    async def succeeded(self, endpoint: str, per_second: float) -> None:
        self._model.succeeded(endpoint, per_second, now=asyncio.get_running_loop().time())

    async def remaining(self, endpoint: str, per_second: float, left: int) -> None:
        self._model.remaining(endpoint, per_second, left, now=asyncio.get_running_loop().time())


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    config = ExchangeConfig(spot_instruments=10, usdtm_instruments=5, coinm=1, usdcm=1, active_per_market=4)
    async with running(config) as server:
        yield server


@pytest.fixture
def exchange() -> Exchange:
    return get("bitget")


async def test_an_exchange_that_is_not_there_is_one_clear_line(exchange, unused_tcp_port):
    """
    Nobody listens: after three tries the error says where.
    """
    tally = Tally()
    address = HttpAddress(f"http://127.0.0.1:{unused_tcp_port}")
    async with opened(exchange, address, OwnBudget(), patience=QUICK) as client:
        with pytest.raises(ExchangeUnavailable, match=f"cannot be reached.*{unused_tcp_port}"):
            await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH, tally=tally)
    assert tally.requests == 3


async def test_a_slow_exchange_is_not_waited_for_for_ever(exchange, local_exchange):
    """
    A request that takes longer than its time is given up and repeated.
    """
    local_exchange.fault("slow", "/public/time", seconds=0.25, delay=30)
    address = HttpAddress(local_exchange.rest_url, answer_within=0.3)
    async with opened(exchange, address, OwnBudget(), patience=QUICK) as client:
        time = await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)
    assert abs(time - local_exchange.now_ms()) < 5000


async def test_a_blocked_region_is_asked_once(exchange, local_exchange):
    """
    It will not change by repeating: one request, one sentence, and nobody else of this client asks again.
    """
    async with opened(exchange, HttpAddress(local_exchange.rest_url), OwnBudget(), patience=QUICK) as client:
        with local_exchange.faulty("region_block"):
            with pytest.raises(RegionBlocked):
                await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)
            with pytest.raises(RegionBlocked):
                await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)
        assert client.sent == 1


async def test_requests_go_through_the_proxy(exchange, local_exchange):
    """
    With an HTTP proxy set, nothing is asked directly.
    """
    async with proxy() as (url, passed):
        address = HttpAddress(local_exchange.rest_url, proxy=url)
        async with opened(exchange, address, OwnBudget(), patience=QUICK) as client:
            await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)
        assert len(passed) == 1


class Heard:
    """A listener that keeps the first frame of trades."""

    def __init__(self) -> None:
        self.first = asyncio.get_running_loop().create_future()

    def frame(self, frame: Frame) -> None:
        if isinstance(frame, TradesFrame) and not self.first.done():
            self.first.set_result(frame)

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


async def test_sockets_go_through_the_proxy(exchange, local_exchange):
    """
    With an HTTP proxy set, sockets are tunnelled through it.
    """
    heard = Heard()
    async with proxy() as (url, passed):
        connection = Connection(
            "c",
            exchange,
            SocketAddress(local_exchange.ws_url, proxy=url),
            [Subscription(Symbol(Market.SPOT, "BTCUSDT"), Channel.TRADE)],
            heard,
            clock=local_exchange.now_ms,
            rules=SessionRules(),
        )
        running_connection = asyncio.create_task(connection.run())
        frame = await asyncio.wait_for(heard.first, 10)
        assert frame.batch.snapshot
        connection.close()
        assert await running_connection == "closed on request"
        assert len(passed) == 1


@contextlib.asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A plain HTTP proxy: its address, and the first line of each connection that went through it."""
    passed: list[str] = []

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n")[0].decode()
        passed.append(line)
        method, target, _ = line.split(" ")
        place = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = place.partition(":")
        there_reader, there = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            there.write(head.replace(target.encode(), ("/" + target.split("/", 3)[3]).encode(), 1))
        await asyncio.gather(pour(reader, there), pour(there_reader, writer))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", passed
    finally:
        server.close()


async def test_patience_is_bounded_by_attempts(exchange, local_exchange):
    """
    An exchange that answers 502 for good: a bounded number of requests, then the error.
    """
    tally = Tally()
    async with opened(exchange, HttpAddress(local_exchange.rest_url), OwnBudget(), patience=QUICK) as client:
        with local_exchange.faulty("html_502"), pytest.raises(ExchangeUnavailable):
            await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH, tally=tally)
    assert (tally.requests, tally.repeats) == (3, 2)
