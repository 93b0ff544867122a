"""Order books of a live run: stored once a second, shown in Redis, mended when broken; bad ones counted and set aside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import redis.asyncio

from bitget_pipeline.errors import MalformedFrame
from bitget_pipeline.exchange.contract import Channel, Subscription
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.local.exchange import LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.order_book import BookSnapshot
from bitget_pipeline.pipeline.beside.order_books import BookRules, OrderBooks
from bitget_pipeline.pipeline.live.companion import Writing
from bitget_pipeline.pipeline.live.intake import Intake
from bitget_pipeline.pipeline.live.state import LiveState
from bitget_pipeline.storage import latest
from bitget_pipeline.storage.latest import KEPT_SECONDS, Latest, latest_book, latest_books
from bitget_pipeline.storage.redis_connection import RedisAddress, connect, connect_sync
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import SMALL, until
from ..live.test_run import SYMBOLS, live
from ..live_runner import plan_for

NOW_MS = 1_790_358_773_905
BTC = Symbol(Market.SPOT, "BTCUSDT")
QUICK = BookRules(sample_every=0.2, write_every=0.2)
DEEP = BookRules(levels=50, sample_every=0.2, write_every=0.2)


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    """A local exchange whose books carry checksums."""
    async with running(replace(SMALL, book_checksum=True)) as server:
        yield server


@pytest.fixture
def books_of(
    redis_client: redis.asyncio.Redis, redis_prefix: str, warehouse: Warehouse, local_exchange: LocalExchange
) -> Callable[..., OrderBooks]:
    """Makes a companion for all symbols."""

    def make(rules: BookRules) -> OrderBooks:
        return OrderBooks(
            SYMBOLS, Latest(redis_client, redis_prefix), warehouse, clock=local_exchange.now_ms, rules=rules
        )

    return make


@pytest.mark.parametrize(("rules", "levels", "channel"), [(QUICK, 15, Channel.BOOKS_15), (DEEP, 50, Channel.BOOKS)])
async def test_books_are_stored_and_shown(
    where, local_exchange, warehouse, redis_address, books_of, rules, levels, channel
):
    """
    Every symbol's best levels lie in the table as time goes on, bids falling, asks rising, never crossed, each sample once;
    and the newest in Redis, in the exchange's own text, gone by itself thirty seconds after the last one.
    """
    books = books_of(rules)
    assert books.channels == (channel,)
    start = local_exchange.now_ms()
    client = connect_sync(redis_address)

    def stored_of(symbol: Symbol) -> list[BookSnapshot]:
        return warehouse.books(symbol, Interval(start - 1000, local_exchange.now_ms() + 1000), source="local")

    async with live(where, local_exchange, replace(plan_for(where), flush_within=60.0), companions=(books,)) as run:
        await until(lambda: all(len(stored_of(symbol)) >= 3 for symbol in SYMBOLS), what="stored books")
        await until(
            lambda: set(latest_books(client, where.prefix, SYMBOLS)) == set(SYMBOLS), what="every book in Redis"
        )
        shown = latest_books(client, where.prefix, SYMBOLS)
        assert all(len(book.bids) == len(book.asks) == levels for book in shown.values())
        assert 0 < client.ttl(f"{where.prefix}latest:book:spot:BTCUSDT") <= KEPT_SECONDS
        assert json.loads(client.get(f"{where.prefix}latest:book:spot:BTCUSDT"))["source"] == "local"
        said = run.overview.published().overall["order_books"]
        assert (said["symbols"], said["set_aside"], said["dropped"]) == (len(SYMBOLS), 0, 0)
        await run.end()
    for symbol in SYMBOLS:
        stored = stored_of(symbol)
        assert len(stored) >= 3
        assert [one.ts_ms for one in stored] == sorted({one.ts_ms for one in stored})
        for one in stored:
            assert len(one.bid_prices) == len(one.ask_sizes) == levels
            assert all(better > worse for better, worse in pairwise(one.bid_prices))
            assert all(better < worse for better, worse in pairwise(one.ask_prices))
            assert one.bid_prices[0] < one.ask_prices[0]
    newest = {
        one.ts_ms: one for one in warehouse.books(BTC, Interval(start, local_exchange.now_ms() + 1), source="local")
    }
    text = shown[BTC]
    assert list(newest[text.ts_ms].bid_prices) == [float(price) for price, _ in text.bids]


async def test_a_broken_sequence_is_begun_anew(where, local_exchange, books_of):
    """
    Single changes get lost while the socket stays up: each such book is discarded, its subscription begun anew, and it is
    whole again; nobody else's trades notice.
    """
    books = books_of(DEEP)
    async with live(where, local_exchange, companions=(books,)) as run:
        await until(lambda: books.published()["usable"] == len(SYMBOLS), what="whole books")
        with local_exchange.faulty("pseq_gap", "spot:BTCUSDT:books", probability=0.3):
            await until(lambda: books.published()["set_aside"] > 0, what="a gap")
        await until(lambda: books.published()["begun_anew"] > 0, what="a new beginning")
        await until(
            lambda: (p := books.published())["usable"] == len(SYMBOLS) and not p["broken"], what="whole books again"
        )
        assert books.published()["begun_anew"] > 0
        await until(lambda: run.overview.published().overall["order_books"]["begun_anew"], what="that it is said")
        connections = run.overview.published().overall["connections"]
        report = await run.end()
    assert "follows" in books.quarantine[0][1]
    assert ([one["opened"] for one in connections.values()], report.repaired) == ([1], 0)


async def test_books_in_doubt_are_not_shown_and_come_back_after_a_drop(where, local_exchange, books_of):
    """
    Without a connection nothing is sampled; the new connection's snapshot makes the books whole.
    """
    books = books_of(DEEP)
    async with live(where, local_exchange, companions=(books,)) as run:
        await until(lambda: books.published()["usable"] == len(SYMBOLS), what="whole books")
        with local_exchange.faulty("refuse_connections"):
            local_exchange.drop()
            await until(lambda: books.published()["usable"] == 0, what="books in doubt")
        await until(lambda: books.published()["usable"] == len(SYMBOLS), what="whole books again")
        assert books.published()["begun_anew"] == 0
        await run.end()


async def test_a_renewed_connection_breaks_no_book(where, local_exchange, books_of):
    """
    Two connections tell the same book for a while, one a little ahead of the other: it stays whole.
    """
    books = books_of(DEEP)
    plan = replace(plan_for(where), session_rules=SessionRules(renew_after=0.7))
    async with live(where, local_exchange, plan, companions=(books,)) as run:
        await until(lambda: run.overview.published() is not None, what="the run")
        await until(
            lambda: run.overview.published().overall["connections"]["socket-0"]["renewed"] >= 3, what="renewals"
        )
        await until(lambda: books.published()["repeated"] > 0, what="frames that came twice")
        await run.end()
    assert books.published()["set_aside"] == 0


# ---------------------------------------------------------------- what is not as promised


def frame_of(symbol: str = "BTCUSDT", channel: str = "books15", action: str = "snapshot", **changed: Any) -> bytes:
    book = {"bids": [["1.0", "3"], ["0.9", "1"]], "asks": [["1.1", "2"], ["1.2", "5"]], "ts": str(NOW_MS), "seq": 100}
    book |= {"pseq": 0} | changed
    about = {"instType": "SPOT", "channel": channel, "instId": symbol}
    return json.dumps({"action": action, "arg": about, "data": [book], "ts": NOW_MS}).encode()


class Listening:
    """A companion without its stores, the frames it is given, and what it asks for."""

    def __init__(self, latest: Latest, warehouse: Warehouse, levels: int) -> None:
        self.asked: list[Subscription] = []
        self.kept: list[tuple[str, str]] = []
        self.now = 1000.0
        self.books = OrderBooks(
            (BTC,),
            latest,
            warehouse,
            clock=lambda: NOW_MS,
            rules=BookRules(levels=levels, sample_every=0.001),
            steady=lambda: self.now,
        )

    def hear(self, raw: bytes) -> None:
        self.books.frame(get("bitget").decode(raw, received_ms=NOW_MS))

    async def sampled(self) -> list[Any]:
        rows, _ = await self.books._take()
        return rows

    def ask(self, subscription: Subscription) -> bool:
        self.asked.append(subscription)
        return True

    def writing(self) -> Writing:
        return Writing(1, "run-1", "local", lambda: NOW_MS, self.ask, set_aside=lambda *told: self.kept.append(told))


@pytest.fixture
def listening(redis_client: redis.asyncio.Redis, redis_prefix: str, warehouse: Warehouse) -> Callable[[int], Listening]:
    return lambda levels: Listening(Latest(redis_client, redis_prefix), warehouse, levels)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"bids": [["0.9", "1"], ["1.0", "3"]]}, "bids that are not in order"),
        ({"asks": [["1.2", "1"], ["1.1", "3"]]}, "asks that are not in order"),
        ({"bids": [["1.3", "1"]]}, "crossed"),
        ({"bids": [["1.0", "-3"]]}, "cannot be"),
        ({"bids": [["1.0", "0"]]}, "size zero"),
        ({"bids": [["-1.0", "3"]]}, "cannot be"),
        ({"bids": [["nan", "3"]]}, "cannot be"),
        ({"bids": [["a lot", "3"]]}, "a level of 'a lot'"),
        ({"ts": "1790358773"}, "while it is"),
        ({"ts": str(NOW_MS + 10**9)}, "while it is"),
        ({"ts": 0}, "while it is"),
        ({"seq": -5}, "the sequence number -5 cannot be"),
        ({"seq": 2**70}, "cannot be"),
    ],
)
async def test_a_book_that_cannot_be_is_set_aside_and_the_next_one_counts(listening, changed, reason):
    """
    Counted with its reason, never stored, never fatal; a good one is stored as ever.
    """
    there = listening(15)
    there.hear(frame_of(**changed))
    assert await there.sampled() == []
    assert there.books.published()["set_aside"] == 1
    assert reason in there.books.quarantine[0][1]
    there.hear(frame_of(seq=101))
    assert [row.seq for row in await there.sampled()] == [101]


@pytest.mark.parametrize(
    "levels",
    [
        {"bids": [[1.0, 3], [0.9, 1]], "asks": [[1.1, 2], [1.2, 5]]},
        {"bids": [["1.0", 3], ["0.9", 1]], "asks": [[1.1, "2"], [1.2, "5"]]},
        {"ts": NOW_MS, "seq": "100", "pseq": "0"},
        {"unheard": {"of": []}, "checksum": 0},
    ],
)
async def test_numbers_come_as_numbers_or_as_text(listening, levels):
    """
    Both are understood, and fields nobody knows are no reason to refuse.
    """
    there = listening(15)
    there.hear(frame_of(**levels))
    (row,) = await there.sampled()
    assert (list(row.bid_prices), list(row.ask_sizes), row.seq, row.ts_ms) == ([1.0, 0.9], [2.0, 5.0], 100, NOW_MS)


async def test_books_of_others_are_counted_and_not_kept(listening):
    """
    A symbol that is not ours, or another depth than was asked for.
    """
    there = listening(15)
    there.hear(frame_of("ETHUSDT"))
    there.hear(frame_of(channel="books"))
    there.hear(frame_of(channel="books5"))
    assert there.books.published()["foreign"] == 3
    assert await there.sampled() == []


async def test_the_selection_changes_while_books_come(listening):
    """
    One that joins is followed from its first frame on, one that stays keeps what is known of it, one that left is forgotten.
    """
    there = listening(15)
    there.hear(frame_of())
    joined = Symbol(Market.SPOT, "ETHUSDT")
    there.books.selected((BTC, joined))
    there.hear(frame_of("ETHUSDT"))
    assert [row.symbol for row in await there.sampled()] == [BTC, joined]
    there.books.selected((joined,))
    there.hear(frame_of(seq=101))
    assert await there.sampled() == []
    assert (there.books.published()["symbols"], there.books.published()["foreign"]) == (1, 1)


@pytest.mark.parametrize(
    "changed", [{"bids": [["1.0"]]}, {"asks": "none"}, {"bids": [{"price": 1}]}, {"ts": "now"}, {"bids": None}]
)
def test_an_unreadable_book_names_its_subscription(changed):
    """
    Only that book is in doubt then, not every symbol of the connection.
    """
    with pytest.raises(MalformedFrame) as refusal:
        get("bitget").decode(frame_of(**changed), received_ms=NOW_MS)
    assert refusal.value.about == Subscription(BTC, Channel.BOOKS_15)


def test_a_truncated_book_could_be_anybodys():
    """
    Cut in the middle it is no JSON, and nobody knows whose it was.
    """
    with pytest.raises(MalformedFrame) as refusal:
        get("bitget").decode(frame_of()[:-40], received_ms=NOW_MS)
    assert refusal.value.about is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seq": 99, "pseq": 98, "ts": str(NOW_MS + 1)}, "went back"),
        ({"seq": 103, "pseq": 102}, "follows 102"),
        ({"seq": 101, "pseq": 100, "bids": [["1.0", "-1"]]}, "cannot be"),
        ({"seq": 101, "pseq": 100, "bids": [["1.15", "1"]]}, "crossed"),
        ({"seq": 101, "pseq": 100, "bids": [], "asks": [], "checksum": 7}, "its checksum is"),
    ],
)
async def test_a_broken_book_is_discarded_and_asked_for_anew_ever_more_rarely(listening, changed, reason):
    """
    Not stored any more until a new snapshot comes; asked for at once, then less often, so that the exchange's allowance
    of requests is never used up by one symbol.
    """
    there = listening(50)
    there.hear(frame_of(channel="books"))
    assert len(await there.sampled()) == 1
    there.hear(frame_of(channel="books", action="update", **changed))
    assert reason in there.books.quarantine[0][1]
    for number in range(104, 110):  # what still comes of the old stream has nothing to follow
        there.hear(frame_of(channel="books", action="update", seq=number, pseq=number - 1))
    assert (await there.sampled(), there.books.published()["broken"]) == ([], 1)

    there.books._writing = there.writing()
    for _ in range(600):
        there.books._begin_anew()
        there.now += 1.0
    assert 5 <= len(there.asked) <= 12
    assert set(there.asked) == {Subscription(BTC, Channel.BOOKS)}

    there.hear(frame_of(channel="books", seq=200))
    assert [row.seq for row in await there.sampled()] == [200]
    assert there.books.published()["broken"] == 0


async def test_a_change_of_another_time_leaves_the_followed_book_in_doubt(listening):
    """
    It is not applied, so the book is not shown until something proves that nothing is missing: here nothing does.
    """
    there = listening(50)
    there.hear(frame_of(channel="books", seq=None))
    there.hear(frame_of(channel="books", action="update", seq=None, ts=str(NOW_MS + 10**9)))
    assert (there.books.published()["usable"], there.books.published()["set_aside"]) == (0, 1)
    there.hear(frame_of(channel="books", action="update", seq=None))
    assert "carry no numbers" in there.books.quarantine[1][1]
    assert there.books.published()["broken"] == 1


async def test_an_unchanged_book_is_stored_once_and_kept_alive_in_redis(
    listening, redis_prefix, redis_address, monkeypatch
):
    """
    A quiet book makes no rows, and does not vanish from Redis while its connection lives.
    """
    there = listening(15)
    there.hear(frame_of())
    samples, sample = 0, there.books._sample

    async def counted() -> None:
        nonlocal samples
        await sample()
        samples += 1

    async def two_more() -> None:
        before = samples
        await until(lambda: samples >= before + 2, what="samples")

    monkeypatch.setattr(there.books, "_sample", counted)
    task = asyncio.create_task(there.books.run(there.writing(), (BTC,)))
    client = connect_sync(redis_address)
    key = f"{redis_prefix}latest:book:spot:BTCUSDT"
    await until(lambda: latest_book(client, redis_prefix, BTC) is not None, what="the book")
    client.delete(key)
    there.now += 60.0
    await until(lambda: client.exists(key), what="the book once more")
    there.books.lost([Subscription(BTC, Channel.BOOKS_15)])
    await two_more()
    client.delete(key)
    there.now += 60.0
    await two_more()
    assert not client.exists(key)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert there.books.published()["stored"] + there.books.published()["waiting"] == 1


@contextlib.asynccontextmanager
async def without_a_redis(warehouse: Warehouse, prefix: str, *, listens: bool) -> AsyncIterator[Listening]:
    """Books that are sampled, beside a Redis that takes connections and never answers, or refuses them."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        if listens:
            nobody.listen()
        client = connect(RedisAddress("127.0.0.1", nobody.getsockname()[1]))
        there = Listening(Latest(client, prefix), warehouse, 15)
        there.books.rules = replace(QUICK, write_every=0.05)
        task = asyncio.create_task(there.books.run(there.writing(), (BTC,)))
        yield there
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def hear_and_store(there: Listening, books: int) -> None:
    """One book after the other comes, each when the one before is stored."""
    for number in range(books):
        there.hear(frame_of(seq=100 + number))
        await until(lambda number=number: there.books.published()["stored"] > number, what="a stored book")


@pytest.mark.parametrize(("listens", "words"), [(False, "cannot be reached"), (True, "did not answer within 2 s")])
async def test_a_redis_that_is_away_does_not_keep_books_from_the_table(warehouse, redis_prefix, listens, words):
    """
    Whether it refuses or hangs, it is said; what is sampled is stored all the same.
    """
    async with without_a_redis(warehouse, redis_prefix, listens=listens) as there:
        await hear_and_store(there, 2)
        await until(lambda: words in there.books.published()["trouble"], what="the trouble")


async def test_a_redis_that_hangs_costs_no_second_of_the_books(warehouse, redis_prefix, monkeypatch):
    """
    While the first call to it is still waited for, what the next seconds bring is sampled and stored.
    """
    monkeypatch.setattr(latest, "WRITTEN_WITHIN", 600.0)
    async with without_a_redis(warehouse, redis_prefix, listens=True) as there:
        await hear_and_store(there, 5)
        assert there.books.published()["trouble"] == ""  # it still waits


async def test_books_that_are_given_up_are_not_shown_and_begin_anew_afterwards(listening):
    """
    Disk nearly full: the books get no frames any more. What was known is not shown as if it were new, and changes that come
    after they are collected again have nothing to follow.
    """
    there = listening(50)
    intake = Intake(LiveState((BTC,)), companions=(there.books,))
    there.hear(frame_of(channel="books"))
    mine = [Subscription(BTC, Channel.BOOKS)]
    intake.shed("order_books", mine)
    intake.frame(
        get("bitget").decode(frame_of(channel="books", action="update", seq=101, pseq=100), received_ms=NOW_MS)
    )
    assert (there.books.published()["usable"], await there.sampled()) == (0, [])
    intake.readmit("order_books", mine)
    intake.frame(
        get("bitget").decode(frame_of(channel="books", action="update", seq=102, pseq=101), received_ms=NOW_MS)
    )
    assert there.books.published()["broken"] == 1
    intake.frame(get("bitget").decode(frame_of(channel="books", seq=103), received_ms=NOW_MS))
    assert (there.books.published()["usable"], there.books.published()["broken"]) == (1, 0)


async def test_a_book_that_cannot_be_is_kept_to_be_looked_at_once_a_minute(listening):
    """
    Beside all other frames that make no sense, with its symbol and reason; a flood of them pushes out no others.
    """
    there = listening(15)
    there.books._writing = there.writing()
    for _ in range(100):
        there.hear(frame_of(ts=str(NOW_MS + 10**9)))
    there.now += 61.0
    there.hear(frame_of(ts=str(NOW_MS + 10**9)))
    assert there.books.published()["set_aside"] == 101
    assert len(there.kept) == 2
    problem, shown = there.kept[0]
    assert "a book of spot:BTCUSDT" in problem
    assert "BookFrame" in shown
