"""What is done about the live run, from the facts alone."""

from dataclasses import replace

from bitget_pipeline.guard.supervisor import (
    AskToChange,
    AskToStop,
    DeclareDead,
    Launch,
    LiveRun,
    RunState,
    Terminate,
    Wait,
    latest_series,
    supervise,
)

RUN = LiveRun("run-1", RunState.RUNNING, age=100.0, generation="a", fixed="f")


def verdict(**facts):
    usual = {
        "runs": [RUN],
        "lease_owner": "run-1",
        "lease_age": 2.0,
        "wanted": "a",
        "wanted_fixed": "f",
        "stop_asked": None,
        "failures": [],
    }
    return supervise(**(usual | facts))


def test_healthy_run_is_left_alone():
    """A run of the right generation that renews its lease needs nothing."""
    assert isinstance(verdict(), Wait)


def test_missing_run_is_launched_at_once():
    """Nothing runs, nothing failed: start."""
    assert verdict(runs=[], lease_owner=None, lease_age=None) == Launch("a", "no live run")


def test_nothing_is_launched_before_something_is_selected():
    """Without a selection there is nothing to subscribe to."""
    assert "universe" in verdict(runs=[], wanted=None).because


def test_run_that_dagster_believes_in_but_that_lost_its_lease_is_declared_dead():
    """After a crash of the host Dagster shows STARTED for ever (measured); the lease tells the truth."""
    assert isinstance(verdict(lease_age=25.0), DeclareDead)
    assert isinstance(verdict(lease_owner=None, lease_age=None), DeclareDead)


def test_young_run_may_be_without_a_lease():
    """A run that has just started connects before it takes the lease."""
    young = LiveRun("run-1", RunState.RUNNING, age=5.0, generation="a")
    assert isinstance(verdict(runs=[young], lease_owner=None, lease_age=None), Wait)


def test_run_that_was_asked_to_stop_for_its_own_sake_is_interrupted_when_it_does_not():
    """Remediation asks a run of the right generation to stop, so that another takes its place; one that hangs does not."""
    assert isinstance(verdict(stop_asked=10.0), Wait)
    assert isinstance(verdict(stop_asked=40.0), Terminate)


def test_queued_run_is_left_to_dagster():
    """Dagster's own start time-out looks after runs that never start."""
    queued = LiveRun("run-1", RunState.WAITING, age=0.0, generation="a")
    assert isinstance(verdict(runs=[queued], lease_owner=None, lease_age=None), Wait)


def test_run_of_an_old_generation_is_asked_to_stop_and_then_interrupted():
    """What no run can change takes another one, cooperatively first: what the run holds is written before it ends."""
    other = {"wanted": "b", "wanted_fixed": "g"}
    assert isinstance(verdict(**other), AskToStop)
    assert isinstance(verdict(**other, stop_asked=10.0), Wait)
    assert isinstance(verdict(**other, stop_asked=31.0), Terminate)


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
    gone = {"runs": [], "lease_owner": None, "lease_age": None}
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
    gone = {"runs": [], "lease_owner": None, "lease_age": None}
    often_killed = latest_series([(1.0, 60.0), (90.0, 45.0), (150.0, 3.0)])
    assert often_killed == [1.0]
    assert isinstance(verdict(**gone, failures=often_killed), Launch)
    failing = latest_series([(1.0, 2.0), (20.0, 3.0), (40.0, 500.0), (600.0, 1.0)])
    assert failing == [1.0, 20.0, 40.0]
    assert isinstance(verdict(**gone, failures=failing), Wait)
