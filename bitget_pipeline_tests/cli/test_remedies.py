"""What `status` says of remediation."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from bitget_pipeline.cli.up.remedies import failover_told, remedies_line, remedies_table, rules_table, together

CALM = {"rule": "backlog", "open": 0, "state": "calm", "acted_last_hour": 0, "last_s": None}
SAID: dict[str, Any] = {"mode": "on", "checked_s": 0.4, "rules": [CALM], "in_force": [], "last": []}
DEED = {
    "at_ms": 1_800_000_000_000,
    "rule": "backlog",
    "action": "widen_flush",
    "target": "",
    "because": "trades wait in Redis for 40 s",
    "undo": False,
    "done": True,
    "said": "trades are gathered for up to 4 s",
    "helped": False,
}


def test_a_line_says_the_mode_the_last_look_and_what_is_not_calm() -> None:
    """For a person who wants to know at a glance."""
    assert remedies_line(SAID) == "on, looked 0 s ago at 1 rules, all is calm"
    busy = SAID | {"rules": [CALM | {"state": "in force"}], "in_force": ["widen_flush"], "history_restrained_to": 2.0}
    assert remedies_line(busy).endswith(
        "backlog in force, in force: widen_flush, history makes at most 2 requests a second"
    )
    assert remedies_line({"mode": "off"}) == "off"
    assert remedies_line({"mode": "dry_run"}) == "dry run, has not looked yet"


def test_a_table_shows_the_last_deeds_with_their_outcome() -> None:
    """The newest first; none, no table."""
    assert remedies_table(SAID) is None
    undone = DEED | {"undo": True, "said": "as ever"}
    del undone["helped"]
    failed = DEED | {"done": False, "said": "Redis does not answer"}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(remedies_table(SAID | {"last": [DEED, failed, undone]}))
    lines = console.export_text().splitlines()
    assert all(word in line for word, line in zip(("end of", "not done", "did not help"), lines[1:], strict=True))
    assert "trades wait in Redis for 40 s" in lines[3]


OUTSIDE: dict[str, Any] = {
    "mode": "on",
    "rules": [CALM | {"rule": "redis_away", "state": "in force", "action": "stop_backfills", "vital": "redis.answers"}],
    "in_force": ["stop_backfills"],
    "last": [DEED | {"rule": "redis_away", "action": "stop_backfills", "at_ms": 1_800_000_009_000}],
}


def shown(table: object) -> str:
    """A table as text."""
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_what_the_live_run_and_its_supervisor_say_is_one_table() -> None:
    """
    Rules of both, what either holds, deeds in the order in which they were done; of who says nothing nothing is made up.
    """
    both = together(SAID | {"last": [DEED]}, OUTSIDE, looked=3.0)
    assert [one["rule"] for one in both["rules"]] == ["backlog", "redis_away"]
    assert both["in_force"] == ["stop_backfills"]
    assert [one["rule"] for one in both["last"]] == ["backlog", "redis_away"]
    assert remedies_line(both) == "on, looked 0 s ago at 2 rules, redis_away in force, in force: stop_backfills"
    late = together(SAID, OUTSIDE, looked=200.0)
    assert "the supervisor has not looked for 200 s" in remedies_line(late)
    alone = together({}, OUTSIDE, looked=3.0)
    assert remedies_line(alone) == "on, has not looked yet, in force: stop_backfills"
    assert "mode" not in together({}, {}, looked=None)


def test_rules_are_shown_with_how_they_stand_and_the_failover_beside_them() -> None:
    """
    Those that are calm are a number, unless every one is wanted; of the failover there is when, what, the way back and limits.
    """
    calm = CALM | {"action": "widen_flush", "vital": "stream.backlog", "by": "the live run"}
    both = together(SAID | {"rules": [calm]}, OUTSIDE, looked=3.0)
    both["failover"] = failover_told(20.0, {"spot": {"state": "ours"}, "usdtm": {"state": "substituted"}})
    few, every = shown(rules_table(both)), shown(rules_table(both, every=True))
    assert "widen_flush" not in few
    assert "and 1 calm" in few
    assert "redis_away" in few
    assert "spot ours, usdtm substituted" in few
    assert "silent for 8 s" in few
    assert "widen_flush" in every
    assert "both signals good for 20 s" in every
    assert rules_table({"mode": "on"}) is None
