"""The exchange's limits, in both windows."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.local.exchange.limits import Allowance, RateLimiter

Window = Literal["fixed", "sliding"]


def test_a_fixed_window_forgets_at_its_edge():
    """Twenty at the end of a second and twenty at the start of the next pass."""
    limit = Allowance(most=20, seconds=1.0, window="fixed")
    assert all(limit.take(100.9) for _ in range(20))
    assert not limit.take(100.99)
    assert all(limit.take(101.0) for _ in range(20))


def test_a_sliding_window_looks_back_a_whole_second():
    """The same burst across an edge is refused."""
    limit = Allowance(most=20, seconds=1.0, window="sliding")
    assert all(limit.take(100.9) for _ in range(20))
    assert not limit.take(101.0)
    assert limit.take(101.91)


@given(gaps=st.lists(st.floats(min_value=0, max_value=0.4), max_size=200))
def test_no_second_ever_holds_more_than_the_limit(gaps: list[float]):
    """Whatever the arrivals, any sliding second has at most `most` accepted requests."""
    limit, now, taken = Allowance(most=5, seconds=1.0, window="sliding"), 0.0, list[float]()
    for gap in gaps:
        now += gap
        if limit.take(now):
            taken.append(now)
    assert all(sum(1 for t in taken if end - 1.0 < t <= end) <= 5 for end in taken)


@pytest.mark.parametrize("window", ["fixed", "sliding"])
def test_endpoints_and_addresses_count_apart(window: Window):
    """Each path has its own allowance, and each address too."""
    limiter = RateLimiter(window=window)
    for _ in range(20):
        assert limiter.allow("a", "/x", per_second=20, now=10.0)[0]
    assert limiter.allow("a", "/x", per_second=20, now=10.0) == (False, 0)
    assert limiter.allow("a", "/y", per_second=20, now=10.0) == (True, 19)
    assert limiter.allow("b", "/x", per_second=20, now=10.0) == (True, 19)


@pytest.mark.parametrize("window", ["fixed", "sliding"])
def test_too_many_in_a_minute_cost_five_minutes(window: Window):
    """After 6,000 in a minute everything from the address is refused until the penalty is over."""
    limiter = RateLimiter(window=window)
    for i in range(6000):
        assert limiter.allow("a", f"/{i % 400}", per_second=20, now=600.0 + i / 200)[0]
    assert not limiter.allow("a", "/new", per_second=20, now=631.0)[0]
    assert not limiter.allow("a", "/new", per_second=20, now=930.0)[0]
    assert limiter.allow("b", "/new", per_second=20, now=930.0)[0]
    assert limiter.allow("a", "/new", per_second=20, now=931.1)[0]
