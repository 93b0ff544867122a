"""
Samples of what the live run publishes and the stores hold. Pure: facts in, metric families out.

Every family is one of names.py. What is not known has no sample; nothing is made up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ...guard.vitals import WORST_FIRST, Status, Vital, worst
from ...storage.budget import EndpointUse
from ...storage.control import Published
from ...storage.lease import LeaseState
from ...storage.overview import Backlog
from ..watch.failover import State
from ..watch.health import Facts, Health
from ..watch.of_the_run import SILENCE
from .names import SPECS, Kind

MOST_SYMBOLS = 1000
MOST_CONNECTIONS = 200
MOST_VITALS = 100

NO_FAILOVER = "none"
SUBSCRIPTIONS = ("live", "asked", "silent", "refused", "resting", "paced")
RECONCILED = ("matched", "repaired", "open_differs", "unexplained")
NOT_COMPANIONS = frozenset({"connections", "shed", "failover"})


class Families:
    """Metric families as they fill; each is made when its first sample comes."""

    def __init__(self) -> None:
        self._made: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}

    def put(self, name: str, value: float | int | bool | None, *labels: str) -> None:
        """A sample, unless it is not known."""
        if value is None:
            return
        family = self._made.get(name)
        if family is None:
            spec = SPECS[name]
            make = CounterMetricFamily if spec.kind is Kind.COUNTER else GaugeMetricFamily
            family = self._made[name] = make(spec.full_name, spec.about, labels=spec.labels)
        family.add_metric(labels, float(value))

    def one_of(self, name: str, states: Iterable[str], holds: str, *labels: str) -> None:
        """1 for the state that holds, 0 for the others."""
        for state in states:
            self.put(name, state == holds, *labels, state)

    def all(self) -> list[Metric]:
        """In the order in which they were made."""
        return list(self._made.values())


@dataclass(frozen=True, slots=True)
class InRedis:
    """
    What Redis knows; None where nobody said anything. `health` is the verdict on it, `vitals` its parts; `supervisor` is what the
    live run's supervisor says of its rules.
    """

    lease: LeaseState | None
    published: Published | None
    backlog: Backlog | None
    budget: Sequence[EndpointUse]
    closed_for: float
    health: Status
    vitals: Sequence[Vital] = ()
    supervisor: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Facts, seen: Health, supervisor: Mapping[str, Any]) -> Self:
        """What was asked, and what is thought of it."""
        state = facts.redis
        budget = state.budget if state is not None else ()
        closed_for = state.closed_for if state is not None else 0.0
        return cls(
            facts.lease, facts.published, facts.backlog, budget, closed_for, seen.status, seen.vitals, supervisor
        )


@dataclass(frozen=True, slots=True)
class InClickHouse:
    """
    What ClickHouse holds: of tables (rows, bytes, parts), the newest trade's age by market, holes by (market, stream, state) with
    their seconds, open incidents by (kind, severity), and the newest day's figures with its beginning (Unix seconds).
    """

    tables: Mapping[str, tuple[int, int, int]]
    newest_trade_age: Mapping[str, float]
    holes: Mapping[tuple[str, str, str], tuple[int, float]]
    incidents: Mapping[tuple[str, str], int]
    scorecard: Mapping[str, float] = field(default_factory=dict)
    scorecard_day: float | None = None


def of_redis(found: InRedis, *, now_ms: int) -> list[Metric]:
    """Health, live run, symbols, connections, backlog and budget; `now_ms` is market time."""
    families = Families()
    families.one_of("health", [status.value for status in WORST_FIRST], found.health.value)
    _of_vitals(families, found.vitals)
    _of_the_lease(families, found.lease)
    _of_remedies(families, found.supervisor)
    if found.published is not None:
        overall = found.published.overall
        _of_failover(families, overall.get("failover") or {})
        _of_remedies(families, (overall.get("attention") or {}).get("remediation") or {})
        _of_the_run(families, found.published)
        _of_companions(families, overall)
        _of_symbols(families, found.published, found.vitals, now_ms=now_ms)
        _of_connections(families, overall.get("connections") or {})
        families.put("stream_capacity_entries", overall.get("stream_capacity"))
    if found.backlog is not None:
        families.put("stream_entries", found.backlog.entries)
        families.put("stream_pending_entries", found.backlog.pending)
        families.put("stream_oldest_age_seconds", found.backlog.oldest_age)
    for use in found.budget:
        families.put("budget_requests_granted_total", use.granted, use.endpoint)
        families.put("budget_requests_refused_total", use.penalties, use.endpoint)
        families.put("budget_pace_ratio", use.pace, use.endpoint)
        families.put("budget_closed_seconds", use.closed_for, use.endpoint)
    families.put("budget_all_closed_seconds", found.closed_for)
    return families.all()


def _of_the_lease(families: Families, lease: LeaseState | None) -> None:
    families.put("live_lease_held", lease is not None)
    if lease is not None:
        families.put("live_lease_age_seconds", lease.age)
        families.put("live_lease_fence", lease.fence)


def _of_vitals(families: Families, vitals: Iterable[Vital]) -> None:
    by_name: dict[str, list[Vital]] = defaultdict(list)
    for vital in vitals:
        by_name[vital.name].append(vital)
    for name, its in sorted(by_name.items())[:MOST_VITALS]:
        families.one_of("vital", [status.value for status in WORST_FIRST], worst(its).value, name)
        families.put("vital_subjects", sum(one.status is not Status.HEALTHY for one in its), name)


def _of_failover(families: Families, failover: Mapping[str, Any]) -> None:
    states = [*(state.value for state in State), NO_FAILOVER]
    for market, said in sorted(failover.items()):
        if isinstance(said, Mapping) and said.get("state") in states:
            families.one_of("failover_state", states, str(said["state"]), market)


def _of_remedies(families: Families, remediation: Mapping[str, Any]) -> None:
    for said in remediation.get("rules") or ():
        families.put("remedy_open", said["open"], said["rule"], said["by"])
        families.put("remedy_actions_last_hour", said["acted_last_hour"], said["rule"], said["action"], said["by"])


_PLAIN = {
    "live_uptime_seconds": "uptime",
    "live_trades_received_total": "appended",
    "live_trades_stored_total": "stored",
    "live_trades_repaired_total": "repaired",
    "live_trades_spilled_total": "spilled",
    "live_frames_set_aside_total": "set_aside",
    "live_reconnects_total": "reconnects",
    "live_trades_waiting": "waiting",
    "live_spill_bytes": "spill_bytes",
    "live_disk_free_ratio": "disk_free",
    "live_repair_remaining_seconds": "repair_seconds_left",
}
"""Figures that the run publishes as they are, by the metric that shows them."""


def _of_the_run(families: Families, published: Published) -> None:
    said = published.overall
    info = (str(said.get(name) or "") for name in ("run_id", "generation", "stage"))
    families.put("live_info", 1, *info)
    families.put("live_published_age_seconds", published.age)
    families.put("live_trouble", bool(said.get("trouble")))
    for metric, name in _PLAIN.items():
        families.put(metric, said.get(name))
    open_now = sum(
        bool(one.get("gap")) for one in published.symbols.values()
    )  # repairs say nothing before the first break
    families.put("live_gaps_open", said.get("gaps_open", open_now))
    for share, name in (("0.5", "lag_p50_ms"), ("0.99", "lag_p99_ms")):
        for metric, lag in (
            ("live_lag_seconds", said.get(name)),
            ("live_traded_lag_seconds", said.get(f"traded_{name}")),
        ):
            families.put(metric, None if lag is None else lag / 1000, share)
    families.put("live_silences_mended_total", (said.get("silences") or {}).get("mended"))
    for channel in said.get("shed") or ():
        families.put("live_shed", 1, str(channel))
    reconcile = said.get("reconcile") or {}
    for state in RECONCILED:
        families.put("live_reconciled_bars_total", reconcile.get(state), state)
    families.put("live_reconcile_waiting_bars", reconcile.get("waiting"))


def _of_companions(families: Families, overall: Mapping[str, Any]) -> None:
    for name, said in sorted(overall.items()):
        if name not in NOT_COMPANIONS and isinstance(said, Mapping) and "stored" in said:
            families.put("companion_rows_stored_total", said["stored"], name)
            families.put("companion_rows_dropped_total", said.get("dropped"), name)
            families.put("companion_rows_waiting", said.get("waiting"), name)


def _of_symbols(families: Families, published: Published, vitals: Iterable[Vital], *, now_ms: int) -> None:
    ordered = sorted(published.symbols.items(), key=lambda item: str(item[0]))
    judged = {one.subject: one.status for one in vitals if one.name == SILENCE and one.status is not Status.UNKNOWN}
    families.put("series_left_out", max(0, len(ordered) - MOST_SYMBOLS), "symbols")
    for symbol, said in ordered[:MOST_SYMBOLS]:
        labels = (symbol.market.value, symbol.name)
        heard, pace = int(said.get("last_data_ms") or 0), float(said.get("pace") or 0.0)
        families.put("symbol_trades_received_total", said.get("trades"), *labels)
        families.put("symbol_trades_stored_total", said.get("stored_trades"), *labels)
        families.put("symbol_data_age_seconds", max(0.0, (now_ms - heard) / 1000) if heard else None, *labels)
        families.put("symbol_trades_per_second", said.get("rate"), *labels)
        families.put("symbol_arrivals_per_second", pace or None, *labels)
        families.put("symbol_silent", bool(said.get("silent")), *labels)
        status = judged.get(f"{symbol.market}/{symbol.name}")
        families.put("symbol_overdue", None if status is None else status is not Status.HEALTHY, *labels)
        families.put("symbol_gap_open", bool(said.get("gap")), *labels)


def _of_connections(families: Families, connections: Mapping[str, Mapping[str, Any]]) -> None:
    families.put("series_left_out", max(0, len(connections) - MOST_CONNECTIONS), "connections")
    for name, said in sorted(connections.items())[:MOST_CONNECTIONS]:
        families.put("connection_open", said.get("age") is not None, name)
        families.put("connection_age_seconds", said.get("age"), name)
        families.put("connection_opened_total", said.get("opened"), name)
        families.put("connection_reconnects_total", said.get("reconnects"), name)
        families.put("connection_renewed_total", said.get("renewed"), name)
        families.put("connection_frames_total", said.get("frames"), name)
        for state in SUBSCRIPTIONS:
            families.put("connection_subscriptions", said.get(state), name, state)


def of_clickhouse(found: InClickHouse) -> list[Metric]:
    """Tables, the newest trades, holes, incidents and the scorecard."""
    families = Families()
    for table, (rows, size, parts) in sorted(found.tables.items()):
        families.put("table_rows", rows, table)
        families.put("table_bytes", size, table)
        families.put("table_parts", parts, table)
    for market, age in sorted(found.newest_trade_age.items()):
        families.put("newest_trade_age_seconds", age, market)
    for labels, (count, seconds) in sorted(found.holes.items()):
        families.put("holes", count, *labels)
        families.put("holes_seconds", seconds, *labels)
    for (kind, severity), count in sorted(found.incidents.items()):
        families.put("incidents_open", count, kind, severity)
    for metric, value in sorted(found.scorecard.items()):
        families.put("scorecard_value", value, metric)
    families.put("scorecard_day_timestamp_seconds", found.scorecard_day)
    return families.all()
