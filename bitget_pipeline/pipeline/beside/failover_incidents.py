"""
What a failover leaves in the table `incidents`: one row for each that happened, and for each time when nobody could stand in.

Written by market_failover.py as it begins and by fail_back.py with its figures.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from ...market.instrument import Market
from ...storage.substitution import Darkness, Episode
from ..incidents import Incident, Severity, report_incident
from ..live.plan import LiveStores

KIND = "failover"
NOBODY = "failover_nobody"


async def tell(incident: Incident, stores: LiveStores, *, run_id: str) -> None:
    """Write an incident down."""
    await report_incident(stores.warehouse, stores.versions, incident, run_id=run_id)


def begun(episode: Episode) -> Incident:
    """The incident of an episode as it begins."""
    return Incident(
        episode.incident_id,
        KIND,
        Severity.NOTE if episode.forced else Severity.DEGRADED,
        f"{episode.source} stands in for {episode.market.value}: {episode.reason}",
        episode.detected_ms,
        market=episode.market,
        details={
            "source": episode.source,
            "reason": episode.reason,
            "forced": episode.forced,
            "symbols": len(episode.symbols),
            "detected_after_seconds": seconds(episode.silent_ms, episode.detected_ms),
            "switched_after_seconds": seconds(episode.silent_ms, episode.switched_ms),
        },
    )


def darkness(market: Market, what: str, *, at_ms: int) -> Darkness:
    """Our exchange is dark, and the other venue cannot stand in."""
    return Darkness(f"{NOBODY}:{market.value}:{uuid.uuid4().hex[:12]}", at_ms, what)


def nobody(market: Market, dark: Darkness) -> Incident:
    """Its incident; closed once it is dark no more, or somebody stands in."""
    found = Incident(dark.incident_id, NOBODY, Severity.CRITICAL, dark.what, dark.since_ms, market=market)
    if not dark.over_ms:
        return found
    return replace(found, closed_ms=dark.over_ms, details={"alone_seconds": seconds(dark.since_ms, dark.over_ms)})


def seconds(from_ms: int, to_ms: int) -> float | None:
    """From one moment to another, None while the second has not come."""
    return round((to_ms - from_ms) / 1000, 1) if to_ms else None
