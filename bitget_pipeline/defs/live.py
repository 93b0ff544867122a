"""
The live run: one op that lasts until it is stopped or replaced.

It opens the stores and hands over to pipeline/live.py. It writes nothing into Dagster's event log while it runs (each
line there is kept for ever); the health sensor reports for it.
"""

import asyncio
import time

import dagster as dg

from ..pipeline.live import LivePlan, LiveReport, run_live
from .resources import PipelineResource

SHARD = "0"


class LiveConfig(dg.Config):
    """Which generation of selection and settings the run was started for; the supervisor fills it in."""

    generation: str = ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dg.op(
    description="Sockets → Redis Streams → ClickHouse → touched one-minute candles → acknowledge, until told to stop; "
    "order books and tickers beside them."
)
def run_live_shard(context: dg.OpExecutionContext, config: LiveConfig, pipeline: PipelineResource) -> None:
    """Collect live data of the selected symbols. Ends well when it is asked to stop, and fails on what it cannot repair."""
    with pipeline.warehouse() as warehouse:
        symbols = tuple(member.symbol for member in warehouse.current_universe())
        if not symbols:
            raise dg.Failure("Nothing is selected: materialize `universe` first (the discovery job does).")
        generation = config.generation or pipeline.live_generation(symbols)
        context.log.info(f"live run of generation {generation}: {len(symbols)} symbols")

        async def run() -> LiveReport:
            async with pipeline.history(warehouse) as history:
                plan = LivePlan(
                    symbols=symbols,
                    source=pipeline.source,
                    run_id=context.run.run_id,
                    generation=generation,
                    socket=pipeline.socket_address(),
                    shard_rules=pipeline.shard_rules(),
                    flush_rules=pipeline.flush_rules(),
                )
                return await run_live(
                    plan,
                    pipeline.live_stores(warehouse, history, SHARD),
                    history.client.exchange,
                    clock=_now_ms,
                    stop=asyncio.Event(),
                    companions=pipeline.companions(symbols, warehouse, history, clock=_now_ms),
                )

        report = asyncio.run(run())
    context.log.info(
        f"ended after {report.seconds:.0f} s, {report.because}: {report.appended:,} trades received, {report.stored:,} stored, "
        f"{report.repaired:,} of them repaired, {report.reconnects} reconnects"
    )
