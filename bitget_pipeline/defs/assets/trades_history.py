"""
Trades of past days of a market, on demand: up to 90 days back, one partition for each symbol and day.

What a run does is pipeline/history/trades_history.py. Nothing launches the first run of a day: one of a busy symbol is
thousands of requests. What such a day still lacks is tried again (retries.py).
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import date

import dagster as dg

from ...market.instrument import Market
from ...pipeline.history.trades_history import TradesReport, backfill_trades
from ..metadata import KINDS, OWNERS, described
from ..partitions import grid, key_of, slice_of
from ..priority import give_way
from ..resources import PipelineResource
from .history import GROUP
from .outcome import told
from .reference import universe

KEYS_PER_RUN = 30


class TradesConfig(dg.Config):
    """How a run treats what is there already."""

    refresh: bool = False
    """Fetch the trades of complete days again."""


def trades_history_assets(markets: Sequence[Market], *, grid_starts: date) -> list[dg.AssetsDefinition]:
    """The `trades_history` asset of each market."""
    return [_trades_history(market, grid_starts) for market in markets]


def _trades_history(market: Market, grid_starts: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([market.value, "trades_history"]),
        group_name=GROUP,
        owners=OWNERS,
        kinds={*KINDS, market.value},
        deps=[universe],
        partitions_def=grid(market, starts=grid_starts),
        backfill_policy=dg.BackfillPolicy.multi_run(KEYS_PER_RUN),
        metadata=described("trades"),
        description=(
            f"Every single trade of past days of the {market} market, up to 90 days back, into the same table as the live ones; "
            "live candles of their minutes are made again. On demand only: 1,000 trades a request, so choose few symbols and "
            "days. Milliseconds come back from the trade ids. Minutes whose trades do not add up to the exchange's own bar are "
            "`unexplained` in `coverage`."
        ),
    )
    def trades_history(
        context: dg.AssetExecutionContext, config: TradesConfig, pipeline: PipelineResource
    ) -> dg.MaterializeResult:
        keys = slice_of(context, market)
        give_way()
        settings = pipeline.operational()

        async def run() -> TradesReport:
            async with pipeline.history(warehouse) as history:
                return await backfill_trades(
                    history.client,
                    history.client.exchange,
                    warehouse,
                    history.versions,
                    keys,
                    source=pipeline.source,
                    run_id=context.run.run_id,
                    now_ms=lambda: time.time_ns() // 1_000_000,
                    refresh=config.refresh,
                    resolutions=settings.live_resolutions,
                )

        with pipeline.warehouse() as warehouse:
            report = asyncio.run(run())
        days = report.keys
        return told(
            context,
            {key_of(symbol, day): [done] for (symbol, day), done in days.items()},
            {
                "trades stored": sum(done.trades for done in days.values()),
                "symbol-days": len(days),
                "symbol-days with holes": sum(bool(done.holes) for done in days.values()),
                "minutes that do not add up": sum(done.differing for done in days.values()),
                "requests of the run": sum(done.requests for done in days.values()),
                "seconds of the run": round(report.seconds, 1),
            },
            {
                key_of(symbol, day): {"minutes that do not add up": done.differing}
                for (symbol, day), done in days.items()
            },
        )

    return trades_history
