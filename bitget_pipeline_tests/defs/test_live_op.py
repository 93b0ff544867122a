"""The live run through Dagster: it starts in stages, collects, and ends when it is asked to; a failed start names its stage."""

from __future__ import annotations

import asyncio
from typing import Any

import dagster as dg
import pytest

from bitget_pipeline.defs.live import SHARD, run_live_shard
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.guard.remedy_table import FROM_OUTSIDE, RULES
from bitget_pipeline.pipeline.watch.of_the_run import SILENCE
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import connect_sync

from ..pipeline.conftest import until
from .test_history_assets import placed  # noqa: F401


def logged(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What the run wrote into its log."""
    return [entry.user_message for entry in instance.all_logs(run_id)]


def helped(overview: Overview) -> dict[str, Any]:
    """What remediation says of itself."""
    return overview.published().overall["attention"]["remediation"]


@pytest.mark.timeout(900)
async def test_the_live_op_starts_in_stages_collects_and_stops_when_asked(
    placed,  # noqa: F811
    redis_address,
    redis_prefix,
    warehouse,
):
    """
    Each stage is in the run's log, trades reach ClickHouse, and a request through Redis ends the run well.
    """

    @dg.job(resource_defs={"pipeline": PipelineResource()})
    def live() -> None:
        run_live_shard()

    instance = dg.DagsterInstance.ephemeral()
    overview = Overview(connect_sync(redis_address), redis_prefix, SHARD)
    running = asyncio.create_task(asyncio.to_thread(live.execute_in_process, instance=instance))
    await until(lambda: (p := overview.published()) is not None and p.overall["stored"] > 0, within=120, what="trades")
    assert warehouse.query("SELECT count() FROM trades")[0][0] > 0
    await until(lambda: helped(overview).get("checked_s") is not None, within=60, what="remediation to have looked")
    assert helped(overview)["mode"] == "on"
    await until(
        lambda: {rule["state"] for rule in helped(overview)["rules"]} == {"calm"},
        within=300,  # after a time for which the machine stood still something may rightly be done first
        what="every rule to be calm",
    )
    asked_for = {name for rule in RULES if rule.name not in FROM_OUTSIDE for name in (rule.vital, *rule.unless)}

    def unseen() -> set[str]:
        """A rule about what nobody looks at would never act."""
        return (
            asked_for
            - {vital["name"] for vital in overview.published().overall["vitals"]}
            - {SILENCE, "connection.open"}
        )

    await until(lambda: not unseen(), within=60, what="every vital that a rule asks for")
    overview.ask_to_stop(overview.published().overall["run_id"], "the test is over")
    done = await asyncio.wait_for(running, 180)
    assert done.success
    told = logged(instance, done.run_id)
    stages = [line.removeprefix("stage ") for line in told if line.startswith("stage ")]
    start = ["stores", "schema", "universe", "companions", "sockets", "lease", "flushers"]
    assert stages == [*start, "live", "stopping", "stopped"]
    assert any("asked to stop through Redis" in line and "s for sockets" in line for line in told)


async def test_a_start_with_nothing_selected_says_so_by_its_stage(placed, warehouse):  # noqa: F811
    """
    The run fails in the stage `universe`, and says what to materialize.
    """
    warehouse.command("TRUNCATE TABLE universe")

    @dg.job(resource_defs={"pipeline": PipelineResource()})
    def live() -> None:
        run_live_shard()

    instance = dg.DagsterInstance.ephemeral()
    done = await asyncio.to_thread(live.execute_in_process, instance=instance, raise_on_error=False)
    assert not done.success
    (failure,) = [event for event in done.all_events if event.is_step_failure]
    assert "stage `universe`: no symbol is selected" in str(failure.step_failure_data.error)
