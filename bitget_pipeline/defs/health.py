"""
The minute's health as Dagster's events: an observation for each live asset, and a check that can turn red.

What is healthy is decided in pipeline/watch/health.py; here it becomes metadata whose numbers plot over time.
"""

import time
from collections.abc import Sequence
from typing import Any

import dagster as dg

from ..guard.vitals import Status
from ..market.instrument import Market
from ..pipeline.watch.health import Health, record_health, watch
from ..pipeline.watch.scorecard import note_budget
from ..storage.budget import EndpointUse
from .live import SHARD
from .metadata import as_table
from .resources import PipelineResource

CHECK = "data_arrives"
FRESH = 60.0
"""Seconds: the live assets are alive if a trade younger than this was stored."""

BESIDE = ("order_books", "tickers")
"""Companions of the live run whose asset has their name."""

PLOTTED = (
    "appended",
    "stored",
    "stream_entries",
    "stream_pending",
    "lag_p50_ms",
    "lag_p99_ms",
    "reconnects",
    "repaired",
    "set_aside",
    "connected",
    "frames_per_second",
    "spilled",
    "spill_bytes",
)
"""Facts that are numbers worth a line on the asset's page, as far as they are known."""


CONNECTION = ("age", "frames_per_second", "live", "asked", "silent", "opened", "reconnects", "last_reason")
"""What is told of each connection of the live run."""


def look(pipeline: PipelineResource) -> Health:
    """Look once, and store what was seen."""
    now_ms = time.time_ns() // 1_000_000
    with pipeline.warehouse() as warehouse, pipeline.overview(SHARD) as overview:
        seen = watch(warehouse, overview, now_ms=now_ms)
        record_health(warehouse, seen, now_ms=now_ms)
    return seen


def note_requests(pipeline: PipelineResource, used: Sequence[EndpointUse], closed_for: float) -> None:
    """Store what the budget's counters show: Redis forgets them, the scorecard counts from them."""
    rules = pipeline.budget_rules(pipeline.operational())
    with pipeline.warehouse() as warehouse:
        note_budget(
            warehouse,
            used,
            planned=rules.share * rules.per_minute / 60,
            closed_for=closed_for,
            now_ms=time.time_ns() // 1_000_000,
        )


Event = dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation


def events(seen: Health) -> list[Event]:
    """
    What was seen, as events that need no run.

    While trades reach the table the live assets count as materialized by it: Dagster judges freshness by the last
    materialization alone, observations do not count (measured).
    """
    metadata = _told(seen)
    told: list[Event] = [
        dg.AssetObservation(asset_key="trades", metadata=metadata),
        dg.AssetObservation(asset_key="candles_live", metadata=metadata | _agreement(seen)),
    ]
    if seen.newest_stored_age is not None and seen.newest_stored_age < FRESH:
        figures = {name: value for name, value in metadata.items() if isinstance(value, int | float)}
        told += [
            dg.AssetMaterialization(asset_key=key, description="trades arrive and are stored", metadata=figures)
            for key in ("trades", "candles_live", "candles_unified")
        ]
    return [*told, *_beside(seen), evaluation(seen)]


def _agreement(seen: Health) -> dict[str, Any]:
    """How many of the minutes closed since the live run began are the exchange's own, as figures that plot."""
    said = seen.facts.get("reconcile")
    if not isinstance(said, dict):
        return {}
    words = {
        "match rate": "match_rate",
        "minutes compared": "minutes",
        "minutes repaired": "repaired",
        "minutes unexplained": "unexplained",
        "minutes looked into": "waiting",
        "trades refetched": "refetched",
    }
    return {word: said[name] for word, name in words.items() if isinstance(said.get(name), int | float)}


def _beside(seen: Health) -> list[Event]:
    """What the companions of the live run say of themselves, as observations of the assets of their names."""
    told: list[Event] = []
    for name in BESIDE:
        said = seen.facts.get(name)
        if isinstance(said, dict):
            figures = {
                key: value for key, value in said.items() if isinstance(value, int | float | str) and value != ""
            }
            told.append(dg.AssetObservation(asset_key=name, metadata=figures))
    books = seen.facts.get("order_books")
    if isinstance(books, dict) and books.get("usable") and books.get("stored") and not books.get("trouble"):
        told.append(
            dg.AssetMaterialization(
                asset_key="order_books",
                description="books arrive and are stored",
                metadata={name: books[name] for name in ("usable", "stored", "waiting", "set_aside")},
            )
        )
    return told


def budget_events(used: Sequence[EndpointUse], closed_for: float, markets: Sequence[Market]) -> list[Event]:
    """What the shared request budget granted and the exchange refused, as observations of each market's history."""
    told: list[Event] = []
    for market in markets:
        family = "spot." if market is Market.SPOT else "mix."
        mine = [use for use in used if use.endpoint.startswith(family)]
        if mine:
            metadata: dict[str, Any] = {
                "requests granted": sum(use.granted for use in mine),
                "requests refused (429)": sum(use.penalties for use in mine),
                "slowest pace": min(use.pace for use in mine),
                "budget closed for (s)": round(max(closed_for, *(use.closed_for for use in mine)), 1),
                "endpoints": as_table(
                    (
                        {"endpoint": use.endpoint, "granted": use.granted, "429": use.penalties, "pace": use.pace}
                        for use in mine
                    ),
                    columns=("endpoint", "granted", "429", "pace"),
                ),
            }
            told.append(dg.AssetObservation(asset_key=dg.AssetKey([market.value, "candles_1m"]), metadata=metadata))
    return told


def evaluation(seen: Health) -> dg.AssetCheckEvaluation:
    """What was seen, as the check that turns red."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("trades"),
        check_name=CHECK,
        passed=seen.status is Status.HEALTHY,
        severity=dg.AssetCheckSeverity.ERROR if seen.status is Status.CRITICAL else dg.AssetCheckSeverity.WARN,
        metadata={"status": seen.status.value, "why": "; ".join(seen.reasons[:5])},
    )


def _told(seen: Health) -> dict[str, Any]:
    metadata: dict[str, Any] = {"status": seen.status.value, "why": "; ".join(seen.reasons[:5])}
    metadata |= {name: value for name in PLOTTED if isinstance(value := seen.facts.get(name), int | float)}
    metadata["symbols delivering"] = sum(one.status is Status.HEALTHY for one in seen.symbols)
    connections: dict[str, dict[str, Any]] = seen.facts.get("connections") or {}
    if connections:
        for what in ("live", "asked", "silent"):
            metadata[f"subscriptions {what}"] = sum(one[what] for one in connections.values())
        metadata["connections"] = as_table(
            (
                {"connection": name} | {column: one[column] for column in CONNECTION}
                for name, one in connections.items()
            ),
            columns=("connection", *CONNECTION),
        )
    metadata["symbols"] = as_table(
        (
            {
                "symbol": one.symbol,
                "status": one.status.value,
                "because": one.reason,
                "last trade, s ago": "" if one.age is None else round(one.age, 1),
                "trades a second": "" if one.rate is None else round(one.rate, 2),
                "trades": one.trades,
            }
            for one in sorted(seen.symbols, key=lambda one: (one.status is Status.HEALTHY, str(one.symbol)))
        ),
        columns=("symbol", "status", "because", "last trade, s ago", "trades a second", "trades"),
    )
    return metadata
