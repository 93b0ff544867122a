"""How long a subscription may be silent follows from its own pace."""

from __future__ import annotations

import json

import pytest

from bitget_pipeline.feed.pace import Pace, SilenceRules


def arriving(*, every: float, times: int) -> Pace:
    pace = Pace()
    for number in range(times):
        pace.heard(now=number * every)
    return pace


@pytest.mark.parametrize(("every", "within"), [(0.1, 15.0), (2.0, 27.6), (60.0, 829.0), (86_400.0, 21_600.0)])
def test_the_slower_the_pace_the_longer_the_silence(every: float, within: float) -> None:
    """
    Two seconds between arrivals make half a minute of silence unlikely, a minute a quarter of an hour; within bounds.
    """
    assert arriving(every=every, times=50).silence_within(SilenceRules()) == pytest.approx(within, rel=0.01)


@pytest.mark.parametrize(
    ("times", "within"), [(0, 21_600.0), (1, 21_600.0), (3, 1998.0), (5, 122.5), (8, 43.4), (9, 15.0)]
)
def test_a_pace_guessed_from_a_few_arrivals_allows_a_longer_silence(times: int, within: float) -> None:
    """
    A symbol that spoke every second for some seconds only and fell silent then is doubted within minutes, not hours.
    """
    young = arriving(every=1.0, times=times)
    assert young.known is (times > 8)
    assert young.silence_within(SilenceRules()) == pytest.approx(within, rel=0.01)


def test_the_next_connection_goes_on_with_the_pace_and_learns_nothing_from_the_break() -> None:
    """
    An hour between two connections is no gap between two arrivals.
    """
    learned = arriving(every=1.0, times=50)
    later = learned.resumed()
    assert later.known
    assert later.heard_at is None
    for number in range(5):
        later.heard(now=3600.0 + number)
    assert later.silence_within(SilenceRules()) == pytest.approx(learned.silence_within(SilenceRules()))


def test_another_process_goes_on_with_the_pace_whatever_its_clock_says() -> None:
    """
    What is written down and read by a clock that began anew is the same pace, its pauses as many days ago.
    """
    pace = Pace()
    now = spell(pace, start=1e6, every=12.0, lasting=6 * 3600.0, pause=540.0)
    now = spell(pace, start=now, every=12.0, lasting=7200.0, pause=0.0)
    other = Pace.of_plain(json.loads(json.dumps(pace.plain(now=now))), now=5.0)
    assert (other.known, other.heard_at, other.arrivals) == (True, None, pace.arrivals)
    assert other.silence_within(SilenceRules()) == pytest.approx(pace.silence_within(SilenceRules()), rel=1e-3)
    later = Pace.of_plain(pace.plain(now=now), now=5.0, later=9 * 86_400.0)
    assert (
        160 < later.silence_within(SilenceRules()) < 200 < pace.silence_within(SilenceRules())
    )  # last week's pause is over


def test_a_pace_that_was_guessed_is_known_and_soon_corrected() -> None:
    """
    The trades of yesterday say one a second; the day after it is one in ten, and after some of these that is its pace.
    """
    pace = Pace.seeded(arrivals=80_000, gap=1.0, longest=4.0, now=0.0)
    assert pace.known
    assert pace.silence_within(SilenceRules()) == pytest.approx(15.0)
    for number in range(40):
        pace.heard(now=10.0 * number)
    assert pace.silence_within(SilenceRules()) > 70


def test_one_that_goes_quiet_may_be_silent_longer() -> None:
    """
    After a burst, a symbol that trades slowly again is judged by the slow pace soon.
    """
    pace = arriving(every=1.0, times=500)
    for number in range(30):
        pace.heard(now=500.0 + 20.0 * number)
    assert pace.silence_within(SilenceRules()) > 100


def spell(pace: Pace, *, start: float, every: float, lasting: float, pause: float) -> float:
    """Arrivals for a while, then none for a while; when the next comes."""
    now = start
    while now < start + lasting:
        pace.heard(now=now)
        now += every
    return now + pause


def test_a_pause_that_was_seen_this_week_is_usual_and_is_forgotten_after_it() -> None:
    """
    A quiet symbol that pauses for nine minutes once a day is not called silent for it, until a week has gone without.
    """
    pace = Pace()
    now = spell(pace, start=0.0, every=12.0, lasting=6 * 3600.0, pause=540.0)
    pace.heard(now=now)
    assert pace.silence_within(SilenceRules()) == pytest.approx(2 * 552.0, rel=0.02)
    for _ in range(9):
        now = spell(pace, start=now + 12.0, every=12.0, lasting=86_400.0, pause=0.0)
    assert pace.silence_within(SilenceRules()) < 200


def test_a_busy_symbol_that_once_paused_is_still_noticed_within_a_minute() -> None:
    """
    Nine minutes of pause of a symbol that trades every second grant it forty seconds, not eighteen minutes.
    """
    pace = Pace()
    now = spell(pace, start=0.0, every=1.0, lasting=7200.0, pause=540.0)
    now = spell(pace, start=now, every=1.0, lasting=1800.0, pause=0.0)
    assert 30 < pace.silence_within(SilenceRules(least=30.0)) <= 40
