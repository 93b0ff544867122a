"""Remediation as a person reads it in `status`: its mode, when it looked, what is in force, what it did last."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

SHOWN = 5


def remedies_line(said: Mapping[str, Any]) -> str:
    """In one line."""
    if said.get("mode") == "off":
        return "off"
    parts = [str(said["mode"]).replace("_", " ")]
    if "checked_s" in said:
        parts.append(f"looked {said['checked_s']:.0f} s ago at {len(said['rules'])} rules")
        bad = [rule for rule in said["rules"] if rule["state"] != "calm"]
        parts.append("; ".join(f"{rule['rule']} {rule['state']}" for rule in bad) or "all is calm")
    else:
        parts.append("has not looked yet")
    if said.get("in_force"):
        parts.append(f"in force: {', '.join(said['in_force'])}")
    if (left := said.get("history_restrained_to")) is not None:
        parts.append(f"history makes at most {left:g} requests a second")
    return ", ".join(parts)


def remedies_table(said: Mapping[str, Any]) -> Table | None:
    """The last deeds, the newest first; None when there are none."""
    deeds = list(reversed(said.get("last") or []))[:SHOWN]
    if not deeds:
        return None
    table = Table("remedy", "at", "did", "to", "because", "outcome", box=None)
    for one in deeds:
        at = time.strftime("%H:%M:%S", time.localtime(one["at_ms"] / 1000))
        what = ("end of " if one["undo"] else "") + one["action"]
        cells = (one["rule"], at, what, one["target"] or "the run", str(one.get("because", ""))[:60], _outcome(one))
        table.add_row(*map(Text, cells))
    return table


def _outcome(one: Mapping[str, Any]) -> str:
    if not one["done"]:
        return f"not done: {one['said']}"[:60]
    if "helped" in one:
        return "helped" if one["helped"] else "did not help"
    return str(one["said"])[:60]
