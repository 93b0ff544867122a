"""
What a rule of remediation is, what follows from one, and which rules contradict themselves or each other. Pure.

The rules themselves stand in remedy_table.py; remedy.py decides by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from ..errors import SettingsInvalid
from .vitals import Status, Vital


class Mode(StrEnum):
    """Whether remediation acts, says what it would do, or does neither."""

    ON = "on"
    DRY_RUN = "dry_run"
    OFF = "off"


class Scope(StrEnum):
    """What an action touches, and what its limits are counted for."""

    SUBSCRIPTION = "subscription"  # of one symbol
    CONNECTION = "connection"  # the one that carries the symbol, with all others on it
    RUN = "run"  # all there is


MOST_PER_HOUR: Mapping[Scope, int] = {Scope.SUBSCRIPTION: 40, Scope.CONNECTION: 12, Scope.RUN: 24}
"""What all rules of a scope may do together. Counted apart, so that many small deeds never use up what a large one needs."""


@dataclass(frozen=True, slots=True)
class Action:
    """
    Something that can be done. `lever` is what it moves and `push` which way (+1 or -1): nobody may pull one lever both
    ways. A `lasting` one is undone when what made it necessary is over.
    """

    name: str
    does: str
    scope: Scope
    lever: str
    push: int = 1
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """
    If the vital of this name is at least so bad (or its value is beyond a line) for `hold` seconds, act.

    It must be gone for `gone` seconds to be over. Between two deeds for one subject lie at least `cool_down` seconds, and an
    hour has at most `per_hour` of them; `effect_within` is how long a deed has to show an effect. `after` names the rule that
    must have been tried in vain before; `unless` vitals that, while critical, make the deed pointless.
    """

    name: str
    vital: str
    action: str
    at_least: Status = Status.DEGRADED
    beyond: float | None = None
    hold: float = 30.0
    gone: float = 30.0
    cool_down: float = 120.0
    per_hour: int = 4
    effect_within: float = 60.0
    tries: int = 1
    after: str = ""
    unless: tuple[str, ...] = ()

    def holds(self, vital: Vital) -> bool | None:
        """Whether its condition does; None when nobody can say."""
        if vital.status is Status.UNKNOWN:
            return None
        if self.beyond is not None:
            return None if vital.value is None else vital.value > self.beyond
        return vital.status in self._bad

    def when(self) -> str:
        """Its condition, in words."""
        line = f"above {self.beyond:g}" if self.beyond is not None else self.at_least.value
        follows = f"; when `{self.after}` did not help" if self.after else ""
        return f"`{self.vital}` {line} for {self.hold:g} s{follows}"

    @property
    def _bad(self) -> tuple[Status, ...]:
        return (Status.CRITICAL,) if self.at_least is Status.CRITICAL else (Status.DEGRADED, Status.CRITICAL)

    def meets(self, other: Rule) -> bool:
        """Whether both conditions can hold at once for the same reason: they look at one vital."""
        return self.vital == other.vital


@dataclass(frozen=True, slots=True)
class Deed:
    """
    Do this now. `target` is the subscription's symbol, the connection's name, or empty; `before` is the vital that made
    it necessary. `undo`: end what lasted, it is over.
    """

    number: int
    rule: str
    action: str
    target: str
    before: Vital
    undo: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a deed: whether it was done, and whether its condition has gone; `after` is the vital then."""

    deed: Deed
    done: bool
    helped: bool
    after: Vital


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Nothing more is done about this by itself until it is over."""

    rule: str
    target: str
    because: str
    vital: Vital


@dataclass(frozen=True, slots=True)
class Over:
    """What was given up is over all the same."""

    rule: str
    target: str
    vital: Vital


@dataclass(frozen=True, slots=True)
class Remembered:
    """A deed of a process before this one, `ago` seconds: it counts for the limits."""

    rule: str
    target: str
    ago: float


def refuse_contradictions(rules: Sequence[Rule], actions: Mapping[str, Action]) -> None:
    """Raises SettingsInvalid with a sentence for the first rule that contradicts itself, or another."""
    for what in _contradictions(rules, actions):
        raise SettingsInvalid(what, remedy="change one of them, or switch a rule off")


def _contradictions(rules: Sequence[Rule], actions: Mapping[str, Action]) -> Iterable[str]:
    by_name = {rule.name: rule for rule in rules}
    if len(by_name) < len(rules):
        yield "two rules have the same name"
    for rule in rules:
        yield from _with_itself(rule, by_name, actions)
    for one, other in combinations(rules, 2):
        if not one.meets(other) or one.action not in actions or other.action not in actions:
            continue
        mine, theirs = actions[one.action], actions[other.action]
        if mine.lever == theirs.lever and mine.push != theirs.push:
            yield f"{one.name} and {other.name} pull {mine.lever} both ways while `{one.vital}` is bad"
        if mine.name == theirs.name and one.at_least is other.at_least and one.beyond == other.beyond:
            yield f"{one.name} and {other.name} do the same about the same: their limits would add up"


def _with_itself(rule: Rule, by_name: Mapping[str, Rule], actions: Mapping[str, Action]) -> Iterable[str]:
    name = rule.name
    if rule.action not in actions:
        yield f"{name}: there is no action {rule.action}"
        return
    if rule.beyond is None and rule.at_least not in (Status.DEGRADED, Status.CRITICAL):
        yield f"{name}: nothing is done about what is {rule.at_least}"
    for figure in ("hold", "gone", "cool_down", "effect_within", "per_hour", "tries"):
        if not 0 < getattr(rule, figure) < 1e6:
            yield f"{name}: {figure} is {getattr(rule, figure):g}, which is not above 0 and below a million"
    if rule.cool_down < max(rule.hold, rule.gone):
        yield (
            f"{name}: it may act again after {rule.cool_down:g} s, before anybody can know whether it is over "
            f"(hold {rule.hold:g} s, gone {rule.gone:g} s)"
        )
    if rule.per_hour > MOST_PER_HOUR[actions[rule.action].scope]:
        most = MOST_PER_HOUR[actions[rule.action].scope]
        yield f"{name}: its limit of {rule.per_hour} an hour is above the {most} of all such rules together"
    if rule.tries > rule.per_hour:
        yield f"{name}: {rule.tries} tries are more than its limit of {rule.per_hour} an hour"
    if rule.after:
        yield from _with_its_predecessor(rule, by_name)


def _with_its_predecessor(rule: Rule, by_name: Mapping[str, Rule]) -> Iterable[str]:
    before = by_name.get(rule.after)
    if before is None:
        yield f"{rule.name}: it comes after {rule.after}, which is no rule"
        return
    if before.vital != rule.vital:
        yield f"{rule.name}: it comes after {before.name}, which is about `{before.vital}` and not about `{rule.vital}`"
    seen, one = {rule.name}, before
    while one.name not in seen:
        seen.add(one.name)
        if not one.after or one.after not in by_name:
            return
        one = by_name[one.after]
    yield f"{rule.name}: it comes after itself"
