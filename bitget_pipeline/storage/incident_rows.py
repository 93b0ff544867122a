"""
Incidents in ClickHouse: which of them are open, and how many there were.

Part of the warehouse (warehouse.py); written by pipeline/incidents.py, and by a person who says something about one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ..market.instrument import Market, Symbol
from .connection import Connection


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """An incident that is not over, as its newest row says; `opened_ms` is Unix ms UTC."""

    incident_id: str
    kind: str
    severity: str
    what: str
    opened_ms: int
    market: Market | None = None
    symbol: Symbol | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class IncidentGroup:
    """
    The incidents of one kind and market that are open or were until just now: how many, how bad the worst is, and the
    newest one's words. The market is empty where they concern all.
    """

    kind: str
    market: str
    count: int
    severity: str
    what: str


@dataclass(frozen=True, slots=True)
class ToldIncident:
    """An incident as it is shown; times are Unix ms UTC, `closed_ms` None while it lasts, `details` its figures as JSON."""

    kind: str
    severity: str
    place: str
    what: str
    opened_ms: int
    closed_ms: int | None
    details: str


class IncidentRows(Connection):
    """What went wrong and is not over."""

    def told_incidents(self, *, most: int) -> list[ToldIncident]:
        """The open ones, the worst first, then those that are over, the newest first."""
        rows = self.query(
            "SELECT kind, severity, if(symbol != '', concat(market, ':', symbol), market), what, "
            "toUnixTimestamp64Milli(opened_at), toUnixTimestamp64Milli(closed_at), details FROM incidents_final "
            "ORDER BY closed_at IS NOT NULL, if(closed_at IS NULL, transform(severity, ['critical', 'degraded'], [0, 1], 2), 3), "
            "opened_at DESC, incident_id LIMIT {most:UInt32}",
            {"most": most},
        )
        return [ToldIncident(*row) for row in rows]

    def incidents_by_day(self, *, days: int) -> dict[date, dict[str, int]]:
        """How many of each kind began on each of the last UTC days, today the last; days without any are there too."""
        rows = self.query(
            "SELECT toDate(opened_at), kind, count() FROM incidents_final "
            "WHERE opened_at >= toStartOfDay(now('UTC')) - toIntervalDay({days:UInt32} - 1) GROUP BY ALL",
            {"days": days},
        )
        today = datetime.now(UTC).date()
        found: dict[date, dict[str, int]] = {today - timedelta(days=n): {} for n in reversed(range(days))}
        for day, kind, count in rows:
            found.setdefault(day, {})[str(kind)] = int(count)
        return found

    def open_by_severity(self) -> dict[str, int]:
        """How many incidents are open, by how bad they are."""
        rows = self.query("SELECT severity, count() FROM incidents_final WHERE closed_at IS NULL GROUP BY severity")
        return {str(severity): int(count) for severity, count in rows}

    def open_incidents(self, kind: str, *, market: Market | None = None) -> list[OpenIncident]:
        """The open incidents of a kind, of one market or all, oldest first."""
        rows = self.query(
            "SELECT incident_id, kind, severity, what, toUnixTimestamp64Milli(opened_at), market, symbol, details, version "
            "FROM incidents_final WHERE kind = {kind:String} AND closed_at IS NULL "
            "AND ({market:String} = '' OR market = {market:String}) ORDER BY opened_at, incident_id",
            {"kind": kind, "market": str(market or "")},
        )
        return [
            OpenIncident(
                row[0],
                row[1],
                row[2],
                row[3],
                row[4],
                market=Market(row[5]) if row[5] else None,
                symbol=Symbol(Market(row[5]), row[6]) if row[6] else None,
                details=json.loads(row[7] or "{}"),
                version=int(row[8]),
            )
            for row in rows
        ]

    def incident_groups(self, *, closed_within: int) -> list[IncidentGroup]:
        """
        Incidents worse than a note, open or closed within so many seconds, by kind and market.
        """
        rows = self.query(
            "SELECT kind, market, count(), if(countIf(severity = 'critical') > 0, 'critical', 'degraded'), "
            "argMax(what, opened_at) FROM incidents_final WHERE severity IN ('degraded', 'critical') "
            "AND (closed_at IS NULL OR closed_at > now64(3) - toIntervalSecond({closed_within:UInt32})) "
            "GROUP BY kind, market ORDER BY kind, market",
            {"closed_within": closed_within},
        )
        return [IncidentGroup(kind, market, int(count), severity, what) for kind, market, count, severity, what in rows]

    def note_on_incident(self, found: OpenIncident, details: Mapping[str, Any]) -> None:
        """Add to the details of an open incident, as a row that follows the one that was read."""
        row: dict[str, Any] = {
            "incident_id": found.incident_id,
            "opened_at": found.opened_ms,
            "kind": found.kind,
            "severity": found.severity,
            "market": str(found.market or ""),
            "symbol": found.symbol.name if found.symbol else "",
            "what": found.what,
            "details": json.dumps({**found.details, **details}, sort_keys=True),
            "version": found.version + 1,
            "run_id": "",
        }
        self.insert_columns("incidents", tuple(row), [[value] for value in row.values()])
