"""
What ClickHouse, Redis and Dagster's webserver tell `status` and the live view of `up`.

Input: boot settings, and how long an answer may take; output: `Told`, for facts.py. Each keeps its connection between
questions. Neither Dagster nor numpy nor pyarrow is imported for it (tested): they would be most of what the command costs.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import redis

from ..pipeline.watch.health import ask_redis
from ..pipeline.watch.last_judged import DAGSTER, as_of_now, last_judged
from ..settings import Boot, redis_address, warehouse_address
from ..storage.connection import Connection
from ..storage.control import Published
from ..storage.overview import Overview, backfill_restraint
from ..storage.redis_connection import connect_sync
from ..storage.warehouse_state import warehouse_state
from .asked import Told
from .facts import SHARD
from .graphql import ask_graphql
from .up import folder
from .up.remedies import together

LIVE_TAG = "live/shard"
"""Every live run carries it, see dagster.yaml."""

RUN_STATES = ("QUEUED", "STARTING", "STARTED", "SUCCESS", "FAILURE", "CANCELED")

_TABLES = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'universe_now'"
_SELECTED = "SELECT market, count() FROM universe_now GROUP BY market"
_FIGURES = """
SELECT
    (SELECT count() FROM instruments_now),
    (SELECT count() FROM candles),
    (SELECT count() FROM trades),
    (SELECT uniqExact(market, symbol, toDate(interval_start)) FROM coverage_evidence
        WHERE stream = 'candles_1m' AND (market, symbol) IN (SELECT market, symbol FROM universe_now)
        AND toDate(interval_start) BETWEEN toDate(now('UTC')) - {days:UInt32} AND toDate(now('UTC')) - 1
        AND (state = 'complete' OR
        (state IN ('verified_empty', 'unavailable') AND interval_end = interval_start + INTERVAL 1 DAY)))
"""
_RECENT = "SELECT toUnixTimestamp64Milli(max(ts)), count() FROM trades WHERE ts > now64(3, 'UTC') - INTERVAL 10 MINUTE"

_COUNTS = " ".join(
    f"{state}: runsOrError(filter: {{statuses: [{state}]}}) {{ ... on Runs {{ count }} }}" for state in RUN_STATES
)
_ACTIVE = (
    "active: runsOrError(filter: {statuses: [QUEUED, STARTING, STARTED]}, limit: 100) "
    "{ ... on Runs { results { runId status tags { key } } } }"
)
_BACKFILLS = "backfills: partitionBackfillsOrError(status: REQUESTED) { ... on PartitionBackfills { results { id } } }"


class InWarehouse:
    """
    What is stored (of history the last `history_days` of what is selected), how ClickHouse does, and what the sensor saw
    last of Dagster.
    """

    def __init__(self, boot: Boot, *, history_days: int, answer_within: float) -> None:
        self._boot = boot
        self._history_days = history_days
        self._answer_within = answer_within
        self._connection: Connection | None = None

    def ask(self) -> Told:
        """In a few questions. Raises StoreUnavailable and its kin."""
        if self._connection is None:
            self._connection = Connection.open(warehouse_address(self._boot), answer_within=self._answer_within)
        query = self._connection.query
        if not query(_TABLES)[0][0]:
            return Told(missing={"tables": "the tables are not there yet"})
        instruments, candles, trades, days = map(int, query(_FIGURES, {"days": self._history_days})[0])
        newest, count = query(_RECENT)[0]
        now = time.time()
        figures = {
            "instruments": instruments,
            "selected": {row[0]: int(row[1]) for row in query(_SELECTED)},
            "candles": candles,
            "trades": trades,
            "candle_days": days,
            "age_seconds": round(now - newest / 1000, 1) if count else None,
        }
        seen = as_of_now(last_judged(self._connection, DAGSTER), DAGSTER, now_ms=round(now * 1000))
        return Told(figures, {"warehouse": warehouse_state(self._connection), "beside": tuple(seen)})

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class InRedis:
    """What the live run says of itself, who holds the lease, and the request budget."""

    def __init__(self, boot: Boot, *, answer_within: float) -> None:
        self._boot = boot
        self._answer_within = answer_within
        self._client: redis.Redis | None = None

    def ask(self) -> Told:
        """In a few questions. Raises StoreUnavailable and its kin."""
        if self._client is None:
            self._client = connect_sync(redis_address(self._boot), answer_within=self._answer_within)
        prefix = self._boot.redis_prefix
        egress = self._boot.egress_name
        overview = Overview(self._client, prefix, SHARD, egress=egress)
        behind = ask_redis(overview)
        lease, published = behind["lease"], behind["published"]
        starting, supervisor = overview.starting(), overview.supervisor()
        inside: dict[str, Any] = {}
        figures: dict[str, Any] = {
            "backlog": behind["backlog"].entries,
            "budget": [asdict(use) for use in behind["redis"].budget],
            "budget_closed_for": behind["redis"].closed_for,
            "breakers": [asdict(one) for one in behind["redis"].breakers],
            "lease": {"owner": lease.owner, "fence": lease.fence, "age": round(lease.age, 1)} if lease else None,
            "starting": None if starting is None else asdict(starting),
        }
        if published is not None and lease is not None:  # without a lease these are the words of a run that is over
            said = _said(published)
            inside = said.pop("remediation")
            figures |= said
        outside = supervisor.said if supervisor is not None else {}
        figures["remediation"] = together(inside, outside, looked=None if supervisor is None else supervisor.age) | {
            "history_restrained_to": backfill_restraint(self._client, prefix, egress),
            "remembered": [asdict(one) for one in overview.remedies()[:5]],
        }
        return Told(figures, behind)

    def close(self) -> None:
        """Give the connection back."""
        if self._client is not None:
            self._client.close()
            self._client = None


def _said(published: Published) -> dict[str, Any]:
    """What a live run that holds the lease says of itself."""
    said = published.overall
    return {
        "stage": said.get("stage"),
        "trouble": str(said.get("trouble") or ""),
        "connections": dict(said.get("connections") or {}),
        "set_aside": int(said.get("set_aside") or 0),
        "spill_bytes": int(said.get("spill_bytes") or 0),
        "shed": dict(said.get("shed") or {}),
        "gaps_open": said.get("gaps_open"),
        "repair_seconds_left": said.get("repair_seconds_left"),
        "reconfiguration": dict(said.get("reconfiguration") or {}),
        "agreement": dict(said.get("reconcile") or {}),
        "beside": {
            name: of for name, of in said.items() if isinstance(of, dict) and {"stored", "waiting"} <= of.keys()
        },
        "failover": dict(said.get("failover") or {}),
        "remediation": (said.get("attention") or {}).get("remediation") or {},
        "lag_p50_ms": said.get("lag_p50_ms"),
        "lag_p99_ms": said.get("lag_p99_ms"),
        "traded_lag_p50_ms": said.get("traded_lag_p50_ms"),
        "traded_lag_p99_ms": said.get("traded_lag_p99_ms"),
    }


class InDagster:
    """Runs and backfills, as Dagster's webserver counts them."""

    def __init__(self, boot: Boot, *, answer_within: float) -> None:
        self._boot = boot
        self._answer_within = answer_within

    def ask(self) -> Told:
        """In one question. Raises DagsterSilent."""
        address = folder.read_run(self._boot.home).get("addresses", {}).get("dagster")
        if not address:
            return Told(missing={"dagster": "it does not run"})
        question = f"{{ {_COUNTS} {_ACTIVE} {_BACKFILLS} }}"
        data = ask_graphql(address["host"], address["port"], question, timeout=self._answer_within)
        active = (data.get("active") or {}).get("results") or []
        live = [run for run in active if any(tag["key"] == LIVE_TAG for tag in run["tags"])]
        return Told(
            {
                "runs": {state.lower(): int((data.get(state) or {}).get("count") or 0) for state in RUN_STATES},
                "live_run": f"{live[-1]['runId']} {live[-1]['status'].lower()}" if live else None,
                "backfills": len((data.get("backfills") or {}).get("results") or []),
            }
        )

    def close(self) -> None:
        """It keeps no connection."""
