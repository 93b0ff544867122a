"""
Remediation as a person reads it in `status`: its mode, when it looked, what is in force, its rules, what it did last.

Two go through rules, the live run and its supervisor; here they are one table. The failover, which has a table of its own, is
shown beside them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from ...pipeline.watch.failover import FailoverRules
from ...pipeline.watch.failover_words import in_words

SHOWN = 5
KEPT = 20
SUPERVISOR_LATE = 30.0
"""Seconds without a look of the supervisor after which it is told; it looks every five."""


def together(inside: Mapping[str, Any], outside: Mapping[str, Any], *, looked: float | None) -> dict[str, Any]:
    """
    What the live run says of its rules, and what its supervisor says of those that see it from outside: it looked so many seconds
    ago; None, not within the hour.
    """
    told = {**outside, **inside}
    told["rules"] = [*(inside.get("rules") or ()), *(outside.get("rules") or ())]
    told["in_force"] = sorted({*(inside.get("in_force") or ()), *(outside.get("in_force") or ())})
    deeds = [*(inside.get("last") or ()), *(outside.get("last") or ())]
    told["last"] = sorted(deeds, key=lambda one: float(one["at_ms"]))[-KEPT:]
    told["supervisor_checked_s"] = None if looked is None else round(looked, 1)
    return told


def failover_told(steady_for: float, states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The failover as one more line of the table: when, what, the way back and the limits, and how each market stands."""
    words = asdict(in_words(FailoverRules(steady_for=steady_for)))
    return words | {"markets": {market: one.get("state") for market, one in sorted(states.items())}}


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
    looked = said.get("supervisor_checked_s")
    if looked is not None and looked > SUPERVISOR_LATE:
        parts.append(f"the supervisor has not looked for {looked:.0f} s")
    if said.get("in_force"):
        parts.append(f"in force: {', '.join(said['in_force'])}")
    if (left := said.get("history_restrained_to")) is not None:
        parts.append(f"history makes at most {left:g} requests a second")
    return ", ".join(parts)


def rules_table(said: Mapping[str, Any], *, every: bool = False) -> Table | None:
    """
    The rules that are not calm or acted within the hour, or `every` one, and the failover; None while nobody looked.
    """
    rules = said.get("rules") or []
    if not rules:
        return None
    table = Table("rule", "looks at", "stands", "does", "last hour", "acted", "by", box=None)
    shown = [one for one in rules if every or one["state"] != "calm" or one["acted_last_hour"]]
    for one in shown:
        acted = "-" if one.get("last_s") is None else f"{one['last_s']:.0f} s ago"
        cells = (one["rule"], one["vital"], one["state"], one["action"], str(one["acted_last_hour"]), acted)
        table.add_row(*map(Text, (*cells, one.get("by", ""))))
    if failover := said.get("failover"):
        markets = ", ".join(f"{market} {state}" for market, state in failover["markets"].items()) or "unknown"
        table.add_row(*map(Text, ("failover", failover["when"], markets, failover["does"], "-", "-", "the live run")))
        if every:
            table.add_row("", Text(f"back: {failover['back']}"), "", Text(f"limits: {failover['limits']}"))
    if calm := len(rules) - len(shown):
        table.add_row(f"and {calm} calm", "`status --rules` shows all")
    return table


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
