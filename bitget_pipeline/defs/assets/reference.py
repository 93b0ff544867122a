"""
Reference data: the schema, every instrument, the last 24 hours of each, and which of them are collected.

Run every hour by the `discovery` job, in this order.
"""

import asyncio
import time

import dagster as dg

from ...market.instrument import Market
from ...market.universe import SelectionRules
from ...pipeline.universe.discover import DiscoveryReport, TickerReport, discover, refresh_tickers
from ...pipeline.universe.select import choose_universe
from ...storage.migrations import drift, migrate
from ...storage.tables import TABLES
from ..freshness import EVERY_HOUR
from ..metadata import KINDS, OWNERS, as_table, described
from ..partitions import admissible, symbol_partitions
from ..resources import PipelineResource

GROUP = "reference"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dg.asset(group_name=GROUP, owners=OWNERS, kinds=KINDS, freshness_policy=EVERY_HOUR)
def tables(context: dg.AssetExecutionContext, pipeline: PipelineResource) -> dg.MaterializeResult:
    """
    The schema in ClickHouse: created, and brought up to date by numbered migrations.

    Materialize it after an update of the software; `up` does so by itself. A second run changes nothing.
    """
    with pipeline.warehouse() as warehouse:
        report = migrate(warehouse)
        differences = drift(warehouse)
    for line in differences:
        context.log.warning(line)
    return dg.MaterializeResult(
        metadata={
            "schema version": report.version,
            "migrations applied": len(report.applied),
            "differences from the code": len(differences),
            "tables": as_table(
                ({"table": table.name, "columns": len(table.columns), "holds": table.about} for table in TABLES),
                columns=("table", "columns", "holds"),
            ),
        }
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=EVERY_HOUR,
    deps=[tables],
    metadata=described("instruments"),
)
def instruments(context: dg.AssetExecutionContext, pipeline: PipelineResource) -> dg.MaterializeResult:
    """
    Every instrument of every market, collected or not, as it was from when to when; delisted ones are kept.

    One market's failure does not lose the others. A list that lost more than five per cent is not believed, and an
    instrument is retired only after two complete lists an hour apart lacked it.
    """
    markets = list(Market)

    async def run() -> DiscoveryReport:
        async with pipeline.history(warehouse) as history:
            return await discover(
                history.client,
                history.client.exchange,
                warehouse,
                history.versions,
                markets=markets,
                run_id=context.run.run_id,
                now_ms=_now_ms,
            )

    with pipeline.warehouse() as warehouse:
        report = asyncio.run(run())
    for found in report.failed:
        context.log.warning(f"{found.market}: {found.error}")
    if len(report.failed) == len(markets):
        raise dg.Failure(f"No market could be discovered. {report.failed[0].error}")
    per_market = [
        {
            "market": one.market,
            "listed": one.listed,
            "new": one.new,
            "changed": one.changed,
            "missing": len(one.missing),
            "retired": len(one.retired),
            "set aside": len(one.rejected),
            "problem": one.error,
        }
        for one in report.markets.values()
    ]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": report.listed,
            "new": sum(one.new for one in report.markets.values()),
            "changed": sum(one.changed for one in report.markets.values()),
            "markets failed": len(report.failed),
            "markets": as_table(per_market, columns=tuple(per_market[0])),
        }
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=EVERY_HOUR,
    deps=[instruments],
    metadata=described("tickers"),
)
def tickers(context: dg.AssetExecutionContext, pipeline: PipelineResource) -> dg.MaterializeResult:
    """The last 24 hours of every instrument, with its volume in USDT; what the selection ranks by."""
    markets = list(Market)

    async def run() -> TickerReport:
        async with pipeline.history(warehouse) as history:
            return await refresh_tickers(
                history.client,
                history.client.exchange,
                warehouse,
                markets=markets,
                source=pipeline.source,
                run_id=context.run.run_id,
            )

    with pipeline.warehouse() as warehouse:
        report = asyncio.run(run())
        leaders = [ticker for market in markets for ticker in warehouse.tickers(market)[:10]]
    for market, problem in report.failed.items():
        context.log.warning(f"{market}: {problem}")
    if len(report.failed) == len(markets):
        raise dg.Failure(f"No market answered with tickers. {next(iter(report.failed.values()))}")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(report.stored.values()),
            "set aside": len(report.rejected),
            "most traded": as_table(
                (
                    {
                        "market": ticker.symbol.market,
                        "symbol": ticker.symbol.name,
                        "last": ticker.last,
                        "24h volume, USDT": ticker.usdt_volume_24h,
                        "24h change, %": ticker.change_24h * 100,
                    }
                    for ticker in leaders
                ),
                columns=("market", "symbol", "last", "24h volume, USDT", "24h change, %"),
            ),
        }
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=EVERY_HOUR,
    deps=[instruments, tickers],
    metadata=described("universe"),
)
def universe(context: dg.AssetExecutionContext, pipeline: PipelineResource) -> dg.MaterializeResult:
    """
    Which symbols are collected: per market the most traded ones, and all that are pinned.

    Their names become partitions of the history assets, and the live run follows within seconds. A symbol that leaves
    the selection keeps its data and its partitions.
    """
    settings = pipeline.operational()
    rules = SelectionRules(
        markets=settings.markets,
        min_volume_24h=settings.min_volume_24h,
        top_n=settings.symbols_per_market,
        hysteresis=settings.hysteresis,
    )
    with pipeline.warehouse() as warehouse:
        report = choose_universe(warehouse, rules, pinned=settings.pinned, run_id=context.run.run_id, now_ms=_now_ms)
    for pin, reason in report.refused_pins.items():
        context.log.warning(f"the pin {pin} is not followed: {reason}")
    for market in settings.markets:
        _add_partitions(context, market, [one.symbol.name for one in report.chosen if one.symbol.market is market])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(report.chosen),
            **{market.value: sum(one.symbol.market is market for one in report.chosen) for market in settings.markets},
            "joined": len(report.joined),
            "left": len(report.left),
            "selection": as_table(
                (
                    {
                        "market": one.symbol.market,
                        "rank": one.rank,
                        "symbol": one.symbol.name,
                        "24h volume, USDT": one.volume,
                        "because": one.reason,
                    }
                    for one in report.chosen
                ),
                columns=("market", "rank", "symbol", "24h volume, USDT", "because"),
            ),
        }
    )


def _add_partitions(context: dg.AssetExecutionContext, market: Market, names: list[str]) -> None:
    good, bad = admissible(names)
    for name in bad:
        context.log.warning(f"{market}:{name} cannot be a partition: Dagster splits keys at one of its characters")
    dimension = symbol_partitions(market).name
    assert dimension is not None
    known = set(context.instance.get_dynamic_partitions(dimension))
    # Only new ones, in the order of the selection: the order of insertion is what ranges are resolved by.
    new = [one for one in good if one not in known]
    if new:
        context.instance.add_dynamic_partitions(dimension, new)
