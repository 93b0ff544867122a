"""
A list of instruments that lost more than 5 %: not believed, until it has stayed the same for a day or a person accepts it.

Asked by discover.py. What is known of such a list lies in its incident, one for each market while it lasts: which
instruments it lacks, since when, in how many complete answers, and whether somebody accepted it
(`bitget-pipeline symbols accept-list`). The rules are in market/universe.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from ...market.instrument import Market
from ...market.universe import BELIEVED_AFTER, BELIEVED_ANSWERS, Doubt, believable, doubt
from ...storage.incident_rows import OpenIncident
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ..incidents import Incident, Severity, close_incident, report_incident

KIND = "shrunk_list"


async def why_not_believed(
    warehouse: Warehouse,
    versions: Versions,
    market: Market,
    missing: Collection[str],
    *,
    before: int,
    now: int,
    at_ms: int,
    run_id: str,
) -> tuple[str, str]:
    """
    What is wrong with a list of `now` instruments where `before` were known, and what to do about it; ("", "") once it
    is believed.

    `missing` are the names it lacks. Each call counts as one complete answer at `at_ms` (Unix ms UTC).
    """
    known = await _open(warehouse, market)
    found = doubt(doubt_of(known) if known else None, missing, before=before, at_ms=at_ms)
    why = believable(found, at_ms=at_ms)
    if why:
        if known is not None:
            await close_incident(warehouse, versions, known, because=why, at_ms=at_ms, run_id=run_id)
        return "", ""
    hours, wanted = (at_ms - found.since_ms) / 3_600_000, BELIEVED_AFTER.total_seconds() / 3600
    what = f"the list of {market.value} shrank from {before} to {now} instruments"
    remedy = (
        f"it is believed once it has been the same in {BELIEVED_ANSWERS} answers over {wanted:.0f} h (so far "
        f"{found.answers}, over {hours:.1f} h); if it is true: bitget-pipeline symbols accept-list {market.value}"
    )
    incident = Incident(
        known.incident_id if known else f"{KIND}:{market.value}:{run_id}:{at_ms}",
        KIND,
        Severity.DEGRADED,
        f"{what} — {remedy}",
        known.opened_ms if known else at_ms,
        market=market,
        details={
            "before": before,
            "now": now,
            "missing": sorted(found.missing),
            "since_ms": found.since_ms,
            "answers": found.answers,
            "accepted": found.accepted,
        },
    )
    await report_incident(warehouse, versions, incident, run_id=run_id)
    return what, remedy


async def whole_again(warehouse: Warehouse, versions: Versions, market: Market, *, at_ms: int, run_id: str) -> None:
    """A list came that is not too short: nothing is in doubt any more."""
    known = await _open(warehouse, market)
    if known is not None:
        await close_incident(
            warehouse, versions, known, because="the list is whole again", at_ms=at_ms, run_id=run_id
        )  # fmt: skip


async def _open(warehouse: Warehouse, market: Market) -> OpenIncident | None:
    return next(iter(await asyncio.to_thread(warehouse.open_incidents, KIND, market=market)), None)


def doubt_of(known: OpenIncident) -> Doubt:
    """What the incident says of the list."""
    told = known.details
    return Doubt(
        frozenset(told["missing"]), int(told["since_ms"]), int(told["answers"]), accepted=bool(told["accepted"])
    )
