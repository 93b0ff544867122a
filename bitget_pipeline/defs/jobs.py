"""The jobs: discovery, the history of each market, and the live run."""

from collections.abc import Sequence

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


def history_job_name(market: Market) -> str:
    """The name of a market's history job."""
    return f"{market}_history"


def history_jobs(markets: Sequence[Market]) -> list:
    """One job for each market's candles: what the launcher and the nightly top-up start, with a range of days and symbols."""
    return [
        dg.define_asset_job(
            history_job_name(market),
            selection=dg.AssetSelection.assets(dg.AssetKey([market.value, "candles_1m"])),
            tags={HISTORY_MARKET: market.value},
            description=f"One-minute candles of {market} for a range of days and symbols.",
        )
        for market in markets
    ]


def archive_job_name(market: Market) -> str:
    """The name of a market's archive job."""
    return f"{market}_archive"


def archive_jobs(markets: Sequence[Market]) -> list:
    """One job for each market's deep history; it shares the slot of the market's history, so it never delays recent days."""
    return [
        dg.define_asset_job(
            archive_job_name(market),
            selection=dg.AssetSelection.assets(dg.AssetKey([market.value, "candles_1m_archive"])),
            tags={HISTORY_MARKET: market.value},
            description=f"One-minute candles of {market} from before the grid, for a range of months and symbols.",
        )
        for market in markets
    ]


def derivation_job_name(market: Market) -> str:
    """The name of a market's derivation job."""
    return f"{market}_derivation"


def derivation_jobs(markets: Sequence[Market]) -> list:
    """One job for each market's longer candles: what the derivation launcher starts, with a range of days and symbols."""
    return [
        dg.define_asset_job(
            derivation_job_name(market),
            selection=dg.AssetSelection.assets(dg.AssetKey([market.value, "candles_derived"])),
            tags={DERIVED_MARKET: market.value},
            description=f"Candles of 5m to 1d of {market}, made from stored minutes, for a range of days and symbols.",
        )
        for market in markets
    ]


def archive_derivation_job_name(market: Market) -> str:
    """The name of a market's job for the longer candles of its archive."""
    return f"{market}_archive_derivation"


def archive_derivation_jobs(markets: Sequence[Market]) -> list:
    """One job for each market's longer candles from before the grid; it shares the slot of the younger ones."""
    return [
        dg.define_asset_job(
            archive_derivation_job_name(market),
            selection=dg.AssetSelection.assets(dg.AssetKey([market.value, "candles_derived_archive"])),
            tags={DERIVED_MARKET: market.value},
            description=f"Candles of 5m to 1d of {market} from before the grid, for a range of months and symbols.",
        )
        for market in markets
    ]


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
