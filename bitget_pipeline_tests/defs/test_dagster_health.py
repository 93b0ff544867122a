"""Dagster watches itself: daemons that fell silent, runs that are stuck, jobs that failed last."""

from __future__ import annotations

import time

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._daemon.types import DaemonHeartbeat

from bitget_pipeline.defs.dagster_health import dagster_vitals
from bitget_pipeline.guard.vitals import Status, Vital
from bitget_pipeline.pipeline.watch.health_rules import HealthRules

RULES = HealthRules()


@pytest.fixture
def instance(tmp_path):
    """A Dagster of its own."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def seen(instance: dg.DagsterInstance, *, later: float = 0.0, since: float | None = None) -> dict[str, Vital]:
    """What is seen so many seconds after `since`, or after now."""
    now = (time.time() if since is None else since) + later
    return {one.name: one for one in dagster_vitals(instance, now=now, rules=RULES)}


def beats(instance: dg.DagsterInstance) -> float:
    """Every daemon says that it lives; when they did."""
    now = time.time()
    for name in instance.get_required_daemon_types():
        instance.add_daemon_heartbeat(DaemonHeartbeat(now, name, "here"))
    return now


def test_daemons_that_live_are_healthy_and_one_that_fell_silent_is_not(instance):
    """
    Two minutes without a sign of life degrade, more are critical; the daemon is named.
    """
    beat = beats(instance)
    assert seen(instance, since=beat)["dagster.daemon"].status is Status.HEALTHY
    late = seen(instance, since=beat, later=120.0)["dagster.daemon"]
    assert late.status is Status.DEGRADED
    assert "daemon has not been heard of for 120 s" in late.reason
    assert seen(instance, since=beat, later=400.0)["dagster.daemon"].status is Status.CRITICAL


def test_a_daemon_that_never_said_that_it_lives_is_named_although_the_others_do(instance):
    """
    A sensor daemon that did not start stands still as one that died; which are late is told beside it.
    """
    missing, *others = sorted(instance.get_required_daemon_types())
    for name in others:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), name, "here"))
    found = seen(instance)["dagster.daemon"]
    assert found.status is Status.DEGRADED
    assert found.reason == f"never heard of Dagster's daemons: {missing.lower().replace('_', ' ')}"
    late = seen(instance, later=400.0)["dagster.daemon"]
    assert (late.status, found.reason in late.reason) == (Status.CRITICAL, True)


def test_daemons_that_nobody_heard_of_are_unknown(instance):
    """
    Where no daemon runs there is nothing to judge.
    """
    assert seen(instance)["dagster.daemon"].status is Status.UNKNOWN


def test_a_run_that_does_not_get_on_is_stuck_and_one_that_works_is_not(instance):
    """
    Starting for minutes is stuck; running for hours is what the live run does.
    """
    instance.create_run_for_job(_job(), status=DagsterRunStatus.STARTED)
    assert seen(instance, later=7200.0)["dagster.runs"].status is Status.HEALTHY
    run = instance.create_run_for_job(_job(), status=DagsterRunStatus.STARTING)
    assert seen(instance)["dagster.runs"].status is Status.HEALTHY
    stuck = seen(instance, later=600.0)["dagster.runs"]
    assert stuck.status is Status.DEGRADED
    assert f"run {run.run_id[:8]} of work has been starting for 10 minutes" in stuck.reason


def test_a_job_that_failed_last_is_named_until_it_succeeds(instance):
    """
    Failures of the last hour count, as long as nothing of the job has succeeded since.
    """
    with pytest.raises(ZeroDivisionError):
        _job(fails=True).execute_in_process(instance=instance)
    failing = seen(instance)["dagster.runs"]
    assert (failing.status, failing.reason) == (Status.DEGRADED, "failed in their last run: work")
    _job().execute_in_process(instance=instance)
    assert seen(instance)["dagster.runs"].status is Status.HEALTHY


def _job(*, fails: bool = False) -> dg.JobDefinition:
    @dg.op
    def step() -> None:
        if fails:
            raise ZeroDivisionError("on purpose")

    @dg.job(name="work")
    def work() -> None:
        step()

    return work
