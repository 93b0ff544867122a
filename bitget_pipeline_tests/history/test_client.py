"""The HTTP client: clear errors, bounded patience, and the way through a proxy, for the sockets too."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from types import SimpleNamespace

import pytest

from bitget_pipeline.errors import ExchangeBusy, ExchangeUnavailable, InstrumentResting, RegionBlocked
from bitget_pipeline.exchange.contract import Channel, Exchange, Frame, Subscription, TradesFrame
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.connection import Connection, SocketAddress
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.guard.breaker import Breaker, State
from bitget_pipeline.guard.rate_limit import BudgetRules, Priority
from bitget_pipeline.guard.rate_limit import RateBudget as Model
from bitget_pipeline.history.client import HttpAddress, Patience, Tally, opened, region_breaker
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol

BTC = Symbol(Market.SPOT, "BTCUSDT")
QUICK = Patience(attempts=3, deadline=60.0, first_wait=0.01, longest_wait=0.05)


class OwnBudget:
    """The rule of the budget for one process, without Redis, by a clock that a test may stop."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = asyncio.get_running_loop().time
        self._model = Model(BudgetRules(), now=self.clock())
        self.penalties: list[float] = []
        self.left: list[int] = []

    async def reserve(self, endpoint: str, per_second: float, priority: Priority, *, along: object = ()) -> float:
        return self._model.ask(endpoint, per_second, priority, now=self.clock())

    async def penalise(self, endpoint: str, per_second: float, seconds: float) -> None:
        self.penalties.append(seconds)
        self._model.penalise(endpoint, per_second, seconds, now=self.clock())

    async def succeeded(self, endpoint: str, per_second: float) -> None:
        self._model.succeeded(endpoint, per_second, now=self.clock())

    async def remaining(self, endpoint: str, per_second: float, left: int) -> None:
        self.left.append(left)
        self._model.remaining(endpoint, per_second, left, now=self.clock())


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    config = ExchangeConfig(spot_instruments=10, usdtm_instruments=5, coinm=1, usdcm=1, active_per_market=4)
    async with running(config) as server:
        yield server


@pytest.fixture
def exchange() -> Exchange:
    return get("bitget")


async def test_an_exchange_that_is_not_there_is_one_clear_line(exchange, silent_port):
    """
    Nobody listens: after three tries the error says where.
    """
    tally = Tally()
    address = HttpAddress(f"http://127.0.0.1:{silent_port}")
    async with opened(exchange, address, OwnBudget(), patience=QUICK) as client:
        with pytest.raises(ExchangeUnavailable, match=f"cannot be reached.*{silent_port}"):
            await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH, tally=tally)
    assert tally.requests == 3


async def test_a_slow_exchange_is_not_waited_for_for_ever(exchange, local_exchange):
    """
    A request that takes longer than its time is given up and repeated.
    """
    address, began = HttpAddress(local_exchange.rest_url, answer_within=0.5), local_exchange.now_ms()
    patient = Patience(attempts=100, deadline=100.0, first_wait=0.01, longest_wait=0.05)
    async with opened(exchange, address, OwnBudget(), patience=patient) as client:
        with local_exchange.faulty("slow", "/public/time", delay=100):
            asked = client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)
            answer = asyncio.create_task(asked)
            await until(lambda: asyncio.sleep(0), lambda: client.sent >= 2)  # given up, and repeated
        assert began <= await answer <= local_exchange.now_ms()


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


async def test_a_block_is_believed_for_a_while_and_one_request_finds_out_that_it_ended(exchange, local_exchange):
    """
    While it lasts one request after each rest asks again; the first that is served lets everybody through.
    """
    async with opened(exchange, HttpAddress(local_exchange.rest_url), OwnBudget(), patience=QUICK) as client:
        client.region = Breaker(trip_after=1, rest=0.02, longest_rest=0.02)

        async def asked() -> bool:
            try:
                await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)
            except RegionBlocked:
                return False
            return True

        with local_exchange.faulty("region_block"):
            assert not await asked()
            await until(asked, lambda: client.sent == 3)  # the block is looked at again, and found
            assert client.region.state is State.OPEN
        await until(asked, lambda: client.region.state is State.CLOSED)
        assert (client.region.state, client.breakers["public"].state) == (State.CLOSED, State.CLOSED)
        assert await asked()


def test_what_runs_for_weeks_looks_at_a_block_again_after_a_minute_and_at_most_a_quarter_of_an_hour():
    """
    A backfill that is blocked is over long before: it stops with one sentence.
    """
    region, now, rests = region_breaker(), 0.0, []
    region.failed(now=now)
    for _ in range(6):
        rests.append(region.resting(now=now))
        now += rests[-1]
        assert region.resting(now=now) == 0.0
        region.failed(now=now)
    assert rests == [60, 120, 240, 480, 900, 900]


def test_waits_double_from_one_second_to_thirty_and_are_never_less_than_the_exchange_said():
    """
    Up to a half of each is left to chance, so that processes which were refused together do not come back together.
    """
    waits = [[Patience().wait(tries, told=1.0, chance=Random(seed)) for tries in range(1, 8)] for seed in range(200)]
    for tries, expected in enumerate((1, 2, 4, 8, 16, 30, 30)):
        seen = [one[tries] for one in waits]
        assert max(1.0, expected / 2) <= min(seen) <= max(seen) <= expected
        assert tries == 0 or max(seen) > 0.9 * expected > min(seen)
    assert min(sum(one) for one in waits) > 40  # eight attempts outlast a storm of 429s and single errors of a release
    assert Patience().wait(1, told=60.0, chance=Random(1)) == 60.0


@pytest.mark.parametrize("code", ["45001", "40725", "40808", "40015", "40010"])
async def test_errors_of_a_release_are_waited_out_with_growing_waits(exchange, local_exchange, code, monkeypatch):
    """
    The exchange says no time: a second is the least, and then twice as long, and again.
    """
    waits: list[float] = []
    real = Patience.wait

    def noted(patience: Patience, tries: int, *, told: float, chance: Random) -> float:
        waits.append(real(patience, tries, told=told, chance=chance))
        return 0.001  # noted, not waited for

    monkeypatch.setattr(Patience, "wait", noted)
    patience = Patience(attempts=4, deadline=100.0)
    async with opened(exchange, HttpAddress(local_exchange.rest_url), OwnBudget(), patience=patience) as client:
        client.chance = Random(7)
        with local_exchange.faulty("error_code", code=code), pytest.raises(ExchangeUnavailable):
            await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)
    assert len(waits) == 4
    assert waits[0] == 1.0 < waits[2] < waits[3]


async def test_a_429_closes_the_endpoint_for_longer_each_time(exchange, local_exchange):
    """
    What the budget is told doubles with each refusal of the question.
    """
    budget, patience = OwnBudget(), Patience(attempts=3, deadline=100.0, first_wait=0.02, longest_wait=0.2)

    def busy(status: int, body: bytes) -> int:
        raise ExchangeBusy("too many requests", retry_after=0.01)

    async with opened(exchange, HttpAddress(local_exchange.rest_url), budget, patience=patience) as client:
        client.chance = Random(7)
        with pytest.raises(ExchangeBusy):
            await client.fetch(exchange.server_time(), busy, priority=Priority.HEALTH)
    assert len(budget.penalties) == 3
    assert 0.01 <= budget.penalties[0] <= 0.02 <= budget.penalties[1] <= 0.04 <= budget.penalties[2] <= 0.08


async def test_an_instrument_in_maintenance_says_nothing_of_the_others(exchange, local_exchange):
    """
    However often it is asked for: the breaker of its family stays closed, and it may be tried again after a minute.
    """
    until_ms = local_exchange.now_ms() // 60_000 * 60_000
    request = exchange.candle_page(BTC, Resolution.M1, end_ms=until_ms, limit=10)
    read = functools.partial(exchange.read_candles, BTC, Resolution.M1)
    async with opened(exchange, HttpAddress(local_exchange.rest_url), OwnBudget(), patience=QUICK) as client:
        served = await client.fetch(request, read, priority=Priority.BACKFILL)
        with local_exchange.faulty("error_code", "/history-candles", code="41114"):
            for _ in range(8):
                with pytest.raises(InstrumentResting, match="in maintenance") as resting:
                    await client.fetch_once(request, read)
        assert resting.value.retry_after == 60.0
        assert client.breakers[request.family].state is State.CLOSED
        assert served
        assert await client.fetch(request, read, priority=Priority.BACKFILL) == served


async def test_a_family_of_endpoints_that_keeps_failing_rests_and_one_request_tries(
    exchange, local_exchange, monkeypatch
):
    """
    Its breaker opens for all endpoints of the family and for no other, tells the board, tries again with one request, closes.
    """
    board, ahead = Board(), [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead[0])
    monkeypatch.setattr("bitget_pipeline.history.client.time", clock)  # a rest ends when the test says so
    once = Patience(attempts=1, deadline=60.0)
    candles = exchange.candle_page(BTC, Resolution.M1, end_ms=local_exchange.now_ms() // 60_000 * 60_000, limit=10)
    tickers = exchange.tickers(Market.SPOT)
    address = HttpAddress(local_exchange.rest_url)
    async with opened(exchange, address, OwnBudget(), patience=once, board=board) as client:

        async def asked(request, read=lambda status, body: None) -> str:
            try:
                await client.fetch(request, read, priority=Priority.HEALTH)
            except ExchangeUnavailable as error:
                return error.what
            return "served"

        client.breakers["spot"] = Breaker(trip_after=3, rest=600.0)
        with local_exchange.faulty("dark"):
            for _ in range(3):
                await asked(candles)
            assert client.breakers["spot"].state is State.OPEN
            sent = client.sent
            assert await asked(tickers) == "spot failed repeatedly and rests"
            assert client.sent == sent
            await asked(exchange.server_time())
            assert client.sent == sent + 1  # another family is asked
        assert board.told == [("spot", 600.0)]
        ahead[0] = 600.0
        assert await asked(tickers) == "served"
        assert client.breakers["spot"].state is State.CLOSED
        assert client.sent == sent + 2  # one request found out
        assert await asked(candles) == "served"
    assert board.told == [("spot", 600.0), ("spot", 0.0)]


async def until(ask: Callable[[], Awaitable[object]], true: Callable[[], bool]) -> None:
    """Ask again and again until it is."""
    async with asyncio.timeout(60):
        while not true():
            await ask()
            await asyncio.sleep(0.005)


class Board:
    """What the client tells others of its breakers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    async def rests(self, family: str, seconds: float) -> None:
        self.told.append((family, seconds))


async def test_what_the_exchange_says_is_left_reaches_the_budget(exchange, local_exchange):
    """
    Where its limit falls, its header of what remains says so with every answer; the budget hears of it and waits.
    """
    budget = OwnBudget()
    async with opened(exchange, HttpAddress(local_exchange.rest_url), budget, patience=QUICK) as client:
        await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)
        assert budget.left == []
        later = budget.clock() + 60.0
        budget.clock = lambda: later  # it stands still: nothing is refilled before the question at the end
        with local_exchange.faulty("lower_limit", per_second=3):
            await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)
        assert budget.left
        assert budget.left[0] < 5
        assert budget.penalties == []
        request = exchange.server_time()
        assert await budget.reserve(request.endpoint, request.per_second, Priority.BACKFILL) > 0


async def test_a_request_gets_the_time_of_its_address_the_longest_lists_too(exchange, local_exchange):
    """
    Instruments and tickers of a whole market are given up like anything else.
    """
    local_exchange.fault("slow", "/spot/public/symbols", delay=100)
    address, once = HttpAddress(local_exchange.rest_url, answer_within=0.2), Patience(attempts=1, deadline=60.0)
    began = time.monotonic()
    async with opened(exchange, address, OwnBudget(), patience=once) as client:
        with pytest.raises(ExchangeUnavailable, match=r"no answer within 0\.2 s"):
            await client.fetch(exchange.instruments(Market.SPOT), lambda *_: None, priority=Priority.DISCOVERY)
    assert time.monotonic() - began < 60


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
            SocketAddress(local_exchange.ws_url, proxy=url, open_within=60.0),
            [Subscription(Symbol(Market.SPOT, "BTCUSDT"), Channel.TRADE)],
            heard,
            clock=local_exchange.now_ms,
            rules=SessionRules(),
        )
        running_connection = asyncio.create_task(connection.run())
        frame = await asyncio.wait_for(heard.first, 60)
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
