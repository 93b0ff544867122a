"""
What is told to people, and when: which alert is new, worse, still there, over. Pure.

From what is wrong now (defs/alerts.py) and the book of what was told before; to the messages that wait for each channel.
The book lies in Redis (storage/alert_book.py), so that processes agree and a restart repeats nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from ...telemetry import get_logger
from ..incidents import Severity

log = get_logger(__name__)

MOST_WAITING = 200
"""Messages that wait for a channel which does not take them; beyond, the oldest are dropped."""

NEVER = 0.0
"""When it was told last, of what was not told yet."""

WEIGHT = {Severity.NOTE: 0, Severity.DEGRADED: 1, Severity.CRITICAL: 2}


@dataclass(frozen=True, slots=True)
class Alert:
    """
    Something that is wrong now. The key is `scope:detail`; what has the same key is the same thing, whatever its words.
    """

    key: str
    severity: Severity
    what: str


class Said(StrEnum):
    """Why something is told."""

    NEW = "new"
    WORSE = "worse"
    STILL = "still"
    OVER = "over"


class Message(msgspec.Struct, frozen=True):
    """
    One thing to tell. Times are Unix seconds UTC: `at` when it was decided, `since` when it began. `times` is how often it
    happened, of things that happen rather than last.
    """

    said: Said
    key: str
    severity: Severity
    what: str
    since: float
    at: float
    times: int = 1

    @property
    def ident(self) -> str:
        """What makes it this message and no other."""
        return f"{self.said}/{self.key}/{self.at!r}"


class Known(msgspec.Struct, frozen=True):
    """
    What is remembered of a key. `told` is when it was last told to be wrong, `severity` the worst that was told of it,
    `announced` whether its end is still owed, `gone` since when it is not there, `looked` when somebody last looked.
    """

    severity: Severity
    what: str
    since: float
    told: float
    announced: bool
    looked: float
    gone: float | None = None
    times: int = 1


class Book(msgspec.Struct, frozen=True):
    """What is known by key, and what waits by channel, oldest first."""

    known: dict[str, Known] = {}
    waiting: dict[str, list[Message]] = {}


_encode = msgspec.json.Encoder(order="deterministic").encode  # JSON: a person may look at it with redis-cli
_decode = msgspec.json.Decoder(Book).decode


def text_of(book: Book) -> bytes:
    """The book as it lies in Redis."""
    return _encode(book)


def book_of(text: bytes | None) -> Book:
    """
    The book that lies in Redis. One of another version, or that somebody wrote into, is begun anew: told once more is better
    than never.
    """
    try:
        return _decode(text) if text else Book()
    except msgspec.MsgspecError:
        log.warning("alerts.book_unreadable")
        return Book()


@dataclass(frozen=True, slots=True)
class AlertRules:
    """
    Seconds. Something that went and comes again within `cool_down` of its last message is not told before that is over; it
    is over when it was gone for `steady`; what lasts is told again every `repeat_every`.
    """

    cool_down: float = 900.0
    steady: float = 120.0
    repeat_every: float = 6 * 3600.0


def scope_of(key: str) -> str:
    """What kind of thing it is about: `health`, `run`, `incident`."""
    return key.partition(":")[0]


def looked(
    book: Book,
    scope: str,
    present: Iterable[Alert],
    channels: Collection[str],
    *,
    now: float,
    rules: AlertRules,
    hold: float = 0.0,
) -> Book:
    """
    Somebody looked at all of a scope: what is not among `present` is gone. Of equal keys the last counts.

    What is new is told when it has lasted for `hold` seconds: a live run that just starts is no alert.
    """
    found = {one.key: one for one in present}
    keys = {key for key in book.known if scope_of(key) == scope} | set(found)
    present_or_not = {key: found.get(key) for key in sorted(keys)}
    return _step(book, present_or_not, channels, now=now, rules=rules, hold=hold, happened=False)


def happened(book: Book, alert: Alert, channels: Collection[str], *, now: float, rules: AlertRules) -> Book:
    """Something happened once more; nothing else is known to be gone by that."""
    return _step(book, {alert.key: alert}, channels, now=now, rules=rules, hold=0.0, happened=True)


def delivered(book: Book, channel: str, idents: Collection[str]) -> Book:
    """A channel took these messages."""
    left = [one for one in book.waiting.get(channel, []) if one.ident not in idents]
    others = {name: waiting for name, waiting in book.waiting.items() if name != channel}
    return Book(book.known, others | ({channel: left} if left else {}))


def joined(found: Book, aside: Book, sent: Mapping[str, Collection[str]]) -> Book:
    """
    The book as Redis has it, with what one process did while Redis was away: of each key the latest look counts. `sent`
    are the messages that were delivered meanwhile, by channel.
    """
    known = dict(found.known)
    for key, one in aside.known.items():
        if key not in known or known[key].looked < one.looked:
            known[key] = one
    waiting: dict[str, list[Message]] = {}
    for channel in sorted({*found.waiting, *aside.waiting}):
        both = {one.ident: one for one in (*found.waiting.get(channel, []), *aside.waiting.get(channel, []))}
        left = [one for ident, one in both.items() if ident not in sent.get(channel, ())]
        if left:
            waiting[channel] = sorted(left, key=lambda one: one.at)[-MOST_WAITING:]
    return Book(known, waiting)


def _step(
    book: Book,
    present: Mapping[str, Alert | None],
    channels: Collection[str],
    *,
    now: float,
    rules: AlertRules,
    hold: float,
    happened: bool,
) -> Book:
    known, messages = dict(book.known), []
    for key, alert in present.items():
        before = _not_ahead(known.get(key), now)
        if alert is None:
            assert before is not None
            after, said = _gone(before, now=now, rules=rules)
        else:
            after, said = _there(before, alert, now=now, rules=rules, hold=hold, happened=happened)
        if said is not None:
            last = after or before
            assert last is not None
            messages.append(Message(said, key, last.severity, last.what, last.since, now, last.times))
        known.pop(key, None)
        if after is not None:
            known[key] = after
    return Book(known, _waiting(book, messages, channels))


def _not_ahead(known: Known | None, now: float) -> Known | None:
    """A clock that was set back must not silence anything for as long as it was ahead."""
    if known is None or known.looked <= now:
        return known
    gone = None if known.gone is None else min(known.gone, now)
    return msgspec.structs.replace(known, told=min(known.told, now), since=min(known.since, now), gone=gone)


def _there(
    before: Known | None, alert: Alert, *, now: float, rules: AlertRules, hold: float, happened: bool
) -> tuple[Known, Said | None]:
    if before is None:
        before = Known(alert.severity, alert.what, since=now, told=NEVER, announced=False, looked=now, times=0)
    times = before.times + 1 if happened else max(1, before.times)
    if not before.announced:
        since, times = (before.since, times) if before.gone is None else (now, 1)
        ripe = now - before.told >= rules.cool_down and now - since >= hold
        told = now if ripe else before.told
        after = Known(alert.severity, alert.what, since, told, announced=ripe, looked=now, times=times)
        return after, Said.NEW if ripe else None
    after = msgspec.structs.replace(before, what=alert.what, looked=now, gone=None, times=times)
    if WEIGHT[alert.severity] > WEIGHT[before.severity]:
        return msgspec.structs.replace(after, severity=alert.severity, told=now), Said.WORSE
    if now - before.told >= rules.repeat_every:
        return msgspec.structs.replace(after, severity=alert.severity, told=now), Said.STILL
    return after, None


def _gone(before: Known, *, now: float, rules: AlertRules) -> tuple[Known | None, Said | None]:
    """Time counts from the first look that missed it: a process that stood still has seen nothing meanwhile."""
    after = msgspec.structs.replace(before, gone=now if before.gone is None else before.gone, looked=now)
    assert after.gone is not None
    if before.announced:
        if now - after.gone < rules.steady:
            return after, None
        return msgspec.structs.replace(after, announced=False), Said.OVER
    return (None if now - before.told >= rules.cool_down else after), None


def _waiting(book: Book, messages: Sequence[Message], channels: Collection[str]) -> dict[str, list[Message]]:
    """What waits, for the channels that there are; one that is not configured any more keeps nothing."""
    waiting = {name: [*book.waiting.get(name, []), *messages][-MOST_WAITING:] for name in channels}
    return {name: found for name, found in waiting.items() if found}
