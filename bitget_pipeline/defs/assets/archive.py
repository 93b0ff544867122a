"""
Deep history: one-minute candles of a market from before its day-by-symbol grid, partitioned by UTC month and symbol.

The same walk as history.py, over all days of a month; the rows land in the same table.
"""

from collections.abc import Sequence
from datetime import date

import dagster as dg

from ...market.instrument import Market
from ...market.interval import days_of_month
from ..metadata import KINDS, OWNERS, described
from ..partitions import archive_grid, archive_slice_of
from ..resources import PipelineResource
from .history import GROUP, CandlesConfig, backfilled, of_run
from .outcome import told
from .reference import universe

MONTHS_PER_RUN = 6
"""Some 1,500 requests: a minute and a half of the budget of one endpoint."""


def archive_assets(markets: Sequence[Market], *, grid_starts: date) -> list[dg.AssetsDefinition]:
    """The `candles_1m_archive` asset of each market."""
    return [_candles_1m_archive(market, grid_starts) for market in markets]


def _candles_1m_archive(market: Market, grid_starts: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([market.value, "candles_1m_archive"]),
        group_name=GROUP,
        owners=OWNERS,
        kinds={*KINDS, market.value},
        deps=[universe],
        partitions_def=archive_grid(market, ends=grid_starts),
        backfill_policy=dg.BackfillPolicy.multi_run(MONTHS_PER_RUN),
        metadata=described("candles"),
        description=(
            f"One-minute candles of the {market} market from before {grid_starts}, where `candles_1m` begins: one partition for "
            "each UTC month and symbol, in the same table. Days before a listing are empty: one look at the daily bars."
        ),
    )
    def candles_1m_archive(
        context: dg.AssetExecutionContext, config: CandlesConfig, pipeline: PipelineResource
    ) -> dg.MaterializeResult:
        months = archive_slice_of(context, market)
        keys = [(symbol, day) for symbol, month in months for day in days_of_month(month)]
        report = backfilled(context, pipeline, keys, refresh=config.refresh)
        partitions = {
            key: [report.keys[symbol, day] for day in days_of_month(month)] for (symbol, month), key in months.items()
        }
        return told(context, partitions, of_run(report))

    return candles_1m_archive
