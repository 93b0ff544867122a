"""The jobs: discovery, the history of each market, and the live run."""

import functools
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import dagster as dg

from ..market.instrument import Market
from .assets.derivatives import futures
from .live import run_live_shard

LIVE_SHARD = "live/shard"
LIVE_GENERATION = "live/generation"
HISTORY_MARKET = "history/market"
DERIVED_MARKET = "derived/market"

discovery = dg.define_asset_job(
    "discovery",
    selection=dg.AssetSelection.assets("tables", "instruments", "tickers", "universe", "venue_map"),
    description=(
        "The schema, which instruments there are, how much is traded in each, which are collected from now on, and who could "
        "stand in for them."
    ),
)

coverage_recount = dg.define_asset_job(
    "coverage_recount",
    selection=dg.AssetSelection.assets("coverage"),
    description="The ledger compared with the tables, corrected where it claims too much, and drawn.",
)

housekeeping_job = dg.define_asset_job(
    "housekeeping",
    selection=dg.AssetSelection.assets("retention"),
    description="What is older than its days is deleted, and the ledger is told; Dagster's old runs and logs go too.",
)

scorecard_of_a_day = dg.define_asset_job(
    "scorecard_of_a_day",
    selection=dg.AssetSelection.assets("scorecard"),
    description="A day's promises in figures: launch it for any past day.",
)


class Work(StrEnum):
    """What is done to a market's candles, each by a job of its own for a range of partitions."""

    HISTORY = "history"
    ARCHIVE = "archive"
    DERIVATION = "derivation"
    ARCHIVE_DERIVATION = "archive_derivation"


_CANDLE_JOBS = {
    Work.HISTORY: ("candles_1m", HISTORY_MARKET, "One-minute candles of {} for a range of days and symbols."),
    Work.ARCHIVE: (
        "candles_1m_archive",
        HISTORY_MARKET,
        "One-minute candles of {} from before the grid, for a range of months and symbols.",
    ),
    Work.DERIVATION: (
        "candles_derived",
        DERIVED_MARKET,
        "Candles of 5m to 1d of {}, made from stored minutes, for a range of days and symbols.",
    ),
    Work.ARCHIVE_DERIVATION: (
        "candles_derived_archive",
        DERIVED_MARKET,
        "Candles of 5m to 1d of {} from before the grid, for a range of months and symbols.",
    ),
}
"""Asset, the tag whose slot its runs share (so the archive never delays recent days), and what it makes."""


def job_name(market: Market, work: Work) -> str:
    """The name of a market's job."""
    return f"{market}_{work}"


def candle_jobs(markets: Sequence[Market]) -> list:
    """One job for each market and work: what launchers and the nightly top-up start, with a range of partitions."""
    return [
        dg.define_asset_job(
            job_name(market, work),
            selection=dg.AssetSelection.assets(dg.AssetKey([market.value, asset])),
            tags={tag: market.value},
            description=about.format(market),
        )
        for work, (asset, tag, about) in _CANDLE_JOBS.items()
        for market in markets
    ]


ON_DEMAND = {
    "trades_history": ("trades", "Trades of days that were asked for once and lack something."),
    "mark_candles": ("mark_candles_1m", "Mark prices of days that were asked for once and lack minutes."),
    "index_candles": ("index_candles_1m", "Index prices of days that were asked for once and lack minutes."),
}
"""Assets that nothing launches by itself the first time: their streams in the ledger, and what their jobs make."""


@functools.cache
def on_demand_jobs(market: Market) -> tuple[Any, ...]:
    """One job for each asset of a market that is collected on demand: what the launcher of second tries starts."""
    return tuple(
        dg.define_asset_job(
            f"{market}_{asset}",
            selection=dg.AssetSelection.assets(dg.AssetKey([market.value, asset])),
            tags={HISTORY_MARKET: market.value},
            description=about,
        )
        for asset, (_, about) in ON_DEMAND.items()
        if asset == "trades_history" or futures([market])
    )


def derivative_jobs(markets: Sequence[Market]) -> list:
    """What the schedules of funding and open interest start: one run for all futures markets."""
    found = [
        ("funding", "funding_rates", "Settled funding of all selected perpetuals."),
        ("open_interest", "open_interest", "Open interest of all selected futures, as it is now."),
    ]
    return [
        dg.define_asset_job(
            name,
            selection=dg.AssetSelection.assets(*(dg.AssetKey([market.value, asset]) for market in futures(markets))),
            description=description,
        )
        for name, asset, description in found
        if futures(markets)
    ]


@dg.job(
    name="live",
    executor_def=dg.in_process_executor,
    tags={LIVE_SHARD: "0", "dagster/priority": "10", "dagster/max_retries": "0"},
    description=(
        "The live run: websocket → Redis Streams → ClickHouse, for all selected symbols. It runs until it is stopped "
        "or replaced; `live_supervisor` keeps one alive."
    ),
)
def live() -> None:
    run_live_shard()
