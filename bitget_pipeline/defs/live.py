"""
The live run: one op that lasts until it is stopped or replaced.

It opens the stores and hands over to pipeline/live/run.py. It writes nothing into Dagster's event log while it runs (each
line there is kept for ever); the health sensor reports for it.
"""

import asyncio
import time
from contextlib import AsyncExitStack

import dagster as dg

from ..pipeline.beside.reconcile import Reconciler, size_steps
from ..pipeline.live.hands import Hands
from ..pipeline.live.interruptions import obeyed
from ..pipeline.live.run import LivePlan, LiveReport, run_live
from ..pipeline.live.stages import Stage, Stages, require_schema, require_universe, until_it_answers
from ..pipeline.watch.mended import MendedSilences
from ..pipeline.watch.probe import time_prober
from .failover import failover_of
from .resources import PipelineResource

SHARD = "0"

OPENED_WITHIN = 5.0
ANSWER_WITHIN = 60.0
"""
Seconds for ClickHouse to answer at all when the run starts, and later for a statement: what takes longer is repeated. A run that
ends waits for neither.
"""
LOOK_WITHIN = 10.0
"""Seconds for ClickHouse to say how it stands; it is asked beside the work, over a connection of its own."""


class LiveConfig(dg.Config):
    """
    Which generation of selection and settings the run was started for, and which run it takes over from, if any; the
    supervisor fills it in.
    """

    generation: str = ""
    succeeds: str = ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dg.op(
    description="Sockets → Redis Streams → ClickHouse → touched candles → acknowledge, until told to stop; order books and "
    "tickers beside them, and each closed minute held against the exchange's own bar."
)
def run_live_shard(context: dg.OpExecutionContext, config: LiveConfig, pipeline: PipelineResource) -> None:
    """Collect live data of the selected symbols. Ends well when it is asked to stop, and fails on what it cannot repair."""
    stages = Stages(context.run.run_id, on_stage=lambda stage: context.log.info(f"stage {stage}"))

    async def run() -> LiveReport:
        async with AsyncExitStack() as opened:
            async with stages.during(Stage.STORES, where="Redis and ClickHouse") as progress:
                control, redis_answers = await opened.enter_async_context(pipeline.live_control(SHARD))
                await until_it_answers(redis_answers, progress)
                await stages.tell_through(control)
                await until_it_answers(
                    lambda: asyncio.to_thread(pipeline.warehouse_answers, within=OPENED_WITHIN), progress
                )
                warehouse = await asyncio.to_thread(
                    opened.enter_context, pipeline.warehouse(answer_within=ANSWER_WITHIN)
                )
                history = await opened.enter_async_context(pipeline.history(warehouse))
                stores = pipeline.live_stores(warehouse, history, SHARD)
            async with stages.during(Stage.SCHEMA, where=str(warehouse.address)):
                await asyncio.to_thread(require_schema, warehouse)
            async with stages.during(Stage.UNIVERSE, where=str(warehouse.address)):
                members = await asyncio.to_thread(warehouse.current_universe)
                symbols = tuple(member.symbol for member in members)
                require_universe(symbols)
            settings = pipeline.operational()
            generation = config.generation or pipeline.live_generation(symbols, settings)
            context.log.info(f"live run of generation {generation}: {len(symbols)} symbols")
            async with stages.during(Stage.COMPANIONS, where=str(warehouse.address)):
                prober = time_prober(history.client)
                failover = await opened.enter_async_context(failover_of(pipeline, history, stores, SHARD, ours=prober))
                sockets_within = await failover.sockets_within()
                steps = await asyncio.to_thread(size_steps, warehouse, symbols)
                looked_at = await asyncio.to_thread(opened.enter_context, pipeline.warehouse(answer_within=LOOK_WITHIN))
            plan = LivePlan(
                symbols=symbols,
                source=pipeline.source,
                run_id=context.run.run_id,
                generation=generation,
                fixed=settings.fixed_for_a_live_run,
                socket=pipeline.socket_address(),
                shard_rules=pipeline.shard_rules(settings),
                flush_rules=pipeline.flush_rules(),
                repair_share=settings.request_share / 2,
                sockets_within=sockets_within,
                succeeds=config.succeeds,
            )
            attention = pipeline.attention(looked_at, history, prober, SHARD)
            hands = Hands()
            attention.listeners.append(
                pipeline.remediation(hands, warehouse, history, run_id=context.run.run_id, clock=_now_ms, shard=SHARD)
            )
            reconciler = Reconciler(stores, history.client.exchange, steps=steps)
            return await run_live(
                plan,
                stores,
                history.client.exchange,
                clock=_now_ms,
                stop=asyncio.Event(),
                stages=stages,
                companions=(
                    *pipeline.companions(symbols, warehouse, history, clock=_now_ms),
                    reconciler,
                    attention,
                    MendedSilences(warehouse, history.versions),
                    failover,
                ),
                hands=hands,
            )

    report = asyncio.run(obeyed(run()))
    context.log.info(
        f"ended after {report.seconds:.0f} s, {report.because}: {report.appended:,} trades received, {report.stored:,} stored, "
        f"{report.repaired:,} of them repaired, {report.reconnects} reconnects; the start took "
        + ", ".join(f"{seconds:.1f} s for {stage}" for stage, seconds in stages.took.items())
    )
