"""
The table of remediation: what can be done, and which rule does what about which vital. Pure.

remedy.py decides by it, pipeline/live/hands.py does it. An operator changes figures of a rule, or switches it off, by the
setting `remedies`; the README's table is printed from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import SettingsInvalid
from .remedy_rules import Action, Rule, Scope, refuse_contradictions
from .vitals import Status

ACTIONS: Mapping[str, Action] = {
    one.name: one
    for one in (
        Action("restart_subscription", "ends a subscription and begins it anew", Scope.SUBSCRIPTION, "subscription"),
        Action(
            "move_connection",
            "opens another connection for the same subscriptions, and closes the old one when that delivers",
            Scope.CONNECTION,
            "connection",
        ),
        Action("reconnect", "closes a connection and opens it again at once", Scope.CONNECTION, "connection"),
        Action("widen_flush", "writes fewer and larger batches", Scope.RUN, "flush batches", +1, lasting=True),
        Action(
            "spill", "lets trades wait on disk instead of in Redis", Scope.RUN, "trades into Redis", -1, lasting=True
        ),
        Action(
            "shed_channel",
            "stops collecting the least important channel, with a row in the ledger",
            Scope.RUN,
            "channels",
            -1,
            lasting=True,
        ),
        Action("slow_backfills", "leaves history 2 requests a second", Scope.RUN, "history requests", -1, lasting=True),
        Action("stop_backfills", "lets history make no request", Scope.RUN, "history requests", -1, lasting=True),
        Action("relaunch", "ends the live run and lets another begin", Scope.RUN, "live run"),
    )
}

_SILENT, _CLOSED, _STORES = "subscription.silence", "connection.open", ("clickhouse.answers", "redis.answers")

RULES: tuple[Rule, ...] = (
    Rule(
        "silent_subscription", _SILENT, "restart_subscription",
        hold=45, gone=30, cool_down=120, per_hour=4, effect_within=30, unless=("exchange.rest",),
    ),
    Rule(
        "silent_still", _SILENT, "move_connection",
        hold=45, gone=30, cool_down=300, per_hour=3, effect_within=90, after="silent_subscription", unless=("exchange.rest",),
    ),
    Rule(
        "closed_connection", _CLOSED, "reconnect", Status.CRITICAL,
        hold=45, gone=15, cool_down=120, per_hour=6, effect_within=60, tries=2, unless=("exchange.rest",),
    ),
    Rule(
        "nothing_arrives", "throughput", "relaunch", Status.CRITICAL,
        hold=180, gone=60, cool_down=900, per_hour=2, effect_within=300, unless=("exchange.rest", *_STORES),
    ),
    Rule(
        "flush_stuck", "flush.progress", "relaunch", Status.CRITICAL,
        hold=120, gone=30, cool_down=900, per_hour=2, effect_within=300, unless=_STORES,
    ),
    Rule(
        "mute_run", "live.run", "relaunch", Status.CRITICAL,
        hold=30, gone=30, cool_down=900, per_hour=2, effect_within=120, unless=_STORES,
    ),
    Rule(
        "backlog", "stream.backlog", "widen_flush",
        hold=30, gone=60, cool_down=120, per_hour=6, effect_within=60, unless=_STORES,
    ),
    Rule(
        "backlog_still", "stream.backlog", "slow_backfills",
        hold=30, gone=60, cool_down=120, per_hour=6, effect_within=120, after="backlog", unless=_STORES,
    ),
    Rule(
        "backlog_beyond_hope", "stream.backlog", "shed_channel", Status.CRITICAL,
        hold=60, gone=120, cool_down=300, per_hour=3, effect_within=300, after="backlog_still", unless=_STORES,
    ),
    Rule(
        "many_parts", "clickhouse.parts", "widen_flush",
        hold=30, gone=120, cool_down=300, per_hour=4, effect_within=300,
    ),
    Rule(
        "too_many_parts", "clickhouse.parts", "stop_backfills", Status.CRITICAL,
        hold=30, gone=120, cool_down=300, per_hour=4, effect_within=600,
    ),
    Rule(
        "late_rows", "lag.p99", "slow_backfills", Status.CRITICAL,
        hold=60, gone=60, cool_down=300, per_hour=4, effect_within=120,
    ),
    Rule(
        "redis_nearly_full", "redis.memory", "spill", Status.CRITICAL,
        hold=10, gone=60, cool_down=120, per_hour=6, effect_within=120,
    ),
    Rule(
        "redis_away", "redis.answers", "stop_backfills", Status.CRITICAL,
        hold=20, gone=20, cool_down=60, per_hour=12, effect_within=60,
    ),
    Rule(
        "failing_answers", "exchange.errors", "slow_backfills",
        hold=30, gone=60, cool_down=300, per_hour=4, effect_within=120,
    ),
    Rule(
        "warehouse_disk", "clickhouse.disk", "stop_backfills", Status.CRITICAL,
        hold=30, gone=300, cool_down=600, per_hour=3, effect_within=600,
    ),
    Rule(
        "disk_nearly_full", "disk.free", "stop_backfills", Status.CRITICAL,
        hold=30, gone=300, cool_down=600, per_hour=3, effect_within=600,
    ),
)  # fmt: skip
"""In the order in which they are asked."""

FROM_OUTSIDE = frozenset({"mute_run", "redis_away"})
"""Rules about what the live run cannot see of itself: the sensor that supervises it goes through these."""

CHANGEABLE = ("hold", "gone", "cool_down", "per_hour", "effect_within", "tries")
"""What the setting `remedies` may change of a rule, beside `off`."""
WHOLE = ("per_hour", "tries")


def changed(rules: Sequence[Rule], changes: Mapping[str, Mapping[str, float | bool]]) -> tuple[Rule, ...]:
    """
    The rules with other figures, or without those that are off.

    Raises SettingsInvalid for an unknown rule or figure, and for what then contradicts itself.
    """
    known = {rule.name for rule in rules}
    for name, figures in changes.items():
        if name not in known:
            raise SettingsInvalid(f"there is no rule {name}", remedy=f"the rules are {', '.join(sorted(known))}")
        for figure, value in figures.items():
            if figure != "off" and figure not in CHANGEABLE:
                raise SettingsInvalid(
                    f"{name} has no figure {figure}", remedy=f"there are {', '.join(CHANGEABLE)}, off"
                )
            if isinstance(value, bool) != (figure == "off"):
                raise SettingsInvalid(
                    f"{name}.{figure} is {value}", remedy="`off` is true or false, the others numbers"
                )
    off = {name for name, figures in changes.items() if figures.get("off")}
    left = tuple(
        replace(rule, **_figures(rule.name, changes.get(rule.name, {})), after=_before(rule, rules, off))
        for rule in rules
        if rule.name not in off
    )
    refuse_contradictions(left, ACTIONS)
    return left


def _figures(rule: str, given: Mapping[str, float | bool]) -> dict[str, Any]:
    for name, value in given.items():
        if name in WHOLE and not float(value).is_integer():
            raise SettingsInvalid(f"{rule}: {name} is {value:g}", remedy="write a whole number")
    return {name: int(value) if name in WHOLE else float(value) for name, value in given.items() if name != "off"}


def _before(rule: Rule, rules: Sequence[Rule], off: set[str]) -> str:
    """Whom it follows, with those left out that are off."""
    after = {one.name: one.after for one in rules}
    before = rule.after
    while before in off:
        before = after[before]
    return before


def as_markdown(rules: Sequence[Rule] = RULES) -> str:
    """The table of rules, as the README has it."""
    lines = ["| rule | when | does | again after, at most | over when gone for |", "| --- | --- | --- | --- | --- |"]
    for rule in rules:
        action = ACTIONS[rule.action]
        lasting = ", until it is over" if action.lasting else ""
        again = f"{rule.cool_down:g} s, {rule.per_hour} an hour"
        lines.append(f"| `{rule.name}` | {rule.when()} | {action.does}{lasting} | {again} | {rule.gone:g} s |")
    return "\n".join(lines) + "\n"


def parse_changes(text: str) -> dict[str, dict[str, float | bool]]:
    """
    What the setting `remedies` says as one line: `rule.figure=value` separated by commas. Raises SettingsInvalid.
    """
    found: dict[str, dict[str, float | bool]] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        place, equals, value = word.partition("=")
        name, dot, figure = place.strip().partition(".")
        if not equals or not dot:
            raise SettingsInvalid(f"{word} is not of the form rule.figure=value")
        value = value.strip().lower()
        try:
            number = value == "true" if value in ("true", "false") else float(value)
        except ValueError:
            raise SettingsInvalid(f"{word}: {value} is no number") from None
        found.setdefault(name, {})[figure] = number
    return found


def changes_in_a_line(changes: Mapping[str, Mapping[str, float | bool]]) -> str:
    """The same, as it is read by `parse_changes`."""
    return ",".join(
        f"{name}.{figure}={str(value).lower() if isinstance(value, bool) else f'{value:g}'}"
        for name, figures in changes.items()
        for figure, value in figures.items()
    )
