"""
When another venue stands in for a market, and when it goes again. Pure: no socket, no clock.

Told what arrives from our exchange (data of the majors, answers to probes) and asked every second or so; answers with
what to do. Going over needs two independent signals at once, coming back needs a steady time without either; how long
grows when it happens again and again, so that an exchange that flaps is left alone until it has settled. Which state
follows which event is the table `NEXT`; facts and thresholds: reference section 7 of Binance, issue "It looks after
itself". Times are seconds of any clock that does not go back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ...market.instrument import Symbol


class State(StrEnum):
    """Who delivers."""

    OURS = "ours"
    SUBSTITUTED = "substituted"
    RETURNING = "returning"  # ours delivers again, the other still does too


class Event(StrEnum):
    """What the evidence says now."""

    DARK = "dark"  # both signals are bad, and somebody can stand in
    BACK = "back"  # both signals are good
    RELAPSED = "relapsed"  # one of them is bad again
    STEADY = "steady"  # both have been good for long enough
    FORCED_ON = "forced_on"
    FORCED_OFF = "forced_off"


NEXT: dict[tuple[State, Event], State] = {
    (State.OURS, Event.DARK): State.SUBSTITUTED,
    (State.OURS, Event.FORCED_ON): State.SUBSTITUTED,
    (State.SUBSTITUTED, Event.BACK): State.RETURNING,
    (State.SUBSTITUTED, Event.FORCED_OFF): State.OURS,
    (State.RETURNING, Event.RELAPSED): State.SUBSTITUTED,
    (State.RETURNING, Event.STEADY): State.OURS,
    (State.RETURNING, Event.FORCED_ON): State.SUBSTITUTED,
    (State.RETURNING, Event.FORCED_OFF): State.OURS,
}
"""What is not in the table changes nothing."""


class Mode(StrEnum):
    """What a person wants: by the evidence, or one of the two whatever it says."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class FailoverRules:
    """
    Thresholds, in seconds. Probes should come every `probe_every`, so that three of them fit into `probes_within`.

    `stalled_after`: when nobody asked for so long, this process stood still (a laptop that slept), and silence until then
    says nothing about the exchange. `sure_from`: symbols are majors when together they bring so much within `silent_after`
    that to miss all of it is chance once in four hundred times.
    """

    silent_after: float = 8.0
    probes: int = 3
    failing: int = 2
    probes_within: float = 10.0
    probe_every: float = 3.0
    steady_for: float = 180.0
    longest_steady: float = 1800.0
    remembered_for: float = 3600.0
    stalled_after: float = 5.0
    sure_from: float = 6.0
    most_majors: int = 5


@dataclass(frozen=True, slots=True)
class FailOver:
    """Start the substitute's streams. `silent_since` is when our exchange was heard last: the hole begins there."""

    reason: str
    silent_since: float


@dataclass(frozen=True, slots=True)
class FailBack:
    """End the substitute's streams; repair ours from `silent_since` to `back_since` and retire what was substituted."""

    reason: str
    silent_since: float
    back_since: float


@dataclass(frozen=True, slots=True)
class NobodyStandsIn:
    """Our exchange is dark, and the substitute does not answer either. Said once for each darkness."""

    reason: str


Action = FailOver | FailBack | NobodyStandsIn


USUAL = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
"""Symbols that trade every second or two wherever they are listed: majors before anything of theirs was heard."""


NO_MAJOR = "none of its symbols is known to trade so often that silence would tell: nobody stands in unless told to"


def majors_of(paces: Mapping[Symbol, float], *, rules: FailoverRules) -> tuple[Symbol, ...]:
    """
    The symbols whose silence together means something, by how many arrivals a second each brings: the usual ones, or else the
    fastest, if they are fast enough. Empty where all are so quiet that a silence of all of them is nothing unusual.
    """
    usual = tuple(one for one in paces if one.name in USUAL)
    if usual:
        return usual
    fastest = sorted(paces, key=lambda one: (-paces[one], str(one)))[: rules.most_majors]
    return tuple(fastest) if sum(paces[one] for one in fastest) * rules.silent_after >= rules.sure_from else ()


class FailoverWatch:
    """
    The decider for one market. `majors` are symbols that trade every second or two; without one nothing is ever silent, and
    the other venue stands in at a person's word alone.
    """

    def __init__(self, majors: Collection[Symbol], *, now: float, rules: FailoverRules | None = None) -> None:
        self.rules = rules or FailoverRules()
        self.state = State.OURS
        self.mode = Mode.AUTO
        self._heard = dict.fromkeys(majors, now)
        self._probes: deque[tuple[float, bool]] = deque(maxlen=self.rules.probes)
        self._asked_at = now
        self._began = now
        self._silent_since = now
        self._back_since = now
        self._went_over: deque[float] = deque()  # when it happened, within the last hour
        self._told = False

    def resume(self, state: State, *, silent_since: float, went_over: Collection[float], now: float) -> None:
        """
        Go on where another process stood: one that stood in or was returning stands in, and a steady time begins anew.
        """
        self.state = State.OURS if state is State.OURS else State.SUBSTITUTED
        self._silent_since = silent_since
        self._back_since = now
        self._went_over.extend(sorted(at for at in went_over if at > now - self.rules.remembered_for))

    @property
    def majors(self) -> tuple[Symbol, ...]:
        """The symbols that are listened for."""
        return tuple(self._heard)

    def follow(self, majors: Collection[Symbol], *, now: float) -> None:
        """Listen for these from now on; one that is new has been heard with the others."""
        newest = self._newest(now)
        self._heard = {one: self._heard.get(one, newest) for one in majors}

    def heard_at(self, symbol: Symbol) -> float:
        """When a major was heard last, or this began."""
        return self._heard[symbol]

    # ------------------------------------------------------------ what happened

    def heard(self, symbol: Symbol, *, now: float) -> None:
        """Data of a symbol came from our exchange; of others than the majors it counts for nothing."""
        if symbol in self._heard:
            self._heard[symbol] = now

    def probed(self, *, answered: bool, now: float) -> None:
        """A REST probe of our exchange was answered, or failed."""
        self._probes.append((now, answered))

    # ------------------------------------------------------------ what stands

    def silence(self, *, now: float) -> float:
        """For how long every major has been silent; 0 without one."""
        return now - self._newest(now)

    def failing(self, *, now: float) -> int:
        """How many of the newest probes failed, of those that are recent enough to count."""
        return sum(not answered for at, answered in self._probes if now - at <= self.rules.probes_within)

    def is_silent(self, *, now: float) -> bool:
        """The first signal: all majors, for long enough."""
        return self.silence(now=now) >= self.rules.silent_after

    def is_dark(self, *, now: float) -> bool:
        """Both signals at once."""
        return self.is_silent(now=now) and self.is_unreachable(now=now)

    def is_light(self, *, now: float) -> bool:
        """Whether something was heard or answered lately: that too few probes failed lately may mean that too few were made."""
        return not self.is_silent(now=now) or self._answers(now)

    def knows(self, *, now: float) -> bool:
        """Whether this has looked for long enough to see both signals: until then nothing is dark, and nothing proven well."""
        return now - self._began >= self.rules.probes_within + self.rules.probe_every

    def is_unreachable(self, *, now: float) -> bool:
        """The second signal: two of three probes."""
        return self.failing(now=now) >= self.rules.failing

    def steady_for(self, *, now: float) -> float:
        """How long our exchange must be well before it is trusted: doubled with every failover of the last hour."""
        while self._went_over and self._went_over[0] <= now - self.rules.remembered_for:
            self._went_over.popleft()
        times = max(0, len(self._went_over) - 1)
        return float(min(self.rules.longest_steady, self.rules.steady_for * 2.0 ** min(times, 10)))

    # ------------------------------------------------------------ what to do

    def tick(self, *, substitute_answers: bool, now: float) -> list[Action]:
        """What to do now. `substitute_answers`: the other venue's own probe succeeded lately."""
        if now - self._asked_at > self.rules.stalled_after:
            self._begin_anew(now)
        self._asked_at = now
        actions: list[Action] = []
        event = self._event(substitute_answers, now)
        following = NEXT.get((self.state, event), self.state) if event is not None else self.state
        alone = self.is_dark(now=now) and self.state is State.OURS and following is State.OURS
        if not alone:
            self._told = False
        elif self.mode is Mode.AUTO and not self._told:
            actions.append(NobodyStandsIn(self._reason(now)))
            self._told = True
        if following is not self.state:
            actions += self._changed(following, event, now)
        return actions

    def _event(self, substitute_answers: bool, now: float) -> Event | None:
        """The most important thing that holds."""
        if self.mode is not Mode.AUTO:
            return Event.FORCED_ON if self.mode is Mode.ON else Event.FORCED_OFF
        if self.state is State.OURS:
            return Event.DARK if self.is_dark(now=now) and substitute_answers else None
        if self.is_silent(now=now) or self.is_unreachable(now=now) or not self._answers(now):
            return Event.RELAPSED
        if self.state is State.SUBSTITUTED:
            return Event.BACK
        return Event.STEADY if now - self._back_since >= self.steady_for(now=now) else None

    def _changed(self, following: State, event: Event | None, now: float) -> list[Action]:
        before, self.state = self.state, following
        if before is State.OURS:
            self._silent_since = self._newest(now)
            self._went_over.append(now)
            reason = "a person wants it" if event is Event.FORCED_ON else self._reason(now)
            return [FailOver(reason, self._silent_since)]
        if following is State.RETURNING:
            self._back_since = now
        if following is not State.OURS:
            return []
        if event is Event.FORCED_OFF:
            return [FailBack("a person wants it", self._silent_since, now)]
        return [FailBack(f"steady for {now - self._back_since:.0f} s", self._silent_since, self._back_since)]

    def _begin_anew(self, now: float) -> None:
        """Nothing is known of the time this process stood still: signals count from here, and a steady time too."""
        self._heard = dict.fromkeys(self._heard, now)
        self._probes.clear()
        self._back_since = self._began = now

    def _newest(self, now: float) -> float:
        """When a major was heard last."""
        return max(self._heard.values(), default=now)

    def _answers(self, now: float) -> bool:
        """Whether the newest probe succeeded, lately."""
        return bool(self._probes) and self._probes[-1][1] and now - self._probes[-1][0] <= self.rules.probes_within

    def _reason(self, now: float) -> str:
        failed = f"{self.failing(now=now)} of {len(self._probes)} probes failed"
        return f"all majors silent for {self.silence(now=now):.0f} s, {failed}"
