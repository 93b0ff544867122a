"""Bad input: each kind ends in a clear error or a row of the ledger, never in a silent hole or an invented bar."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta

import pytest

from bitget_pipeline.history.client import HttpAddress, Patience, opened
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.coverage_days import by_day
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.backfill import KeyState, backfill_candles
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.page_shelf import PageShelf
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import true_candles, until

BTC = Symbol(Market.USDTM, "BTCUSDT")
MINUTE = 60_000


class Asking:
    """A backfill of one symbol's day, whose clock can be put forward."""

    def __init__(self, server, client, exchange, warehouse, versions, clock) -> None:  # type: ignore[no-untyped-def]
        self.server, self.client, self.exchange = server, client, exchange
        self.warehouse, self.versions, self.clock = warehouse, versions, clock
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self.clock() + self.ahead_ms

    @property
    def yesterday(self) -> date:
        return from_ms(self.clock()).date() - timedelta(days=1)

    async def __call__(self, symbol=BTC, day=None, **how):  # type: ignore[no-untyped-def]
        """Its report; then half an hour passes."""
        day = day or self.yesterday
        report = await backfill_candles(
            self.client, self.exchange, self.warehouse, self.versions, [(symbol, day)],
            source="local", run_id="r", now_ms=self.now_ms, **how,
        )  # fmt: skip
        self.ahead_ms += 31 * MINUTE
        return report.keys[symbol, day]

    async def nothing_invented(self, symbol=BTC, day=None) -> set[int]:  # type: ignore[no-untyped-def]
        """Every minute is stored as it was, or listed; the listed ones."""
        day = day or self.yesterday
        whole = Interval.of_day(day)
        truth = {bar.open_ms: bar for bar in await true_candles(self.server, symbol, whole)}
        stored = {bar.open_ms: bar for bar in self.warehouse.candles(symbol, Resolution.M1, whole)}
        assert {ms: truth.get(ms) for ms in stored} == stored
        evidence = self.warehouse.coverage("candles_1m", symbol=symbol)
        told = by_day(evidence, symbols=[symbol], days=[day], now_ms=self.now_ms())[symbol, day]
        listed = {ms for part, _, _ in told.holes for ms in range(part.start_ms, part.end_ms, MINUTE)}
        assert (told.unseen, listed & set(stored)) == (0, set())
        assert listed | set(stored) == set(range(whole.start_ms, whole.end_ms, MINUTE))
        return listed


@pytest.fixture
async def client(local_exchange, exchange, redis_client, redis_prefix):  # type: ignore[no-untyped-def]
    """A client that asks twice and then gives up."""
    patience = Patience(attempts=2, deadline=60.0, first_wait=0.05, longest_wait=0.1)
    budget = Budget(redis_client, redis_prefix, "test")
    async with opened(exchange, HttpAddress(local_exchange.rest_url), budget, patience=patience) as client:
        yield client


@pytest.fixture
async def ask(local_exchange, client, exchange, warehouse, versions, clock):  # type: ignore[no-untyped-def]
    markets = (Market.SPOT, Market.USDTM)
    found = await discover(client, exchange, warehouse, versions, markets=markets, run_id="r", now_ms=clock)
    assert not found.failed
    return Asking(local_exchange, client, exchange, warehouse, versions, clock)


@pytest.mark.parametrize("lever", ["doubled_bar", "shuffled_bars"])
@pytest.mark.parametrize("symbol", [BTC, Symbol(Market.SPOT, "BTCUSDT")], ids=str)
async def test_pages_in_disorder_are_read_as_if_they_were_in_order(ask, lever, symbol):  # type: ignore[no-untyped-def]
    """
    Bars twice in a page, or in another order: each is stored once, and the day is complete.
    """
    with ask.server.faulty(lever, str(symbol)):
        key = await ask(symbol)
    assert (key.state, key.rows, key.error) == (KeyState.COMPLETE, 1440, "")
    assert await ask.nothing_invented(symbol) == set()


@pytest.mark.parametrize("how", ["text", "short", "zero", "off_grid"])
async def test_a_bar_that_makes_no_sense_is_a_hole_until_it_does(ask, how):  # type: ignore[no-untyped-def]
    """
    Words for a price, columns missing, a price of zero, a time off the grid: the good bars of the page are kept, the bad
    one is listed, and fetched when the exchange serves it right.
    """
    bad = Interval.of_day(ask.yesterday).start_ms + 600 * MINUTE
    with ask.server.faulty("malformed_bar", str(BTC), how=how, open_ms=bad):
        key = await ask()
    assert (key.state, key.rows) == (KeyState.PARTIAL, 1439)
    assert await ask.nothing_invented() == {bad}
    assert (await ask()).state is KeyState.COMPLETE
    assert await ask.nothing_invented() == set()


async def test_pages_that_say_two_things_of_one_minute_are_asked_for_again_and_then_refused(ask):  # type: ignore[no-untyped-def]
    """
    A bar that is another one in every second answer: which of them is true is not ours to say.
    """
    ask.server.fault("changed_bar", str(BTC), probability=0.5)
    key = await ask()
    assert key.state is KeyState.FAILED
    assert "two pages disagree about the bar at" in key.error
    ask.server.clear("changed_bar")
    evidence = ask.warehouse.coverage("candles_1m", symbol=BTC)
    assert any("two pages disagree" in one.reason for one in evidence if one.state is CoverageState.UNKNOWN)
    assert await ask.nothing_invented() == set(range(*_span(ask.yesterday), MINUTE))
    assert (await ask()).state is KeyState.COMPLETE


@pytest.mark.parametrize(
    ("lever", "how", "words"),
    [
        ("bad_json", {}, "1m bars of usdtm:BTCUSDT"),
        ("error_code", {"code": "40017"}, "a parameter is wrong (code 40017"),
        ("error_code", {"code": "40725"}, "the exchange's service failed (code 40725"),
        ("html_502", {}, "502"),
        ("region_block", {}, "region"),
    ],
    ids=["truncated JSON", "refused with 200", "failed with 200", "HTML", "region"],
)
async def test_answers_that_are_none_end_in_a_sentence_and_in_the_ledger(ask, lever, how, words):  # type: ignore[no-untyped-def]
    """
    The whole day, for as long as patience lasts: the key fails with one line, its minutes are listed with the same reason.
    """
    with ask.server.faulty(lever, "/history-candles", **how):
        key = await ask()
    assert (key.state, key.rows) == (KeyState.FAILED, 0)
    assert words in key.error
    assert "\n" not in key.error
    (hole,) = ask.warehouse.coverage("candles_1m", symbol=BTC)
    assert (hole.state, hole.retry_at is not None) == (CoverageState.UNKNOWN, True)
    assert words in hole.reason
    if lever != "region_block":  # after that one no more is asked in this process: a person has to act
        assert (await ask()).state is KeyState.COMPLETE


async def test_what_the_exchange_no_longer_keeps_is_unavailable_and_not_empty(ask):  # type: ignore[no-untyped-def]
    """
    Bars of all lengths begin in the middle of a day: what lies before is settled after the second look, with its reason.
    """
    day = ask.yesterday - timedelta(days=3)
    noon = Interval.of_day(day).start_ms + 720 * MINUTE
    ask.server.fault("missing_bar", str(BTC), before_ms=noon)
    first = await ask(day=day)
    assert (first.state, first.rows) == (KeyState.PARTIAL, 720)
    assert await ask.nothing_invented(day=day) == set(range(noon - 720 * MINUTE, noon, MINUTE))
    await ask(day=day)
    lost = [one for one in ask.warehouse.coverage("candles_1m", symbol=BTC) if one.interval.end_ms == noon]
    assert [one.state for one in lost] == [CoverageState.UNAVAILABLE]
    assert "begin later" in lost[0].reason

    before = day - timedelta(days=1)
    await ask(day=before)
    assert (await ask(day=before)).state is KeyState.UNAVAILABLE
    assert len(await ask.nothing_invented(day=before)) == 1440


async def test_a_resolution_that_is_not_served_is_refused_in_a_sentence(ask):  # type: ignore[no-untyped-def]
    """
    Seconds come from trades alone.
    """
    key = await ask(resolution=Resolution.S1)
    assert key.state is KeyState.FAILED
    assert "1s" in key.error
    assert key.requests == 0
    assert ask.warehouse.coverage("candles_1s") == []


async def test_symbols_and_days_that_cannot_be_are_refused_without_asking_for_bars(ask):  # type: ignore[no-untyped-def]
    """
    An unknown symbol, a day to come, a day before the listing.
    """
    unknown = await ask(Symbol(Market.SPOT, "NOPEUSDT"))
    assert (unknown.state, "spot:NOPEUSDT is not among the instruments" in unknown.error) == (KeyState.FAILED, True)
    future = await ask(day=ask.yesterday + timedelta(days=3))
    assert (future.state, "lies in the future" in future.error) == (KeyState.FAILED, True)
    young = max(
        (one for one in ask.warehouse.instruments(Market.USDTM) if one.listed_at), key=lambda one: one.listed_at
    )
    early = await ask(young.symbol, young.listed_at.date() - timedelta(days=2))
    assert (early.state, early.error) == (KeyState.BEFORE_LISTING, "")
    (said,) = ask.warehouse.coverage("candles_1m", symbol=young.symbol)
    assert (said.state, said.reason) == (CoverageState.VERIFIED_EMPTY, "before listing")
    assert (unknown.requests, future.requests, early.requests) == (0, 0, 1)  # one page of daily bars agrees


async def test_a_refresh_that_failed_leaves_no_old_answer_behind(ask, redis_client, redis_prefix):  # type: ignore[no-untyped-def]
    """
    What one of its pages said is stored, and asked for again by the next: an answer that has lain here is not what the
    exchange says now.
    """
    shelf = PageShelf(redis_client, redis_prefix)
    whole = Interval.of_day(ask.yesterday)

    async def laid() -> int:
        return len(await shelf.for_refresh().pages(BTC, Resolution.M1, whole))

    with ask.server.faulty("slow", "/history-candles", delay=0.2):
        task = asyncio.create_task(ask(refresh=True, shelf=shelf))
        await until(lambda: _at_least(laid, 2))
        with ask.server.faulty("html_502", "/history-candles"):
            key = await task
    assert (key.state, await laid()) == (KeyState.FAILED, 0)
    assert len(ask.warehouse.candles(BTC, Resolution.M1, whole)) > 300
    assert (await ask(refresh=True, shelf=shelf)).state is KeyState.COMPLETE


async def _at_least(laid, number):  # type: ignore[no-untyped-def]
    return await laid() >= number


async def test_a_repair_of_some_minutes_is_compared_with_what_was_sent(ask, monkeypatch):  # type: ignore[no-untyped-def]
    """
    As many bars as were sent, but others: the store is not believed, be it for one minute.
    """
    hidden = Interval.of_day(ask.yesterday).start_ms + 600 * MINUTE
    with ask.server.faulty("missing_bar", str(BTC), open_ms=hidden):
        assert (await ask()).state is KeyState.PARTIAL
    true_store = Warehouse.store_candles

    def damaging(self, symbol, resolution, candles, **how):  # type: ignore[no-untyped-def]
        return true_store(self, symbol, resolution, [bar._replace(close=bar.close * 2) for bar in candles], **how)

    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "store_candles", damaging)
        key = await ask()
    assert (key.state, "the table does not hold the" in key.error) == (KeyState.FAILED, True)
    assert (await ask(refresh=True)).state is KeyState.COMPLETE


def _span(day: date) -> tuple[int, int]:
    whole = Interval.of_day(day)
    return whole.start_ms, whole.end_ms
