"""
What a walk over a day came to, written into the ledger: the table is believed, not our memory.

Called by backfill.py after every walk, also one that failed. Data first, evidence second; all statements of one account
share a version, so that a hole is never called stored in between. What may be said of a hole is decided in
market/coverage.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date

from ...errors import PipelineError, RequestRefused, StoreRefused, UnknownInstrument
from ...market.coverage import (
    REFUSED,
    SETTLED,
    CoverageState,
    Evidence,
    HoleFacts,
    judge,
    next_retry,
    split_at,
)
from ...market.instrument import Status, Symbol
from ...market.interval import Interval, from_ms, gaps_between, to_ms
from ...storage.digest import candle_digest
from ...telemetry import count
from ..incidents import Incident, Severity, report_incident
from .report import KeyReport, KeyState
from .walkers import Walked, Walkers
from .witness import bounded_by, testimony

STORED = frozenset({CoverageState.COMPLETE, CoverageState.PARTIAL})
DISPUTED = (
    "stored, but the exchange sent its neighbours without it; a second answer has to confirm that it is withdrawn"
)


async def account(walkers: Walkers, walked: Walked, day: date, *, day_is_over: bool) -> KeyReport:
    """Read back what the table holds now of a walked day, and write it down with every hole and its reason."""
    symbol, stretch, every = walked.symbol, walked.stretch, walkers.resolution.ms
    if stretch.empty:
        return KeyReport(symbol, day, KeyState.PARTIAL)
    disputed = await _withdrawals(walkers, walked)
    rows, digest = await walkers.ask(
        walkers.warehouse.candle_digest, symbol, walkers.resolution, stretch, source=walkers.source
    )
    expected = (stretch.end_ms - stretch.start_ms) // every
    whole_day = len(walked.fetched) == expected
    if (
        (rows, digest) != candle_digest(walked.fetched)
        if whole_day
        else not await _holds_what_was_sent(walkers, walked)
    ):
        raise StoreRefused(
            f"the table does not hold the {len(walked.fetched)} bars that were sent", where=f"{symbol} on {day}",
            remedy="run this key again with refresh; if it stays so, the disk or the server damages data",
        )  # fmt: skip
    gaps: list[Interval] = []
    if rows != expected:
        gaps = gaps_between(await stored_opens(walkers, symbol, stretch), every_ms=every, within=stretch)
    holes = [await _hole(walkers, walked, piece, earlier) for piece, earlier in _pieces(gaps, walked.standing)]
    listed = [*holes, *disputed]
    still_open = tuple(one.interval for one in listed if one.state not in SETTLED)
    whole = Evidence(
        symbol,
        walkers.stream,
        stretch,
        CoverageState.PARTIAL if listed else CoverageState.COMPLETE,
        rows=rows,
        expected=expected,
        digest=digest,
        reason=_in_words(holes, disputed),
    )
    await _write(walkers, walked, [whole, *listed])
    state = KeyState.COMPLETE if day_is_over and not still_open else KeyState.PARTIAL
    if state is KeyState.COMPLETE and not rows:
        state = KeyState.UNAVAILABLE
    return KeyReport(symbol, day, state, rows, expected, len(walked.fetched), still_open, digest=digest)


async def _holds_what_was_sent(walkers: Walkers, walked: Walked) -> bool:
    """Whether every bar of a repair is in the table as it was sent. (A whole day is compared by its digest, in ClickHouse.)"""
    for stretch in walked.asked:
        sent = [bar for bar in walked.fetched if bar.open_ms in stretch]
        if not sent:
            continue
        within = Interval(sent[0].open_ms, sent[-1].open_ms + walkers.resolution.ms)
        stored = await walkers.ask(
            walkers.warehouse.candles, walked.symbol, walkers.resolution, within, source=walkers.source
        )
        if not set(sent) <= set(stored):
            return False
    return True


async def account_for_failure(walkers: Walkers, walked: Walked, error: PipelineError) -> None:
    """A walk that did not come to its end: what is missing is listed as unknown, with the reason and the next try."""
    symbol, stretch, every = walked.symbol, walked.stretch, walkers.resolution.ms
    refused = _refuses_the_symbol(walkers, symbol, error)
    opens = await stored_opens(walkers, symbol, stretch)
    holes: list[Evidence] = []
    for piece, earlier in _pieces(gaps_between(opens, every_ms=every, within=stretch), walked.standing):
        if earlier is not None and earlier.state in SETTLED:
            holes.append(replace(earlier, interval=piece))
            continue
        facts = HoleFacts(
            bounded=False,
            attempts=1 + (earlier.attempts if earlier else 0),
            answered_ms=walkers.now_ms(),
            missed_since_ms=_missed_since(earlier, refused=refused),
            refused=refused,
            problem=str(error),
        )
        since = facts.answered_ms if refused and facts.missed_since_ms is None else facts.missed_since_ms
        made = _said(walkers, symbol, piece, facts, since_ms=since)
        holes.append(replace(made, reason=f"{made.reason}: {error}"))
    if not holes:
        return
    expected = (stretch.end_ms - stretch.start_ms) // every
    whole = Evidence(
        symbol, walkers.stream, stretch, CoverageState.PARTIAL, rows=len(opens), expected=expected,
        reason=_in_words(holes, []),
    )  # fmt: skip
    await _write(walkers, walked, [whole, *holes])


async def stored_opens(walkers: Walkers, symbol: Symbol, stretch: Interval) -> list[int]:
    """The open times of the bars that the table holds of a stretch."""
    return await walkers.ask(walkers.warehouse.candle_opens, symbol, walkers.resolution, stretch, source=walkers.source)


# ---------------------------------------------------------------- holes


def _pieces(gaps: Iterable[Interval], standing: Sequence[Evidence]) -> list[tuple[Interval, Evidence | None]]:
    earlier = [one for one in standing if one.state not in STORED]
    return [piece for gap in gaps for piece in split_at(gap, earlier)]


async def _hole(walkers: Walkers, walked: Walked, piece: Interval, earlier: Evidence | None) -> Evidence:
    """What can be said of missing minutes after this walk; what was settled and not asked for again stays."""
    if earlier is not None and not walked.was_asked(piece):
        return replace(earlier, interval=piece)
    now = walkers.now_ms()
    attempts = 1 + (earlier.attempts if earlier else 0)
    bounded, who = walked.bounds(piece), ""
    # Minutes cannot bound what is longer than their page, nor, seen from within one day, what lasts over midnight.
    if not bounded and (attempts > 1 or piece.end_ms - piece.start_ms > walkers.longest_bounded_ms):
        who = await bounded_by(walkers, walked.symbol, piece, walked.tally)
        bounded = bool(who)
    since = _missed_since(earlier)
    facts = HoleFacts(
        bounded=bounded,
        attempts=attempts,
        answered_ms=walked.first_answer_ms or now,
        missed_since_ms=since,
    )
    if facts.wants_witness:
        heard = await testimony(walkers, walked.symbol, piece, walked.tally, bounded=bounded)
        facts, who = replace(facts, witness=heard.says), heard.who or who
    if since is None and bounded:
        since = walked.last_answer_ms or now
    made = _said(walkers, walked.symbol, piece, facts, since_ms=since)
    return replace(made, reason=f"{made.reason} ({who})") if who else made


def _missed_since(earlier: Evidence | None, *, refused: bool = False) -> int | None:
    """Since when answers lack it, or since when they refuse the symbol: one says nothing of the other."""
    if earlier is None or earlier.missed_since is None or earlier.reason.startswith(REFUSED) is not refused:
        return None
    return to_ms(earlier.missed_since)


def _refuses_the_symbol(walkers: Walkers, symbol: Symbol, error: PipelineError) -> bool:
    """Whether the exchange no longer knows it. Spot calls that a wrong parameter: believed where discovery retired it."""
    known = walkers.instruments.get(symbol)
    retired = known is not None and known.status is Status.RETIRED
    return isinstance(error, UnknownInstrument) or (retired and isinstance(error, RequestRefused))


def _said(walkers: Walkers, symbol: Symbol, piece: Interval, facts: HoleFacts, *, since_ms: int | None) -> Evidence:
    rule = judge(facts)
    count(f"coverage.{rule.state}")
    return Evidence(
        symbol,
        walkers.stream,
        piece,
        rule.state,
        expected=(piece.end_ms - piece.start_ms) // walkers.resolution.ms,
        reason=rule.reason,
        retry_at=next_retry(rule.state, attempts=facts.attempts, now=from_ms(walkers.now_ms())),
        attempts=facts.attempts,
        missed_since=from_ms(since_ms) if since_ms is not None else None,
    )


def _in_words(holes: Sequence[Evidence], disputed: Sequence[Evidence]) -> str:
    if not holes and not disputed:
        return "every closed bar is stored"
    parts = []
    if holes:
        parts.append(f"{len(holes)} holes, first at {from_ms(holes[0].interval.start_ms)}")
    if disputed:
        parts.append(f"{len(disputed)} stretches may be withdrawn, first at {from_ms(disputed[0].interval.start_ms)}")
    return "; ".join(parts)


# ---------------------------------------------------------------- bars that the exchange withdraws


async def _withdrawals(walkers: Walkers, walked: Walked) -> list[Evidence]:
    """
    Stored bars that a walk did not find again: disputed after the first answer, tombstones after the second.

    Returns what stays disputed.
    """
    every = walkers.resolution.ms
    gone = [
        opened
        for walk in walked.walks
        for hole in walk.holes()
        for opened in range(hole.start_ms, hole.end_ms, every)
        if opened in walked.stored_before and walk.bounds(Interval(opened, opened + every))
    ]
    disputed: list[Evidence] = []
    confirmed: list[int] = []
    known = [one for one in walked.standing if one.state not in STORED]
    for opened in gone:
        minute = Interval(opened, opened + every)
        ((_, earlier),) = split_at(minute, known)
        since = _missed_since(earlier)
        now = walkers.now_ms()
        facts = HoleFacts(
            bounded=True,
            attempts=1 + (earlier.attempts if earlier else 0),
            answered_ms=walked.first_answer_ms or now,
            missed_since_ms=since,
        )
        if facts.missed_twice:
            confirmed.append(opened)
            continue
        disputed.append(
            Evidence(
                walked.symbol,
                walkers.stream,
                minute,
                CoverageState.UNKNOWN,
                rows=1,
                expected=1,
                reason=DISPUTED,
                retry_at=next_retry(CoverageState.UNKNOWN, attempts=facts.attempts, now=from_ms(now)),
                attempts=facts.attempts,
                missed_since=from_ms(since if since is not None else walked.last_answer_ms or now),
            )
        )
    if confirmed:
        await _bury(walkers, walked.symbol, confirmed)
    return disputed


async def _bury(walkers: Walkers, symbol: Symbol, opens: Sequence[int]) -> None:
    """Hide bars that the exchange has withdrawn, and say so."""
    every = walkers.resolution.ms
    span = Interval(min(opens), max(opens) + every)
    stored = await walkers.ask(walkers.warehouse.candles, symbol, walkers.resolution, span, source=walkers.source)
    wanted = set(opens)
    bars = [bar for bar in stored if bar.open_ms in wanted]
    version = await walkers.next_version()
    await walkers.ask(
        walkers.warehouse.store_candles, symbol, walkers.resolution, bars,
        version=version, run_id=walkers.run_id, source=walkers.source, received_ms=walkers.now_ms(), deleted=True,
    )  # fmt: skip
    first = from_ms(span.start_ms)
    incident = Incident(
        incident_id=f"disappeared_bar:{symbol}:{walkers.stream}:{span.start_ms}",
        kind="disappeared_bar",
        severity=Severity.NOTE,
        what=f"{symbol}: the exchange has withdrawn {len(bars)} bars of {walkers.stream}, first at {first}",
        opened_ms=walkers.now_ms(),
        symbol=symbol,
        details={"bars": [list(bar) for bar in bars[:20]]},
    )
    await walkers.patience.answered(
        "ClickHouse",
        lambda: report_incident(walkers.warehouse, walkers.versions, incident, run_id=walkers.run_id),
    )


# ---------------------------------------------------------------- writing


async def _write(walkers: Walkers, walked: Walked, statements: Sequence[Evidence]) -> None:
    """Add the statements, unless the ledger says exactly this already."""
    whole, *listed = statements
    same_stretch = any(one.interval == whole.interval for one in listed)
    wanted = [*walked.outside, *(listed if same_stretch else statements)]
    standing = set(_compared(walked.standing))
    if set(_compared(wanted)) == standing:
        return
    version = await walkers.next_version()
    await walkers.ask(walkers.warehouse.store_evidence, wanted, version=version, run_id=walkers.run_id)


def _compared(statements: Iterable[Evidence]) -> list[Evidence]:
    return [replace(one, version=0) for one in statements]
