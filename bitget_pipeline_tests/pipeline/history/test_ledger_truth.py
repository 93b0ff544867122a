"""
The ledger against the ground truth: whatever the exchange does, every minute is stored as it was, or listed with a right reason.

A seed chooses what goes wrong, where and when; the backfill then follows the ledger's own retries, its clock put forward
from one to the next, until nothing is due any more. More seeds: `BITGET_PIPELINE_SEED="17 18" make test ARGS="-k ledger_truth"`.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import pytest
import redis.asyncio

from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.history.client import HistoryClient, HttpAddress
from bitget_pipeline.history.client import opened as opened_client
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.coverage_days import DayCoverage, by_day
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms, gaps_between, to_ms
from bitget_pipeline.pipeline.history.backfill import BackfillReport, Key, backfill_candles
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.page_shelf import PageShelf
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import true_candles

MINUTE = Resolution.M1.ms
TROUBLED_ROUNDS = 2
MOST_ROUNDS = 7
SEEDS = [1, 2, *(int(seed) for seed in os.environ.get("BITGET_PIPELINE_SEED", "").split())]

TRANSIENT = (
    "empty_string",
    "bad_json",
    "html_502",
    "error_code",
    "release_window",
    "slow",
    "missing_bar",
    "changed_bar",
    "doubled_bar",
    "malformed_bar",
    "shuffled_bars",
)
BAR = ("_bar", "_bars")
"""Levers that strike single answers; what they did must not last."""


class Trial:
    """One exchange that misbehaves by a seed, one backfill that follows the ledger, and a clock that can be put forward."""

    def __init__(
        self,
        seed: int,
        server: LocalExchange,
        client: HistoryClient,
        exchange: Exchange,
        warehouse: Warehouse,
        versions: Versions,
        shelf: PageShelf,
    ) -> None:
        self.chance = random.Random(seed)
        self.server, self.client, self.exchange = server, client, exchange
        self.warehouse, self.versions, self.shelf = warehouse, versions, shelf
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self.server.now_ms() + self.ahead_ms

    def forward(self, duration: timedelta) -> None:
        self.ahead_ms += int(duration.total_seconds() * 1000)

    async def backfill(self, keys: Sequence[Key], *, refresh: bool = False) -> BackfillReport:
        return await backfill_candles(
            self.client, self.exchange, self.warehouse, self.versions, keys,
            source="local", run_id="trial", now_ms=self.now_ms, refresh=refresh, shelf=self.shelf,
        )  # fmt: skip

    async def cannot_be(self, day: date) -> None:
        """What nobody can serve, among what can be: a sentence each, no row, and not a word in the ledger."""
        wrong = [
            (Symbol(self.chance.choice((Market.SPOT, Market.USDTM)), "NOPEUSDT"), day),
            (Symbol(Market.SPOT, "BTCUSDT"), day + timedelta(days=self.chance.randrange(2, 9))),
        ]
        report = await self.backfill(wrong)
        assert [bool(report.keys[key].error) for key in wrong] == [True, True]
        seconds = await backfill_candles(
            self.client, self.exchange, self.warehouse, self.versions, [(Symbol(Market.SPOT, "BTCUSDT"), day)],
            source="local", run_id="trial", now_ms=self.now_ms, resolution=Resolution.S1,
        )  # fmt: skip
        assert [("1s" in one.error, one.rows) for one in seconds.keys.values()] == [(True, 0)]
        assert self.warehouse.coverage("candles_1m") == self.warehouse.coverage("candles_1s") == []

    async def blocked(self, keys: Sequence[Key]) -> None:
        """A region block stops a client for good: one of its own meets it, for some of the days."""
        budget = self.client.budget
        with self.server.faulty("region_block", "/history-candles", html=self.chance.random() < 0.5):
            async with opened_client(self.exchange, HttpAddress(self.server.rest_url), budget) as client:
                report = await backfill_candles(
                    client, self.exchange, self.warehouse, self.versions, keys,
                    source="local", run_id="trial", now_ms=self.now_ms,
                )  # fmt: skip
        assert all("region" in one.error for one in report.keys.values())

    def days(self, keys: Sequence[Key]) -> dict[Key, DayCoverage]:
        """The ledger's word on each key."""
        found = by_day(
            self.warehouse.coverage("candles_1m"),
            symbols=[symbol for symbol, _ in keys],
            days=sorted({day for _, day in keys}),
            now_ms=self.now_ms(),
        )
        return {key: found[key] for key in keys}

    @contextlib.contextmanager
    def trouble(self, symbols: Sequence[Symbol]) -> Iterator[None]:
        """Some levers, some of the time, for some symbols."""
        with contextlib.ExitStack() as stack:
            for kind in self.chance.sample(TRANSIENT, 3):
                place = str(self.chance.choice(symbols)) if kind.endswith(BAR) else "/history-candles"
                share = self.chance.uniform(0.002, 0.02) if kind.endswith(BAR) else self.chance.uniform(0.03, 0.12)
                stack.enter_context(self.server.faulty(kind, place, probability=share, delay=0.05))
            if self.chance.random() < 0.5:
                self.server.fault("rate_limit_storm", seconds=0.3)
            yield

    def hidden_minutes(self, day: Interval) -> set[int]:
        """Some single minutes, and a stretch, whose bars the exchange never sends."""
        minutes = (day.end_ms - day.start_ms) // MINUTE
        hidden = {self.chance.randrange(minutes) for _ in range(3)}
        begin = self.chance.randrange(minutes - 300)
        hidden.update(range(begin, begin + self.chance.choice((2, 7, 65, 230))))
        return {day.start_ms + minute * MINUTE for minute in hidden}


@pytest.fixture
def trial(
    request: pytest.FixtureRequest,
    local_exchange: LocalExchange,
    client: HistoryClient,
    exchange: Exchange,
    warehouse: Warehouse,
    versions: Versions,
    redis_client: redis.asyncio.Redis,
    redis_prefix: str,
) -> Trial:
    shelf = PageShelf(redis_client, redis_prefix)
    return Trial(request.param, local_exchange, client, exchange, warehouse, versions, shelf)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trial", SEEDS, indirect=True)
async def test_every_minute_is_stored_as_it_was_or_listed_with_a_right_reason(trial: Trial) -> None:
    """
    Pages fail, a region is blocked, bars are hidden for a while or for ever, changed, withdrawn after they were stored, older
    than what the exchange keeps, a market stands still for hours, a symbol is delisted on the way, days are from before a
    listing: in the end the ledger says of every minute what is true of it. Symbols, days and resolutions that cannot be are
    refused, and leave no word in it.
    """
    markets = (Market.SPOT, Market.USDTM)
    found = await discover(
        trial.client, trial.exchange, trial.warehouse, trial.versions,
        markets=markets, run_id="trial", now_ms=trial.now_ms,
    )  # fmt: skip
    assert not found.failed
    day = from_ms(trial.now_ms()).date() - timedelta(days=1)
    whole = Interval.of_day(day)
    leaving, fresh = _other_symbols(trial, day)
    busy = [Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "BTCUSDT"), Symbol(Market.USDTM, "ETHUSDT")]
    born = _listed_on(trial, fresh)
    unborn = (fresh, born - timedelta(days=trial.chance.randrange(1, 40)))
    kept = (_quiet(trial, leaving, fresh), day - timedelta(days=1))
    keys: list[Key] = [*((symbol, day) for symbol in busy), (leaving, day), (fresh, born), unborn, kept]
    await trial.cannot_be(day)
    await trial.blocked(trial.chance.sample(keys[:4], 2))

    retained = Interval.of_day(kept[1]).start_ms + trial.chance.randrange(1, 1440) * MINUTE
    trial.server.fault("missing_bar", str(kept[0]), before_ms=retained)
    hidden = {symbol: trial.hidden_minutes(whole) for symbol in busy[:2]}
    begin = trial.chance.randrange(0, 900)
    halt = Interval(whole.start_ms + begin * MINUTE, whole.start_ms + (begin + trial.chance.choice((20, 500))) * MINUTE)
    trial.server.fault("halt", str(busy[2]), from_ms=halt.start_ms, to_ms=halt.end_ms)
    for symbol, opens in hidden.items():
        trial.server.fault("missing_bar", str(symbol), open_ms=sorted(opens))
    trial.server.fault("missing_bar", str(leaving), open_ms=[whole.start_ms + 700 * MINUTE])
    for round_ in range(MOST_ROUNDS):
        due = [key for key, coverage in trial.days(keys).items() if coverage.due]
        if round_ < TROUBLED_ROUNDS:
            with trial.trouble(busy):
                await trial.backfill(due)
        else:
            await trial.backfill(due)
        if round_ == 0:
            trial.server.fault("delisting", str(leaving))
        retries = [one.next_retry for one in trial.days(keys).values() if one.next_retry is not None]
        if not retries:
            break
        trial.forward(max(timedelta(minutes=1), min(retries) - from_ms(trial.now_ms())) + timedelta(seconds=1))

    # What a lever changed on the way was stored as it was sent. Then the exchange corrects it, and withdraws a bar.
    withdrawn = whole.start_ms + next(n for n in (400, 1410) if whole.start_ms + n * MINUTE not in halt) * MINUTE
    trial.server.fault("missing_bar", str(busy[2]), open_ms=[withdrawn])
    await trial.backfill([(symbol, day) for symbol in busy], refresh=True)
    for _ in range(2):  # the second answer takes the bar away; after the third a witness makes it unexplained
        trial.forward(timedelta(minutes=31))
        await trial.backfill([(busy[2], day)], refresh=True)
    hidden[busy[2]] = {withdrawn}
    hidden[leaving] = {whole.start_ms + 700 * MINUTE}

    for (symbol, of_day), coverage in trial.days(keys).items():
        since = retained if symbol == kept[0] else 0
        await _judge(
            trial, symbol, of_day, coverage, hidden.get(symbol, set()), delisted=symbol == leaving, kept_since=since
        )


def _other_symbols(trial: Trial, day: date) -> tuple[Symbol, Symbol]:
    """One that trades and shall be delisted; one that was listed within its first day."""
    perpetuals = [one for one in trial.warehouse.instruments(Market.USDTM) if one.listed_at is not None]
    listed = [one for one in perpetuals if to_ms(one.listed_at) < Interval.of_day(day).start_ms]
    busy = {"BTCUSDT", "ETHUSDT"}
    leaving = trial.chance.choice(
        [one for one in listed if one.symbol.name not in busy and one.delists_at is None and one.kind == "perpetual"]
    )
    fresh = trial.chance.choice([one for one in listed if one.symbol not in (leaving.symbol,)])
    return leaving.symbol, fresh.symbol


def _quiet(trial: Trial, *others: Symbol) -> Symbol:
    """One more symbol, of which the exchange keeps no more than a part."""
    return trial.chance.choice(
        [
            one.symbol
            for one in trial.warehouse.instruments(Market.USDTM)
            if one.symbol not in others
            and one.symbol.name not in ("BTCUSDT", "ETHUSDT")
            and one.listed_at is not None
            and to_ms(one.listed_at) < trial.now_ms() - 5 * 86_400_000
            and one.delists_at is None
            and one.kind == "perpetual"
        ]
    )


def _listed_on(trial: Trial, symbol: Symbol) -> date:
    (found,) = [one for one in trial.warehouse.instruments(symbol.market) if one.symbol == symbol]
    assert found.listed_at is not None
    return found.listed_at.date()


async def _judge(
    trial: Trial,
    symbol: Symbol,
    day: date,
    coverage: DayCoverage,
    hidden: set[int],
    *,
    delisted: bool,
    kept_since: int,
) -> None:
    """Every minute of the day, against what happened."""
    whole = Interval.of_day(day)
    truth = {bar.open_ms: bar for bar in await true_candles(trial.server, symbol, whole)}
    stored = {bar.open_ms: bar for bar in trial.warehouse.candles(symbol, Resolution.M1, whole)}
    said: dict[int, tuple[CoverageState, str]] = {}
    for part, state, reason in coverage.holes:
        said.update((opened, (state, reason)) for opened in range(part.start_ms, part.end_ms, MINUTE))
    assert coverage.unseen == 0
    for opened in range(whole.start_ms, whole.end_ms, MINUTE):
        where = f"{symbol} at {from_ms(opened)}: {said.get(opened)}"
        if opened in stored:
            assert opened not in said, where
            assert stored[opened] == truth.get(opened), where
            continue
        assert opened in said, f"a silent hole: {where}"
        state, _ = said[opened]
        if opened < kept_since:
            assert state is CoverageState.UNAVAILABLE, where
            continue
        assert opened in hidden or opened not in truth or delisted, f"it was served, and is not stored: {where}"
        assert state in _right_states(opened, truth, hidden, delisted=delisted), where


def _right_states(opened: int, truth: dict[int, Candle], hidden: set[int], *, delisted: bool) -> set[CoverageState]:
    """What may be said of a minute without a bar."""
    bar = truth.get(opened)
    if bar is None:
        return {CoverageState.VERIFIED_EMPTY, CoverageState.UNAVAILABLE}
    if delisted:
        return {CoverageState.UNAVAILABLE}
    (hole,) = [gap for gap in _stretches(hidden) if opened in gap]
    if bar.base_volume > 0:
        return {CoverageState.UNEXPLAINED}
    # A quiet minute in a hole of which another minute traded: the witness speaks of the hole as a whole.
    around = range(hole.start_ms - 60 * MINUTE, hole.end_ms + 60 * MINUTE, MINUTE)
    traded = any(truth[ms].base_volume > 0 for ms in around if ms in truth and ms in hidden)
    return {CoverageState.VERIFIED_EMPTY} | ({CoverageState.UNEXPLAINED} if traded else set())


def _stretches(opens: set[int]) -> list[Interval]:
    span = Interval(min(opens), max(opens) + MINUTE)
    others = [ms for ms in range(span.start_ms, span.end_ms, MINUTE) if ms not in opens]
    return gaps_between(others, every_ms=MINUTE, within=span)
