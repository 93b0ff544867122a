"""Reconfiguration through Dagster: the live run becomes another generation while it goes on, or is replaced."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from bitget_pipeline.defs.jobs import LIVE_GENERATION
from bitget_pipeline.defs.live import SHARD, run_live_shard
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.defs.sensors import live_supervisor
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import connect_sync

from ..pipeline.conftest import until
from .test_history_assets import BTC, placed  # noqa: F401

ETH = Symbol(Market.USDTM, "ETHUSDT")


def tick(instance: dg.DagsterInstance) -> list[dg.RunRequest | dg.SkipReason]:
    """One look of the supervisor."""
    context = dg.build_sensor_context(instance=instance, resources={"pipeline": PipelineResource()})
    data = live_supervisor.evaluate_tick(context)
    return [*data.run_requests, *([data.skip_message] if data.skip_message else [])]


@contextlib.asynccontextmanager
async def running_op(instance: dg.DagsterInstance, overview: Overview) -> AsyncIterator[str]:
    """The live op in a thread; the id of its run."""

    @dg.job(resource_defs={"pipeline": PipelineResource()})
    def live() -> None:
        run_live_shard()

    op = asyncio.create_task(asyncio.to_thread(live.execute_in_process, instance=instance))
    await until(lambda: (p := overview.published()) and p.overall["stored"] > 0, within=60, what="trades")
    run_id = str(overview.published().overall["run_id"])
    try:
        yield run_id
    finally:
        overview.ask_to_stop(run_id, "the test is over")
        await asyncio.wait_for(op, 60)


def select(warehouse, *symbols: Symbol) -> None:
    chosen = [Chosen(symbol, rank, 1e9, Reason.VOLUME) for rank, symbol in enumerate(symbols, 1)]
    warehouse.store_universe(chosen, selected_at=datetime.now(UTC), run_id="test")


async def test_another_selection_is_taken_by_the_run_that_is_there(
    placed,  # noqa: F811
    redis_address,
    redis_prefix,
    warehouse,
):
    """
    The supervisor asks, the run takes the symbol without closing its socket, and Dagster shows the generation it has become.
    """
    overview = Overview(connect_sync(redis_address), redis_prefix, SHARD)
    with dg.DagsterInstance.ephemeral() as instance:
        async with running_op(instance, overview) as run_id:
            assert "generation" in str(await asyncio.to_thread(tick, instance))
            before = overview.published().overall["generation"]
            await asyncio.to_thread(select, warehouse, BTC, ETH)
            (said,) = await asyncio.to_thread(tick, instance)
            assert "asked to change" in said
            await until(lambda: overview.published().overall["generation"] != before, what="the new generation")
            published = overview.published()
            assert set(published.symbols) == {BTC, ETH}
            assert [one["opened"] for one in published.overall["connections"].values()] == [1]
            (said,) = await asyncio.to_thread(tick, instance)
            assert said.startswith("running since")
            tags = instance.get_run_by_id(run_id).tags
            assert tags[LIVE_GENERATION] == published.overall["generation"]


async def test_what_a_run_reads_at_its_start_alone_takes_another_run(
    placed,  # noqa: F811
    redis_address,
    redis_prefix,
    tmp_path: Path,
):
    """
    Fewer symbols a connection are taken in the run that is there; flushing at other times needs another run.
    """
    overview = Overview(connect_sync(redis_address), redis_prefix, SHARD)
    settings = tmp_path / "settings.toml"
    with dg.DagsterInstance.ephemeral() as instance:
        async with running_op(instance, overview):
            before = overview.published().overall["generation"]
            settings.write_text("symbols_per_connection = 3\n", encoding="utf-8")
            (said,) = await asyncio.to_thread(tick, instance)
            assert "asked to change" in said
            await until(lambda: overview.published().overall["generation"] != before, what="the new generation")
            settings.write_text("flush_max_seconds = 0.5\n", encoding="utf-8")
            (said,) = await asyncio.to_thread(tick, instance)
            assert "asked to stop" in said
