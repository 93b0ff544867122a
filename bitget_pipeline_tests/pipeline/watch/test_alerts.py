"""Which alert is told, and when: new, worse, still there, over."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.pipeline.incidents import Severity
from bitget_pipeline.pipeline.watch.alerts import (
    MOST_WAITING,
    Alert,
    AlertRules,
    Book,
    Message,
    Said,
    delivered,
    happened,
    joined,
    looked,
)

RULES = AlertRules(cool_down=900.0, steady=120.0, repeat_every=6 * 3600.0)
NOON = 1_800_000_000.0
RED = Alert("health", Severity.CRITICAL, "no live run holds the lease")
PALE = Alert("health", Severity.DEGRADED, "trades wait")


@dataclass
class Watcher:
    """Somebody who looks every now and then, and hears what is told."""

    book: Book = field(default_factory=Book)
    now: float = NOON
    heard: list[Message] = field(default_factory=list)

    def look(self, *present: Alert, after: float = 60.0, hold: float = 0.0) -> list[Said]:
        self.now += after
        return self._take(looked(self.book, "health", present, ["log"], now=self.now, rules=RULES, hold=hold))

    def fail(self, what: str = "it failed", *, after: float = 60.0) -> list[Said]:
        self.now += after
        alert = Alert("run:discovery", Severity.DEGRADED, what)
        return self._take(happened(self.book, alert, ["log"], now=self.now, rules=RULES))

    def _take(self, book: Book) -> list[Said]:
        told = book.waiting.get("log", [])
        self.book = delivered(book, "log", [one.ident for one in told])
        self.heard += told
        return [one.said for one in told]


def test_what_lasts_is_told_once_and_its_end_once() -> None:
    """Looked at every minute for an hour; the message of the end says since when it was."""
    watcher = Watcher()
    assert watcher.look(RED) == [Said.NEW]
    began = watcher.now
    assert not any(watcher.look(RED) for _ in range(60))
    assert [watcher.look() for _ in range(4)] == [[], [], [Said.OVER], []]
    assert (watcher.heard[-1].since, watcher.heard[-1].what) == (began, RED.what)


def test_what_comes_and_goes_is_one_alert() -> None:
    """A condition that flaps faster than it counts as over is told once."""
    watcher = Watcher()
    for _ in range(100):
        watcher.look(RED, after=10)
        watcher.look(after=10)
    assert [one.said for one in watcher.heard] == [Said.NEW]


def test_what_comes_back_soon_after_its_end_waits_for_the_cool_down() -> None:
    """It is told when it still lasts then; what went again before is told neither way."""
    watcher = Watcher()
    watcher.look(RED)
    watcher.look()
    assert watcher.look(after=120) == [Said.OVER]
    assert watcher.look(RED) == []
    assert watcher.look(RED, after=900) == [Said.NEW]

    watcher = Watcher()
    watcher.look(RED)
    watcher.look()
    watcher.look(after=120)
    assert watcher.look(RED) == []
    assert watcher.look(after=900) == []
    assert watcher.book.known == {}


def test_what_becomes_worse_is_told_at_once_and_what_lasts_is_repeated() -> None:
    """A critical alert is not held back by the degraded one before it; six hours later it is told again."""
    watcher = Watcher()
    assert watcher.look(PALE) == [Said.NEW]
    assert watcher.look(RED) == [Said.WORSE]
    assert watcher.look(PALE) == []
    assert watcher.look(RED) == []
    assert watcher.look(RED, after=6 * 3600) == [Said.STILL]


def test_what_is_held_is_told_only_when_it_lasts() -> None:
    """A live run needs a minute to start: critical at one look is no alert, at two it is."""
    watcher = Watcher()
    assert watcher.look(RED, hold=45) == []
    assert watcher.look(hold=45) == []
    assert watcher.look(RED, hold=45) == []
    assert watcher.look(RED, hold=45) == [Said.NEW]


def test_runs_that_fail_again_are_counted_not_told() -> None:
    """Three hundred failed runs of one job are one alert; the next time it is told, it says how many there were."""
    watcher = Watcher()
    assert watcher.fail() == [Said.NEW]
    assert not any(watcher.fail(after=1) for _ in range(299))
    assert watcher.fail("once more", after=6 * 3600) == [Said.STILL]
    assert (watcher.heard[-1].times, watcher.heard[-1].what) == (301, "once more")


def test_a_look_at_one_scope_says_nothing_of_another() -> None:
    """That health is well does not end the alert of a run."""
    watcher = Watcher()
    watcher.fail()
    for _ in range(10):
        assert watcher.look() == []
    assert watcher.book.known["run:discovery"].announced


def test_sleep_and_a_clock_set_back_end_nothing_and_silence_nothing() -> None:
    """After eight hours of sleep one look proves no end; after a step back of a day what is new is told as ever."""
    watcher = Watcher()
    watcher.look(RED)
    assert watcher.look(after=8 * 3600) == []
    assert watcher.look(RED) == [Said.STILL]

    watcher.look(after=-86_400)
    assert watcher.look(after=120) == [Said.OVER]
    assert watcher.look(RED, after=900) == [Said.NEW]


def test_a_channel_that_takes_nothing_keeps_the_newest() -> None:
    """What waits is bounded, and a channel that is not configured any more keeps nothing."""
    book = Book()
    for number in range(MOST_WAITING + 50):
        alert = Alert(f"run:{number}", Severity.DEGRADED, "it failed")
        book = happened(book, alert, ["log", "webhook"], now=NOON + number, rules=RULES)
    assert len(book.waiting["webhook"]) == MOST_WAITING
    assert book.waiting["webhook"][-1].key == f"run:{MOST_WAITING + 49}"
    assert set(looked(book, "health", [], ["log"], now=NOON, rules=RULES).waiting) == {"log"}


def test_what_was_told_while_redis_was_away_is_not_told_again() -> None:
    """The latest look at each key counts, and what was delivered meanwhile does not wait any more."""
    before = looked(Book(), "health", [RED], ["log", "webhook"], now=NOON, rules=RULES)
    (waiting,) = before.waiting["log"]
    aside = looked(before, "health", [RED], ["log", "webhook"], now=NOON + 60, rules=RULES)
    aside = happened(aside, Alert("run:live", Severity.CRITICAL, "gone"), ["log"], now=NOON + 61, rules=RULES)

    book = joined(before, delivered(aside, "log", [waiting.ident]), {"log": [waiting.ident]})

    assert [one.key for one in book.waiting["log"]] == ["run:live"]
    assert [one.key for one in book.waiting["webhook"]] == ["health"]
    assert book.known["health"].looked == NOON + 60


LOOKS = st.lists(st.tuples(st.sampled_from([None, PALE, RED]), st.integers(1, 4000)), min_size=1, max_size=60)


@given(LOOKS)
def test_whatever_happens_each_end_follows_its_beginning_and_nobody_is_flooded(
    looks: list[tuple[Alert | None, int]],
) -> None:
    """
    Beginnings and ends alternate; beginnings are a cool-down apart; in between it is told again only when it is worse or as
    often as the rules say; what lasts is told in the end; and what is over and quiet leaves nothing behind.
    """
    watcher = Watcher()
    for alert, after in looks:
        watcher.look(*([alert] if alert else []), after=after)
        copied = msgspec.json.decode(msgspec.json.encode(watcher.book), type=Book)
        assert copied == watcher.book  # another process, or this one restarted, goes on from the same

    frame = [one.said for one in watcher.heard if one.said in (Said.NEW, Said.OVER)]
    assert frame == [Said.NEW, Said.OVER] * (len(frame) // 2) + [Said.NEW] * (len(frame) % 2)
    told = [one for one in watcher.heard if one.said is not Said.OVER]
    for earlier, later in pairwise(told):
        if later.said is Said.NEW:
            assert later.at - earlier.at >= RULES.cool_down
        elif later.said is Said.STILL:
            assert later.at - earlier.at >= RULES.repeat_every
        else:
            assert (earlier.severity, later.severity) == (Severity.DEGRADED, Severity.CRITICAL)

    watcher.look(RED, after=60)
    watcher.look(RED, after=RULES.cool_down)
    assert watcher.book.known["health"].announced
    for _ in range(3):
        watcher.look(after=RULES.cool_down)
    assert watcher.heard[-1].said is Said.OVER
    assert watcher.book.known == {}
