"""What is done about the live run, from the facts alone."""

from dataclasses import replace

import pytest

from bitget_pipeline.guard.sightings import Sightings
from bitget_pipeline.guard.supervisor import (
    AskToChange,
    AskToStop,
    Beginning,
    DeclareDead,
    Launch,
    Lease,
    LiveRun,
    Oust,
    RunState,
    Succeed,
    Terminate,
    Wait,
    latest_series,
    supervise,
)

RUN = LiveRun("run-1", RunState.RUNNING, age=100.0, generation="a", fixed="f")
HEIR = LiveRun("run-2", RunState.RUNNING, age=50.0, generation="b", succeeds="run-1")
MINE = Lease("run-1", 2.0)


def verdict(*, stop_asked=None, unheld=0.0, **facts):
    """About one healthy run, but for what is said."""
    run = replace(RUN, stop_asked=stop_asked, unheld=unheld)
    usual = {"runs": [run], "lease": MINE, "wanted": "a", "wanted_fixed": "f", "failures": []}
    return supervise(**(usual | facts))


def test_healthy_run_is_left_alone():
    """A run of the right generation that renews its lease needs nothing."""
    assert isinstance(verdict(), Wait)


def test_missing_run_is_launched_at_once():
    """Nothing runs, nothing failed: start."""
    assert verdict(runs=[], lease=None) == Launch("a", "no live run")


def test_nothing_is_launched_before_something_is_selected():
    """Without a selection there is nothing to subscribe to."""
    assert "universe" in verdict(runs=[], wanted=None).because


def test_run_that_dagster_believes_in_but_that_lost_its_lease_is_declared_dead():
    """After a crash of the host Dagster shows STARTED for ever (measured); the lease tells the truth, when it says so twice."""
    for lease in (None, Lease("run-1", 25.0), Lease("run-2", 2.0)):
        assert isinstance(verdict(lease=lease), Wait)
        assert isinstance(verdict(lease=lease, unheld=5.0), Wait)
        assert isinstance(verdict(lease=lease, unheld=10.0), DeclareDead)
    assert isinstance(verdict(unheld=10.0), Wait)


def test_a_run_whose_process_has_ended_is_declared_dead_at_once():
    """However young its lease; a run that waits to be started has no process yet, and what it is said to be tells the reason."""
    dead = replace(RUN, gone=True)
    assert verdict(runs=[dead]) == DeclareDead("run-1", "it is said to be running, but its process has ended")
    assert isinstance(verdict(runs=[replace(dead, state=RunState.STOPPING)]), DeclareDead)
    assert isinstance(verdict(runs=[replace(dead, age=1.0)], lease=None), DeclareDead)
    assert isinstance(verdict(runs=[replace(dead, state=RunState.WAITING)]), Wait)
    assert verdict(runs=[HEIR, dead]).run_id == "run-1"


def test_a_dead_run_is_noticed_while_nobody_knows_what_is_selected():
    """ClickHouse is away: nothing can be started, but Dagster need not go on believing in what is gone."""
    away = {"wanted": None, "why_none": "ClickHouse does not answer"}
    assert isinstance(verdict(**away, lease=None, unheld=10.0), DeclareDead)
    assert isinstance(verdict(**away, stop_asked=31.0), Terminate)
    assert verdict(**away) == Wait("ClickHouse does not answer")
    assert verdict(**away, runs=[], lease=None) == Wait("ClickHouse does not answer")


def test_a_dead_run_beside_one_that_waits_is_declared_dead():
    """The queue holds the second back as long as Dagster believes in the first."""
    queued = LiveRun("run-2", RunState.WAITING, age=0.0, generation="a", queued=30.0)
    assert isinstance(verdict(runs=[queued, RUN], lease=None), Wait)
    assert verdict(runs=[queued, replace(RUN, unheld=10.0)], lease=None) == DeclareDead(
        "run-1", "it is said to run for 100 s, but there is no lease"
    )


@pytest.mark.parametrize(
    ("stage", "age", "limit", "starts"),
    [
        ("sockets", 50.0, 60.0, True),
        ("sockets", 66.0, 60.0, False),
        ("lease", 34.0, 35.0, True),
        ("lease", 41.0, 35.0, False),
    ],
)
def test_a_run_that_says_it_starts_has_the_time_of_its_stage(stage, age, limit, starts):
    """Longer than a young run may be silent, and no longer than the stage may take; what another says does not count."""
    facts = {"lease": None, "unheld": 60.0}
    beginning = Beginning("run-1", stage, age, limit)
    assert isinstance(verdict(**facts, beginning=beginning), Wait if starts else DeclareDead)
    assert isinstance(verdict(**facts, beginning=replace(beginning, run_id="run-2")), DeclareDead)


def test_a_redis_that_has_just_come_back_proves_no_death():
    """The lease ran out while Redis was away; its holder needs a moment to renew it."""
    facts = {"lease": None, "unheld": 10.0}
    assert isinstance(verdict(**facts, redis_back=15.0), Wait)
    assert isinstance(verdict(**facts, redis_back=21.0), DeclareDead)


def test_a_holder_of_the_lease_whom_dagster_does_not_run_is_ousted():
    """A run that was called dead and is not would keep every other from the lease; one look is not enough to say so."""
    stray = Lease("run-0", 2.0, stray=10.0)
    ousted = Oust("run-0", "it holds the lease, and Dagster does not run it")
    starting = Beginning("run-1", "lease", 10.0, 35.0)
    assert verdict(lease=stray, beginning=starting) == ousted
    assert verdict(lease=stray, runs=[]) == ousted
    assert verdict(lease=replace(stray, stray=0.0), runs=[]) == Launch("a", "no live run")
    assert isinstance(verdict(lease=replace(stray, age=25.0), runs=[]), Launch)


def test_what_is_seen_at_every_look_grows_old_and_what_is_not_is_forgotten():
    """A run that was found without the lease, had it, and is found without it again, begins anew."""
    sightings = Sightings()
    assert sightings.look(["a", "b"], now=100.0) == {"a": 0.0, "b": 0.0}
    assert sightings.look(["a"], now=105.0) == {"a": 5.0}
    assert sightings.look(["a", "b"], now=110.0) == {"a": 10.0, "b": 0.0}


def test_young_run_may_be_without_a_lease():
    """A run that has just started connects before it takes the lease."""
    young = LiveRun("run-1", RunState.RUNNING, age=5.0, generation="a")
    assert isinstance(verdict(runs=[young], lease=None), Wait)


def test_run_that_was_asked_to_stop_for_its_own_sake_is_interrupted_when_it_does_not():
    """Remediation asks a run of the right generation to stop, so that another takes its place; one that hangs does not."""
    assert isinstance(verdict(stop_asked=10.0), Wait)
    assert isinstance(verdict(stop_asked=40.0), Terminate)


def test_queued_run_is_left_to_dagster():
    """Dagster's own start time-out looks after runs that never start."""
    queued = LiveRun("run-1", RunState.WAITING, age=0.0, generation="a")
    assert isinstance(verdict(runs=[queued], lease=None), Wait)


OTHER = {"wanted": "b", "wanted_fixed": "g"}
"""What no run can change while it goes on."""


def test_what_no_run_can_change_takes_an_heir():
    """It is started beside the run that holds the lease; one that has collected nothing yet is asked to stop instead."""
    assert verdict(**OTHER) == Succeed("run-1", "b", "generation b replaces a")
    starting = {"lease": None, "beginning": Beginning("run-1", "lease", 3.0, 35.0)}
    assert isinstance(verdict(**OTHER, **starting), AskToStop)
    assert isinstance(verdict(**OTHER, stop_asked=10.0), Wait)
    assert isinstance(verdict(**OTHER, stop_asked=31.0), Terminate)


def test_an_heir_that_failed_is_not_tried_again_at_once():
    """The run that is there goes on meanwhile; the longer, the more of them failed."""
    assert isinstance(verdict(**OTHER, failures=[10.0]), Wait)
    assert isinstance(verdict(**OTHER, failures=[61.0]), Succeed)
    assert isinstance(verdict(**OTHER, failures=[61.0] * 6), Wait)


def test_the_holder_of_the_lease_is_the_run_and_the_other_its_heir():
    """Nobody is asked to change or to stop while the one takes over from the other, and while the other ends afterwards."""
    starting = Beginning("run-2", "settling", 40.0, 90.0)
    assert "takes over" in verdict(**OTHER, runs=[HEIR, RUN], beginning=starting).because
    ending = replace(RUN, stop_asked=3.0)
    assert isinstance(verdict(**OTHER, runs=[HEIR, ending], lease=None, beginning=starting), Wait)
    assert isinstance(verdict(**OTHER, runs=[HEIR, ending], lease=Lease("run-2", 1.0)), Wait)
    assert isinstance(verdict(**OTHER, runs=[replace(HEIR, fixed="g")], lease=Lease("run-2", 1.0)), Wait)


def test_an_heir_whose_predecessor_dies_takes_over():
    """It is the only run then, and starting; nothing else is launched."""
    starting = Beginning("run-2", "settling", 40.0, 90.0)
    alone = {"runs": [HEIR], "lease": Lease("run-1", 5.0, stray=5.0), "beginning": starting}
    assert isinstance(verdict(**OTHER, **alone, failures=[1.0]), Wait)


def test_an_heir_that_does_not_take_over_is_ended():
    """One that hangs is interrupted; one that died is declared dead; the run that holds the lease stays."""
    late = replace(HEIR, age=301.0)
    starting = Beginning("run-2", "settling", 40.0, 90.0)
    assert verdict(**OTHER, runs=[late, RUN], beginning=starting) == Terminate(
        "run-2", "it has not taken over within 301 s"
    )
    assert isinstance(verdict(**OTHER, runs=[replace(late, unheld=10.0), RUN]), DeclareDead)


def test_an_heir_that_dagster_does_not_start_gets_the_slot_of_its_predecessor():
    """Where the queue has no room for two, one ends before the other begins."""
    waits = replace(HEIR, state=RunState.WAITING, age=0.0, queued=119.0)
    assert isinstance(verdict(**OTHER, runs=[waits, RUN]), Wait)
    found = verdict(**OTHER, runs=[replace(waits, queued=121.0), RUN])
    assert isinstance(found, AskToStop)
    assert (found.run_id, found.generation) == ("run-1", "b")


def test_a_run_becomes_another_generation_where_it_can():
    """Another selection needs no other run: it is asked to change, and left at it as long as it says that it does."""
    assert isinstance(verdict(wanted="b"), AskToChange)
    assert isinstance(verdict(wanted="b", change_asked=10.0), Wait)
    assert isinstance(verdict(wanted="b", runs=[replace(RUN, changing="b")], change_asked=900.0), Wait)
    assert isinstance(verdict(wanted="b", runs=[replace(RUN, fixed=None)]), AskToChange)


def test_a_run_that_does_not_change_is_replaced():
    """It was asked long ago, or is still becoming something that is not wanted any more."""
    assert isinstance(verdict(wanted="b", change_asked=121.0), AskToStop)
    assert isinstance(verdict(wanted="b", runs=[replace(RUN, changing="c")], change_asked=121.0), AskToStop)


def test_first_failure_is_repaired_at_once_and_repeated_ones_wait_longer():
    """A killed worker costs seconds; one that dies at every start must not spin."""
    gone = {"runs": [], "lease": None}
    assert isinstance(verdict(**gone, failures=[1.0]), Launch)
    assert isinstance(verdict(**gone, failures=[1.0, 8.0]), Wait)
    assert isinstance(verdict(**gone, failures=[11.0, 20.0]), Launch)
    assert isinstance(verdict(**gone, failures=[200.0] * 9), Wait)
    assert isinstance(verdict(**gone, failures=[301.0] * 9), Launch)


def test_failures_of_long_ago_are_forgotten():
    """Ten quiet minutes clear the account."""
    assert isinstance(verdict(runs=[], failures=[601.0] * 9), Launch)


def test_a_run_that_had_lived_for_a_while_begins_a_new_series():
    """A worker that is killed every few minutes is replaced at once each time; one that fails at its start is not."""
    gone = {"runs": [], "lease": None}
    often_killed = latest_series([(1.0, 60.0), (90.0, 45.0), (150.0, 3.0)])
    assert often_killed == [1.0]
    assert isinstance(verdict(**gone, failures=often_killed), Launch)
    failing = latest_series([(1.0, 2.0), (20.0, 3.0), (40.0, 500.0), (600.0, 1.0)])
    assert failing == [1.0, 20.0, 40.0]
    assert isinstance(verdict(**gone, failures=failing), Wait)
