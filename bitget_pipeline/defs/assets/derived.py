"""
Longer candles of a market, made from the stored minutes: the same grids as `candles_1m` and its archive, one step behind.

What a run does is pipeline/history/derive.py. The derivation launcher (sensors.py) starts one for what the
ledger calls underived.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import date

import dagster as dg

from ...market.instrument import Market
from ...market.interval import days_of_month
from ...pipeline.history.comparison import Comparison, compare_derived
from ...pipeline.history.derive import DerivedDay, Key, derive_candles
from ..freshness import EVERY_DAY
from ..metadata import KINDS, OWNERS, add_to_each, as_table, described
from ..partitions import archive_grid, archive_slice_of, grid, key_of, slice_of
from ..priority import give_way
from ..resources import PipelineResource
from .history import GROUP, KEYS_PER_RUN

DERIVED_MONTHS_PER_RUN = 12
"""Some 365 symbol-days: seconds of ClickHouse, and two requests a day for the samples."""


class DerivedConfig(dg.Config):
    """How much of what was made is held against the exchange's own bars."""

    samples_per_day: int = 2
    """Samples of each UTC day: one request each, up to 24 neighbouring bars of one symbol and resolution."""
    seed: int = 0
    """Together with the day it decides which bars are sampled."""


def derived_assets(markets: Sequence[Market], *, grid_starts: date) -> list[dg.AssetsDefinition]:
    """The `candles_derived` asset of each market, and its twin for the months of the archive."""
    days = [_candles_derived(market, grid_starts) for market in markets]
    return days + [_candles_derived_archive(market, grid_starts) for market in markets]


def _candles_derived(market: Market, grid_starts: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([market.value, "candles_derived"]),
        group_name=GROUP,
        owners=OWNERS,
        kinds={*KINDS, market.value},
        freshness_policy=EVERY_DAY,
        deps=[dg.AssetKey([market.value, "candles_1m"])],
        partitions_def=grid(market, starts=grid_starts),
        backfill_policy=dg.BackfillPolicy.multi_run(KEYS_PER_RUN),
        metadata=described("candles"),
        description=(
            f"Candles of 5m, 15m, 1h, 4h and 1d (UTC) of the {market} market, made in ClickHouse from `candles_1m`. A bar is "
            "made only when each of its minutes is stored or proven empty, and withdrawn when one of them is. A few bars of "
            "each day are held against the exchange's own; a difference is an incident that shows both, closed when it is gone."
        ),
    )
    def candles_derived(
        context: dg.AssetExecutionContext, config: DerivedConfig, pipeline: PipelineResource
    ) -> dg.MaterializeResult:
        made, sampled = _derive(context, config, pipeline, slice_of(context, market))
        add_to_each(context, {key_of(one.symbol, one.day): _of_keys([one], sampled) for one in made})
        return dg.MaterializeResult(metadata=_of_run(made, sampled))

    return candles_derived


def _candles_derived_archive(market: Market, grid_starts: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([market.value, "candles_derived_archive"]),
        group_name=GROUP,
        owners=OWNERS,
        kinds={*KINDS, market.value},
        deps=[dg.AssetKey([market.value, "candles_1m_archive"])],
        partitions_def=archive_grid(market, ends=grid_starts),
        backfill_policy=dg.BackfillPolicy.multi_run(DERIVED_MONTHS_PER_RUN),
        metadata=described("candles"),
        description=(
            f"Candles of 5m, 15m, 1h, 4h and 1d (UTC) of the {market} market from before {grid_starts}, made from "
            "`candles_1m_archive`: one partition for each UTC month and symbol. The rules are those of `candles_derived`."
        ),
    )
    def candles_derived_archive(
        context: dg.AssetExecutionContext, config: DerivedConfig, pipeline: PipelineResource
    ) -> dg.MaterializeResult:
        months = archive_slice_of(context, market)
        keys = [(symbol, day) for symbol, month in months for day in days_of_month(month)]
        made, sampled = _derive(context, config, pipeline, keys)
        by_key = {(one.symbol, one.day): one for one in made}
        partitions = {
            key: [by_key[symbol, day] for day in days_of_month(month)] for (symbol, month), key in months.items()
        }
        add_to_each(context, {key: _of_keys(days, sampled) for key, days in partitions.items()})
        return dg.MaterializeResult(metadata=_of_run(made, sampled))

    return candles_derived_archive


def _derive(
    context: dg.AssetExecutionContext, config: DerivedConfig, pipeline: PipelineResource, keys: Sequence[Key]
) -> tuple[list[DerivedDay], Comparison]:
    """Make the bars of these symbol-days, and hold samples of them against the exchange's."""
    give_way()
    source, run_id = pipeline.source, context.run.run_id

    async def run() -> tuple[list[DerivedDay], Comparison]:
        async with pipeline.history(warehouse) as history:
            made = await derive_candles(warehouse, history.versions, keys, source=source, run_id=run_id)
            sampled = await compare_derived(
                history.client,
                history.client.exchange,
                warehouse,
                history.versions,
                [(one.symbol, one.day) for one in made if one.rows],
                now_ms=lambda: time.time_ns() // 1_000_000,
                samples_per_day=config.samples_per_day,
                seed=config.seed,
                source=source,
                run_id=run_id,
            )
        return made, sampled

    with pipeline.warehouse() as warehouse:
        made, sampled = asyncio.run(run())
    for line in sampled.failed:
        context.log.warning(f"not compared: {line}")
    return made, sampled


def _of_keys(days: Sequence[DerivedDay], sampled: Comparison) -> dict[str, dg.MetadataValue]:
    """The metadata of one partition: a symbol-day, or all days of a symbol's month. `holes` are bars that lack."""
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(sum(one.rows for one in days)),
        "state": dg.MetadataValue.text(", ".join(sorted({one.state.value for one in days}))),
        "expected": dg.MetadataValue.int(sum(one.expected for one in days)),
        "minutes": dg.MetadataValue.int(sum(one.minutes for one in days)),
        "holes": dg.MetadataValue.int(sum(one.expected - one.rows for one in days)),
        "requests": dg.MetadataValue.int(sum(sampled.asked[one.symbol, one.day] for one in days)),
        "seconds": dg.MetadataValue.float(round(sum(one.seconds for one in days), 3)),
    }


def _of_run(made: Sequence[DerivedDay], sampled: Comparison) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "candles stored": dg.MetadataValue.int(sum(one.rows for one in made)),
        "symbol-days": dg.MetadataValue.int(len(made)),
        "symbol-days that lack bars": dg.MetadataValue.int(sum(one.rows < one.expected for one in made)),
        "bars compared with the exchange's": dg.MetadataValue.int(sampled.bars),
        "differences": dg.MetadataValue.int(len(sampled.differences)),
        "incidents closed": dg.MetadataValue.int(len(sampled.settled)),
        "samples that could not be had": dg.MetadataValue.int(len(sampled.failed)),
    }
    if sampled.differences:
        metadata["differing bars"] = as_table(
            (
                {"symbol": d.symbol.name, "resolution": d.resolution, "of": who}
                | {
                    name: str(value) for name, value in bar._asdict().items()
                }  # every digit: they may differ in the last
                for d in sampled.differences
                for who, bar in (("ours", d.ours), ("the exchange", d.theirs))
            ),
            columns=("symbol", "resolution", "of", *sampled.differences[0].ours._fields),
        )
    return metadata
