"""When another venue stands in and when it goes again, told as facts and times."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.watch.failover import (
    NEXT,
    Action,
    Event,
    FailBack,
    FailOver,
    FailoverRules,
    FailoverWatch,
    Mode,
    NobodyStandsIn,
    State,
    majors_of,
)

BTC, ETH, OTHER = (Symbol(Market.SPOT, name) for name in ("BTCUSDT", "ETHUSDT", "XUSDT"))
RULES = FailoverRules()


@dataclass
class World:
    """An exchange second by second: it speaks or not, it answers or not; and what was decided when."""

    decider: FailoverWatch = field(default_factory=lambda: FailoverWatch([BTC, ETH], now=0.0))
    now: float = 0.0
    done: list[tuple[float, Action]] = field(default_factory=list)
    substitute: bool = True

    def run(self, seconds: int, *, speaks: bool = True, answers: bool = True) -> None:
        for _ in range(seconds):
            self.now += 1.0
            if speaks:
                self.decider.heard(BTC, now=self.now)
            if int(self.now) % 3 == 0:
                self.decider.probed(answered=answers, now=self.now)
            self.done += [
                (self.now, one) for one in self.decider.tick(substitute_answers=self.substitute, now=self.now)
            ]

    def dark(self, seconds: int) -> None:
        self.run(seconds, speaks=False, answers=False)

    @property
    def switches(self) -> list[tuple[float, type]]:
        return [(at, type(one)) for at, one in self.done]


def test_nothing_happens_while_the_exchange_is_well():
    """
    An hour of it.
    """
    world = World()
    world.run(3600)
    assert world.done == []
    assert world.decider.state is State.OURS


def test_a_dark_exchange_is_replaced_within_seconds_and_the_hole_is_known():
    """
    Eight seconds of silence and two failed probes: well within half a minute.
    """
    world = World()
    world.run(100)
    world.dark(30)
    ((at, action),) = world.done
    assert isinstance(action, FailOver)
    assert at - 100 <= 12
    assert action.silent_since == 100.0
    assert "all majors silent" in action.reason
    assert world.decider.state is State.SUBSTITUTED


@pytest.mark.parametrize(("speaks", "answers"), [(False, True), (True, False)])
def test_one_signal_alone_proves_nothing(speaks: bool, answers: bool):
    """
    A feed that is silent with REST alive is the feed's own trouble, and the other way round.
    """
    world = World()
    world.run(10)
    world.run(600, speaks=speaks, answers=answers)
    assert world.done == []


def test_one_major_that_speaks_is_enough():
    """
    And others than the majors count for nothing.
    """
    decider = FailoverWatch([BTC, ETH], now=0.0)
    for second in range(1, 60):
        decider.heard(OTHER, now=float(second))
        if second < 30:
            decider.heard(ETH, now=float(second))
        decider.probed(answered=False, now=float(second))
        actions = decider.tick(substitute_answers=True, now=float(second))
        assert bool(actions) == (second == 37)


def test_it_comes_back_only_after_a_steady_time_and_says_what_to_repair():
    """
    From the last word before the dark to the first one after it.
    """
    world = World()
    world.run(100)
    world.dark(60)
    world.run(400)
    (_, over), (at, back) = world.done
    assert isinstance(over, FailOver)
    assert isinstance(back, FailBack)
    assert back.silent_since == 100.0
    assert 160 <= back.back_since <= 175
    assert at - back.back_since >= RULES.steady_for


def test_an_exchange_that_flaps_is_left_alone():
    """
    Ten seconds dark, ten seconds well, for an hour: one switch, and none back before it has settled.
    """
    world = World()
    world.run(30)
    for _ in range(180):
        world.dark(10)
        world.run(10)
    assert [kind for _, kind in world.switches] == [FailOver]
    world.run(200)
    assert [kind for _, kind in world.switches] == [FailOver, FailBack]


def test_who_goes_dark_again_and_again_must_be_steady_for_longer():
    """
    Twice as long with every failover of the last hour, up to half an hour; an hour later it is forgotten.
    """
    world, waits = World(), []
    for _ in range(6):
        world.dark(20)
        world.run(1900)
        back = world.done[-1][1]
        assert isinstance(back, FailBack)
        waits.append(world.done[-1][0] - back.back_since)
    assert waits[0] == pytest.approx(180, abs=2)
    assert waits[1] == pytest.approx(360, abs=2)
    assert max(waits) <= RULES.longest_steady
    world.run(3700)
    assert world.decider.steady_for(now=world.now) == RULES.steady_for


def test_without_anybody_to_stand_in_it_is_said_once():
    """
    Both venues dark may well be our own network; when the other comes, it takes over.
    """
    world = World(substitute=False)
    world.dark(60)
    assert [kind for _, kind in world.switches] == [NobodyStandsIn]
    world.substitute = True
    world.dark(1)
    assert [kind for _, kind in world.switches] == [NobodyStandsIn, FailOver]


def test_a_process_that_stood_still_knows_nothing():
    """
    A laptop that slept for eight hours wakes without declaring anything, and a steady time begins anew.
    """
    world = World()
    world.dark(6)
    world.now += 8 * 3600
    world.run(60)
    assert world.done == []
    world.dark(30)
    world.run(100)
    world.now += 8 * 3600
    world.run(100)
    assert [kind for _, kind in world.switches] == [FailOver]
    assert world.decider.state is State.RETURNING


def test_a_person_decides_over_the_evidence():
    """
    On while it is well, off while it is dark; released, the evidence decides again.
    """
    world = World()
    world.run(10)
    world.decider.mode = Mode.ON
    world.run(600)
    assert [kind for _, kind in world.switches] == [FailOver]
    world.decider.mode = Mode.AUTO
    world.run(300)
    assert [kind for _, kind in world.switches] == [FailOver, FailBack]
    world.decider.mode = Mode.OFF
    world.dark(100)
    assert len(world.done) == 2
    world.decider.mode = Mode.AUTO
    world.dark(5)
    world.decider.mode = Mode.OFF
    world.dark(5)
    assert [kind for _, kind in world.switches][2:] == [FailOver, FailBack]


def test_the_table_names_every_change_and_no_other():
    """
    Exhaustively: no event leaves a state but as the table says, and none jumps from ours to returning.
    """
    for state, event in itertools.product(State, Event):
        following = NEXT.get((state, event), state)
        assert (following is State.RETURNING) <= (
            (state, event) == (State.SUBSTITUTED, Event.BACK) or state is following
        )
    assert {following for (state, _), following in NEXT.items() if state is State.OURS} == {State.SUBSTITUTED}


def test_without_majors_nothing_is_silent_and_a_person_alone_decides():
    """
    Quiet symbols are always silent for eight seconds, so REST alone would decide: it does not.
    """
    world = World(FailoverWatch([], now=0.0))
    world.dark(600)
    assert world.done == []
    world.decider.mode = Mode.ON
    world.dark(1)
    ((_, over),) = world.done
    assert isinstance(over, FailOver)
    assert over.silent_since == world.now


QUIET = {Symbol(Market.SPOT, name): pace for name, pace in (("A", 0.02), ("B", 0.1), ("C", 0.3), ("D", 0.0))}
QUICK = {Symbol(Market.SPOT, name): pace for name, pace in (("E", 0.4), ("F", 0.5))}


@pytest.mark.parametrize(
    ("paces", "names"),
    [
        ({BTC: 0.0, **QUICK}, ["BTCUSDT"]),  # known by its name, before anything of it was heard
        (QUIET, []),  # together 0.4 a second: a silence of eight seconds is nothing
        (QUIET | QUICK, ["F", "E", "C", "B", "A"]),
        (dict.fromkeys(QUICK, 0.0), []),  # not known yet
        ({}, []),
    ],
)
def test_majors_are_the_usual_symbols_or_the_fastest_if_their_silence_would_tell(paces, names):
    """
    Three that happen to come first mean nothing.
    """
    assert [one.name for one in majors_of(paces, rules=RULES)] == names


def test_nothing_is_proven_well_before_both_signals_could_have_been_seen():
    """
    At the start, and after this process stood still.
    """
    world = World()
    seen = []
    for _ in range(13):
        seen.append(world.decider.knows(now=world.now))
        world.run(1)
    assert seen == [False] * 13
    assert world.decider.knows(now=world.now)
    world.now += 60.0
    world.run(1)
    assert not world.decider.knows(now=world.now)


def test_probes_that_come_late_are_no_light():
    """
    In the dark, and too few of the newest failed lately because this process was late to ask: nothing was heard or answered.
    """
    world = World(substitute=False)
    world.run(100)
    assert world.decider.is_light(now=world.now)
    world.dark(30)
    for late in (3.9, 2.0):
        world.now += late
        world.run(1, speaks=False, answers=False)
    assert not world.decider.is_dark(now=world.now)
    assert not world.decider.is_light(now=world.now)
    world.run(1, speaks=True, answers=False)
    assert world.decider.is_light(now=world.now)


def test_nobody_stands_in_is_said_again_after_somebody_did():
    """
    The other venue came, a person sent it away, and now it does not answer either: another darkness without anybody.
    """
    world = World(substitute=False)
    world.run(100)
    world.dark(30)
    world.substitute = True
    world.dark(5)
    world.decider.mode = Mode.OFF
    world.dark(5)
    world.substitute, world.decider.mode = False, Mode.AUTO
    world.dark(5)
    assert [kind for _, kind in world.switches] == [NobodyStandsIn, FailOver, FailBack, NobodyStandsIn]


spans = st.lists(
    st.tuples(st.integers(1, 60), st.booleans(), st.booleans(), st.booleans(), st.sampled_from(list(Mode))), max_size=25
)


@settings(max_examples=60)
@given(spans)
def test_whatever_happens_the_switches_are_justified(events: list[tuple[int, bool, bool, bool, Mode]]):
    """
    Over and back take turns; over by itself only on both signals and with somebody to stand in; back by itself only
    after the steady time, during which neither signal was bad; holes are told in order.
    """
    world = World()
    for seconds, speaks, answers, substitute, mode in events:
        world.decider.mode, world.substitute = mode, substitute
        for _ in range(seconds):
            count = len(world.done)
            recent = world.decider.steady_for(now=world.now)
            world.run(1, speaks=speaks, answers=answers)
            for at, action in world.done[count:]:
                if isinstance(action, FailOver) and mode is Mode.AUTO:
                    assert world.decider.is_silent(now=at)
                    assert world.decider.is_unreachable(now=at)
                    assert substitute
                if isinstance(action, FailBack):
                    assert action.silent_since <= action.back_since <= at
                    if mode is Mode.AUTO:
                        assert at - action.back_since >= min(recent, RULES.steady_for)
                        assert not world.decider.is_silent(now=at)
                        assert not world.decider.is_unreachable(now=at)
                assert mode is not Mode.OFF or not isinstance(action, FailOver)
    kinds = [kind for _, kind in world.switches if kind is not NobodyStandsIn]
    assert kinds == [FailOver if place % 2 == 0 else FailBack for place in range(len(kinds))]


def test_a_process_that_takes_over_stands_in_until_it_is_steady():
    """
    Whatever the state was told as, the steady time begins anew, and the failovers of before count for its length.
    """
    watch = FailoverWatch([BTC, ETH], now=1_000.0)
    watch.resume(State.RETURNING, silent_since=900.0, went_over=[-9_000.0, 700.0, 910.0], now=1_000.0)
    assert watch.state is State.SUBSTITUTED
    assert watch.steady_for(now=1_000.0) == 2 * RULES.steady_for
    done: list[tuple[float, Action]] = []
    for second in range(1_001, 1_500):
        now = float(second)
        watch.heard(BTC, now=now)
        watch.probed(answered=True, now=now)
        done += [(now, one) for one in watch.tick(substitute_answers=True, now=now)]
    ((at, back),) = done
    assert isinstance(back, FailBack)
    assert (at - 1_001.0, back.silent_since) == (2 * RULES.steady_for, 900.0)


def test_a_major_that_joins_was_heard_with_the_others():
    """
    The selection changes: who joins does not make a silence, and who left does not end one.
    """
    watch = FailoverWatch([BTC], now=0.0)
    watch.heard(BTC, now=50.0)
    watch.follow([ETH, OTHER], now=50.0)
    assert watch.majors == (ETH, OTHER)
    assert watch.silence(now=53.0) == 3.0
    watch.heard(BTC, now=60.0)
    assert watch.silence(now=61.0) == 11.0
