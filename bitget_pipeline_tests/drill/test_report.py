"""The table says what was not as promised, and only facts decide about that."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from ..chaos.compare import Comparison
from ..pipeline.watch.test_attention import NAMES
from .attempt import Attempt, Outcome, remedies_done
from .drills import ASLEEP, DRILLS
from .report import as_json, table
from .signs import MADE_HERE, Sign, Spell, Watch

GOOD = Outcome(
    "a drill", detected=12.0, seen_as="symbol.silent", recovered=3.0, promised="seen ≤ 60 s", compared=Comparison(9)
)


def test_a_drill_that_was_noticed_and_lost_nothing_is_kept_however_long_it_took() -> None:
    """
    Seconds beyond the promise are shown beside it; they depend on the machine and decide nothing.
    """
    slow = replace(GOOD, detected=100.0)
    assert GOOD.kept
    assert slow.kept
    assert "100.0 s" in table([slow])
    assert "NOT AS PROMISED" not in table([slow])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"detected": None}, "nobody noticed"),
        ({"recovered": None}, "it did not come back"),
        ({"problem": "the live run ended with code 1"}, "the live run ended with code 1"),
        ({"false_alarms": ["symbol.silent spot:ETHUSDT"]}, "false alarm: symbol.silent spot:ETHUSDT"),
        ({"compared": Comparison(9, lost=1, examples=["spot:BTCUSDT 7: lost"])}, "spot:BTCUSDT 7: lost"),
        ({"compared": Comparison()}, "nothing was compared"),
        ({"compared": Comparison(9, candles_wrong=1, examples=["spot:BTCUSDT minute 0"])}, "spot:BTCUSDT minute 0"),
    ],
)
def test_what_is_not_as_promised_is_named_below_the_table(wrong: dict[str, object], told: str) -> None:
    """
    Not noticed, not back, a live run that failed, somebody blamed who was well, a trade lost, a candle wrong.
    """
    bad = replace(GOOD, **wrong)  # type: ignore[arg-type]
    assert not bad.kept
    assert f"NOT AS PROMISED: a drill: {told}" in table([GOOD, bad])
    assert [json.loads(line)["kept"] for line in as_json([GOOD, bad]).splitlines()] == [True, False]


def test_a_drill_in_which_nothing_is_to_be_noticed_needs_no_sign() -> None:
    """
    A minute in which all is well, for one.
    """
    assert replace(GOOD, detected=None, to_notice=False).kept


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [("symbol.*", True), ("symbol.silent spot:*", True), ("symbol.silent usdtm:*", False), ("symbol.gap*", False)],
)
def test_signs_are_named_by_what_and_whose(pattern: str, matches: bool) -> None:
    """
    A drill names the signs of its fault by patterns of both.
    """
    assert Sign("symbol.silent", "spot:BTCUSDT", "for 20 s").matches((pattern,)) is matches


def test_every_sign_that_a_drill_names_is_one_that_can_be_seen() -> None:
    """
    A pattern that matches nothing would never be missed: each is the beginning of a vital, or of what is made of other words.
    """
    vitals = {*NAMES, "subscription.silence", "subscription.gap", "connection.open", "live.run", "failover."}
    for drill in (*DRILLS, ASLEEP):
        for pattern in drill.signs:
            head = pattern.partition("*")[0]
            assert any(name.startswith(head) or head.startswith(name) for name in (*MADE_HERE, *vitals)), (
                f"{drill.name}: {pattern}"
            )


def test_what_remediation_did_is_told_by_rule_with_its_outcome() -> None:
    """
    Since the fault began, how often, and of how many it is known that they helped; what was undone is no deed.
    """
    deed = {"at_ms": 20, "rule": "backlog", "action": "widen_flush", "undo": False, "done": True}
    deeds = [
        deed | {"at_ms": 5},
        deed | {"helped": True},
        deed,
        deed | {"undo": True},
        deed | {"rule": "silent_still", "action": "move_connection", "done": False},
    ]
    assert remedies_done(deeds, since_ms=10) == [
        "backlog: widen_flush 2×, 1 helped",
        "silent_still: move_connection 1×, 1 not done",
    ]
    assert remedies_done([], since_ms=0) == []


def test_what_is_called_wrong_before_the_fault_is_a_false_alarm_on_a_machine_that_goes_on() -> None:
    """
    The live run says nothing for seconds: somebody was blamed, unless the run says afterwards that it stood still.
    """
    watch = Watch(None)  # type: ignore[arg-type]
    attempt = Attempt(DRILLS[1], None, watch, random.Random(1))  # type: ignore[arg-type]
    attempt._began = 100.0
    watch.spells.append(Spell(Sign("live.silent"), 95.0))
    assert attempt._false_alarms(90.0) == ["live.silent"]
    watch.spells.append(Spell(Sign("clock.steady"), 101.0))
    assert attempt._false_alarms(90.0) == []
