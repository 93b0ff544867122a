"""
Health: the coverage ledger, recounted against the tables and shown as a picture.

The ledger itself is written by the history runs. The asset corrects what reads complete but is not (recount.py in
pipeline/history), has samples of complete days fetched again (verify.py), open differences looked at once more
(comparison.py) and what is open of delisted symbols settled (departed.py).
"""

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ...market.coverage_days import DayCoverage, by_day
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...market.target import begins_on
from ...pipeline.history.comparison import Comparison, look_at_differences
from ...pipeline.history.departed import Departed, settle_departed
from ...pipeline.history.recount import Recount, recount
from ...pipeline.history.verify import Verification, verify_samples
from ...settings.operational import Operational
from ...storage.warehouse import Warehouse
from ..freshness import EVERY_DAY
from ..heat_map import LEGEND, heat_map
from ..history_launcher import STREAM, days_back
from ..metadata import KINDS, OWNERS, as_table, described
from ..partitions import EARLIEST_MONTH
from ..resources import PipelineResource
from .reference import universe

Found = Mapping[tuple[Symbol, date], DayCoverage]

WORST = 20
COMPARED = 50  # requests about longer bars of open incidents, and symbol-days of delisted symbols


class CoverageConfig(dg.Config):
    """How much of what is complete is held against the exchange once more."""

    sampled_days: int = 3
    """Complete days of each market that are fetched again, eight requests each; none with 0."""
    seed: str = ""
    """Together with the UTC day it decides which days."""


@dg.asset(
    group_name="health",
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=EVERY_DAY,
    deps=[universe],
    metadata=described("coverage_evidence"),
    description=(
        "What is there of every selected symbol and day, what is proven empty, what is missing, why, and when it is tried "
        "again: the view `coverage`. Each materialization counts the table again, corrects what reads complete but is not, and "
        "has a few complete days of each market fetched again: what the exchange changed since becomes an incident."
    ),
)
def coverage(
    context: dg.AssetExecutionContext, config: CoverageConfig, pipeline: PipelineResource
) -> dg.MaterializeResult:
    """Recount, sample, then draw."""
    settings = pipeline.operational()
    now = datetime.now(UTC)
    days = sorted(days_back(settings.history_days, now=now, not_before=settings.grid_start))

    async def run() -> tuple[Recount, Verification, Comparison, Departed]:
        place = {"source": pipeline.source, "run_id": context.run.run_id}
        async with pipeline.history(warehouse) as history:
            client, versions = history.client, history.versions
            counted = await recount(warehouse, versions, now_ms=_now_ms, **place)
            verified = await verify_samples(
                client,
                client.exchange,
                warehouse,
                versions,
                markets=settings.markets,
                now_ms=_now_ms,
                days_per_market=config.sampled_days,
                seed=config.seed,
                **place,
            )
            compared = await look_at_differences(
                client, client.exchange, warehouse, versions, now_ms=_now_ms, most=COMPARED, **place
            )
            departed = await settle_departed(
                client,
                client.exchange,
                warehouse,
                versions,
                markets=settings.markets,
                now_ms=_now_ms,
                most=COMPARED,
                **place,
            )
            return counted, verified, compared, departed

    with pipeline.warehouse() as warehouse:
        counted, verified, compared, departed = asyncio.run(run())
        for line in (*verified.failed, *compared.failed):
            context.log.warning(f"not compared: {line}")
        symbols = [member.symbol for member in warehouse.current_universe()]
        found = _ledger(warehouse, symbols, days, now)
        earlier = _further_back(warehouse, symbols, settings, before=days[0] if days else now.date(), now=now)
    return dg.MaterializeResult(
        metadata=_in_colours(found, symbols, days)
        | _of_targets(earlier)
        | _in_figures(found, counted)
        | _of_samples(verified, compared, departed)
    )


def _ledger(warehouse: Warehouse, symbols: Sequence[Symbol], days: Sequence[date], now: datetime) -> Found:
    if not symbols or not days:
        return {}
    span = Interval(Interval.of_day(days[0]).start_ms, Interval.of_day(days[-1]).end_ms)
    evidence = warehouse.coverage(STREAM, interval=span)
    return by_day(evidence, symbols=symbols, days=days, now_ms=round(now.timestamp() * 1000))


def _further_back(
    warehouse: Warehouse, symbols: Sequence[Symbol], settings: Operational, *, before: date, now: datetime
) -> Found:
    """What the ledger says of the days before these, of the symbols whose targets reach so far: years of a few."""
    since = {
        symbol: max(
            EARLIEST_MONTH,
            begins_on(symbol, settings.history_targets, days=settings.history_days, today=now.date()),
        )
        for symbol in symbols
    }
    deep = [symbol for symbol in symbols if since[symbol] < before]
    first = min((since[symbol] for symbol in deep), default=before)
    days = [first + timedelta(days=n) for n in range((before - first).days)]
    found = _ledger(warehouse, deep, days, now)
    return {(symbol, day): one for (symbol, day), one in found.items() if day >= since[symbol]}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _of_samples(verified: Verification, compared: Comparison, departed: Departed) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "complete days fetched again": dg.MetadataValue.int(verified.days),
        "bars fetched again": dg.MetadataValue.int(verified.bars),
        "bars that the exchange had changed": dg.MetadataValue.int(sum(len(one.bars) for one in verified.changed)),
        "requests of the samples": dg.MetadataValue.int(verified.requests + compared.requests),
        "days of delisted symbols asked for": dg.MetadataValue.int(departed.asked),
        "days of delisted symbols settled": dg.MetadataValue.int(departed.settled),
        "differences of longer bars, open": dg.MetadataValue.int(len(compared.differences)),
        "differences of longer bars, gone": dg.MetadataValue.int(len(compared.settled)),
    }
    if verified.changed:
        metadata["changed bars"] = as_table(
            (
                {"symbol": one.symbol, "of": who} | {name: str(value) for name, value in bar._asdict().items()}
                for one in verified.changed
                for pair in one.bars[:WORST]
                for who, bar in zip(("stored before", "the exchange"), pair, strict=True)
            ),
            columns=("symbol", "of", *verified.changed[0].bars[0][0]._fields),
        )
    return metadata


def _in_figures(found: Found, counted: Recount) -> dict[str, dg.MetadataValue]:
    settled = sum(not one.open for one in found.values())
    stored = sum(one.stored for one in found.values())
    missing = sum(one.open for one in found.values())
    return {
        "symbol-days": dg.MetadataValue.int(len(found)),
        "symbol-days settled": dg.MetadataValue.int(settled),
        "minutes stored": dg.MetadataValue.int(stored),
        "minutes not known": dg.MetadataValue.int(missing),
        "minutes proven empty or unavailable": dg.MetadataValue.int(
            sum(sum(one.without.values()) - (one.open - one.unseen) for one in found.values())
        ),
        "statements recounted": dg.MetadataValue.int(counted.statements),
        "statements that claimed too much": dg.MetadataValue.int(len(counted.wrong)),
        "rows lost": dg.MetadataValue.int(counted.lost),
    }


def _in_colours(found: Found, symbols: Sequence[Symbol], days: Sequence[date]) -> dict[str, dg.MetadataValue]:
    if not symbols or not days:
        return {}
    worst = sorted((one for one in found.values() if one.open), key=lambda one: -one.open)
    shown = {"picture": _picture(found, symbols, days)}
    if worst:
        shown["most missing"] = as_table(
            (
                {
                    "symbol": one.symbol,
                    "day": one.day,
                    "missing": one.open,
                    "why": _why(one),
                    "next try": one.next_retry,
                }
                for one in worst[:WORST]
            ),
            columns=("symbol", "day", "missing", "why", "next try"),
        )
    return shown


def _of_targets(found: Found) -> dict[str, dg.MetadataValue]:
    """The days before those of everybody, where a target wants them."""
    if not found:
        return {}
    symbols = list(dict.fromkeys(symbol for symbol, _ in found))
    days = sorted({day for _, day in found})
    return {
        "picture of the targets": _picture(found, symbols, days),
        "symbol-days of the targets": dg.MetadataValue.int(len(found)),
        "symbol-days of the targets settled": dg.MetadataValue.int(sum(not one.open for one in found.values())),
    }


def _picture(found: Found, symbols: Sequence[Symbol], days: Sequence[date]) -> dg.MetadataValue:
    drawn = base64.b64encode(heat_map(found, symbols=symbols, days=days)).decode()
    return dg.MetadataValue.md(
        f"Symbols from {symbols[0]} (top) to {symbols[-1]}, days from {days[0]} (left) to {days[-1]}: {LEGEND}.\n\n"
        f"![coverage of the selected symbols by day](data:image/png;base64,{drawn})"
    )


def _why(one: DayCoverage) -> str:
    return one.holes[0][2] if one.holes else "not asked for yet"
