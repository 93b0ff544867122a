"""
Alerts from what was noticed to whoever is told: the book in Redis changed, and what waits in it handed to the channels.

Noticing costs a round trip to Redis and never waits for a channel; delivering waits a few seconds at most, whatever a channel
does. While Redis is away, which is worth an alert, the book goes on in this process and is joined with Redis's afterwards.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from random import Random

from ...errors import AlertNotDelivered, PipelineError
from ...guard.backoff import Backoff
from ...storage.alert_book import AlertBook
from ...telemetry import count, get_logger
from .alert_senders import ANSWER_WITHIN, Sender
from .alerts import (
    Alert,
    AlertRules,
    Book,
    Known,
    Message,
    book_of,
    delivered,
    happened,
    joined,
    looked,
    scope_of,
    text_of,
)

log = get_logger(__name__)

DELIVERED_WITHIN = ANSWER_WITHIN + 1.0
"""Seconds for all channels together, which are served side by side."""

ASKED_AGAIN_AFTER = 10.0
"""Seconds for which Redis is left alone after it did not answer."""

PAUSES = Backoff(base=15.0, ceiling=600.0, jitter=0.0)


@dataclass
class _Delivery:
    """One channel at work, in a thread that nobody has to wait for."""

    sender: Sender
    messages: Sequence[Message]
    failure: str | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"alerts-{self.sender.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.sender.send(self.messages)
        except AlertNotDelivered as error:
            self.failure = str(error)
        except Exception as error:  # a channel's mistake must not end the others; its text may hold a secret
            self.failure = f"{self.sender.name} failed ({type(error).__name__})"

    def over(self, within: float) -> bool:
        """Whether it ended, well or not."""
        self._thread.join(max(0.0, within))
        return not self._thread.is_alive()


@dataclass
class _Channel:
    """What is known of one channel: the delivery that goes on, failures in a row, and until when it rests."""

    delivery: _Delivery | None = None
    failures: int = 0
    rests_until: float = 0.0


@dataclass
class Alerting:
    """
    The alerts of one process; may be used by several threads. `opened` gives the book; `clock` is Unix seconds, `ticks` a
    clock that nobody sets.
    """

    opened: Callable[[], AbstractContextManager[AlertBook]]
    senders: Sequence[Sender]
    rules: AlertRules = field(default_factory=AlertRules)
    clock: Callable[[], float] = time.time
    ticks: Callable[[], float] = time.monotonic
    within: float = DELIVERED_WITHIN

    def __post_init__(self) -> None:
        self._guard = threading.RLock()
        self._at_work = threading.Lock()
        self._last = Book()
        self._away = False  # whether `_last` holds what Redis does not
        self._asked_again_at = 0.0
        self._sent: dict[str, set[str]] = {}  # while Redis was away
        self._channels = {sender.name: _Channel() for sender in self.senders}
        self._chance = Random()

    def looked(self, scope: str, present: Iterable[Alert], *, hold: float = 0.0) -> None:
        """Somebody looked at all of a scope; what is not among `present` is gone, what is new is held for a while."""
        found, now = list(present), self.clock()
        self._change(lambda book: looked(book, scope, found, self._channels, now=now, rules=self.rules, hold=hold))

    def happened(self, alert: Alert) -> None:
        """Something went wrong, and nobody knows yet whether it lasts."""
        now = self.clock()
        self._change(lambda book: happened(book, alert, self._channels, now=now, rules=self.rules))

    def known(self, scope: str) -> dict[str, Known]:
        """What is remembered of a scope, by key."""
        self._change(lambda book: book)
        return {key: one for key, one in self._last.known.items() if scope_of(key) == scope}

    def deliver(self) -> dict[str, str]:
        """
        Hand what waits to the channels; what one does not take waits on, and the channel rests, ever longer. Returns what
        became of each channel that was tried, for people.
        """
        if not self._at_work.acquire(blocking=False):
            return {}
        try:
            self._change(lambda book: book)
            if not self._last.waiting:
                return {}
            with ExitStack() as stack:
                if not self._our_turn(stack):
                    return {}
                self._change(lambda book: book)  # another process may have delivered since
                return self._deliver()
        finally:
            self._at_work.release()

    def _our_turn(self, stack: ExitStack) -> bool:
        if self._away:
            return True  # better told by two than by nobody
        try:
            return stack.enter_context(stack.enter_context(self.opened()).turn())
        except PipelineError:
            return True

    def _deliver(self) -> dict[str, str]:
        started = self.ticks()
        for sender in self.senders:
            channel, waiting = self._channels[sender.name], self._last.waiting.get(sender.name)
            if waiting and channel.delivery is None and started >= channel.rests_until:
                channel.delivery = _Delivery(sender, list(waiting))
        said: dict[str, str] = {}
        for name, channel in self._channels.items():
            at_work = channel.delivery
            if at_work is None:
                continue
            if not at_work.over(started + self.within - self.ticks()):
                said[name] = "takes its time"  # its end is looked at the next time; none is begun beside it
                continue
            channel.delivery = None
            said[name] = self._ended(channel, at_work)
        return said

    def _ended(self, channel: _Channel, ended: _Delivery) -> str:
        name = ended.sender.name
        if ended.failure is not None:
            channel.failures += 1
            pause = PAUSES.delay(channel.failures, self._chance)
            channel.rests_until = self.ticks() + pause
            log.warning("alerts.not_delivered", channel=name, why=ended.failure, again_in_seconds=pause)
            count("alerts.not_delivered")
            return ended.failure
        channel.failures, channel.rests_until = 0, 0.0
        idents = {one.ident for one in ended.messages}
        count("alerts.delivered", len(idents))
        self._change(lambda book: delivered(book, name, idents), sent=(name, idents))
        return f"{len(idents)} delivered"

    def _change(self, step: Callable[[Book], Book], *, sent: tuple[str, set[str]] | None = None) -> None:
        with self._guard:
            if self._away and self.ticks() < self._asked_again_at:  # a server that hangs must not hang every question
                self._aside(step, sent)
                return
            made: Book | None = None

            def changed(text: bytes | None) -> bytes:
                nonlocal made
                found = book_of(text)
                made = step(joined(found, self._last, self._sent) if self._away else found)
                return text_of(made)

            try:
                with self.opened() as store:
                    store.change(changed)
                assert made is not None
                self._last, self._away = made, False
                self._sent = {}
            except PipelineError as error:
                if not self._away:
                    log.warning("alerts.book_away", why=str(error))
                self._asked_again_at = self.ticks() + ASKED_AGAIN_AFTER
                self._aside(step, sent)

    def _aside(self, step: Callable[[Book], Book], sent: tuple[str, set[str]] | None) -> None:
        self._last, self._away = step(self._last), True
        if sent is not None:
            self._sent.setdefault(sent[0], set()).update(sent[1])
