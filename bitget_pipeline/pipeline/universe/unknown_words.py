"""
Statuses that nobody knows: the exchange renamed one, or has a new one.

Told by discover.py as an incident, one for each market while it lasts. What such a word means is not guessed: its instruments
count as restricted and are collected on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from ...market.instrument import Instrument, Market
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ..incidents import Incident, Severity, close_incident, report_incident

KIND = "unknown_status"
NAMED = 5
"""Instruments that are named for each word."""


async def tell_unknown_words(
    warehouse: Warehouse,
    versions: Versions,
    market: Market,
    unknown: Collection[Instrument],
    *,
    at_ms: int,
    run_id: str,
) -> None:
    """The instruments of a complete list whose status is no known word. `at_ms` is Unix ms UTC."""
    known = next(iter(await asyncio.to_thread(warehouse.open_incidents, KIND, market=market)), None)
    words: dict[str, list[str]] = {}
    for one in sorted(unknown, key=lambda one: str(one.symbol)):
        words.setdefault(one.exchange_status, []).append(one.symbol.name)
    if not words:
        if known is not None:
            because = "every status is known again"
            await close_incident(warehouse, versions, known, because=because, at_ms=at_ms, run_id=run_id)
        return
    if known is not None and known.details.get("words") == words:
        return
    told = "; ".join(f"{word!r} of {_named(names)}" for word, names in words.items())
    incident = Incident(
        known.incident_id if known else f"{KIND}:{market.value}:{run_id}:{at_ms}",
        KIND,
        Severity.DEGRADED,
        f"{market.value} lists a status that nobody knows: {told}; it counts as restricted, what is collected goes on",
        known.opened_ms if known else at_ms,
        market=market,
        details={"words": words},
    )
    await report_incident(warehouse, versions, incident, run_id=run_id)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
