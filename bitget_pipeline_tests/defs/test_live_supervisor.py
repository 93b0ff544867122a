"""The supervisor through Dagster, when something it asks is away."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterRun

from bitget_pipeline.defs.jobs import LIVE_SHARD
from bitget_pipeline.defs.live import SHARD
from bitget_pipeline.defs.live_supervisor import MEMORY
from bitget_pipeline.defs.resources import boot
from bitget_pipeline.guard.sightings import Sightings
from bitget_pipeline.pipeline.live.whereabouts import here
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import connect_sync

from .test_history_assets import placed  # noqa: F401
from .test_reconfiguration import tick


@pytest.fixture
def nobody_listens(placed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """ClickHouse is away."""
    monkeypatch.setenv("CLICKHOUSE_PORT", "1")
    boot.cache_clear()


def a_run_since(instance: dg.DagsterInstance, seconds: float) -> DagsterRun:
    """A live run that Dagster believes in."""
    run = instance.add_run(DagsterRun(job_name="live", status=dg.DagsterRunStatus.STARTING, tags={LIVE_SHARD: SHARD}))
    began = DagsterEvent(DagsterEventType.RUN_START.value, "live")
    instance.report_dagster_event(began, run.run_id, timestamp=time.time() - seconds)
    return run


async def test_a_dead_run_is_noticed_while_clickhouse_is_away(nobody_listens, redis_address, redis_prefix) -> None:
    """
    It is declared dead at the second look, asked to stop in case it is not, and nothing is launched that could not start.
    """
    overview = Overview(connect_sync(redis_address), redis_prefix, SHARD)
    with dg.DagsterInstance.ephemeral() as instance:
        run = a_run_since(instance, 100.0)
        (said,) = tick(instance)
        assert "looked at again" in said
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED
        MEMORY.sightings = Sightings()
        MEMORY.sightings.look([run.run_id], now=time.monotonic() - 10.0)
        (said,) = tick(instance)
        assert "is dead" in said
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
        assert overview.stop_request().run_id == run.run_id
        (said,) = tick(instance)
        assert "no live run can be started or changed now" in said


async def test_a_run_whose_process_has_ended_is_dead_at_the_first_look(
    nobody_listens, redis_address, redis_client, redis_prefix
) -> None:
    """
    Whoever started it may be gone as well, a code server that was loaded anew for instance: the lease need not run out.
    """
    overview = Overview(connect_sync(redis_address), redis_prefix, SHARD)
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    control = LiveControl(redis_client, redis_prefix, SHARD)
    with dg.DagsterInstance.ephemeral() as instance:
        for pid in (here()["pid"], ended.pid):
            run = a_run_since(instance, 10.0)
            fence = await Lease(redis_client, redis_prefix, SHARD).take(run.run_id, 60.0)
            said = {"run_id": run.run_id, "generation": "g", "process": here() | {"pid": pid}}
            await control.publish(said, {}, fence=fence)
            (told,) = tick(instance)
            if pid == ended.pid:
                assert "its process has ended" in told
                assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
                assert overview.lease() is None
            else:
                assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED
                instance.report_run_canceled(run)
                overview.break_lease(run.run_id)


async def test_the_lease_of_a_run_that_failed_is_taken_away(
    nobody_listens, redis_address, redis_client, redis_prefix
) -> None:
    """
    Its worker may live on, and would keep out whoever follows; the lease of a run that goes on is left alone.
    """
    overview = Overview(connect_sync(redis_address), redis_prefix, SHARD)
    with dg.DagsterInstance.ephemeral() as instance:
        run = a_run_since(instance, 100.0)
        await Lease(redis_client, redis_prefix, SHARD).take(run.run_id, 60.0)
        tick(instance)
        assert overview.lease() is not None
        instance.report_run_failed(run)
        tick(instance)
        assert overview.lease() is None
        assert overview.stop_request().run_id == run.run_id
