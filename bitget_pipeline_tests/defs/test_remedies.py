"""Remediation from outside of the live run: a mute run is replaced, and nothing is launched while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date

import dagster as dg
import pytest
import redis.asyncio

from bitget_pipeline.defs.remedies import Outside
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.defs.sensors import history_launchers
from bitget_pipeline.guard.remedy_rules import Mode
from bitget_pipeline.guard.remedy_table import FROM_OUTSIDE, RULES
from bitget_pipeline.market.instrument import Market
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.keys import shard_key
from bitget_pipeline.storage.lease import Lease
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

    def look(self, seconds: float, overview: Overview | None, problem: str = "") -> list[str]:
        said: list[str] = []
        for _ in range(round(seconds / 5)):
            self.now += 5.0
            said += self.outside.look(overview, problem, rules=MINE, mode=self.mode, now=self.now)
        return said


async def a_mute_run(client: redis.asyncio.Redis, prefix: str) -> None:
    """A run that has the lease, and said something once, a minute ago."""
    fence = await Lease(client, prefix, "0").take("run-1", 60.0)
    await LiveControl(client, prefix, "0").publish({"run_id": "run-1"}, {}, fence=fence)
    key = shard_key(prefix, "0", "state")
    seconds, _ = await client.time()
    said = await client.hget(key, "")
    await client.hset(key, "", said.replace(str(seconds).encode(), str(seconds - 60).encode()))


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

    await budget.restrain(0.0, 60.0)
    assert "stopped by remediation" in await asyncio.to_thread(tick)
    await budget.restrain(2.0, 60.0)
    assert "remediation" not in await asyncio.to_thread(tick)
