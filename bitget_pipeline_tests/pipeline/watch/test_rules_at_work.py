"""
Rules of the table on a live run that looks at itself: each condition made true, its deed done by the hands, and undone when over.

The rules are those of production with shorter times, the vitals those of `Attention`. Lines are drawn elsewhere where a real
cause would need a full disk or thousands of parts; what is done about it is real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitget_pipeline.errors import StoreUnavailable
from bitget_pipeline.exchange.contract import TickerFrame
from bitget_pipeline.feed.pace import SilenceRules
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.guard.remedy_rules import Deed, GaveUp, Mode
from bitget_pipeline.guard.remedy_table import ACTIONS, FROM_OUTSIDE, RULES, changed
from bitget_pipeline.guard.vitals import Line, Status, Vital
from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.live.hands import SLOWED, WIDER, Hands
from bitget_pipeline.pipeline.live.shed import ShedRules
from bitget_pipeline.pipeline.watch.attention import Attention, Places
from bitget_pipeline.pipeline.watch.health_rules import HealthRules
from bitget_pipeline.pipeline.watch.probe import time_prober
from bitget_pipeline.pipeline.watch.remediation import Remediation
from bitget_pipeline.pipeline.watch.remedy_incidents import GAVE_UP, KIND, RemedyIncidents
from bitget_pipeline.storage.overview import backfill_restraint
from bitget_pipeline.storage.redis_connection import RedisAddress, connect, connect_sync
from bitget_pipeline.storage.remedy_memory import RemedyMemory
from bitget_pipeline.storage.spill import Spill
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import SYMBOLS, all_stored, until
from ..live.test_run import Running, Tickers, assert_stored_is_true, closed, live
from ..live_runner import Where, plan_for, stores_at
from .test_remediation import incidents_of

BLIND = SessionRules(
    silence=SilenceRules(least=3600.0), first_data_within=0.7, attempts=30, review_every=0.1, pong_within=120.0
)
"""A session that does not doubt any silence: what the rules are for."""
QUICK = {"hold": 0.3, "gone": 0.3, "cool_down": 0.5}
EFFECT_WITHIN = {
    "backlog": 0.6,
    "backlog_still": 0.6,
    "backlog_beyond_hope": 0.6,
    "flush_stuck": 0.6,
    "nothing_arrives": 6.0,
}
MINE = changed(
    RULES,
    {
        rule.name: QUICK
        | {"effect_within": EFFECT_WITHIN.get(rule.name, 60.0)}
        | ({"cool_down": 120.0} if rule.action == "relaunch" else {})  # a successor remembers, and does not do it again
        for rule in RULES
        if rule.name not in FROM_OUTSIDE
    },
)
CALM = HealthRules(
    disk=Line(0.0, -1.0),
    parts=Line(10.0, 10.0),
    lag_p99=Line(600.0, 600.0),
    backlog=Line(600.0, 600.0),
    flush=Line(600.0, 600.0),
    probes_over=1.0,
    over=3.0,
    least_expected=3.0,
    throughput=Line(0.1, 0.05),  # of three seconds, for most of which this machine may stand still
)


class Turns:
    """A listener that lets the rules whose turn it is decide."""

    name = "remediation"

    def __init__(self, make: Callable[..., Remediation]) -> None:
        self._make = make
        self._present = make()

    def take(self, *names: str) -> None:
        """From now on these, from their beginning."""
        self._present = self._make(*names)

    async def heed(self, vitals: Sequence[Vital], *, now: float) -> None:
        await self._present.heed(vitals, now=now)

    def published(self) -> dict[str, Any]:
        return self._present.published()

    async def drain(self) -> None:
        await self._present.drain()

    def deeds(self) -> list[tuple[str, bool, bool]]:
        """Rule, whether it was an undoing, whether it was done."""
        return [(one["rule"], one["undo"], one["done"]) for one in self.published()["last"]]


@dataclass
class Scene:
    """A live run that looks at itself and heeds the rules whose turn it is."""

    run: Running
    attention: Attention
    turns: Turns
    hands: Hands
    where: Where
    warehouse: Warehouse
    redis: Any

    @property
    def flush_wait(self) -> float:
        """For how long the flusher gathers."""
        return self.hands._writing.flusher.rules.max_wait

    @property
    def restraint(self) -> float | None:
        """What backfills may ask a second, None without a bound of remediation."""
        return backfill_restraint(self.redis, self.where.prefix, "live")

    @property
    def spilled(self) -> int:
        """Bytes of trades on disk."""
        return Spill(Path(self.where.spill)).state().bytes

    def vital(self, name: str) -> Vital:
        """How it is by the last look."""
        return next(one for one in self.attention.vitals if one.name == name)

    def incidents(self, rule: str) -> list[dict[str, Any]]:
        """Those of a rule's deeds."""
        return [one for one in incidents_of(self.warehouse, KIND) if one["details"]["rule"] == rule]

    async def there_and_back(
        self, rule: str, doing: Callable[[], Any], over: Callable[[], Any], acts: Callable[[], bool]
    ) -> None:
        """
        The rule's condition comes by `doing`, its deed is seen by `acts`, and is over after `over`; the incident has it all.
        """
        self.turns.take(rule)
        assert not acts()
        doing()
        await until(acts, what=f"{rule}: its deed")
        over()
        await until(lambda: not acts(), what=f"{rule}: its undoing")
        await until(lambda: [one for one in self.incidents(rule) if not one["open"]], what=f"{rule}: its incident")
        assert self.turns.deeds() == [(rule, False, True), (rule, True, True)]
        (incident,) = self.incidents(rule)
        told = incident["details"]
        assert told["action"] == {one.name: one.action for one in RULES}[rule]
        assert (told["done"], told["helped"], bool(told["undone"])) == (True, True, True)
        assert told["before"]["status"] in ("degraded", "critical")
        assert told["after"]["status"] == "healthy"


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisAddress]:
    """A Redis whose memory may be bounded."""
    config = local_redis.with_port(local_redis.RedisConfig(data=tmp_path_factory.mktemp("redis")))
    process = local_redis.start(config)
    try:
        yield RedisAddress(config.host, config.port)
    finally:
        local_redis.stop(process)


@pytest.fixture
def redis_address(own_redis: RedisAddress) -> RedisAddress:
    """Where Redis is in this file."""
    return own_redis


@pytest.fixture
def where(where: Where, tmp_path: Path) -> Where:
    """With a folder for trades."""
    return msgspec.structs.replace(where, spill=str(tmp_path / "spill"))


@pytest.fixture
def at_work(where: Where, local_exchange: LocalExchange, warehouse: Warehouse, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A live run that looks at itself ten times a second."""

    @asynccontextmanager
    async def begin(
        run_id: str, *companions: Any, rules: HealthRules = CALM, flush_within: float = 60.0
    ) -> AsyncIterator[Scene]:
        here = msgspec.structs.replace(where, run_id=run_id)
        address = RedisAddress("127.0.0.1", here.redis_port)
        hands = Hands()
        async with stores_at(here) as stores:
            client = connect(address)
            plain = connect_sync(address)
            memory = RemedyMemory(client, here.prefix, "0")

            def make(*names: str) -> Remediation:
                mine = [rule for rule in MINE if rule.name in names]
                ident = f"{run_id}-{'-'.join(names)}"
                incidents = RemedyIncidents(
                    warehouse, stores.versions, run_id=ident, clock=local_exchange.now_ms, of="0"
                )
                return Remediation(
                    hands, mine, Mode.ON, clock=local_exchange.now_ms, incidents=incidents, memory=memory
                )

            turns = Turns(make)
            places = Places(stores.client, client, here.prefix, "0", stores.warehouse, tmp_path)
            prober = time_prober(stores.client, every=0.1, within=2.0)
            attention = Attention(places, prober, rules=rules, every=0.1, listeners=(turns,))
            shed_rules = ShedRules(readmit_after=0.3)
            plan = replace(plan_for(here), session_rules=BLIND, shed_rules=shed_rules, flush_within=flush_within)
            try:
                async with live(here, local_exchange, plan, companions=(*companions, attention), hands=hands) as run:
                    await until(lambda: run.stored() > 20 and attention.vitals, what="the first trades")
                    yield Scene(run, attention, turns, hands, here, warehouse, plain)
            finally:
                await client.aclose()
                plain.close()

    return begin


@contextmanager
def inserts_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ClickHouse takes no trades, as when it has too many parts: the flusher waits and tries again."""

    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("ClickHouse cannot answer now: too many parts: inserts outrun merges")

    with monkeypatch.context() as patched:
        patched.setattr(scene.run.stores.warehouse, "store_trades", refuse)
        yield


async def test_what_lasts_is_done_and_undone_and_a_run_to_which_nothing_comes_is_replaced(
    at_work, local_exchange, warehouse
):
    """
    Rule by rule on one live run: batches really widen, backfills are really held back, trades really wait on disk, and all of it
    is as before when it is over. Then nothing arrives any more: the run ends so that another begins, which says what was after.
    """
    async with at_work("run-1") as scene:
        start = local_exchange.now_ms()
        usual, attention = scene.flush_wait, scene.attention

        def lines(**drawn: Line) -> Callable[[], None]:
            return lambda: setattr(attention, "rules", replace(CALM, **drawn))

        def wide() -> bool:
            return scene.flush_wait == WIDER * usual

        def barred() -> bool:
            return scene.restraint == 0.0

        def slowed() -> bool:
            return scene.restraint == SLOWED

        drawn = {
            "many_parts": ({"parts": Line(1e-5, 10.0)}, wide),
            "too_many_parts": ({"parts": Line(1e-6, 1e-5)}, barred),
            "late_rows": ({"lag_p99": Line(0.0, 0.0)}, slowed),
            "warehouse_disk": ({"disk": Line(2.0, 1.5)}, barred),
            "disk_nearly_full": ({"disk": Line(2.0, 1.5)}, barred),
        }
        for rule, (bad, acts) in drawn.items():
            await scene.there_and_back(rule, lines(**bad), lines(), acts)

        broken = local_exchange.faulty("html_502")
        await scene.there_and_back(
            "failing_answers", broken.__enter__, lambda: broken.__exit__(None, None, None), slowed
        )

        def bound_memory() -> None:
            # made there: a long command would take memory for a while
            scene.redis.setrange("ballast", 32 * 2**20, b"x")
            scene.redis.config_set("maxmemory", int(scene.redis.info("memory")["used_memory"] * 1.05))

        def free_memory() -> None:
            scene.redis.config_set("maxmemory", 0)
            scene.redis.delete("ballast")

        await scene.there_and_back("redis_nearly_full", bound_memory, free_memory, lambda: scene.spilled > 0)

        end = await closed(local_exchange, scene.run.overview)
        await all_stored(warehouse, local_exchange, Interval(start, end))
        assert incidents_of(warehouse, GAVE_UP) == []
        scene.turns.take("nothing_arrives")
        await until(
            lambda: (now := scene.vital("throughput")).value is not None and now.status is Status.HEALTHY,
            what="a share of what was to be expected: enough paces are known",
        )
        with local_exchange.muted():
            report = await asyncio.wait_for(asyncio.shield(scene.run.task), 90.0)
        assert report.because == "asked to stop through Redis"
        assert not report.left_in_stream
        (incident,) = scene.incidents("nothing_arrives")
        assert (incident["open"], "after" in incident["details"]) == (True, False)
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50
    patient = replace(
        CALM, over=30.0, least_expected=60.0
    )  # one look decides: a stall in three seconds would be all of them
    async with at_work("run-2", rules=patient) as successor:
        successor.turns.take("nothing_arrives")
        await until(lambda: not successor.incidents("nothing_arrives")[0]["open"], what="its judgement")
        told = successor.incidents("nothing_arrives")[0]["details"]
        assert (told["helped"], told["after"]["vital"], told["after"]["status"]) == (True, "throughput", "healthy")
        await successor.run.end()


async def test_a_flusher_that_is_refused_is_relieved_step_by_step_and_then_replaced(
    at_work, local_exchange, warehouse, monkeypatch
):
    """
    ClickHouse takes no trades. Batches are widened, history is slowed, tickers are given up with a row in the ledger, each when
    the one before did not help; when it takes them again all comes back. Then nothing is stored at all: the live run is replaced,
    its successor judges that, and no trade is missing.
    """
    tickers = Tickers(frames=(TickerFrame,))
    async with at_work("run-1", tickers, flush_within=10.0) as scene:  # in vain, at the end
        start, usual = local_exchange.now_ms(), scene.flush_wait
        scene.turns.take("backlog", "backlog_still", "backlog_beyond_hope")
        scene.attention.rules = replace(CALM, backlog=Line(1.0, 2.0))
        with inserts_refused(scene, monkeypatch):
            await until(lambda: scene.flush_wait == WIDER * usual, what="wider batches")
            await until(lambda: scene.restraint == SLOWED, what="slower history")
            await until(lambda: scene.run.overview.published().overall["shed"], what="a channel less")
            await until(lambda: warehouse.coverage("tickers", symbol=SYMBOLS[0]), what="a row in the ledger")
            last = "backlog_beyond_hope"
            await until(lambda: "helped" in scene.incidents(last)[0]["details"], what="the last one's judgement")
            told = len(tickers.seen)
        scene.attention.rules = CALM
        await until(lambda: scene.flush_wait == usual and scene.restraint is None, what="the end of it")
        await until(lambda: len(tickers.seen) > told, what="tickers again")
        assert scene.turns.deeds()[:3] == [
            ("backlog", False, True),
            ("backlog_still", False, True),
            ("backlog_beyond_hope", False, True),
        ]
        names = ("backlog", "backlog_still", "backlog_beyond_hope")
        await until(
            lambda: all(not scene.incidents(name)[0]["open"] for name in names), what="the end of every incident"
        )
        for name in names:
            (incident,) = scene.incidents(name)
            assert ACTIONS[incident["details"]["action"]].lasting
            assert (incident["details"]["helped"], bool(incident["details"]["undone"])) == (False, True)
            assert incident["details"]["after"]["status"] == "healthy"

        scene.turns.take("flush_stuck")
        scene.attention.rules = replace(CALM, flush=Line(1.0, 1.5))
        with inserts_refused(scene, monkeypatch):
            report = await asyncio.wait_for(asyncio.shield(scene.run.task), 90.0)
        assert report.because == "asked to stop through Redis"
        assert report.left_in_stream
        (incident,) = scene.incidents("flush_stuck")
        assert (incident["open"], incident["details"]["before"]["status"]) == (True, "critical")
    async with at_work("run-2") as successor:
        successor.turns.take("flush_stuck")
        await until(lambda: not successor.incidents("flush_stuck")[0]["open"], what="its judgement")
        told = successor.incidents("flush_stuck")[0]["details"]
        assert (told["helped"], told["after"]["status"]) == (True, "healthy")
        end = await closed(local_exchange, successor.run.overview)
        await until(lambda: not any(anchor.gap for anchor in successor.run.overview.anchors().values()), what="no gap")
        await all_stored(warehouse, local_exchange, Interval(start, end))
        await successor.run.end()
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 50


async def test_a_successor_closes_what_its_predecessor_left_open_and_nobody_elses(warehouse, versions, local_exchange):
    """
    Of the same shard's run before it, with what it gave up; not the supervisor's, which still holds, nor another shard's, whose
    run lives, nor what only the successor can judge.
    """
    critical = Vital("redis.answers", Status.CRITICAL, "it is away")
    made = {"run-1": "0", "supervisor-7": "supervisor", "run-9": "1"}
    for run_id, of in made.items():
        before = RemedyIncidents(warehouse, versions, run_id=run_id, clock=local_exchange.now_ms, of=of)
        before.did(Deed(1, "redis_away", "stop_backfills", "", critical), ok=True, said="no backfills")
        before.gave_up(GaveUp("backlog", "", "in vain", critical))
        before.did(
            Deed(2, "flush_stuck", "relaunch", "", replace(critical, name="flush.progress")), ok=True, said="ends"
        )
        await before.write()
    successor = RemedyIncidents(warehouse, versions, run_id="run-2", clock=local_exchange.now_ms, of="0")
    await successor.close_leftovers(because="the live run it was about has ended")
    assert successor.inherited
    left = {one.incident_id.split(":")[1] for kind in (KIND, GAVE_UP) for one in warehouse.open_incidents(kind)}
    assert left == {"run-1", "supervisor-7", "run-9"}
    mine = [one for kind in (KIND, GAVE_UP) for one in warehouse.open_incidents(kind) if ":run-1:" in one.incident_id]
    assert [one.details["action"] for one in mine] == ["relaunch"]
