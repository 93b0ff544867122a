"""The rate budget: never over the limit, used to the full, the urgent first."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitget_pipeline.guard.rate_limit import BudgetRules, Priority, RateBudget, RateLimit

STEP = 0.001


def sent_in(
    budget: RateBudget, seconds: float, *, wanting: dict[Priority, int], per_second: float = 20, start: float = 0.0
) -> list[tuple[float, Priority]]:
    """Callers who each ask, wait as told, ask again, and start anew once they sent."""
    wake = [(start, n, priority) for n, priority in enumerate(p for p, count in wanting.items() for _ in range(count))]
    sent: list[tuple[float, Priority]] = []
    while (turn := min(wake))[0] < start + seconds:
        now, n, priority = turn
        wait = budget.ask("spot.x", per_second, priority, now=now)
        if wait == 0.0:
            sent.append((now, priority))
        wake[wake.index(turn)] = (now + max(wait, 1e-6), n, priority)
    return sent


def most_within(moments: list[float], window: float) -> int:
    """The most sent in any window of that length, both ends counted."""
    first = worst = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] > window:
            first += 1
        worst = max(worst, last - first + 1)
    return worst


def test_a_rate_limit_spaces_what_it_grants() -> None:
    """Ten a second, one at a time: at once, then a tenth of a second later each."""
    limit = RateLimit(per_second=10, burst=1, now=0.0)
    assert limit.reserve(now=0.0) == 0.0
    assert limit.reserve(now=0.0) == pytest.approx(0.1)
    assert limit.reserve(now=0.0) == pytest.approx(0.2)
    assert limit.reserve(now=10.0) == 0.0


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 2), max_size=60))
def test_a_rate_limit_is_kept_in_every_window(per_second: float, burst: int, pauses: list[float]) -> None:
    """Never more than burst + rate × length within any stretch, and nobody waits for longer than those before need."""
    limit = RateLimit(per_second=per_second, burst=burst, now=0.0)
    now, moments = 0.0, []
    for n, pause in enumerate(pauses):
        now += pause
        delay = limit.reserve(now=now)
        assert delay <= (n + 1) / per_second + 1e-6
        moments.append(now + delay)
    assert moments == sorted(moments)
    for window in (0.5, 1.0, 3.0):
        assert most_within(moments, window) <= burst + per_second * window + 1e-6


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1.0, 2.0, 5.0, 10.0, 20.0]),
    st.dictionaries(st.sampled_from(Priority), st.integers(1, 3), min_size=1),
    st.floats(0, 1e6),
)
def test_no_second_ever_holds_more_than_the_published_limit(
    per_second: float, wanting: dict[Priority, int], start: float
) -> None:
    """In any sliding second, hence in any fixed one, however many ask with whatever priority."""
    budget = RateBudget(BudgetRules(), now=start)
    sent = sent_in(budget, 5.0, wanting=wanting, per_second=per_second, start=start)
    assert most_within([moment for moment, _ in sent], 0.999999) <= per_second


@pytest.mark.parametrize("priority", Priority)
def test_whoever_works_alone_uses_all_of_it(priority: Priority) -> None:
    """The backfill too: what nobody urgent wants is not held back."""
    sent = sent_in(RateBudget(BudgetRules()), 60.0, wanting={priority: 3})
    assert len(sent) == pytest.approx(0.9 * 20 * 60, rel=0.01)


def test_the_urgent_go_first() -> None:
    """While repair wants all there is, the backfill gets next to nothing; alone again, it gets everything."""
    budget = RateBudget(BudgetRules())
    together = Counter(
        priority for _, priority in sent_in(budget, 10.0, wanting={Priority.LIVE_REPAIR: 4, Priority.BACKFILL: 8})
    )
    assert together[Priority.LIVE_REPAIR] >= 0.97 * 180
    assert together[Priority.BACKFILL] <= 5
    alone = sent_in(budget, 10.0, wanting={Priority.BACKFILL: 8}, start=10.0)
    assert len(alone) >= 175


def test_a_single_urgent_request_hardly_waits_behind_a_backfill() -> None:
    """In the middle of a busy backfill, a repair is served within one request's time."""
    budget = RateBudget(BudgetRules())
    sent_in(budget, 10.0, wanting={Priority.BACKFILL: 16})
    assert budget.ask("spot.x", 20, Priority.LIVE_REPAIR, now=10.0) <= 1 / 18


def test_everything_together_stays_below_the_limit_of_the_address() -> None:
    """Twelve endpoints at once: 6000 a minute is the narrower limit, and is not reached."""
    budget = RateBudget(BudgetRules())
    moments = []
    steps = int(70 / 0.01)
    for step in range(steps):
        for endpoint in range(12):
            while budget.ask(f"e{endpoint}", 20, Priority.BACKFILL, now=step * 0.01) == 0.0:
                moments.append(step * 0.01)
    assert most_within(moments, 60.0) <= 6000
    assert len(moments) >= 0.97 * 90 * 70


def test_the_backfills_own_ceiling_binds_the_backfill_alone() -> None:
    """historical_rps."""
    rules = BudgetRules(backfill_per_second=3)
    assert len(sent_in(RateBudget(rules), 20.0, wanting={Priority.BACKFILL: 4})) == pytest.approx(60, abs=2)
    assert len(sent_in(RateBudget(rules), 20.0, wanting={Priority.DISCOVERY: 4})) == pytest.approx(360, abs=4)


def test_a_refusal_closes_the_endpoint_and_slows_it_down() -> None:
    """And after a while without another it is as fast as before, in steps."""
    budget = RateBudget(BudgetRules())
    budget.penalise("spot.x", 20, 2.0, now=0.0)
    assert budget.ask("spot.x", 20, Priority.LIVE_REPAIR, now=0.5) == 1.5
    assert budget.ask("spot.y", 20, Priority.LIVE_REPAIR, now=0.5) == 0.0
    slow = len(sent_in(budget, 2.0, wanting={Priority.BACKFILL: 2}, start=2.0))
    assert slow == pytest.approx(0.5 * 18 * 2, abs=3)
    recovering = len(sent_in(budget, 4.0, wanting={Priority.BACKFILL: 2}, start=12.0))
    assert 0.75 * 72 <= recovering <= 0.95 * 72
    assert len(sent_in(budget, 10.0, wanting={Priority.BACKFILL: 2}, start=100.0)) == pytest.approx(180, abs=3)


def test_refusals_that_go_on_mean_the_global_limit() -> None:
    """After ten seconds of 429 nobody asks anything for five minutes."""
    budget = RateBudget(BudgetRules())
    now, seconds = 0.0, 1.0
    while now <= 16.0:
        budget.penalise("spot.x", 20, seconds, now=now)
        now += seconds + 0.2
        seconds *= 2
    assert budget.ask("spot.y", 20, Priority.LIVE_REPAIR, now=now) > 280


def test_a_refusal_now_and_then_does_not() -> None:
    """One every ten seconds slows the endpoint down and no more."""
    budget = RateBudget(BudgetRules())
    for n in range(20):
        budget.penalise("spot.x", 20, 1.0, now=n * 10.0)
    assert budget.ask("spot.y", 20, Priority.BACKFILL, now=200.0) == 0.0


def test_refusals_with_successes_between_them_close_one_endpoint_and_no_more() -> None:
    """Somebody else uses this address: a 429 every three seconds for a minute slows us down, and closes nothing else."""
    budget = RateBudget(BudgetRules())
    for n in range(20):
        budget.penalise("spot.x", 20, 1.0, now=n * 3.0)
        budget.penalise("spot.x", 20, 1.0, now=n * 3.0)  # it was on its way already
        budget.succeeded("spot.x", 20, now=n * 3.0 + 1.5)
    assert budget.ask("spot.y", 20, Priority.BACKFILL, now=60.0) == 0.0
    assert budget.endpoints["spot.x"].bucket.pace == pytest.approx(0.1)


def test_refusals_of_requests_that_were_on_their_way_count_once() -> None:
    """Three requests sent at once and refused are one mistake: the pace is halved, not divided by eight."""
    budget = RateBudget(BudgetRules())
    for later in (0.0, 0.01, 0.05):
        budget.penalise("spot.x", 20, 1.0, now=later)
    assert budget.endpoints["spot.x"].bucket.pace == 0.5


def test_the_exchanges_own_count_is_believed_when_it_is_lower() -> None:
    """Somebody else uses this address too: the header says nothing is left."""
    budget = RateBudget(BudgetRules())
    budget.remaining("spot.x", 20, 0, now=0.0)
    assert budget.ask("spot.x", 20, Priority.LIVE_REPAIR, now=0.0) == pytest.approx(2 / 18)
    budget.remaining("spot.x", 20, 19, now=0.0)
    assert budget.ask("spot.x", 20, Priority.LIVE_REPAIR, now=0.0) > 0


@given(st.lists(st.tuples(st.floats(-5, 20), st.sampled_from(Priority), st.integers(0, 3)), max_size=60))
def test_a_clock_that_jumps_back_gives_nothing_away(story: list[tuple[float, Priority, int]]) -> None:
    """Waits are finite and not negative, and a told wait is enough when nobody else asks."""
    budget = RateBudget(BudgetRules())
    now = highest = 0.0
    granted = 0
    for later, priority, what in story:
        now += later
        highest = max(highest, now)
        if what == 0:
            budget.penalise("spot.x", 20, 1.0, now=now)
        wait = budget.ask("spot.x", 20, priority, now=now)
        assert 0.0 <= wait < 1e6
        granted += wait == 0.0
    assert granted <= 1.75 + 18 * highest + 1
