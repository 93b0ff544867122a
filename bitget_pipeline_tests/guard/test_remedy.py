"""Remediation decides: by its rules, within its limits, whatever the vitals do."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitget_pipeline.errors import SettingsInvalid
from bitget_pipeline.guard.remedy import FORGOTTEN_AFTER, HOUR, Remedies
from bitget_pipeline.guard.remedy_rules import (
    MOST_PER_HOUR,
    Action,
    Deed,
    GaveUp,
    Judged,
    Over,
    Remembered,
    Rule,
    Scope,
    refuse_contradictions,
)
from bitget_pipeline.guard.remedy_table import ACTIONS, RULES, changed
from bitget_pipeline.guard.vitals import Status, Vital

RESTART = Rule(
    "restart", "silence", "restart_subscription", hold=5, gone=10, cool_down=20, effect_within=10, per_hour=3
)
MOVE = replace(RESTART, name="move", action="move_connection", after="restart", cool_down=60)
WIDEN = Rule("widen", "parts", "widen_flush", hold=5, gone=10, cool_down=20, effect_within=10)


def silence(status: Status = Status.CRITICAL, subject: str = "a") -> Vital:
    return Vital("silence", status, "silent", subject=subject)


class Play:
    """Vitals second by second; every deed succeeds at once unless `ok` says otherwise."""

    def __init__(self, *rules: Rule, ok: bool = True, **given: object) -> None:
        self.remedies = Remedies(rules, now=0.0, **given)  # type: ignore[arg-type]
        self.now = 0.0
        self.ok = ok
        self.deeds: list[tuple[float, Deed]] = []
        self.news: list[Judged | GaveUp | Over] = []

    def go(self, seconds: float, *vitals: Vital, step: float = 1.0) -> list[Deed]:
        """The deeds of so many seconds in which it stands like this."""
        before, end = len(self.deeds), self.now + seconds
        while self.now < end:
            self.now += step
            for deed in self.remedies.tick(vitals, now=self.now):
                self.deeds.append((self.now, deed))
                self.remedies.done(deed, ok=self.ok, now=self.now)
            self.news += self.remedies.news()
        return [deed for _, deed in self.deeds[before:]]

    def names(self) -> list[str]:
        return [f"{'undo ' if deed.undo else ''}{deed.rule}" for _, deed in self.deeds]


def test_a_condition_has_to_hold_without_a_break() -> None:
    """Four seconds bad and one good, for an hour: never five in a row, so nothing is done."""
    play = Play(RESTART)
    for _ in range(700):
        play.go(4, silence())
        play.go(1, silence(Status.HEALTHY))
    assert play.deeds == []


def test_what_held_long_enough_is_acted_upon_and_judged() -> None:
    """The deed carries the vital before it, the judgement the one after it."""
    play = Play(RESTART)
    assert [deed.target for deed in play.go(7, silence())] == ["a"]
    play.go(12, silence(Status.HEALTHY))
    (judged,) = play.news
    assert isinstance(judged, Judged)
    assert (judged.deed.before.status, judged.helped, judged.after.status) == (Status.CRITICAL, True, Status.HEALTHY)


def test_a_rule_that_does_not_help_hands_over_to_the_next_and_then_it_stops() -> None:
    """Restart, in vain; move, in vain; given up, told once; and after it was over everything begins anew."""
    play = Play(RESTART, MOVE, connection_of=lambda _: "socket-0")
    play.go(1800, silence())
    assert play.names() == ["restart", "move"]
    assert [type(one).__name__ for one in play.news] == ["Judged", "Judged", "GaveUp"]
    assert [one.helped for one in play.news if isinstance(one, Judged)] == [False, False]
    assert play.remedies.standing(now=play.now)[1]["state"] == "given up"
    play.go(11, silence(Status.HEALTHY))
    assert isinstance(play.news[-1], Over)
    play.go(10, silence())
    assert play.names() == ["restart", "move", "restart"]


def test_a_deed_that_fails_hands_over_at_once() -> None:
    """What could not be done need not be waited for."""
    play = Play(RESTART, MOVE, ok=False)
    play.go(10, silence())
    assert play.names() == ["restart", "move"]
    assert [one.done for one in play.news if isinstance(one, Judged)] == [False, False]


def test_an_episode_that_flaps_is_one_episode() -> None:
    """Eight seconds bad and eight good, and over only after ten: it is restarted, moved, and then left alone."""
    play = Play(RESTART, MOVE)
    for _ in range(200):
        play.go(8, silence())
        play.go(8, silence(Status.HEALTHY))
    assert play.names() == ["restart", "move"]


def test_one_connection_is_moved_once_for_all_who_are_silent_on_it() -> None:
    """Ten symbols, one connection: ten restarts, one move, one sentence that it was given up."""
    play = Play(RESTART, MOVE, connection_of=lambda _: "socket-0")
    play.go(600, *(silence(subject=str(number)) for number in range(10)))
    assert play.names().count("restart") == 10
    assert play.names().count("move") == 1
    assert sum(isinstance(one, GaveUp) for one in play.news) == 1


def test_when_everything_is_silent_the_common_limit_is_told_once() -> None:
    """Sixty symbols at once: forty restarts within the hour, and one sentence about the others; closed when it is over."""
    play = Play(RESTART)
    everybody = [silence(subject=str(number)) for number in range(60)]
    play.go(20, *everybody)
    assert len(play.deeds) == MOST_PER_HOUR[Scope.SUBSCRIPTION] == 40
    (told,) = [one for one in play.news if isinstance(one, GaveUp) and not one.target]
    assert "limit of all that touches a subscription" in told.because
    play.go(20, *(replace(one, status=Status.HEALTHY) for one in everybody))
    assert sum(isinstance(one, Over) and not one.target for one in play.news) == 1


def test_what_lasts_is_undone_when_the_last_reason_for_it_is_over() -> None:
    """Two rules widen the batches: it is done once, and undone when neither needs it any more."""
    play = Play(WIDEN, replace(WIDEN, name="also", vital="backlog"))
    parts, backlog = Vital("parts", Status.CRITICAL), Vital("backlog", Status.CRITICAL)
    play.go(60, parts, backlog)
    assert play.names() == ["widen"]
    play.go(30, Vital("parts", Status.HEALTHY), backlog)
    assert play.names() == ["widen"]
    assert play.remedies.held() == {("widen_flush", "")}
    play.go(30, Vital("parts", Status.HEALTHY), Vital("backlog", Status.HEALTHY))
    assert play.names() == ["widen", "undo also"]
    assert play.remedies.held() == set()


def test_what_could_not_be_undone_is_tried_again() -> None:
    """A store that is away when it is over."""
    play = Play(WIDEN)
    play.go(10, Vital("parts", Status.CRITICAL))
    play.ok = False
    play.go(30, Vital("parts", Status.HEALTHY))
    play.ok = True
    play.go(30, Vital("parts", Status.HEALTHY))
    assert play.names()[1:] == ["undo widen"] * len(play.names()[1:])
    assert len(play.names()) > 2
    play.go(60, Vital("parts", Status.HEALTHY))
    assert play.remedies.tick((), now=play.now + 1) == []


def test_what_is_unknown_is_neither_bad_nor_over() -> None:
    """Nothing is done about it, and what is in force stays so until nothing was known for long."""
    play = Play(WIDEN)
    assert play.go(100, Vital("parts", Status.UNKNOWN)) == []
    play.go(6, Vital("parts", Status.CRITICAL))
    assert play.names() == ["widen"]
    play.go(FORGOTTEN_AFTER - 10)
    assert play.names() == ["widen"]
    play.go(20)
    assert play.names() == ["widen", "undo widen"]


def test_a_process_that_stood_still_knows_nothing() -> None:
    """The lid was closed for eight hours amid a silence: it has to hold anew."""
    play = Play(RESTART)
    play.go(3, silence())
    play.now += 8 * HOUR
    assert play.go(5, silence()) == []
    assert len(play.go(3, silence())) == 1


def test_nothing_is_done_while_it_would_be_pointless() -> None:
    """The exchange does not answer at all: beginning a subscription anew cannot help."""
    play = Play(replace(RESTART, unless=("exchange.rest",)))
    dark = Vital("exchange.rest", Status.CRITICAL)
    assert play.go(60, silence(), dark) == []
    assert len(play.go(3, silence(), replace(dark, status=Status.HEALTHY))) == 1


def test_a_lever_that_is_held_is_not_pulled_the_other_way() -> None:
    """Two conditions at once that want opposite things: the first one holds it."""
    actions = {**ACTIONS, "narrow": Action("narrow", "", Scope.RUN, "flush batches", -1, lasting=True)}
    play = Play(WIDEN, replace(WIDEN, name="narrow", vital="lag", action="narrow"), actions=actions)
    play.go(60, Vital("parts", Status.CRITICAL), Vital("lag", Status.CRITICAL))
    assert play.names() == ["widen"]
    play.go(30, Vital("lag", Status.CRITICAL))
    play.go(30, Vital("parts", Status.HEALTHY), Vital("lag", Status.CRITICAL))
    assert play.names() == ["widen", "undo widen", "narrow"]


def test_deeds_of_the_process_before_count() -> None:
    """A live run that is relaunched again and again does not forget how often."""
    rule = Rule("dead", "live.run", "relaunch", hold=5, gone=5, cool_down=100, per_hour=2)
    play = Play(rule, memory=[Remembered("dead", "", 1800.0), Remembered("dead", "", 600.0)])
    play.go(60, Vital("live.run", Status.CRITICAL))
    assert play.deeds == []
    (told,) = play.news
    assert isinstance(told, GaveUp)
    assert "limit of 2 an hour" in told.because


def test_a_dry_run_says_it_within_the_limits_and_goes_no_further() -> None:
    """Nothing was done, so nothing was in vain: the next rule is not reached before the limit is."""
    play = Play(RESTART, MOVE, dry=True)
    play.go(45, silence())
    assert play.names() == ["restart", "restart"]


STATUSES = st.sampled_from([Status.HEALTHY, Status.DEGRADED, Status.CRITICAL, Status.UNKNOWN])
PHASE = st.tuples(
    st.floats(1.0, 400.0),  # so long
    st.floats(0.5, 20.0),  # it changes so often
    st.lists(STATUSES, min_size=2, max_size=4),
    st.booleans(),  # whether deeds succeed
)
"""Some minutes in which each vital goes through these statuses, again and again."""


@settings(max_examples=60, deadline=None)
@given(phases=st.lists(PHASE, min_size=1, max_size=30), step=st.sampled_from([1.0, 1.7, 4.0]), dry=st.booleans())
def test_no_rule_acts_above_its_limits_whatever_the_vitals_do(
    phases: list[tuple[float, float, list[Status], bool]], step: float, dry: bool
) -> None:
    """
    Flapping every ten seconds included: limits, cool-downs and hysteresis hold, nothing acts on what is unknown, and what
    lasts is undone once for each time it was done.
    """
    play = Play(*RULES, dry=dry, connection_of=lambda _: "socket-0")
    names = sorted({rule.vital for rule in RULES})
    stretches: dict[str, float] = {}  # since when each vital is at least degraded
    for length, every, statuses, ok in phases:
        play.ok, end = ok, play.now + length
        while play.now < end:
            which = statuses[int(play.now / every) % len(statuses)]
            vitals = [Vital(name, which, subject=f"{name}:{n}") for name in names for n in range(2)]
            bad = which in (Status.DEGRADED, Status.CRITICAL)
            for name in names:
                stretches.setdefault(name, play.now + step) if bad else stretches.pop(name, None)
            for deed in play.go(step / 2, *vitals, step=step):
                rule = next(one for one in RULES if one.name == deed.rule)
                if not deed.undo:
                    assert bad
                    assert play.now - stretches[rule.vital] >= rule.hold - 1e-6
    play.go(
        FORGOTTEN_AFTER + 400, *(Vital(name, Status.HEALTHY, subject=f"{name}:{n}") for name in names for n in (0, 1))
    )
    assert play.remedies.held() == set()
    kept(play)


def kept(play: Play) -> None:
    """No limit was broken."""
    by_rule, by_scope = defaultdict(list), defaultdict(list)
    for at, deed in play.deeds:
        if not deed.undo:
            by_rule[deed.rule, deed.target].append(at)
            by_scope[ACTIONS[deed.action].scope].append(at)
    for (name, _), moments in by_rule.items():
        rule = next(one for one in RULES if one.name == name)
        assert most_within_an_hour(moments) <= rule.per_hour
        assert all(later - sooner >= rule.cool_down for sooner, later in pairwise(moments))
    for scope, moments in by_scope.items():
        assert most_within_an_hour(moments) <= MOST_PER_HOUR[scope]


def most_within_an_hour(moments: list[float]) -> int:
    return max(sum(at <= other < at + HOUR for other in moments) for at in moments)


# ---------------------------------------------------------------- rules


def test_the_table_contradicts_nothing() -> None:
    """The rules as they are shipped, and every action of theirs is one that exists."""
    refuse_contradictions(RULES, ACTIONS)
    assert {rule.action for rule in RULES} <= ACTIONS.keys()


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ((RESTART, RESTART), "the same name"),
        ((replace(RESTART, action="dance"),), "no action dance"),
        ((replace(RESTART, at_least=Status.HEALTHY),), "nothing is done about what is healthy"),
        ((replace(RESTART, hold=0),), "hold is 0"),
        ((replace(RESTART, cool_down=float("inf")),), "cool_down is inf"),
        ((replace(RESTART, gone=30),), "before anybody can know whether it is over"),
        ((replace(RESTART, per_hour=100),), "above the 40 of all such rules together"),
        ((replace(RESTART, tries=4),), "4 tries are more than its limit"),
        ((MOVE,), "after restart, which is no rule"),
        ((RESTART, replace(MOVE, vital="parts")), "which is about `silence` and not about `parts`"),
        ((replace(RESTART, after="move"), MOVE), "comes after itself"),
        ((WIDEN, replace(WIDEN, name="narrow", action="narrow")), "pull flush batches both ways"),
        ((RESTART, replace(RESTART, name="again")), "their limits would add up"),
    ],
)
def test_contradictions_are_refused_with_a_sentence(rules: tuple[Rule, ...], sentence: str) -> None:
    """Which rules, and what is wrong with them."""
    actions = {**ACTIONS, "narrow": Action("narrow", "", Scope.RUN, "flush batches", -1, lasting=True)}
    with pytest.raises(SettingsInvalid, match=sentence) as raised:
        refuse_contradictions(rules, actions)
    assert "\n" not in str(raised.value)


def test_figures_of_a_rule_can_be_changed_and_rules_switched_off() -> None:
    """What followed a rule that is off follows the one before it."""
    rules = {rule.name: rule for rule in changed(RULES, {"backlog_still": {"off": True}, "backlog": {"per_hour": 2.0}})}
    assert rules["backlog"].per_hour == 2
    assert "backlog_still" not in rules
    assert rules["backlog_beyond_hope"].after == "backlog"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backlogs": {"hold": 3.0}}, "no rule backlogs"),
        ({"backlog": {"patience": 3.0}}, "backlog has no figure patience"),
        ({"backlog": {"off": 1.0}}, "true or false"),
        ({"backlog": {"hold": True}}, "true or false"),
        ({"backlog": {"per_hour": 2.5}}, "whole number"),
        ({"backlog": {"hold": 500.0}}, "before anybody can know"),
    ],
)
def test_changes_that_make_no_sense_are_refused(changes: dict[str, dict[str, float | bool]], sentence: str) -> None:
    """A misspelt rule, a figure that is none, and what would contradict itself."""
    with pytest.raises(SettingsInvalid, match=sentence):
        changed(RULES, changes)
