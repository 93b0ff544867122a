"""
History: one-minute candles of a market, partitioned by UTC day and symbol.

One factory for all markets. A run takes many (symbol, day) keys at once; what it does is pipeline/history/backfill.py.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import date

import dagster as dg

from ...market.instrument import Market
from ...pipeline.history.backfill import BackfillReport, Key, Progress, backfill_candles
from ..freshness import EVERY_DAY
from ..metadata import KINDS, OWNERS, as_table, described
from ..partitions import grid, key_of, slice_of
from ..priority import give_way
from ..resources import PipelineResource
from .outcome import told
from .reference import universe

GROUP = "history"
KEYS_PER_RUN = 500
"""
Symbol-days of one run of a backfill that Dagster splits: less than four minutes of the budget of one endpoint. Every run
costs seconds of CPU before it fetches anything, and Dagster lets none cross from symbol to symbol (ARCHITECTURE.md).
"""
PROGRESS_EVERY = 10.0  # seconds between two lines of progress in the run's log
OBSERVED_EVERY = 60.0  # seconds between two observations of it, which plot on the asset's page


class CandlesConfig(dg.Config):
    """How a run treats what is there already."""

    refresh: bool = False
    """Fetch bars again that are stored already, instead of making no request for a complete day."""


def candles_assets(markets: Sequence[Market], *, grid_starts: date) -> list[dg.AssetsDefinition]:
    """The `candles_1m` asset of each market."""
    return [_candles_1m(market, grid_starts) for market in markets]


def _candles_1m(market: Market, grid_starts: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([market.value, "candles_1m"]),
        group_name=GROUP,
        owners=OWNERS,
        kinds={*KINDS, market.value},  # the graph shows the last part of the key alone
        freshness_policy=EVERY_DAY,
        deps=[universe],
        partitions_def=grid(market, starts=grid_starts),
        backfill_policy=dg.BackfillPolicy.multi_run(KEYS_PER_RUN),
        metadata=described("candles"),
        description=(
            f"One-minute candles of the {market} market as the exchange serves them: closed bars only, one partition for each "
            "UTC day and symbol. A complete day makes no request again unless `refresh` is set. A hole stays a hole and is "
            "listed in `coverage`: an empty answer proves nothing."
        ),
    )
    def candles_1m(
        context: dg.AssetExecutionContext, config: CandlesConfig, pipeline: PipelineResource
    ) -> dg.MaterializeResult:
        report = backfilled(context, pipeline, slice_of(context, market), refresh=config.refresh)
        partitions = {key_of(symbol, day): [done] for (symbol, day), done in report.keys.items()}
        return told(context, partitions, of_run(report))

    return candles_1m


def backfilled(
    context: dg.AssetExecutionContext, pipeline: PipelineResource, keys: Sequence[Key], *, refresh: bool
) -> BackfillReport:
    """Walk over these symbol-days, with lines of progress in the run's log."""
    give_way()
    settings = pipeline.operational()
    talk = Talk(context)

    async def run() -> BackfillReport:
        async with pipeline.history(warehouse) as history:
            return await backfill_candles(
                history.client,
                history.client.exchange,
                warehouse,
                history.versions,
                keys,
                source=pipeline.source,
                run_id=context.run.run_id,
                now_ms=lambda: time.time_ns() // 1_000_000,
                concurrency=settings.backfill_concurrency,
                refresh=refresh,
                shelf=history.shelf,
                on_progress=talk.progress,
            )

    with pipeline.warehouse() as warehouse:
        return asyncio.run(run())


class Talk:
    """
    Progress of a run: a line in its log every ten seconds at most, and an observation of the asset every minute, so that its page
    plots how far it is and when it ends. Each is an event in Dagster's database, so there are no more.
    """

    def __init__(self, context: dg.AssetExecutionContext, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._next = clock() + PROGRESS_EVERY
        self._observe = clock() + OBSERVED_EVERY

    def progress(self, progress: Progress) -> None:
        """So far the run has come."""
        now = self._clock()
        if now >= self._observe and progress.done < progress.total:
            self._observe = now + OBSERVED_EVERY
            # without a run of its own: Dagster keeps what a step logs until the step ends
            self._context.instance.report_runless_asset_event(
                dg.AssetObservation(
                    asset_key=self._context.asset_key, metadata=so_far(progress, self._context.run.run_id)
                )
            )
        if now < self._next and progress.done < progress.total:
            return
        self._next = now + PROGRESS_EVERY
        left = "" if not progress.remaining else f", about {progress.remaining:.0f} s left"
        self._context.log.info(
            f"{progress.done} of {progress.total} symbol-days, {progress.rows:,} candles, {progress.requests} requests{left}"
        )


def so_far(progress: Progress, run_id: str) -> dict[str, dg.MetadataValue]:
    """How far a run is, in figures that plot."""
    told: dict[str, dg.MetadataValue] = {
        "run": dg.MetadataValue.dagster_run(run_id),
        "symbol-days done": dg.MetadataValue.int(progress.done),
        "symbol-days of the run": dg.MetadataValue.int(progress.total),
        "candles so far": dg.MetadataValue.int(progress.rows),
        "requests so far": dg.MetadataValue.int(progress.requests),
    }
    if progress.remaining is not None:
        told["seconds left"] = dg.MetadataValue.float(round(progress.remaining, 1))
    return told


def of_run(report: BackfillReport) -> dict[str, dg.MetadataValue]:
    """The metadata of a run over all its partitions."""
    with_holes = [done for done in report.keys.values() if done.holes]
    metadata: dict[str, dg.MetadataValue] = {
        "candles stored": dg.MetadataValue.int(report.rows),
        "symbol-days": dg.MetadataValue.int(len(report.keys)),
        "symbol-days with holes": dg.MetadataValue.int(len(with_holes)),
        "requests of the run": dg.MetadataValue.int(report.requests),
        "seconds of the run": dg.MetadataValue.float(round(report.seconds, 1)),
    }
    if with_holes:
        metadata["holes found"] = as_table(
            ({"symbol": d.symbol.name, "day": d.day, "stored": d.rows, "expected": d.expected} for d in with_holes),
            columns=("symbol", "day", "stored", "expected"),
        )
    return metadata
