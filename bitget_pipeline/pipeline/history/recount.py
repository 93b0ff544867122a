"""
The daily recount: does the table still hold what the ledger says?

Asked by the asset `coverage` every night, about every stream of which the ledger says how many rows are stored. A lost
volume, a dropped partition or a row changed behind our back must not read `complete`: the ledger is corrected, and what is
missing is due at once. Streams with a row for every minute are counted here, the others in recount_others.py.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...market.candle import Resolution
from ...market.coverage import CoverageState, Evidence
from ...market.derivatives import PriceKind
from ...market.instrument import Symbol
from ...market.interval import Interval, from_ms, gaps_between
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import get_logger
from ..incidents import Incident, Severity, report_incident
from .recount_others import OTHERS

log = get_logger(__name__)

MINUTE_MS = Resolution.M1.ms
DAY_MS = Resolution.D1.ms
STORED = frozenset({CoverageState.COMPLETE, CoverageState.PARTIAL})
LOST = "the ledger called it stored, but the recount did not find it"
BEHIND = "more is stored than was accounted for"
CHANGED = "the table holds other bars than those accounted for"


@dataclass(slots=True)
class Recount:
    """How many statements were compared, and those that claimed too much, as they stood."""

    statements: int = 0
    wrong: list[Evidence] = field(default_factory=list)
    lost: int = 0  # rows
    behind: int = 0  # statements that claimed less than there is


@dataclass(frozen=True, slots=True)
class _Minutes:
    """
    A stream of which every minute has a row: how its table is counted, by symbol and UTC day and for one stretch, with a
    digest where the ledger keeps one.
    """

    stream: str
    counts: Callable[[], dict[tuple[Symbol, int], tuple[int, int]]]
    count: Callable[[Symbol, Interval], tuple[int, int]]
    opens: Callable[[Symbol, Interval], list[int]]


def _candles(warehouse: Warehouse, source: str) -> _Minutes:
    minute = Resolution.M1
    return _Minutes(
        f"candles_{minute.value}",
        functools.partial(warehouse.candle_counts, minute, source=source),
        lambda symbol, stretch: warehouse.candle_digest(symbol, minute, stretch, source=source),
        lambda symbol, stretch: warehouse.candle_opens(symbol, minute, stretch, source=source),
    )


def _prices(warehouse: Warehouse, kind: PriceKind, source: str) -> _Minutes:
    def opens(symbol: Symbol, stretch: Interval) -> list[int]:
        return [bar.open_ms for bar in warehouse.price_candles(symbol, kind, Resolution.M1, stretch, source=source)]

    return _Minutes(
        f"{kind.value}_candles_{Resolution.M1.value}",
        lambda: {key: (rows, 0) for key, rows in warehouse.price_candle_counts(kind, source=source).items()},
        lambda symbol, stretch: (len(opens(symbol, stretch)), 0),
        opens,
    )


async def recount(
    warehouse: Warehouse, versions: Versions, *, source: str, run_id: str, now_ms: Callable[[], int]
) -> Recount:
    """Compare every statement about stored rows with its table, whatever the stream, and correct those that are wrong."""
    found = Recount()
    for minutes in (_candles(warehouse, source), *(_prices(warehouse, kind, source) for kind in PriceKind)):
        await _recount_minutes(warehouse, versions, minutes, found, run_id=run_id, now_ms=now_ms)
    for other in OTHERS:
        statements, wrong, lost = await other(warehouse, versions, source=source, run_id=run_id, now_ms=now_ms())
        found.statements += statements
        found.wrong += wrong
        found.lost += lost
    if found.wrong:
        first = found.wrong[0]
        await report_incident(
            warehouse,
            versions,
            Incident(
                incident_id=f"recount:{run_id}",
                kind="recount_differs",
                severity=Severity.CRITICAL if found.lost else Severity.DEGRADED,
                what=f"{len(found.wrong)} stretches of the ledger did not agree with the table ({found.lost} rows lost); "
                f"first {first.stream} of {first.symbol} at {from_ms(first.interval.start_ms)}; what the exchange still "
                "serves will be fetched again, on demand what is collected on demand",
                opened_ms=now_ms(),
                details={
                    "lost": found.lost,
                    "stretches": len(found.wrong),
                    "streams": sorted({one.stream for one in found.wrong}),
                },
            ),
            run_id=run_id,
        )
    return found


async def _recount_minutes(
    warehouse: Warehouse,
    versions: Versions,
    minutes: _Minutes,
    found: Recount,
    *,
    run_id: str,
    now_ms: Callable[[], int],
) -> None:
    standing = await asyncio.to_thread(warehouse.coverage, minutes.stream)
    claims = [one for one in standing if one.state in STORED]
    found.statements += len(claims)
    counts = await asyncio.to_thread(minutes.counts) if claims else {}
    for claim in claims:
        if counts.get((claim.symbol, claim.interval.start_ms // DAY_MS)) == (claim.rows, claim.digest):
            continue
        # The day differs as a whole. A writer may have been at work, or the claim is about a part of it: look closely.
        rows, digest = await asyncio.to_thread(minutes.count, claim.symbol, claim.interval)
        if (rows, digest) == (claim.rows, claim.digest):
            continue
        if rows > claim.rows or (rows == claim.rows and not claim.digest):
            found.behind += 1  # stored, and killed before it was accounted for
        else:
            found.wrong.append(claim)
            found.lost += claim.rows - rows
        opens = await asyncio.to_thread(minutes.opens, claim.symbol, claim.interval)
        said = _corrected(claim, standing, opens, rows, digest, now_ms=now_ms())
        version = await versions.next()
        await asyncio.to_thread(warehouse.store_evidence, said, version=version, run_id=run_id)
        log.warning("recount.differs", symbol=str(claim.symbol), claimed=claim.rows, found=rows, stream=claim.stream)


def _corrected(
    claim: Evidence, standing: Sequence[Evidence], opens: Sequence[int], rows: int, digest: int, *, now_ms: int
) -> list[Evidence]:
    """What is there, and the list of what is not; holes that were known keep what was found out about them."""
    stretch = claim.interval
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
    return [*wide, *known, *holes]


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
