"""
What futures markets have beside candles: funding, open interest, mark and index prices.

Funding is collected every hour and open interest every quarter of an hour, one job for all markets each (jobs.py); mark and
index prices on demand, by symbol and day. The work is done by pipeline/history/funding.py, open_interest.py and price_candles.py.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import date

import dagster as dg

from ...market.derivatives import PriceKind
from ...market.instrument import Market, Symbol
from ...pipeline.history.backfill import BackfillReport
from ...pipeline.history.funding import FundingReport, collect_funding
from ...pipeline.history.open_interest import OpenInterestReport, snapshot_open_interest
from ...pipeline.history.price_candles import backfill_prices
from ...storage.warehouse import Warehouse
from ..freshness import EVERY_HOUR, EVERY_QUARTER
from ..metadata import KINDS, OWNERS, as_table, described
from ..partitions import grid, key_of, slice_of
from ..priority import give_way
from ..resources import PipelineResource
from .history import GROUP, KEYS_PER_RUN, CandlesConfig
from .outcome import told
from .reference import universe

DAY_MS = 86_400_000


def futures(markets: Sequence[Market]) -> list[Market]:
    """Those of the markets that have funding and open interest."""
    return [market for market in markets if market is not Market.SPOT]


def derivative_assets(markets: Sequence[Market], *, grid_starts: date) -> list[dg.AssetsDefinition]:
    """Funding, open interest, mark and index prices of each futures market."""
    found: list[dg.AssetsDefinition] = []
    for market in futures(markets):
        found += [_funding_rates(market), _open_interest(market)]
        found += [_price_candles(market, kind, grid_starts) for kind in PriceKind]
    return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _selected(warehouse: Warehouse, market: Market) -> list[Symbol]:
    return [member.symbol for member in warehouse.current_universe() if member.symbol.market is market]


def _funding_rates(market: Market) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([market.value, "funding_rates"]),
        group_name=GROUP,
        owners=OWNERS,
        kinds={*KINDS, market.value},
        freshness_policy=EVERY_HOUR,
        deps=[universe],
        metadata=described("funding_rates"),
        description=(
            f"What the selected {market} perpetuals settled, as many days back as history reaches (`history_days`). Collected "
            "every hour; where the newest page meets what is stored, one request a symbol. Current rates are in `tickers`."
        ),
    )
    def funding_rates(context: dg.AssetExecutionContext, pipeline: PipelineResource) -> dg.MaterializeResult:
        since = _now_ms() - pipeline.operational().history_days * DAY_MS

        async def run() -> FundingReport:
            perpetual = {one.symbol for one in warehouse.instruments(market) if one.kind != "delivery"}
            async with pipeline.history(warehouse) as history:
                return await collect_funding(
                    history.client,
                    history.client.exchange,
                    warehouse,
                    history.versions,
                    [symbol for symbol in _selected(warehouse, market) if symbol in perpetual],
                    since_ms=since,
                    source=pipeline.source,
                    run_id=context.run.run_id,
                    now_ms=_now_ms,
                )

        with pipeline.warehouse() as warehouse:
            report = asyncio.run(run())
        _warn_or_fail(context, report.failed, succeeded=len(report.new))
        return dg.MaterializeResult(
            metadata={
                "new settlements": report.rows,
                "symbols": len(report.new),
                "symbols failed": len(report.failed),
                "requests of the run": report.requests,
            }
        )

    return funding_rates


def _open_interest(market: Market) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([market.value, "open_interest"]),
        group_name=GROUP,
        owners=OWNERS,
        kinds={*KINDS, market.value},
        freshness_policy=EVERY_QUARTER,
        deps=[universe],
        metadata=described("open_interest"),
        description=(
            f"How many contracts of the selected {market} futures are outstanding, every quarter of an hour, in base units and "
            "in USDT at the last price. The exchange tells the present alone: a snapshot that was missed stays missing."
        ),
    )
    def open_interest(context: dg.AssetExecutionContext, pipeline: PipelineResource) -> dg.MaterializeResult:
        async def run() -> OpenInterestReport:
            async with pipeline.history(warehouse) as history:
                return await snapshot_open_interest(
                    history.client,
                    history.client.exchange,
                    warehouse,
                    history.versions,
                    _selected(warehouse, market),
                    source=pipeline.source,
                    run_id=context.run.run_id,
                    now_ms=_now_ms,
                )

        with pipeline.warehouse() as warehouse:
            report = asyncio.run(run())
        _warn_or_fail(context, report.failed, succeeded=len(report.held))
        worth = sorted(((usdt or 0.0, symbol.name) for symbol, (_, usdt) in report.held.items()), reverse=True)
        return dg.MaterializeResult(
            metadata={
                "symbols": len(report.held),
                "symbols failed": len(report.failed),
                "worth, USDT": float(sum(usdt for usdt, _ in worth)),
                "greatest": as_table(
                    ({"symbol": name, "open interest, USDT": usdt} for usdt, name in worth[:10]),
                    columns=("symbol", "open interest, USDT"),
                ),
            }
        )

    return open_interest


def _price_candles(market: Market, kind: PriceKind, grid_starts: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([market.value, f"{kind.value}_candles"]),
        group_name=GROUP,
        owners=OWNERS,
        kinds={*KINDS, market.value},
        deps=[universe],
        partitions_def=grid(market, starts=grid_starts),
        backfill_policy=dg.BackfillPolicy.multi_run(KEYS_PER_RUN),
        metadata=described("price_candles"),
        description=(
            f"One-minute bars of the {kind.value} price of {market} futures, one partition for each UTC day and symbol, on "
            "demand. Nobody trades at this price: the bars lie in `price_candles`, apart from traded ones, and have no volume."
        ),
    )
    def price_candles(
        context: dg.AssetExecutionContext, config: CandlesConfig, pipeline: PipelineResource
    ) -> dg.MaterializeResult:
        keys = slice_of(context, market)
        give_way()
        settings = pipeline.operational()

        async def run() -> BackfillReport:
            async with pipeline.history(warehouse) as history:
                return await backfill_prices(
                    history.client,
                    history.client.exchange,
                    warehouse,
                    history.versions,
                    keys,
                    kind=kind,
                    source=pipeline.source,
                    run_id=context.run.run_id,
                    now_ms=_now_ms,
                    concurrency=settings.backfill_concurrency,
                    refresh=config.refresh,
                )

        with pipeline.warehouse() as warehouse:
            report = asyncio.run(run())
        return told(
            context,
            {key_of(symbol, day): [done] for (symbol, day), done in report.keys.items()},
            {
                "bars stored": report.rows,
                "symbol-days": len(report.keys),
                "symbol-days with holes": sum(bool(done.holes) for done in report.keys.values()),
                "requests of the run": report.requests,
                "seconds of the run": round(report.seconds, 1),
            },
        )

    return price_candles


def _warn_or_fail(context: dg.AssetExecutionContext, failed: dict[Symbol, str], *, succeeded: int) -> None:
    """A symbol that fails is a warning; when all fail, so does the run."""
    for symbol, problem in failed.items():
        context.log.warning(f"{symbol}: {problem}")
    if failed and not succeeded:
        raise dg.Failure(f"No symbol could be served. {next(iter(failed.values()))}")
