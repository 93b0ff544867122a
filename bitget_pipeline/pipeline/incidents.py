"""
What went wrong and is worth a row: written to the `incidents` table by every walk.

An incident has one id for its whole life; a later row with the same id (and a greater version) updates or closes it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..market.instrument import Market, Symbol
from ..storage.incident_rows import OpenIncident
from ..storage.versions import Versions
from ..storage.warehouse import Warehouse
from ..telemetry import get_logger

log = get_logger(__name__)


class Severity(StrEnum):
    """How bad it is."""

    NOTE = "note"
    DEGRADED = "degraded"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Incident:
    """
    One thing that went wrong. `what` is one line for a person; times are Unix ms UTC; without a symbol it concerns the
    market, or all.
    """

    incident_id: str
    kind: str
    severity: Severity
    what: str
    opened_ms: int
    closed_ms: int | None = None
    market: Market | None = None
    symbol: Symbol | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


async def report_incident(warehouse: Warehouse, versions: Versions, incident: Incident, *, run_id: str) -> None:
    """Write the incident down, and into the log."""
    tell = log.warning if incident.closed_ms is None else log.info
    tell("incident", kind=incident.kind, severity=incident.severity.value, what=incident.what)
    market = incident.symbol.market if incident.symbol is not None else incident.market
    row: dict[str, Any] = {
        "incident_id": incident.incident_id,
        "opened_at": incident.opened_ms,
        "closed_at": incident.closed_ms,
        "kind": incident.kind,
        "severity": incident.severity.value,
        "market": market.value if market is not None else "",
        "symbol": incident.symbol.name if incident.symbol is not None else "",
        "what": incident.what,
        "details": json.dumps(dict(incident.details), sort_keys=True),
        "version": await versions.next(),
        "run_id": run_id,
    }
    await asyncio.to_thread(warehouse.insert_columns, "incidents", tuple(row), [[value] for value in row.values()])


async def close_incident(
    warehouse: Warehouse, versions: Versions, found: OpenIncident, *, because: str, at_ms: int, run_id: str
) -> None:
    """An open incident is over: its last row says since when (Unix ms UTC) and why."""
    closed = Incident(
        found.incident_id,
        found.kind,
        Severity(found.severity),
        found.what,
        found.opened_ms,
        at_ms,
        found.market,
        found.symbol,
        {**found.details, "closed_because": because},
    )
    await report_incident(warehouse, versions, closed, run_id=run_id)
