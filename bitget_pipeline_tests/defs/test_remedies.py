"""Remediation from outside of the live run: a mute run is replaced, and nothing is launched while Redis is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import date

import dagster as dg
import pytest
import redis.asyncio

from bitget_pipeline.defs.remedies import Outside
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.defs.sensors import history_launchers
from bitget_pipeline.errors import DiskFull
from bitget_pipeline.guard.remedy_rules import Mode, Rule
from bitget_pipeline.guard.remedy_table import FROM_OUTSIDE, RULES, changed
from bitget_pipeline.market.instrument import Market
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.control import LiveControl, Published
from bitget_pipeline.storage.keys import shard_key
from bitget_pipeline.storage.lease import Lease, LeaseState
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync

from .test_history_assets import placed  # noqa: F401

MINE = tuple(rule for rule in RULES if rule.name in FROM_OUTSIDE)


@pytest.fixture
def overview(redis_address: RedisAddress, redis_prefix: str) -> Iterator[Overview]:
    with connect_sync(redis_address) as client:
        yield Overview(client, redis_prefix, "0")


class Supervisor:
    """The sensor, which looks every five seconds."""

    def __init__(self, mode: Mode = Mode.ON) -> None:
        self.outside = Outside(clock=lambda: 1_800_000_000_000)
        self.mode = mode
        self.now = 0.0

    def look(
        self, seconds: float, overview: Overview | None, problem: str = "", *, rules: tuple[Rule, ...] = MINE
    ) -> list[str]:
        said: list[str] = []
        for _ in range(round(seconds / 5)):
            self.now += 5.0
            said += self.outside.look(overview, problem, rules=rules, mode=self.mode, now=self.now)
        return said


async def a_mute_run(client: redis.asyncio.Redis, prefix: str) -> None:
    """A run that has the lease, and said something once, a minute ago."""
    fence = await Lease(client, prefix, "0").take("run-1", 600.0)
    await LiveControl(client, prefix, "0").publish({"run_id": "run-1"}, {}, fence=fence)
    key = shard_key(prefix, "0", "state")
    said = json.loads(await client.hget(key, ""))
    await client.hset(key, "", json.dumps(said | {"at": said["at"] - 60}))


async def test_a_run_that_lives_and_says_nothing_is_asked_to_end(redis_client, redis_prefix, overview):
    """
    It renews its lease, so the supervisor believes in it; after half a minute of silence another is to take its place.
    Asked once, remembered for the limits, and told.
    """
    await a_mute_run(redis_client, redis_prefix)
    supervisor = Supervisor()
    assert supervisor.look(30, overview) == []
    assert supervisor.look(10, overview) == ["mute_run: the live run is asked to end, and another is started"]
    asked = overview.stop_request()
    assert asked is not None
    assert asked.run_id == "run-1"
    assert "has said nothing for" in asked.because
    assert [one.rule for one in overview.remedies()] == ["mute_run"]
    assert [one.kind for one in supervisor.outside.incidents.waiting] == ["remediation"]
    assert supervisor.look(600, overview) == []
    assert "remediation_gave_up" in [one.kind for one in supervisor.outside.incidents.waiting]


async def test_a_run_without_the_lease_is_left_to_the_supervisor(overview):
    """Nobody holds it: a run is missing or has just begun, which is not for remediation to say."""
    assert Supervisor().look(300, overview) == []


async def test_nothing_is_launched_while_redis_is_away(overview):
    """It is told with the reason, holds while it lasts, and is over soon after."""
    supervisor = Supervisor()
    supervisor.look(10, overview)
    said = supervisor.look(60, None, "Redis does not answer")
    assert said == ["redis_away: no backfills are launched"]
    assert supervisor.outside.backfills_stopped == "Redis does not answer"
    supervisor.look(15, overview)
    assert supervisor.outside.backfills_stopped
    assert supervisor.look(15, overview) == ["redis_away: backfills are launched again"]
    assert not supervisor.outside.backfills_stopped
    assert supervisor.outside.incidents.waiting[-1].closed_ms is not None


def test_no_incident_takes_anothers_place_when_rules_change_or_the_process_begins_anew(overview):
    """
    Four deeds, by two processes and under two sets of rules, are four incidents.
    """
    idents = set()
    for supervisor in (Supervisor(), Supervisor()):
        for rules in (MINE, changed(MINE, {"redis_away": {"hold": 30.0}})):
            supervisor.look(5, overview, rules=rules)
            supervisor.look(90, None, "Redis does not answer", rules=rules)
            supervisor.look(30, overview, rules=rules)
        idents |= {one.incident_id for one in supervisor.outside.incidents.waiting if one.kind == "remediation"}
    assert len(idents) == 4


def test_other_rules_end_what_those_before_held_with_its_incident(overview):
    """
    Backfills were stopped while Redis is away; an operator changes a figure: they are launched again, the incident is closed and
    says why, and the new rule holds anew when its time has come. Off holds nothing.
    """
    supervisor, others = Supervisor(), changed(MINE, {"redis_away": {"hold": 30.0}})
    supervisor.look(5, overview)
    supervisor.look(30, None, "Redis does not answer")
    assert supervisor.outside.backfills_stopped
    said = supervisor.look(5, None, "Redis does not answer", rules=others)
    assert said == ["backfills are launched again: the rules were changed"]
    assert not supervisor.outside.backfills_stopped
    (first,) = {one.incident_id: one for one in supervisor.outside.incidents.waiting}.values()
    assert first.closed_ms is not None
    assert first.details["closed_because"] == "the rules were changed"
    assert supervisor.look(60, None, "Redis does not answer", rules=others) == ["redis_away: no backfills are launched"]
    supervisor.mode = Mode.OFF
    supervisor.look(5, None, "Redis does not answer", rules=others)
    assert not supervisor.outside.backfills_stopped
    latest = {one.incident_id: one for one in supervisor.outside.incidents.waiting}.values()
    assert [one.closed_ms is not None for one in latest] == [True, True]


def test_what_was_done_while_redis_was_away_counts_and_is_shown_afterwards(overview):
    """
    The deed is remembered with its age as soon as Redis is back, for the limits of whoever comes next; and `status` reads there
    how the rules stand, also what a process before this one did.
    """
    supervisor = Supervisor()
    supervisor.look(10, overview)
    supervisor.look(60, None, "Redis does not answer")
    assert overview.remedies() == []
    supervisor.look(5, overview)
    (remembered,) = overview.remedies()
    assert (remembered.rule, 35 <= remembered.ago < 300) == ("redis_away", True)  # and not of just now
    said = overview.supervisor().said
    assert {one["rule"]: (one["state"], one["by"]) for one in said["rules"]} == {
        "mute_run": ("calm", "the supervisor"),
        "redis_away": ("waits for an effect", "the supervisor"),
    }
    assert said["in_force"] == ["stop_backfills"]
    assert [(one["rule"], one["said"]) for one in said["last"]] == [("redis_away", "no backfills are launched")]
    successor = Supervisor()
    successor.look(5, overview)
    assert [one["rule"] for one in overview.supervisor().said["last"]] == ["redis_away"]


def test_a_redis_that_takes_nothing_makes_a_deed_that_was_not_done(overview, monkeypatch):
    """
    It is full: the request to end cannot be written. That is told, judged in vain, and breaks no look.
    """

    def full(*_: object, **__: object) -> None:
        raise DiskFull("Redis is full")

    monkeypatch.setattr(overview, "lease", lambda: LeaseState("run-1", 1, 0, age=0.5, expires_in=14.5))
    monkeypatch.setattr(overview, "published", lambda: Published(60.0, {"run_id": "run-1"}))
    for writes in ("note_remedy", "ask_to_stop", "publish_supervisor"):
        monkeypatch.setattr(overview, writes, full)
    supervisor = Supervisor()
    said = supervisor.look(60, overview)
    assert said == ["mute_run: Redis is full"]
    assert supervisor.outside.incidents.waiting[0].details["done"] is False


@pytest.mark.parametrize("mode", [Mode.DRY_RUN, Mode.OFF])
async def test_a_dry_run_and_one_that_is_off_do_nothing(mode, redis_client, redis_prefix, overview):
    """One says what it would do, the other nothing."""
    await a_mute_run(redis_client, redis_prefix)
    supervisor = Supervisor(mode)
    said = [*supervisor.look(60, overview), *supervisor.look(60, None, "away")]
    assert said == ([] if mode is Mode.OFF else ["mute_run: would do relaunch", "redis_away: would do stop_backfills"])
    assert overview.stop_request() is None
    assert not supervisor.outside.backfills_stopped
    assert not supervisor.outside.incidents.waiting


async def test_no_backfill_is_launched_while_history_is_barred(placed, redis_client, redis_prefix):  # noqa: F811
    """The launcher says why; a history that is merely slowed goes on, and so does one that is let go again."""
    (launcher,) = history_launchers([Market.USDTM], grid_starts=date(2026, 1, 1))
    budget = Budget(redis_client, redis_prefix)

    def tick() -> str:
        with dg.DagsterInstance.ephemeral() as instance:
            told = launcher(dg.build_sensor_context(instance), pipeline=PipelineResource())
        return told.skip_message if isinstance(told, dg.SkipReason) else "launched"

    await budget.restrain(0.0, 600.0)
    assert "stopped by remediation" in await asyncio.to_thread(tick)
    await budget.restrain(2.0, 600.0)
    assert "remediation" not in await asyncio.to_thread(tick)
