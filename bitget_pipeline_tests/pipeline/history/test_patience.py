"""Patience with stores: how long a walk waits, and when it stops waiting."""

from __future__ import annotations

import pytest

from bitget_pipeline.errors import StoreRefused, StoreUnavailable
from bitget_pipeline.pipeline.history.patience import StorePatience


class Time:
    """A clock that goes on only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    async def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Store:
    """Answers after it was asked in vain a number of times."""

    def __init__(self, failures: float) -> None:
        self.failures = failures
        self.asked = 0

    async def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.failures:
            raise StoreUnavailable("it cannot be reached", where="there", remedy="start it")
        return "here"


def patience(time: Time, longest: float = 60.0) -> StorePatience:
    return StorePatience(longest, clock=lambda: time.now, pause=time.pause)


async def test_a_short_absence_is_waited_out():
    """
    Five vain tries, each after a longer wait, none longer than three seconds.
    """
    time, store = Time(), Store(5)
    assert await patience(time).answered("Redis", store.ask) == "here"
    assert len(time.waits) == 5
    assert time.waits[0] <= 0.1 < time.waits[-1] <= 3.0


async def test_a_long_absence_ends_in_a_clear_error_and_those_that_follow_do_not_wait():
    """
    A minute is over: the error says how long; the next question is asked once; when the store is back, patience is too.
    """
    time, store = Time(), Store(float("inf"))
    waiting = patience(time)
    with pytest.raises(StoreUnavailable, match=r"it cannot be reached; it has been away for 60 s \(there\) — start it"):
        await waiting.answered("Redis", store.ask)
    assert time.now == pytest.approx(60.0)

    before = store.asked
    with pytest.raises(StoreUnavailable):
        await waiting.answered("Redis", store.ask)
    assert (store.asked, time.now) == (before + 1, pytest.approx(60.0))

    assert await waiting.answered("ClickHouse", Store(3).ask) == "here"  # the other store is another matter
    assert await waiting.answered("Redis", Store(0).ask) == "here"
    assert await waiting.answered("Redis", Store(3).ask) == "here"


async def test_what_waiting_cannot_mend_is_raised_at_once():
    """
    A store that refuses will refuse again.
    """
    time = Time()

    async def refusing() -> None:
        raise StoreRefused("no")

    with pytest.raises(StoreRefused):
        await patience(time).answered("Redis", refusing)
    assert time.waits == []
