"""
What one websocket connection does next. Pure: no socket, no clock.

feed/connection.py tells it what arrived and asks, whenever `due` says so, what to do; the answers are frames to send,
a verdict that the connection is dead or due for renewal, or a report for people. Facts: reference sections 6.1, 6.2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..exchange.contract import Subscription
from .actions import Action, Reconnect, Renew, Report, Send, Stage, Stale
from .pace import Pace
from .session_rules import SessionRules


class Spelling(Protocol):
    """The part of an exchange that a session needs: how its control frames are spelled."""

    def subscribe(self, subscriptions: Sequence[Subscription], /) -> list[str]:
        """The frames that subscribe to these, each within the exchange's limits."""

    def unsubscribe(self, subscriptions: Sequence[Subscription], /) -> list[str]:
        """The frames that end these, each within the exchange's limits."""

    def ping(self) -> str:
        """The keepalive text."""


@dataclass(slots=True)
class _Standing:
    stage: Stage = Stage.QUEUED
    asked_at: float = 0.0
    attempts: int = 0
    pace: Pace = field(default_factory=Pace)
    delivered: bool = False  # showed data on this connection
    answered: bool = False  # began with a snapshot: it would again
    doubts: int = 0  # how often it was begun anew since it last brought something new


class Session:
    """
    The decider for one connection. Times are seconds of any steady clock, given by the caller.

    Made when the socket has opened. After each event and whenever `due(now)` is reached, `tick(now)` tells what to do.
    `paces` is what the connection before has learned (its `paces()`).
    """

    def __init__(
        self,
        spelling: Spelling,
        subscriptions: Iterable[Subscription],
        *,
        now: float,
        rules: SessionRules | None = None,
        paces: Mapping[Subscription, Pace] | None = None,
    ) -> None:
        self._spelling = spelling
        self._rules = rules or SessionRules()
        learned = paces or {}
        self._standing = {
            subscription: _Standing(pace=learned.get(subscription, Pace()).resumed()) for subscription in subscriptions
        }
        self._opened_at = now
        self._last_ping = now
        self._pong_due: float | None = None
        self._spacing = 1.0 / (0.9 * self._rules.messages_per_second)
        self._next_send = now
        self._subscribes: deque[float] = deque()  # when subscribe frames went out, within the last hour
        self._outbox: deque[str] = deque()
        self._news: deque[Action] = deque()
        self._renewing = False
        self._reviewed_at = now
        self._ask(list(self._standing), now=now)

    # ------------------------------------------------------------ what happened

    def acknowledged(self, subscription: Subscription | None) -> None:
        """The exchange confirmed a subscription; None: a frame of ours, so that all that were asked count as confirmed."""
        confirmed = self._standing.values() if subscription is None else (self._standing.get(subscription),)
        for standing in confirmed:
            if standing is not None and standing.stage is Stage.ASKED:
                standing.stage = Stage.ACKNOWLEDGED

    def refused(self, subscription: Subscription | None, problem: str) -> None:
        """The exchange refused one subscription for good; the others of the connection go on."""
        standing = self._standing.get(subscription) if subscription is not None else None
        if subscription is not None and standing is not None:
            standing.stage = Stage.REFUSED
            self._news.append(Report(subscription, problem))

    def data(self, subscription: Subscription, *, snapshot: bool = False) -> bool:
        """
        A data frame came, perhaps the snapshot that answers a subscription. Whether it is the first one of this subscription
        on this connection.
        """
        standing = self._standing.get(subscription)
        if standing is None or standing.stage is Stage.LIVE:
            return False
        standing.stage = Stage.LIVE
        standing.delivered = True
        standing.answered = standing.answered or snapshot
        return True

    def heard(self, subscriptions: Iterable[Subscription], *, now: float) -> None:
        """These brought something new since this was last told, every second or so; snapshots do not count."""
        for subscription in subscriptions:
            standing = self._standing.get(subscription)
            if standing is not None:
                standing.pace.heard(now=now)
                standing.doubts = 0

    def ponged(self) -> None:
        """The exchange answered our ping."""
        self._pong_due = None

    def again(self, subscription: Subscription, *, now: float) -> bool:
        """
        Begin one anew, its end first, because what it brought cannot be used. False when the hour's allowance has no room
        for both frames.
        """
        standing = self._standing.get(subscription)
        if standing is None or standing.stage is Stage.REFUSED or self._room(now=now) < 2:
            return False
        self._begin_anew([subscription], now=now)
        return True

    def _begin_anew(self, subscriptions: list[Subscription], *, now: float) -> None:
        ending = self._spelling.unsubscribe(subscriptions)
        self._outbox.extend(ending)
        self._subscribes.extend(now for _ in ending)
        for subscription in subscriptions:
            self._standing[subscription].attempts = 0
        self._ask(subscriptions, now=now)

    def add(self, subscriptions: Iterable[Subscription], paces: Mapping[Subscription, Pace], *, now: float) -> bool:
        """Carry these too. False, and nothing is changed, when the hour's allowance has no room for their frames."""
        fresh = [one for one in subscriptions if one not in self._standing]
        if fresh and len(self._spelling.subscribe(fresh)) > self._room(now=now):
            return False
        for one in fresh:
            self._standing[one] = _Standing(pace=paces.get(one, Pace()).resumed())
        self._ask(fresh, now=now)
        return True

    def drop(self, subscriptions: Iterable[Subscription], *, now: float) -> bool:
        """Carry these no more. False, and nothing is changed, when the hour's allowance has no room for their frames."""
        gone = [one for one in subscriptions if one in self._standing]
        frames = self._spelling.unsubscribe(gone) if gone else []
        if len(frames) > self._room(now=now):
            return False
        self._outbox.extend(frames)
        self._subscribes.extend(now for _ in frames)
        for one in gone:
            del self._standing[one]
        return True

    def affords_rest(self, subscriptions: Sequence[Subscription], *, now: float) -> bool:
        """
        Whether the hour's allowance has room for ending these and asking for them again. Half of it is left for what must
        be: silences, breaks and other selections.
        """
        frames = len(self._spelling.unsubscribe(subscriptions)) + len(self._spelling.subscribe(subscriptions))
        return frames <= self._room(now=now) - self._rules.subscribes_per_hour // 2

    # ------------------------------------------------------------ what stands

    def heard_at(self, subscription: Subscription) -> float | None:
        """When it brought something new last, None before it did or when it is not carried here."""
        standing = self._standing.get(subscription)
        return None if standing is None else standing.pace.heard_at

    def paces(self) -> dict[Subscription, Pace]:
        """How often each brings something, as far as it is known."""
        return {subscription: standing.pace for subscription, standing in self._standing.items()}

    def stages(self) -> dict[Subscription, Stage]:
        """How far each subscription has come."""
        return {subscription: standing.stage for subscription, standing in self._standing.items()}

    @property
    def settled(self) -> bool:
        """Whether every subscription has shown data, or will not: then a predecessor may close."""
        return all(s.stage in (Stage.LIVE, Stage.SILENT, Stage.REFUSED) for s in self._standing.values())

    # ------------------------------------------------------------ what to do

    def due(self, *, now: float) -> float:
        """When `tick` wants to be asked again, at the latest."""
        if self._news:
            return now
        moments = [self._last_ping + self._rules.ping_every]
        if self._pong_due is not None:
            moments.append(self._pong_due)
        if not self._renewing:
            moments.append(self._opened_at + self._rules.renew_after)
        if self._outbox:
            moments.append(self._next_send)
        moments.append(self._reviewed_at + self._rules.review_every)
        for standing in self._standing.values():
            if standing.stage in (Stage.ASKED, Stage.ACKNOWLEDGED):
                moments.append(standing.asked_at + self._rules.first_data_within)
            elif standing.stage is Stage.SILENT:
                moments.append(standing.asked_at + self._rules.retry_silent_every)
        return min(moments)

    def tick(self, *, now: float) -> list[Action]:
        """What to do now; at most one frame is sent per call, so that the pace is kept."""
        if self._pong_due is not None and now >= self._pong_due:
            return [Reconnect(f"no pong within {self._rules.pong_within:g} s")]
        self._review(now=now)
        actions: list[Action] = list(self._news)
        self._news.clear()
        if not self._renewing and now >= self._opened_at + self._rules.renew_after:
            self._renewing = True
            actions.append(Renew(f"open for {(now - self._opened_at) / 3600:.1f} h"))
        if now >= self._next_send:
            text = self._next_text(now=now)
            if text is not None:
                self._next_send = now + self._spacing
                actions.append(Send(text))
        return actions

    def _next_text(self, *, now: float) -> str | None:
        if now >= self._last_ping + self._rules.ping_every:  # before anything else: a late ping costs the connection
            self._last_ping = now
            if self._pong_due is None:
                self._pong_due = now + self._rules.pong_within
            return self._spelling.ping()
        return self._outbox.popleft() if self._outbox else None

    def _ask(self, subscriptions: list[Subscription], *, now: float) -> None:
        """Queue the frames that ask for these, as far as the hour's allowance goes; what does not fit stays queued."""
        frames = self._spelling.subscribe(subscriptions) if subscriptions else []
        if len(frames) > self._room(now=now):
            for subscription in subscriptions:  # asked again when the next review comes round
                self._standing[subscription].stage = Stage.SILENT
                self._standing[subscription].asked_at = now
            return
        self._outbox.extend(frames)
        self._subscribes.extend(now for _ in frames)
        all_sent_at = max(now, self._next_send) + max(0, len(self._outbox) - 1) * self._spacing
        for subscription in subscriptions:
            standing = self._standing[subscription]
            standing.stage = Stage.ASKED
            standing.asked_at = all_sent_at  # its time runs from when the last frame can have left
            standing.attempts += 1

    def _room(self, *, now: float) -> int:
        """How many more frames the hour's allowance has."""
        while self._subscribes and self._subscribes[0] <= now - 3600:
            self._subscribes.popleft()
        return self._rules.subscribes_per_hour - len(self._subscribes)

    def _review(self, *, now: float) -> None:
        """
        Ask again for what was acknowledged, or not even that, and shows no data; report what stays silent; begin anew what
        fell silent.
        """
        self._reviewed_at = now
        overdue: list[Subscription] = []
        for subscription, standing in self._standing.items():
            waited = now - standing.asked_at
            if standing.stage in (Stage.ASKED, Stage.ACKNOWLEDGED) and waited >= self._rules.first_data_within:
                if standing.attempts < self._rules.attempts:
                    overdue.append(subscription)
                else:
                    what = "acknowledged" if standing.stage is Stage.ACKNOWLEDGED else "not even acknowledged"
                    standing.stage = Stage.SILENT
                    problem = f"{what}, no data after {standing.attempts} requests"
                    self._news.append(Report(subscription, problem))
                    if standing.delivered:  # it did deliver here: the connection is to blame
                        self._news.append(Reconnect(f"{subscription.symbol} fell silent: {problem}"))
            elif standing.stage is Stage.SILENT and waited >= self._rules.retry_silent_every:
                overdue.append(subscription)
            elif standing.stage is Stage.LIVE and (standing.pace.known or not standing.answered):
                self._doubt(subscription, standing, now=now)
        if overdue:
            self._ask(overdue, now=now)
        self._doubt_unpaced(now=now)

    def _doubt(self, subscription: Subscription, standing: _Standing, *, now: float) -> None:
        """
        Begin one anew that is silent beyond its pace. If it answers with a snapshot the silence is the market's, and it is
        given twice as long before it is doubted again.
        """
        within = standing.pace.silence_within(self._rules.silence)
        heard_at = standing.asked_at if standing.pace.heard_at is None else standing.pace.heard_at
        silent = now - heard_at
        patience = min(within * 2 ** min(standing.doubts, 32), self._rules.silence.most)
        if now - max(heard_at, standing.asked_at) < patience:
            return
        if self.again(subscription, now=now):
            standing.doubts += 1
            problem = f"silent for {silent:.0f} s, at its pace {within:.0f} s would be unusual"
            self._news.append(Stale(subscription, problem, silent))

    def _doubt_unpaced(self, *, now: float) -> None:
        """
        Those whose pace is not known, and that the exchange answers with a snapshot: quiet or mute, that has to be asked. Ever
        more seldom while it is answered, all together whose time is half over, and only as long as half of the hour's
        allowance is left.
        """
        waited: dict[Subscription, float] = {}  # of its patience, as a share
        for subscription, standing in self._standing.items():
            if standing.stage is Stage.LIVE and standing.answered and not standing.pace.known:
                within = min(standing.pace.silence_within(self._rules.silence), self._rules.unpaced_within)
                patience = min(within * 2 ** min(standing.doubts, 32), self._rules.silence.most)
                since = max(standing.asked_at, standing.pace.heard_at or standing.asked_at)
                waited[subscription] = (now - since) / patience
        if max(waited.values(), default=0.0) < 1.0:
            return
        doubted = [subscription for subscription, share in waited.items() if share >= 0.5]
        if not self.affords_rest(doubted, now=now):
            return
        for subscription in doubted:
            standing = self._standing[subscription]
            standing.doubts += 1
            silent = now - (standing.asked_at if standing.pace.heard_at is None else standing.pace.heard_at)
            self._news.append(Stale(subscription, f"silent for {silent:.0f} s, its pace is not known", silent))
        self._begin_anew(doubted, now=now)
