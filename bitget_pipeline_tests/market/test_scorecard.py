"""What became of holes, and how far counters grew: the pure part of the scorecard."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.scorecard import (
    BY_NAME,
    METRICS,
    Outcome,
    Reading,
    Statement,
    holes_of,
    increase,
    metric_of,
    quantile,
)

BTC = Symbol(Market.SPOT, "BTCUSDT")
MINUTE = 60_000


def said(start: int, end: int, state: CoverageState, *, version: int, at: int, reason: str = "") -> Statement:
    """A statement about minutes, written down at a second."""
    return Statement(BTC, Interval(start * MINUTE, end * MINUTE), state, reason, version, at * 1000)


def test_a_hole_that_is_filled_later_is_repaired_and_its_time_is_from_its_end() -> None:
    """
    Minutes 10 to 12 (their end is second 720) are missing at second 1000 and stored at second 4000.
    """
    (hole,) = holes_of(
        [
            said(0, 60, CoverageState.PARTIAL, version=1, at=1000),
            said(10, 12, CoverageState.UNKNOWN, version=1, at=1000),
            said(0, 60, CoverageState.COMPLETE, version=2, at=4000),
        ]
    )

    assert (hole.outcome, hole.detected, hole.repaired) == (Outcome.REPAIRED, 280.0, 3280.0)
    assert hole.interval == Interval(10 * MINUTE, 12 * MINUTE)


def test_a_hole_is_open_while_any_minute_of_it_is() -> None:
    """
    One of two minutes is filled: the hole is open, and nothing is said of its repair.
    """
    (hole,) = holes_of(
        [
            said(10, 12, CoverageState.UNKNOWN, version=1, at=1000),
            said(10, 11, CoverageState.COMPLETE, version=2, at=2000),
        ]
    )

    assert (hole.outcome, hole.repaired) == (Outcome.OPEN, None)


def test_a_hole_that_opens_again_is_repaired_when_it_was_closed_for_good() -> None:
    """
    A recount doubted what had been filled: what counts is the last time.
    """
    (hole,) = holes_of(
        [
            said(10, 12, CoverageState.UNKNOWN, version=1, at=1000),
            said(10, 12, CoverageState.COMPLETE, version=2, at=2000),
            said(10, 12, CoverageState.UNKNOWN, version=3, at=3000),
            said(10, 12, CoverageState.COMPLETE, version=4, at=4000),
            said(10, 12, CoverageState.COMPLETE, version=5, at=5000),
        ]
    )

    assert (hole.outcome, hole.repaired) == (Outcome.REPAIRED, 4000 - 720)


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (CoverageState.VERIFIED_EMPTY, Outcome.PROVEN_EMPTY),
        (CoverageState.UNAVAILABLE, Outcome.LOST),
        (CoverageState.UNEXPLAINED, Outcome.OPEN),
    ],
)
def test_a_hole_ends_as_what_was_said_last(state: CoverageState, outcome: Outcome) -> None:
    """
    Proven empty, no longer to be had, or never explained.
    """
    (hole,) = holes_of(
        [said(5, 6, CoverageState.UNKNOWN, version=1, at=1), said(5, 6, state, version=2, at=2)],
    )

    assert hole.outcome is outcome


def test_a_break_that_was_bridged_at_once_counts_though_it_was_never_open() -> None:
    """
    Its one statement says complete, for the reason of a break; an hour that agrees is no break.
    """
    bridged = said(3, 4, CoverageState.COMPLETE, version=1, at=241, reason="a break, bridged by trade ids at both ends")
    agreed = said(0, 60, CoverageState.COMPLETE, version=2, at=3700, reason="the volume of every minute is …")
    (hole,) = holes_of([bridged, agreed])

    assert (hole.interval, hole.outcome, hole.detected, hole.repaired) == (
        bridged.interval,
        Outcome.REPAIRED,
        1.0,
        1.0,
    )


def test_what_was_empty_or_expired_from_the_start_is_no_hole() -> None:
    """
    Before a listing nothing was ever missing.
    """
    assert not holes_of([said(0, 60, CoverageState.VERIFIED_EMPTY, version=1, at=1)])
    assert not holes_of([said(0, 60, CoverageState.EXPIRED, version=1, at=1)])


def test_holes_that_touch_are_two_and_those_that_overlap_one() -> None:
    """
    A second answer may miss more or less of the same hole.
    """
    first = said(10, 12, CoverageState.UNKNOWN, version=1, at=1)

    assert len(holes_of([first, said(12, 13, CoverageState.UNKNOWN, version=1, at=1)])) == 2
    assert len(holes_of([first, said(11, 13, CoverageState.UNKNOWN, version=2, at=2)])) == 1
    assert len(holes_of([first, replace(first, symbol=Symbol(Market.USDTM, "BTCUSDT"))])) == 2


def test_counters_are_counted_from_reading_to_reading_through_a_beginning_anew() -> None:
    """
    10 → 30, anew to 5, 5 → 9: 29 requests; what was read before the day is no part of it.
    """
    readings = [
        Reading(at * 1000, granted, 0, 10.0) for at, granted in ((-120, 0), (-60, 10), (0, 30), (60, 5), (120, 9))
    ]
    found = increase(readings, Interval(0, 86_400_000))

    assert found is not None
    assert (found.granted, found.refused, found.seconds, found.planned) == (29, 0, 180.0, 1800.0)
    assert found.peak == pytest.approx(20 / 600)
    assert increase(readings[:1], Interval(0, 86_400_000)) is None


def test_nothing_is_said_of_the_time_between_readings_that_lie_far_apart() -> None:
    """
    The requests count, but whether they were many for the time is not known.
    """
    found = increase([Reading(0, 0, 0, 90.0), Reading(3_600_000, 500, 2, 90.0)], Interval(0, 86_400_000))

    assert found is not None
    assert (found.granted, found.refused, found.seconds, found.peak) == (500, 2, 0.0, None)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.99, 4.0), (0.25, 1.0), (0.0, 1.0), (1.0, 4.0)])
def test_a_quantile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    """
    The least value that at least that share does not exceed.
    """
    assert quantile([4.0, 1.0, 3.0, 2.0], share) == expected


def test_every_metric_has_a_name_of_its_own_and_promises_are_judged() -> None:
    """
    What is not known is neither kept nor broken.
    """
    assert len(BY_NAME) == len(METRICS)
    assert metric_of("completeness").met(0.999) is False
    assert metric_of("completeness").met(1.0) is True
    assert metric_of("duplicates").met(0.0) is True
    assert metric_of("duplicates").met(None) is None
    assert metric_of("incidents:gap_not_repairable").unit == "incidents"
