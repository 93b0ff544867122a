"""
The minute's health as Dagster's events: an observation for each live asset, and a check that can turn red.

What is healthy is decided in pipeline/watch/health.py; here it becomes metadata whose numbers plot over time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import dagster as dg

from ..guard.vitals import WORST_FIRST, Status, worst
from ..market.instrument import Market
from ..pipeline.watch.health import Health, record_health, told_reasons
from ..pipeline.watch.looking import Looking
from ..pipeline.watch.scorecard import note_budget
from ..settings import redis_address, warehouse_address
from ..storage.breaker_board import Resting
from ..storage.budget import EndpointUse
from ..storage.overview import Overview
from ..storage.redis_connection import connect_sync
from ..storage.stamp import stamp_database
from ..storage.warehouse import Warehouse
from .dagster_health import dagster_vitals
from .live import SHARD
from .metadata import as_table
from .resources import PipelineResource, boot

CHECK = "data_arrives"
FRESH = 60.0
"""Seconds: the live assets are alive if a trade younger than this was stored, and books if one was within them."""

MOST_SHOWN = 40
"""Rows of a check's table."""

BESIDE = ("order_books", "tickers")
"""Companions of the live run whose asset has their name."""

PLOTTED = (
    "appended",
    "stored",
    "stream_entries",
    "stream_pending",
    "lag_p50_ms",
    "lag_p99_ms",
    "traded_lag_p50_ms",
    "traded_lag_p99_ms",
    "reconnects",
    "repaired",
    "set_aside",
    "connected",
    "frames_per_second",
    "spilled",
    "spill_bytes",
)
"""Facts that are numbers worth a line on the asset's page, as far as they are known."""


SUBSCRIPTIONS = ("live", "asked", "silent", "refused", "resting", "paced")
CONNECTION = ("age", "frames_per_second", *SUBSCRIPTIONS, "opened", "renewed", "reconnects", "last_reason")
"""What is told of each connection of the live run."""


OF_DAGSTER = ("dagster.daemon", "dagster.runs")
"""What is known of Dagster, from its own records: unknown when these do not answer in time."""


def look(
    pipeline: PipelineResource, instance: dg.DagsterInstance, *, tell: Callable[[Health], None] | None = None
) -> Health:
    """Look once, store what was seen and tell it; within two seconds, whatever hangs."""
    place = boot()
    looking = _looking(str(warehouse_address(place)), str(redis_address(place)), place.redis_prefix)
    return looking.look(
        now_ms=time.time_ns() // 1_000_000,
        rules=pipeline.health_rules(),
        beside=lambda: dagster_vitals(instance, now=time.time(), rules=pipeline.health_rules()),
        named=OF_DAGSTER,
        tell=tell,
    )


@cache
def _looking(warehouse: str, redis: str, prefix: str) -> Looking:
    """One for each place that this process looks at."""
    return Looking(_open_warehouse, _open_overview, _record)


def _open_warehouse() -> Warehouse:
    warehouse = Warehouse.open(warehouse_address(boot()), answer_within=1.0)
    try:
        stamp_database(warehouse, boot().exchange)
    except BaseException:
        warehouse.close()
        raise
    return warehouse


def _open_overview() -> Overview:
    client = connect_sync(redis_address(boot()), answer_within=0.6)
    return Overview(client, boot().redis_prefix, SHARD, egress=boot().egress_name)


def _record(warehouse: Warehouse, seen: Health, now_ms: int) -> None:
    """Store what was seen, and what the budget's counters show: Redis forgets them, the scorecard counts from them."""
    record_health(warehouse, seen, now_ms=now_ms)
    if seen.redis is None:
        return
    pipeline = PipelineResource()
    rules = pipeline.budget_rules(pipeline.operational())
    planned = rules.share * rules.per_minute / 60
    note_budget(warehouse, seen.redis.budget, planned=planned, closed_for=seen.redis.closed_for, now_ms=now_ms)


Event = dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation


@dataclass(frozen=True, slots=True)
class Family:
    """A part of what is watched: its check, on which asset (`*/` for each market), and the names of its vitals."""

    asset: str
    check: str
    names: tuple[str, ...]
    sentence: str


FAMILIES = (
    Family(
        "trades",
        CHECK,
        ("live.", "symbols", "subscription.", "throughput", "errors", "lag.", "companion", "channel.", "failover."),
        "Every selected symbol delivers trades at its own rate, and they reach the table in time.",
    ),
    Family(
        "trades", "exchange_answers", ("exchange.",), "The exchange answers over HTTP, in time, and its clock is ours."
    ),
    Family("trades", "sockets_are_open", ("connection.",), "Every planned connection is open, and none breaks often."),
    Family(
        "candles_live",
        "stores_are_well",
        ("redis.", "clickhouse.", "stream.", "flush.", "spill", "disk.", "clock."),
        "Redis and ClickHouse answer, have room and keep what they are given; nothing waits long between them.",
    ),
    Family(
        "*/candles_1m", "budget_is_kept", ("budget.",), "The exchange asks for no silence, and no endpoint has to rest."
    ),
    Family(
        "coverage", "dagster_is_well", ("dagster.",), "Dagster's daemons are alive, no run is stuck or failed last."
    ),
)


def events(seen: Health, markets: Sequence[Market] = ()) -> list[Event]:
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
    return [*told, *_beside(seen), *evaluations(seen, markets)]


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
    if isinstance(books, dict) and _reach_the_table(books, since=float(seen.facts.get("published_age_s") or 0.0)):
        told.append(
            dg.AssetMaterialization(
                asset_key="order_books",
                description="books arrive and are stored",
                metadata={name: books[name] for name in ("usable", "stored", "waiting", "set_aside")},
            )
        )
    return told


def _reach_the_table(said: Mapping[str, Any], *, since: float) -> bool:
    """Whether rows of a companion were stored just now, by its word of `since` seconds ago: what it ever stored says nothing."""
    ago = said.get("stored_ago")
    return ago is not None and ago + since < FRESH and not said.get("trouble")


def budget_events(
    used: Sequence[EndpointUse], closed_for: float, markets: Sequence[Market], resting: Sequence[Resting] = ()
) -> list[Event]:
    """What the shared budget granted and the exchange refused, and who rests, as observations of each market's history."""
    told: list[Event] = []
    for market in markets:
        family = "spot" if market is Market.SPOT else "mix"
        mine = [use for use in used if use.endpoint.startswith(f"{family}.")]
        at_rest = [one for one in resting if one.family == family]
        if mine:
            metadata: dict[str, Any] = {
                "requests granted": sum(use.granted for use in mine),
                "requests refused (429)": sum(use.penalties for use in mine),
                "slowest pace": min(use.pace for use in mine),
                "budget closed for (s)": round(max(closed_for, *(use.closed_for for use in mine)), 1),
                "processes whose breaker is open": len(at_rest),
                "rests": ", ".join(f"{one.who} for {one.seconds:g} s" for one in at_rest) or "nobody",
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


def evaluations(seen: Health, markets: Sequence[Market]) -> list[dg.AssetCheckEvaluation]:
    """What was seen, as the checks that turn red: one for each family and asset."""
    return [evaluation(seen, family, asset) for family in FAMILIES for asset in assets_of(family, markets)]


def assets_of(family: Family, markets: Sequence[Market]) -> list[dg.AssetKey]:
    """The assets that show a family's check."""
    place, _, name = family.asset.partition("/")
    return [dg.AssetKey([market.value, name]) for market in markets] if name else [dg.AssetKey(place)]


def evaluation(seen: Health, family: Family, asset: dg.AssetKey) -> dg.AssetCheckEvaluation:
    """
    One family, as the check of one asset; amber for what is degraded or unknown, red for what is critical. Its figures plot.
    """
    vitals = seen.of(*family.names)
    status = worst(vitals)
    why = "; ".join(told_reasons(vitals)[:5]) or "all is well"
    shown = sorted(
        (one for one in vitals if not one.subject or one.status is not Status.HEALTHY),
        key=lambda one: WORST_FIRST.index(one.status),
    )
    table = as_table(
        (
            {
                "what": " ".join(filter(None, (one.name, one.subject))),
                "status": one.status.value,
                "figure": "" if one.value is None else round(one.value, 3),
                "line": "" if one.limit is None else round(one.limit, 3),
                "in words": one.reason,
            }
            for one in shown[:MOST_SHOWN]
        ),
        columns=("what", "status", "figure", "line", "in words"),
    )
    figures = {one.name: round(float(one.value), 3) for one in vitals if one.value is not None and not one.subject}
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=family.check,
        passed=status is Status.HEALTHY,
        severity=dg.AssetCheckSeverity.ERROR if status is Status.CRITICAL else dg.AssetCheckSeverity.WARN,
        metadata={"status": status.value, "watched": table, **figures},
        description=why,
    )


def _told(seen: Health) -> dict[str, Any]:
    metadata: dict[str, Any] = {"status": seen.status.value, "why": "; ".join(seen.reasons[:5])}
    metadata |= {name: value for name in PLOTTED if isinstance(value := seen.facts.get(name), int | float)}
    metadata["symbols delivering"] = sum(one.status is Status.HEALTHY for one in seen.symbols)
    connections: dict[str, dict[str, Any]] = seen.facts.get("connections") or {}
    if connections:
        for what in SUBSCRIPTIONS:
            metadata[f"subscriptions {what}"] = sum(one.get(what, 0) for one in connections.values())
        metadata["connections"] = as_table(
            (
                {"connection": name} | {column: one.get(column, "") for column in CONNECTION}
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
