"""
The scorecard: every promise in figures, a partition a day.

A day can be computed as often as one likes, also long after it: the table keeps the newest. What the figures are made of is in
pipeline/watch/scorecard.py.
"""

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ...market.scorecard import METRICS, Figure, metric_of, ordered
from ...pipeline.watch.scorecard import assess
from ..freshness import EVERY_DAY
from ..metadata import KINDS, OWNERS, as_table, described
from ..resources import PipelineResource
from ..scorecard_picture import DAYS, SHOWN, picture

PLOTTED = tuple(metric.name for metric in METRICS)
IN_PER_CENT = "share"


def scorecard_asset(*, grid_starts: date) -> dg.AssetsDefinition:
    """The asset, with a partition for each day since the grid starts."""

    @dg.asset(
        group_name="health",
        owners=OWNERS,
        kinds=KINDS,
        freshness_policy=EVERY_DAY,
        deps=["coverage", "trades", "candles_live"],
        partitions_def=dg.DailyPartitionsDefinition(start_date=grid_starts.isoformat(), timezone="UTC"),
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
        metadata=described("scorecard"),
        description=(
            "A day in figures: how much of it is proven, what was missing and how long, how well live minutes agree with the "
            "exchange's, latency, duplicates, use of the request budget, incidents; with a picture of the last thirty days. "
            "Computed every night for the day before, and for any past day on demand. Read `scorecard_by_day`."
        ),
    )
    def scorecard(context: dg.AssetExecutionContext, pipeline: PipelineResource) -> dg.MaterializeResult:
        """Assess, store, draw."""
        day = date.fromisoformat(context.partition_key)
        if day >= datetime.now(UTC).date():
            raise dg.Failure(
                f"{day} is not over; `bitget-pipeline scorecard --day {day}` shows how it stands", allow_retries=False
            )
        with pipeline.warehouse() as warehouse:
            figures = assess(warehouse, day, source=pipeline.source, now_ms=time.time_ns() // 1_000_000)

            async def version() -> int:
                async with pipeline.history(warehouse) as history:
                    return await history.versions.next()

            warehouse.store_scorecard(day, figures, version=asyncio.run(version()), run_id=context.run.run_id)
            lately = warehouse.scorecard(day - timedelta(days=DAYS - 1), day, metrics=SHOWN)
        return dg.MaterializeResult(metadata=_in_a_picture(lately, day) | _in_full(figures) | _in_figures(figures))

    return scorecard


def _in_figures(figures: Sequence[Figure]) -> dict[str, dg.MetadataValue]:
    """Those of all markets that are known, as numbers that plot."""
    known = {one.metric: one.value for one in figures if one.market is None and one.value is not None}
    kept = [one for one in figures if one.market is None and metric_of(one.metric).target is not None]
    verdicts = [metric_of(one.metric).met(one.value) for one in kept]
    told: dict[str, dg.MetadataValue] = {
        "promises kept": dg.MetadataValue.int(sum(verdict is True for verdict in verdicts)),
        "promises broken": dg.MetadataValue.int(sum(verdict is False for verdict in verdicts)),
        "promises not known": dg.MetadataValue.int(sum(verdict is None for verdict in verdicts)),
    }
    for name in PLOTTED:
        if name in known:
            per_cent = metric_of(name).unit == IN_PER_CENT
            label = name.replace("_", " ") + (", %" if per_cent else "")
            told[label] = dg.MetadataValue.float(round(known[name] * (100 if per_cent else 1), 6))
    return told


def _in_a_picture(lately: Mapping[date, Sequence[Figure]], day: date) -> dict[str, dg.MetadataValue]:
    drawn = base64.b64encode(picture(lately, last=day)).decode()
    text = f"The {DAYS} days up to {day}; a day that was not computed is empty.\n\n"
    return {
        "last thirty days": dg.MetadataValue.md(f"{text}![the scorecard of thirty days](data:image/png;base64,{drawn})")
    }


def _in_full(figures: Sequence[Figure]) -> dict[str, dg.MetadataValue]:
    """Every figure of every market in one table, and why some are not known."""
    markets = list(dict.fromkeys(one.market for one in figures))
    found = {(one.metric, one.market): one for one in figures}
    columns = ("figure", *(str(market or "all") for market in markets), "promised", "")
    rows = []
    for name in ordered(figures):
        metric = metric_of(name)
        row = {"figure": metric.label}
        for market in markets:
            one = found.get((name, market))
            row[str(market or "all")] = "" if one is None else _cell(one)
        whole = found.get((name, None))
        row["promised"] = metric.promise
        row[""] = (whole.reason if whole is not None else "") or metric.about
        rows.append(row)
    return {"every figure": as_table(rows, columns=columns)}


def _cell(figure: Figure) -> str:
    metric = metric_of(figure.metric)
    return metric.shown(figure.value) + (" ✗" if metric.met(figure.value) is False else "")
