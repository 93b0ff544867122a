"""
What an instance has done and is doing, gathered for `status` and for the live view of `up`.

Input: ClickHouse, Redis and Dagster's GraphQL; output: `Facts`. Each source is asked by itself: one that is down leaves
its own figures empty and says why, and never hides the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from ..errors import PipelineError
from ..settings import Boot, Operational, key_now, operational_in_force, redis_address, refused, warehouse_address
from .up import folder

if TYPE_CHECKING:
    import redis

    from ..storage.warehouse import Warehouse

LIVE_TAG = "live/shard"
"""Every live run carries it, see dagster.yaml."""

SHARD = "0"
"""The one live run of one machine owns every symbol (defs/live.py)."""

RUN_STATES = ("QUEUED", "STARTING", "STARTED", "SUCCESS", "FAILURE", "CANCELED")


@dataclass(slots=True)
class Facts:
    """Figures of one moment. None means that it could not be found out; `unreachable` says why, by source."""

    at: float  # Unix seconds
    instruments: int | None = None
    selected: dict[str, int] = field(default_factory=dict)  # by market
    candles: int | None = None  # rows of `candles`, all versions
    candle_days: int | None = None  # complete or verified empty (symbol, day) keys
    candle_days_wanted: int | None = None
    trades: int | None = None  # rows of `trades`, all versions
    age_seconds: float | None = None  # of the newest stored trade
    stage: str | None = None  # of the live run, as it says itself
    starting: dict[str, Any] | None = None  # a run in its start: run_id, stage, age in seconds, why it failed
    lag_p50_ms: float | None = None  # from a trade's arrival to its row in ClickHouse
    lag_p99_ms: float | None = None
    trouble: str = ""  # the live run's, in its words
    connections: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the live run's sockets, by name
    spill_bytes: int = 0  # trades that wait on local disk
    set_aside: int = 0  # frames that made no sense, since the live run began
    shed: dict[str, str] = field(default_factory=dict)  # channels given up for want of room, and why
    gaps_open: int | None = None  # breaks in the trades that are being repaired
    repair_seconds_left: float | None = None  # at the pace so far
    agreement: dict[str, Any] = field(default_factory=dict)  # minutes beside the exchange's own, since the run began
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)  # by companion of the live run, in its words
    failover: dict[str, dict[str, Any]] = field(default_factory=dict)  # by market, in the live run's words
    remediation: dict[str, Any] = field(default_factory=dict)  # mode, last look, rules, last deeds, what holds history
    backlog: int | None = None  # entries of the stream that wait for ClickHouse or for trimming
    budget: list[dict[str, Any]] = field(default_factory=list)  # of each endpoint: requests granted, 429s, pace
    budget_closed_for: float = 0.0  # seconds for which the exchange asked for silence
    lease: dict[str, Any] | None = None  # owner (a run id), fence, age in seconds
    health: str | None = None
    health_reasons: list[str] = field(default_factory=list)  # worst first
    vitals: list[dict[str, Any]] = field(default_factory=list)  # everything that is watched
    runs: dict[str, int] = field(default_factory=dict)  # by status, lower case
    live_run: str | None = None
    backfills: int | None = None  # asset backfills in progress
    tier: str | None = None
    settings_generation: str | None = None  # of the settings that are in force
    settings_problems: list[str] = field(default_factory=list)  # a wrong file, a key that is refused: not in force
    reconfiguration: dict[str, Any] = field(
        default_factory=dict
    )  # of the live run: what it is changing, and changed last
    unreachable: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


class Gatherer:
    """Asks again and again; keeps its connection to ClickHouse between questions."""

    def __init__(
        self,
        boot: Boot,
        operational: Operational,
        environ: Mapping[str, str] | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._boot = boot
        self._environ = environ
        self._operational = operational
        self._now = now
        self._warehouse: Warehouse | None = None
        self._redis: redis.Redis | None = None

    def gather(self) -> Facts:
        """Ask every source once. Never raises for a source that is down."""
        facts = Facts(at=self._now())
        for name, ask in (
            ("clickhouse", self._ask_warehouse),
            ("redis", self._ask_redis),
            ("health", self._judge),
            ("dagster", self._ask_dagster),
            ("disk", self._look_at_disk),
            ("settings", self._look_at_settings),
        ):
            try:
                ask(facts)
            except PipelineError as error:
                facts.unreachable[name] = str(error)
                self.close()
        return facts

    def close(self) -> None:
        """Give the connections back."""
        if self._warehouse is not None:
            self._warehouse.close()
            self._warehouse = None
        if self._redis is not None:
            self._redis.close()
            self._redis = None

    def _ask_warehouse(self, facts: Facts) -> None:
        from ..storage.warehouse import Warehouse

        if self._warehouse is None:
            self._warehouse = Warehouse.open(warehouse_address(self._boot))
        query = self._warehouse.query
        if not query("SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'universe_now'")[
            0
        ][0]:
            facts.unreachable["tables"] = "the tables are not there yet"
            return
        facts.instruments = int(query("SELECT count() FROM instruments_now")[0][0])
        facts.selected = {
            row[0]: int(row[1]) for row in query("SELECT market, count() FROM universe_now GROUP BY market")
        }
        facts.candles = int(query("SELECT count() FROM candles")[0][0])
        facts.trades = int(query("SELECT count() FROM trades")[0][0])
        facts.candle_days = int(
            query(
                "SELECT uniqExact(market, symbol, toDate(interval_start)) FROM coverage_evidence "
                "WHERE stream = 'candles_1m' AND (state = 'complete' OR "
                "(state IN ('verified_empty', 'unavailable') AND interval_end = interval_start + INTERVAL 1 DAY))"
            )[0][0]
        )
        facts.candle_days_wanted = sum(facts.selected.values()) * self._operational.history_days
        recent = "SELECT toUnixTimestamp64Milli(max(ts)), count() FROM trades WHERE ts > now64(3, 'UTC') - INTERVAL 10 MINUTE"
        newest, count = query(recent)[0]
        facts.age_seconds = round(self._now() - newest / 1000, 1) if count else None

    def _ask_redis(self, facts: Facts) -> None:
        from ..storage.overview import Overview, backfill_restraint, budget_use
        from ..storage.redis_connection import connect_sync

        if self._redis is None:
            self._redis = connect_sync(redis_address(self._boot))
        overview = Overview(self._redis, self._boot.redis_prefix, SHARD)
        lease, published = overview.lease(), overview.published()
        facts.backlog = overview.backlog().entries
        used, facts.budget_closed_for = budget_use(self._redis, self._boot.redis_prefix)
        facts.budget = [asdict(use) for use in used]
        facts.lease = {"owner": lease.owner, "fence": lease.fence, "age": round(lease.age, 1)} if lease else None
        starting = overview.starting()
        facts.remediation = {
            "history_restrained_to": backfill_restraint(self._redis, self._boot.redis_prefix),
            "remembered": [asdict(one) for one in overview.remedies()[:5]],
        }
        facts.starting = None if starting is None else asdict(starting)
        if published is not None and lease is not None:  # without a lease these are the words of a run that is over
            said = published.overall
            facts.stage, facts.trouble = said.get("stage"), str(said.get("trouble") or "")
            facts.connections = dict(said.get("connections") or {})
            facts.set_aside = int(said.get("set_aside") or 0)
            facts.spill_bytes, facts.shed = int(said.get("spill_bytes") or 0), dict(said.get("shed") or {})
            facts.gaps_open, facts.repair_seconds_left = said.get("gaps_open"), said.get("repair_seconds_left")
            facts.reconfiguration = dict(said.get("reconfiguration") or {})
            facts.agreement = dict(said.get("reconcile") or {})
            facts.beside = {
                name: of for name, of in said.items() if isinstance(of, dict) and {"stored", "waiting"} <= of.keys()
            }
            facts.failover = dict(said.get("failover") or {})
            facts.remediation |= (said.get("attention") or {}).get("remediation") or {}
            facts.lag_p50_ms, facts.lag_p99_ms = said.get("lag_p50_ms"), said.get("lag_p99_ms")

    def _judge(self, facts: Facts) -> None:
        from ..guard.vitals import as_plain
        from ..pipeline.watch.health import watch
        from ..storage.overview import Overview

        if self._warehouse is None or self._redis is None or facts.unreachable:
            return
        if not facts.selected:  # of an instance that has just begun there is nothing to judge
            facts.health, facts.health_reasons = "unknown", ["nothing is selected yet: the first discovery does it"]
            return
        overview = Overview(self._redis, self._boot.redis_prefix, SHARD)
        health = watch(self._warehouse, overview, now_ms=round(self._now() * 1000))
        facts.health, facts.health_reasons = health.status.value, health.reasons
        facts.vitals = [as_plain(one) for one in health.vitals]

    def _ask_dagster(self, facts: Facts) -> None:
        address = folder.read_run(self._boot.home).get("addresses", {}).get("dagster")
        if not address:
            facts.unreachable["dagster"] = "it does not run"
            return
        counts = " ".join(
            f"{state}: runsOrError(filter: {{statuses: [{state}]}}) {{ ... on Runs {{ count }} }}"
            for state in RUN_STATES
        )
        active = (
            "active: runsOrError(filter: {statuses: [QUEUED, STARTING, STARTED]}, limit: 100) "
            "{ ... on Runs { results { runId status tags { key } } } }"
        )
        backfills = (
            "backfills: partitionBackfillsOrError(status: REQUESTED) { ... on PartitionBackfills { results { id } } }"
        )
        data = ask_graphql(address["host"], address["port"], f"{{ {counts} {active} {backfills} }}")
        facts.runs = {state.lower(): int((data.get(state) or {}).get("count") or 0) for state in RUN_STATES}
        for run in (data.get("active") or {}).get("results") or []:
            if any(tag["key"] == LIVE_TAG for tag in run["tags"]):
                facts.live_run = f"{run['runId']} {run['status'].lower()}"
        facts.backfills = len((data.get("backfills") or {}).get("results") or [])

    def _look_at_settings(self, facts: Facts) -> None:
        """What is wrong with the settings file, or with the key; what was good before is in force then."""
        in_force = operational_in_force(self._boot, self._environ, looking=True)
        facts.tier, facts.settings_generation = in_force.settings.tier.value, in_force.settings.generation
        credentials = key_now(self._boot)
        refusal = refused(self._boot.home, credentials) if credentials is not None else ""
        facts.settings_problems = [str(one) for one in (in_force.problem, refusal) if one]

    def _look_at_disk(self, facts: Facts) -> None:
        folder.require_room(self._boot.home)


class DagsterSilent(PipelineError):
    """Dagster's webserver does not answer as expected."""


def ask_graphql(host: str, port: int, query: str, *, timeout: float = 5.0, **variables: Any) -> dict[str, Any]:
    """The data of a GraphQL query, with its variables. Raises DagsterSilent."""
    connection = HTTPConnection(host, port, timeout=timeout)
    body = json.dumps({"query": query, "variables": variables})
    try:
        connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
        answer = json.load(connection.getresponse())
    except (OSError, HTTPException, ValueError) as error:
        raise DagsterSilent(f"no answer: {error or type(error).__name__}", where=f"{host}:{port}") from None
    finally:
        connection.close()
    if answer.get("errors"):
        message = str(answer["errors"][0].get("message") or "GraphQL error").splitlines()[0]
        raise DagsterSilent(message, where=f"{host}:{port}")
    return dict(answer.get("data") or {})
