"""What `status` says of remediation."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from bitget_pipeline.cli.up.remedies import remedies_line, remedies_table

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
