"""A breaker opens after failures, rests, tries once, and is never stuck."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.guard.breaker import NEXT_STATE, Breaker, Event, State


def tripped() -> Breaker:
    breaker = Breaker(trip_after=3, rest=5.0, longest_rest=20.0, trial_within=60.0)
    for _ in range(3):
        breaker.failed(now=0.0)
    return breaker


def test_a_breaker_opens_after_failures_in_a_row() -> None:
    """A success between them starts the count anew."""
    breaker = Breaker(trip_after=3)
    for _ in range(2):
        breaker.failed(now=0.0)
    breaker.succeeded(now=0.0)
    for _ in range(2):
        breaker.failed(now=0.0)
    assert breaker.resting(now=0.0) == 0.0
    breaker.failed(now=0.0)
    assert breaker.state is State.OPEN
    assert breaker.resting(now=1.0) == 4.0


def test_after_the_rest_one_caller_tries_and_the_others_wait() -> None:
    """Its success closes the breaker."""
    breaker = tripped()
    assert breaker.resting(now=5.0) == 0.0
    assert breaker.state is State.TRIAL
    assert breaker.resting(now=5.0) == 1.0  # not for as long as a trial may take: it is mostly answered at once
    breaker.succeeded(now=5.5)
    assert breaker.state is State.CLOSED
    assert breaker.resting(now=5.5) == 0.0


def test_failed_trials_rest_longer_up_to_a_limit() -> None:
    """5, 10, 20 and again 20 seconds; a success starts with 5 anew."""
    breaker = tripped()
    now, rests = 0.0, []
    for _ in range(4):
        now += breaker.resting(now=now)
        assert breaker.resting(now=now) == 0.0
        breaker.failed(now=now)
        rests.append(breaker.resting(now=now))
    assert rests == [10.0, 20.0, 20.0, 20.0]
    breaker.resting(now=now + 20)
    breaker.succeeded(now=now + 20)
    for _ in range(3):
        breaker.failed(now=now + 30)
    assert breaker.resting(now=now + 30) == 5.0


def test_a_trial_that_never_reports_is_forgotten() -> None:
    """Its task may have been cancelled; the next caller tries."""
    breaker = tripped()
    assert breaker.resting(now=5.0) == 0.0
    assert breaker.resting(now=64.9) > 0
    assert breaker.resting(now=65.0) == 0.0


def test_no_move_leads_out_of_the_table() -> None:
    """An open breaker only closes through a trial or a late success, never by a failure."""
    assert {state for state, _ in NEXT_STATE} == set(State)
    assert (State.OPEN, Event.FAILED) not in NEXT_STATE


@given(st.lists(st.tuples(st.sampled_from(["ask", "succeeded", "failed"]), st.floats(0, 100)), max_size=60))
def test_a_breaker_is_never_stuck(story: list[tuple[str, float]]) -> None:
    """Whatever happened, waiting as long as it says lets somebody through, after the longest rest at the latest."""
    breaker = Breaker()
    now = 0.0
    for what, later in story:
        now += later
        if what == "ask":
            assert 0.0 <= breaker.resting(now=now) <= 120.0
        elif what == "succeeded":
            breaker.succeeded(now=now)
        else:
            breaker.failed(now=now)
    begin = now
    while now <= begin + 121.0:
        wait = breaker.resting(now=now)
        now += wait
        if wait == 0.0:
            return
    raise AssertionError("nobody was let through")
