"""
What is done by itself when something is not well. Pure: no socket, no clock.

Told every second how everything stands (vitals.py), `Remedies` answers with deeds, by the rules of remedy_table.py;
pipeline/watch/remediation.py carries them out and tells how it went. What keeps it from doing harm:

* A condition must hold without a break for `hold` seconds, and be gone for `gone` seconds before it counts as over; until
  then it is one episode, however it flaps.
* A rule acts at most `tries` times in an episode, never within its cool-down, never above its limit per hour, and all rules
  of one scope together stay within `MOST_PER_HOUR`. When it did not help, the rule after it has its turn; when none is left,
  nothing more is done until the episode is over, and people are told.
* Nothing is done about what is unknown, nor because of a time in which nobody looked.

Times are seconds of any clock that does not go back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf

from .remedy_rules import MOST_PER_HOUR, Action, Deed, GaveUp, Judged, Over, Remembered, Rule, Scope
from .remedy_table import ACTIONS
from .vitals import Status, Vital

HOUR = 3600.0
STALLED_AFTER = 5.0
"""When nobody asked for so long (`stalled_after`), this process stood still: what held until then has to show itself anew."""
FORGOTTEN_AFTER = 300.0
"""An episode of which nothing was known for so long is over."""
UNDO_AGAIN_AFTER = 10.0
NOTHING_KNOWN = "nothing is known of it any more"


@dataclass(slots=True, eq=False)
class _Try:
    """A deed and what became of it; shared by all whom it serves."""

    deed: Deed
    judge_at: float = inf  # until it was carried out
    ok: bool = True
    judged: bool = False
    over: Vital | None = None  # it was over before it was carried out


@dataclass(slots=True)
class _Episode:
    """What one rule knows of one subject."""

    vital: Vital
    true_since: float | None = None
    gone_since: float | None = None
    unknown_since: float | None = None
    open: bool = False  # it held long enough, and has not been gone for long enough
    tries: int = 0
    last: _Try | None = None
    failed: bool = False  # the rule was in vain
    holds: tuple[str, str] | None = None  # the lasting action that is in force for it, and its target
    targets: set[str] = field(default_factory=set)


class Remedies:
    """
    The decider. `rules` contradict neither themselves nor each other (remedy_rules.py); `connection_of` tells which
    connection carries a subject. In a `dry` run nothing escalates, because nothing was done. `numbers` are those of the deeds,
    for a decider that takes another one's place.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        now: float,
        actions: Mapping[str, Action] = ACTIONS,
        connection_of: Callable[[str], str] = lambda subject: subject,
        memory: Iterable[Remembered] = (),
        dry: bool = False,
        stalled_after: float = STALLED_AFTER,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._actions = actions
        self._followed = {rule.after for rule in rules if rule.after}
        self._connection_of = connection_of
        self._dry = dry
        self._stalled_after = stalled_after
        self._looked_at = now
        self._episodes: dict[tuple[str, str], _Episode] = {}  # by rule and subject
        self._acts: dict[tuple[str, str], deque[float]] = {}  # when a rule acted on a target
        self._all: dict[Scope, deque[float]] = {scope: deque() for scope in Scope}
        self._latest: dict[tuple[str, str], _Try] = {}  # by action and target
        self._held: dict[tuple[str, str], set[tuple[str, str]]] = {}  # lasting action and target → whom it serves
        self._owed: dict[tuple[str, str], tuple[float, Deed]] = {}  # what is to be undone, and from when on
        self._told: set[tuple[str, str]] = set()  # rules and targets given up, until that is over
        self._news: list[Judged | GaveUp | Over] = []
        self._numbers = count(1) if numbers is None else numbers
        for one in sorted(memory, key=lambda one: -one.ago):
            if one.rule in self._rules and one.ago < HOUR:
                self._count(self._rules[one.rule], one.target, now - one.ago)

    # ------------------------------------------------------------ what stands

    def held(self) -> set[tuple[str, str]]:
        """The lasting actions in force, with their targets."""
        return set(self._held)

    def news(self) -> list[Judged | GaveUp | Over]:
        """What became of deeds, and what was given up, since this was last asked."""
        news, self._news = self._news, []
        return news

    def standing(self, *, now: float) -> list[dict[str, object]]:
        """Each rule: of how many subjects its condition holds, what it does about them, and how often it acted."""
        told = []
        for name in self._rules:
            mine = [one for (rule, _), one in self._episodes.items() if rule == name]
            acts = [at for (rule, _), times in self._acts.items() if rule == name for at in times if at > now - HOUR]
            last = round(now - max(acts), 1) if acts else None
            told.append(
                {
                    "rule": name,
                    "open": sum(one.open for one in mine),
                    "state": self._state(name, mine),
                    "acted_last_hour": len(acts),
                    "last_s": last,
                }
            )
        return told

    def _state(self, name: str, mine: Sequence[_Episode]) -> str:
        if any(rule == name for rule, _ in self._told):
            return "given up"
        if any(one.last is not None and not one.last.judged for one in mine):
            return "waits for an effect"
        if any(one.holds for one in mine):
            return "in force"
        return "holds" if any(one.open for one in mine) else "calm"

    # ------------------------------------------------------------ what to do

    def tick(self, vitals: Iterable[Vital], *, now: float) -> list[Deed]:
        """What to do now. Tell `done` of each deed, whatever came of it."""
        stalled, self._looked_at = now - self._looked_at > self._stalled_after, now
        seen: dict[str, dict[str, Vital]] = {}
        for vital in vitals:
            seen.setdefault(vital.name, {})[vital.subject] = vital
        critical = {name for name, of in seen.items() if any(one.status is Status.CRITICAL for one in of.values())}
        deeds: list[Deed] = []
        for rule in self._rules.values():
            subjects = seen.get(rule.vital, {})
            for subject in [*subjects, *(of for name, of in list(self._episodes) if name == rule.name)]:
                if self._look(rule, subject, subjects.get(subject), stalled, now) and not critical & {*rule.unless}:
                    deeds += self._act(rule, subject, now)
        due = [key for key, (at, _) in self._owed.items() if now >= at]
        return [*(self._owed.pop(key)[1] for key in due), *deeds]

    def done(self, deed: Deed, *, ok: bool, now: float) -> None:
        """A deed was carried out, or could not be."""
        key = (deed.action, deed.target)
        if deed.undo:
            if not ok and key not in self._held:
                self._owed[key] = now + UNDO_AGAIN_AFTER, deed
            return
        made = self._latest.get(key)
        if made is None or made.deed is not deed:
            return
        made.ok, made.judge_at = ok, now + self._rules[deed.rule].effect_within if ok else now
        if made.over is not None:
            self._judge(made, helped=made.over.status is not Status.UNKNOWN, after=made.over)
        if not ok:  # it was never in force
            for one in self._held.pop(key, ()):
                self._episodes[one].holds = None

    # ------------------------------------------------------------ one rule and one subject

    def _look(self, rule: Rule, subject: str, vital: Vital | None, stalled: bool, now: float) -> bool:
        """Take in how it stands. Whether the condition holds, and has for long enough."""
        key = (rule.name, subject)
        holds = None if vital is None else rule.holds(vital)
        episode = self._episodes.get(key)
        if episode is None:
            if not holds or vital is None:
                return False
            episode = self._episodes[key] = _Episode(vital)
        if stalled:
            episode.true_since = episode.gone_since = None
        if vital is None or holds is None:
            episode.true_since = episode.gone_since = None
            episode.unknown_since = now if episode.unknown_since is None else episode.unknown_since
            if not episode.open or now - episode.unknown_since >= FORGOTTEN_AFTER:
                self._over(key, episode, now)
            return False
        episode.vital, episode.unknown_since = vital, None
        if episode.last is not None and now >= episode.last.judge_at:
            self._judge(episode.last, helped=not holds, after=vital)
        if holds:
            episode.gone_since = None
            episode.true_since = now if episode.true_since is None else episode.true_since
            ripe = now - episode.true_since >= rule.hold
            episode.open = episode.open or ripe
            return ripe
        episode.true_since = None
        episode.gone_since = now if episode.gone_since is None else episode.gone_since
        if not episode.open or now - episode.gone_since >= rule.gone:
            self._over(key, episode, now)
        return False

    def _act(self, rule: Rule, subject: str, now: float) -> Iterator[Deed]:
        """The condition holds: a deed, if the rule may and should."""
        key = (rule.name, subject)
        episode, action = self._episodes[key], self._actions[rule.action]
        before = self._episodes.get((rule.after, subject))
        if episode.failed or (episode.last is not None and not episode.last.judged):
            return
        if rule.after and (before is None or not before.failed):
            return
        target = self._target(action, subject)
        latest = self._latest.get((action.name, target))
        if episode.tries >= rule.tries and not self._dry:
            self._fail(rule, episode, target, "all that there is for it was tried, and did not help")
        elif latest is not None and (not latest.judged or (action.name, target) in self._held):
            episode.tries, episode.last = episode.tries + 1, latest  # done already, for another subject or rule
            self._hold(key, episode, action, target)
        elif self._pulled_the_other_way(action):
            return
        elif self._in_last_hour(self._acts.get((rule.name, target)), now) >= rule.per_hour:
            self._fail(rule, episode, target, f"its limit of {rule.per_hour} an hour is reached")
        elif self._in_last_hour(self._all[action.scope], now) >= MOST_PER_HOUR[action.scope]:
            self._tell(rule, episode, "", f"the limit of all that touches a {action.scope} is reached")
        elif now - self._last(rule, target) >= rule.cool_down:
            yield self._deed(rule, key, episode, action, target, now)

    def _deed(
        self, rule: Rule, key: tuple[str, str], episode: _Episode, action: Action, target: str, now: float
    ) -> Deed:
        deed = Deed(next(self._numbers), rule.name, action.name, target, episode.vital)
        episode.tries, episode.last = episode.tries + 1, _Try(deed)
        self._latest[action.name, target] = episode.last
        self._owed.pop((action.name, target), None)
        self._hold(key, episode, action, target)
        self._count(rule, target, now)
        return deed

    def _hold(self, key: tuple[str, str], episode: _Episode, action: Action, target: str) -> None:
        if action.lasting:
            episode.holds = (action.name, target)
            self._held.setdefault(episode.holds, set()).add(key)

    def _over(self, key: tuple[str, str], episode: _Episode, now: float) -> None:
        """It is over, or forgotten: what lasted for its sake alone is undone."""
        del self._episodes[key]
        for target in episode.targets:
            if not any(name == key[0] and target in one.targets for (name, _), one in self._episodes.items()):
                self._news.append(Over(key[0], target, episode.vital))
                self._told.discard((key[0], target))
        if episode.last is not None:
            gone = episode.gone_since is not None
            after = episode.vital if gone else Vital(episode.vital.name, Status.UNKNOWN, NOTHING_KNOWN)
            if episode.last.judge_at < inf:
                self._judge(episode.last, helped=gone, after=after)
            else:
                episode.last.over = after
        if episode.holds is None:
            return
        serves = self._held[episode.holds]
        serves.discard(key)
        if not serves:
            del self._held[episode.holds]
            action, target = episode.holds
            ending = Deed(next(self._numbers), key[0], action, target, episode.vital, undo=True)
            self._owed[episode.holds] = now, ending

    def _judge(self, made: _Try, *, helped: bool, after: Vital) -> None:
        if not made.judged:
            made.judged = True
            self._news.append(Judged(made.deed, made.ok, made.ok and helped, after))

    def _fail(self, rule: Rule, episode: _Episode, target: str, because: str) -> None:
        episode.failed = True
        if rule.name not in self._followed:
            self._tell(rule, episode, target, because)

    def _tell(self, rule: Rule, episode: _Episode, target: str, because: str) -> None:
        if (rule.name, target) not in self._told:
            self._news.append(GaveUp(rule.name, target, because, episode.vital))
        self._told.add((rule.name, target))
        episode.targets.add(target)

    # ------------------------------------------------------------ limits

    def _target(self, action: Action, subject: str) -> str:
        if action.scope is Scope.RUN:
            return ""
        return self._connection_of(subject) if action.scope is Scope.CONNECTION else subject

    def _pulled_the_other_way(self, action: Action) -> bool:
        held = (self._actions[name] for name, _ in self._held)
        return any(one.lever == action.lever and one.push != action.push for one in held)

    def _count(self, rule: Rule, target: str, at: float) -> None:
        self._acts.setdefault((rule.name, target), deque()).append(at)
        self._all[self._actions[rule.action].scope].append(at)

    def _last(self, rule: Rule, target: str) -> float:
        times = self._acts.get((rule.name, target))
        return times[-1] if times else -inf

    @staticmethod
    def _in_last_hour(times: deque[float] | None, now: float) -> int:
        while times and times[0] <= now - HOUR:
            times.popleft()
        return len(times) if times else 0
