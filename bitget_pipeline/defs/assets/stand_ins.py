"""
Who stands in for whom while our exchange is dark, decided every hour while both live. Part of the `discovery` job.
"""

import asyncio
import time

import dagster as dg

from ...market.instrument import Market
from ...market.stand_in import Verdict
from ...pipeline.universe.venue_map import VenueMapReport, decide_venue_map
from ..failover import substituted
from ..freshness import EVERY_HOUR
from ..live import SHARD
from ..metadata import KINDS, OWNERS, as_table, described
from ..resources import PipelineResource
from .reference import instruments, universe

GROUP = "reference"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=EVERY_HOUR,
    deps=[instruments, universe],
    metadata=described("venue_map"),
)
def venue_map(context: dg.AssetExecutionContext, pipeline: PipelineResource) -> dg.MaterializeResult:
    """
    Which instrument of Binance stands in for each of ours while Bitget is dark, in what unit, or why none does.

    Matched by base, quote and kind, and only where the last prices agree within two per cent. A venue that does not answer
    changes nothing: what was decided before holds.
    """

    async def run() -> VenueMapReport | None:
        async with pipeline.substitutes() as substitutes:
            if not substitutes:
                return None
            async with pipeline.history(warehouse) as history:
                return await decide_venue_map(
                    history.client,
                    substitutes,
                    warehouse,
                    run_id=context.run.run_id,
                    now_ms=_now_ms,
                    frozen=await asyncio.to_thread(substituted, SHARD),
                )

    with pipeline.warehouse() as warehouse:
        report = asyncio.run(run())
        selected = {member.symbol for member in warehouse.current_universe()}
    if report is None:
        return dg.MaterializeResult(
            metadata={"decided": "nothing: nobody who could stand in is asked (see the settings)"}
        )
    for market, problem in report.frozen.items():
        context.log.warning(f"{market}: nothing was decided anew. {problem}")
    ours = [one for one in report.decided if one.symbol in selected]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(report.decided),
            "changed": report.changed,
            "markets frozen": len(report.frozen),
            **{str(verdict): report.count(verdict) for verdict in Verdict},
            "selected symbols with a stand-in": sum(one.stands_in for one in ours),
            "selected symbols without": as_table(
                (
                    {
                        "symbol": str(one.symbol),
                        "why": one.verdict.value.replace("_", " "),
                        "candidate": one.name,
                        "prices apart": "" if one.apart is None else f"{one.apart:.1%}",
                    }
                    for one in ours
                    if not one.stands_in and one.symbol.market in (Market.SPOT, Market.USDTM)
                ),
                columns=("symbol", "why", "candidate", "prices apart"),
            ),
        }
    )
