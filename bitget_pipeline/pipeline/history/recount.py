"""
The daily recount: does the table still hold what the ledger says?

Asked by the asset `coverage` every night. A lost volume, a dropped partition or a row changed behind our back must not
read `complete`: the ledger is corrected, and what is missing is due at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...market.candle import Resolution
from ...market.coverage import CoverageState, Evidence
from ...market.interval import Interval, from_ms, gaps_between
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import get_logger
from ..incidents import Incident, Severity, report_incident

log = get_logger(__name__)

MINUTE_MS = Resolution.M1.ms
STORED = frozenset({CoverageState.COMPLETE, CoverageState.PARTIAL})
LOST = "the ledger called it stored, but the recount did not find it"
BEHIND = "more is stored than was accounted for"
CHANGED = "the table holds other bars than those accounted for"


@dataclass(slots=True)
class Recount:
    """How many statements were compared, and those that claimed too much, as they stood."""

    statements: int = 0
    wrong: list[Evidence] = field(default_factory=list)
    lost: int = 0  # bars
    behind: int = 0  # statements that claimed less than there is


async def recount(
    warehouse: Warehouse, versions: Versions, *, source: str, run_id: str, now_ms: Callable[[], int]
) -> Recount:
    """Compare every statement about stored one-minute bars with the table, and correct those that are wrong."""
    found = Recount()
    standing = await asyncio.to_thread(warehouse.coverage, f"candles_{Resolution.M1.value}")
    claims = [one for one in standing if one.state in STORED]
    counts = await asyncio.to_thread(warehouse.candle_counts, Resolution.M1, source=source)
    found.statements = len(claims)
    for claim in claims:
        if counts.get((claim.symbol, claim.interval.start_ms // 86_400_000)) == (claim.rows, claim.digest):
            continue
        # The day differs as a whole. A writer may have been at work, or the claim is about a part of it: look closely.
        rows, digest = await asyncio.to_thread(
            warehouse.candle_digest, claim.symbol, Resolution.M1, claim.interval, source=source
        )
        if (rows, digest) == (claim.rows, claim.digest):
            continue
        if rows > claim.rows or (rows == claim.rows and not claim.digest):
            found.behind += 1  # stored, and killed before it was accounted for
        else:
            found.wrong.append(claim)
            found.lost += claim.rows - rows
        await _correct(
            warehouse, versions, claim, standing, rows, digest, source=source, run_id=run_id, now_ms=now_ms()
        )
    if found.wrong:
        first = found.wrong[0]
        await report_incident(
            warehouse,
            versions,
            Incident(
                incident_id=f"recount:{run_id}",
                kind="recount_differs",
                severity=Severity.CRITICAL if found.lost else Severity.DEGRADED,
                what=f"{len(found.wrong)} stretches of the ledger did not agree with the table ({found.lost} bars lost); "
                f"first {first.symbol} at {from_ms(first.interval.start_ms)}; they will be fetched again",
                opened_ms=now_ms(),
                details={"lost": found.lost, "stretches": len(found.wrong)},
            ),
            run_id=run_id,
        )
    return found


async def _correct(
    warehouse: Warehouse,
    versions: Versions,
    claim: Evidence,
    standing: Sequence[Evidence],
    rows: int,
    digest: int,
    *,
    source: str,
    run_id: str,
    now_ms: int,
) -> None:
    """Say what is there, and list what is not; holes that were known keep what was found out about them."""
    stretch = claim.interval
    opens = await asyncio.to_thread(warehouse.candle_opens, claim.symbol, Resolution.M1, stretch, source=source)
    known = [
        one
        for one in standing
        if one.symbol == claim.symbol
        and one.state not in STORED
        and one.interval.start_ms >= stretch.start_ms
        and one.interval.end_ms <= stretch.end_ms
    ]
    explained = {
        opened for one in known for opened in range(one.interval.start_ms, one.interval.end_ms, MINUTE_MS)
    }  # fmt: skip
    lost = gaps_between([*opens, *explained], every_ms=MINUTE_MS, within=stretch)
    doubted, reason = (lost, LOST) if lost else ([stretch], CHANGED)
    if not lost and (rows > claim.rows or not claim.digest):
        doubted, reason = [], BEHIND
    holes = [_due(claim, part, reason, now_ms) for part in doubted]
    complete = rows == claim.expected and not known and not holes
    state = CoverageState.COMPLETE if complete else CoverageState.PARTIAL
    whole = replace(claim, state=state, rows=rows, digest=digest, reason=f"recounted: {reason}")
    wide = [] if any(one.interval == stretch for one in holes) else [whole]
    version = await versions.next()
    await asyncio.to_thread(warehouse.store_evidence, [*wide, *known, *holes], version=version, run_id=run_id)
    log.warning("recount.differs", symbol=str(claim.symbol), claimed=claim.rows, found=rows)


def _due(claim: Evidence, part: Interval, reason: str, now_ms: int) -> Evidence:
    return Evidence(
        claim.symbol,
        claim.stream,
        part,
        CoverageState.UNKNOWN,
        expected=(part.end_ms - part.start_ms) // MINUTE_MS,
        reason=reason,
        retry_at=from_ms(now_ms),
    )
