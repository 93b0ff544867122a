"""The rules of the ledger: what may be said of a hole, when it is tried again, and what days come to."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.market.coverage import (
    ANSWERS_APART_MS,
    RETRY_AFTER,
    SETTLED,
    CoverageState,
    Evidence,
    HoleFacts,
    Witness,
    judge,
    next_retry,
    split_at,
)
from bitget_pipeline.market.coverage_days import by_day, day_of
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms

BTC = Symbol(Market.SPOT, "BTCUSDT")
DAY = date(2026, 10, 4)
WHOLE = Interval.of_day(DAY)
MINUTE = 60_000
NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)
NOON_MS = round(NOON.timestamp() * 1000)

facts = st.builds(
    HoleFacts,
    bounded=st.booleans(),
    attempts=st.integers(1, 12),
    answered_ms=st.just(NOON_MS),
    missed_since_ms=st.none() | st.integers(NOON_MS - 3 * ANSWERS_APART_MS, NOON_MS),
    witness=st.sampled_from(Witness),
    refused=st.booleans(),
    problem=st.sampled_from(["", "no answer within 30 s"]),
)


def said(start: int, end: int, state: CoverageState, version: int = 1, **more: object) -> Evidence:
    """A statement about minutes of the day."""
    stretch = Interval(WHOLE.start_ms + start * MINUTE, WHOLE.start_ms + end * MINUTE)
    return Evidence(BTC, "candles_1m", stretch, state, version=version, **more)  # type: ignore[arg-type]


@given(hole=facts)
def test_emptiness_is_verified_by_every_proof_or_not_at_all(hole: HoleFacts) -> None:
    """
    Neighbours in one answer, two answers half an hour apart, and a witness: without one of them it stays unknown.
    """
    proven = (
        hole.bounded and hole.missed_twice and hole.witness is Witness.SILENT and not hole.refused and not hole.problem
    )
    assert (judge(hole).state is CoverageState.VERIFIED_EMPTY) == proven


@given(hole=facts)
def test_what_is_not_settled_is_tried_again_and_what_is_settled_rests(hole: HoleFacts) -> None:
    """
    First after half an hour, at last once a week: never at once, never not at all.
    """
    state = judge(hole).state
    retry = next_retry(state, attempts=hole.attempts, now=NOON)
    if state in SETTLED:
        assert retry is None
    else:
        assert retry is not None
        assert RETRY_AFTER[0] <= retry - NOON <= RETRY_AFTER[-1]


def test_patience_grows_from_hours_to_days() -> None:
    """
    Each vain attempt is followed by a longer rest.
    """
    rests = [next_retry(CoverageState.UNKNOWN, attempts=n, now=NOON) for n in range(1, 12)]
    waits = [rest - NOON for rest in rests if rest is not None]

    assert waits == sorted(waits)
    assert waits[0] == timedelta(minutes=30)
    assert waits[-1] == timedelta(days=7)


def test_a_witness_who_saw_trades_makes_a_hole_unexplained_only_in_the_end() -> None:
    """
    The exchange may send the bar yet; after the third vain walk it is called unexplained.
    """
    seen = [
        judge(HoleFacts(True, n, NOON_MS, NOON_MS - ANSWERS_APART_MS, Witness.TRADED)).state for n in range(1, 5)
    ]  # fmt: skip
    unknown, unexplained = CoverageState.UNKNOWN, CoverageState.UNEXPLAINED
    assert seen == [unknown, unknown, unexplained, unexplained]


def test_what_was_found_out_of_one_minute_is_not_said_of_another() -> None:
    """
    A hole that grew is judged in pieces: the old minutes keep their history, the new ones have none.
    """
    old = said(10, 12, CoverageState.UNKNOWN, attempts=3)
    pieces = split_at(said(9, 13, CoverageState.UNKNOWN).interval, [old])

    minutes = [((part.start_ms - WHOLE.start_ms) // MINUTE, known) for part, known in pieces]
    assert minutes == [(9, None), (10, old), (12, None)]


def test_later_statements_lie_over_earlier_ones_and_nothing_is_silent() -> None:
    """
    Stored, proven empty, open and never asked for: every closed minute of the day is in one of them.
    """
    retry = NOON + timedelta(hours=1)
    evidence = [
        said(60, 1440, CoverageState.PARTIAL, 1, rows=1375, expected=1380),
        said(100, 103, CoverageState.VERIFIED_EMPTY, 1),
        said(200, 202, CoverageState.UNKNOWN, 1, retry_at=retry, reason="why"),
    ]
    found = day_of(BTC, DAY, evidence, now_ms=NOON_MS)

    assert (found.stored, found.without, found.unseen) == (
        1375,
        {CoverageState.VERIFIED_EMPTY: 3, CoverageState.UNKNOWN: 2},
        60,
    )
    assert found.state is CoverageState.PARTIAL
    assert found.due  # an hour of it was never asked for
    assert found.next_retry == retry


def test_a_claim_of_more_than_was_counted_leaves_minutes_unseen() -> None:
    """
    A day called partial without a list of its holes is not taken for whole.
    """
    found = day_of(BTC, DAY, [said(0, 1440, CoverageState.PARTIAL, rows=1400, expected=1440)], now_ms=NOON_MS)

    assert (found.stored, found.unseen, found.due) == (1400, 40, True)


def test_a_day_that_was_complete_at_noon_is_due_in_the_evening() -> None:
    """
    Only closed minutes are wanted, and those that close later are wanted later.
    """
    evidence = [said(0, 720, CoverageState.COMPLETE, rows=720, expected=720)]
    noon, evening = WHOLE.start_ms + 720 * MINUTE, WHOLE.end_ms

    assert not day_of(BTC, DAY, evidence, now_ms=noon).due
    assert day_of(BTC, DAY, evidence, now_ms=evening).due


def test_days_nobody_has_heard_of_are_listed_too() -> None:
    """
    Every symbol and every day asked about is in the answer.
    """
    days = [DAY, DAY + timedelta(days=1)]
    evidence = [said(0, 1440, CoverageState.COMPLETE, rows=1440, expected=1440)]
    found = by_day(evidence, symbols=[BTC], days=days, now_ms=NOON_MS)

    assert [found[BTC, day].state for day in days] == [CoverageState.COMPLETE, CoverageState.UNKNOWN]
    assert from_ms(NOON_MS).date() == days[1]
    assert found[BTC, days[1]].unseen == 720
