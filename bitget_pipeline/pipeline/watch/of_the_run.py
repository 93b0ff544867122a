"""
What a live run's own words say of its health: symbols, connections, lags, companions. Pure.

Judged from what news.py publishes, by the run itself once a second (attention.py), and by the sensor for a run that publishes no
vitals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...guard.vitals import Status, Vital, measured, unknown
from ...market.instrument import Symbol
from .flow import Flow
from .health_rules import HealthRules

SILENCE, GAP = "subscription.silence", "subscription.gap"

Words = Mapping[str, Any]


def run_vitals(overall: Words, *, rules: HealthRules) -> list[Vital]:
    """Of the run as a whole: its trouble, what waits on disk, what it gave up, its companions, its lags and connections."""
    uptime = float(overall.get("uptime") or 0.0)
    return [
        *_trouble(overall),
        *_companions(overall),
        _lag("lag.p50", "half of all trades are in the table", overall, rules, uptime),
        _lag("lag.p99", "99 of 100 trades are in the table", overall, rules, uptime),
        *connection_vitals(overall.get("connections") or {}, uptime=uptime, rules=rules),
    ]


def _trouble(overall: Words) -> Iterable[Vital]:
    trouble = overall.get("trouble")
    if trouble:
        yield Vital("live.trouble", Status.DEGRADED, f"the live run has trouble: {trouble}")
    spilled = int(overall.get("spill_bytes") or 0)
    if spilled:
        reason = f"trades wait on local disk ({spilled / 2**20:,.1f} MiB): Redis does not take them"
        yield Vital("spill", Status.DEGRADED, reason, float(spilled), 0.0)
    for channel, why in (overall.get("shed") or {}).items():
        yield Vital("channel.shed", Status.DEGRADED, f"{channel} are not collected: {why}", subject=channel)


def _companions(overall: Words) -> Iterable[Vital]:
    for name, said in overall.items():
        if isinstance(said, dict) and said.get("trouble"):
            waiting = f", {said['waiting']} rows wait" if said.get("waiting") else ""
            reason = f"{name.replace('_', ' ')}: {said['trouble']}{waiting}"
            yield Vital("companion", Status.DEGRADED, reason, subject=name)


def _lag(name: str, what: str, overall: Words, rules: HealthRules, uptime: float) -> Vital:
    found = overall.get(f"{name.replace('.', '_')}_ms")
    if found is None:
        if uptime < rules.starting:
            return Vital(name, Status.HEALTHY, "nothing was stored yet, the run has just begun")
        return unknown(name, "how long trades take to the table is not known: none was stored")
    seconds = float(found) / 1000
    line = rules.lag_p50 if name == "lag.p50" else rules.lag_p99
    return measured(name, seconds, line, f"{what} {seconds:.1f} s after they arrived")


def connection_vitals(connections: Mapping[str, Words], *, uptime: float, rules: HealthRules) -> list[Vital]:
    """Each planned connection: open or not. One that is being opened in the first moments is no trouble yet."""
    found = []
    for name, one in connections.items():
        age = one.get("age")
        if age is not None:
            carries = f"{one.get('live', 0)} subscriptions deliver"
            found.append(
                Vital("connection.open", Status.HEALTHY, f"{name} is open, {carries}", float(age), subject=name)
            )
            continue
        why = f": {one['last_reason']}" if one.get("last_reason") else ""
        opened = bool(one.get("opened"))
        status = Status.DEGRADED if opened or uptime >= rules.starting else Status.HEALTHY
        found.append(Vital("connection.open", status, f"{name} is not open{why}", subject=name))
    if found and all(one.value is None for one in found) and any(one.status is Status.DEGRADED for one in found):
        found.append(Vital("connection.open", Status.CRITICAL, "no connection to the exchange is open"))
    return found


def flow_vitals(flow: Flow, *, uptime: float, rules: HealthRules) -> list[Vital]:
    """How much came of what was to be expected, how much of it made no sense, and how often connections broke."""
    minutes = f"the last {rules.over / 60:.0f} minutes"
    arrived = flow.throughput(least=rules.least_expected)
    if arrived is not None:
        reason = f"{arrived:.0%} of what the symbols' own paces let expect arrived in {minutes}"
        found = [measured("throughput", arrived, rules.throughput, reason)]
    else:
        found = [Vital("throughput", Status.HEALTHY, f"too little is to be expected of {minutes} to count it")]
        if uptime < rules.starting:
            found = [Vital("throughput", Status.HEALTHY, "the symbols' paces are still being learned")]
    wrong = flow.errors()
    if wrong is not None:
        found.append(measured("errors", wrong, rules.errors, f"{wrong:.1%} of the frames of {minutes} made no sense"))
    elif uptime < rules.starting:
        found.append(Vital("errors", Status.HEALTHY, "no frame came yet, the run has just begun"))
    else:
        found.append(unknown("errors", f"no frame came in {minutes}"))
    broken = flow.reconnects()
    reason = f"{broken} connections broke in {minutes}"
    found.append(measured("connection.reconnects", float(broken), rules.reconnects, reason))
    return found


def symbol_vitals(
    symbols: Mapping[Symbol, Words], *, uptime: float, rules: HealthRules, later: float = 0.0
) -> list[Vital]:
    """Each symbol against its own rate, `later` seconds after these words were said."""
    ordered = sorted(symbols.items(), key=lambda item: str(item[0]))
    return [
        _symbol(f"{symbol.market}/{symbol.name}", said, uptime=uptime, rules=rules, later=later)
        for symbol, said in ordered
    ]


def _symbol(subject: str, said: Words, *, uptime: float, rules: HealthRules, later: float) -> Vital:
    silent_for, within = said.get("silent_for"), said.get("within")
    age = None if silent_for is None else float(silent_for) + later
    if said.get("silent"):
        return Vital(SILENCE, Status.DEGRADED, f"{subject}: {said['silent']}", age, within, subject)
    if said.get("gap"):
        reason = str(said.get("repair") or "a gap is being repaired")
        return Vital(GAP, Status.DEGRADED, f"{subject}: {reason}", age, within, subject)
    if age is not None and (uptime < rules.starting or within is None):
        return Vital(SILENCE, Status.HEALTHY, "delivers; its rate is still being learned", age, within, subject)
    if age is None or within is None:
        if uptime < rules.starting:
            return Vital(SILENCE, Status.HEALTHY, "nothing came yet, the run has just begun", subject=subject)
        return unknown(SILENCE, f"{subject}: nothing came yet, its own rate is not known", subject=subject)
    if age <= within:
        return Vital(SILENCE, Status.HEALTHY, "delivers", age, within, subject)
    status = Status.CRITICAL if age > rules.critical_silence * within else Status.DEGRADED
    reason = f"{subject}: silent for {age:.0f} s, at its rate {within:.0f} s would be unusual"
    return Vital(SILENCE, status, reason, age, within, subject)


def together(symbols: Iterable[Vital]) -> Vital:
    """Whether anything arrives at all: the symbols as one."""
    found = list(symbols)
    ill = sum(one.status in (Status.DEGRADED, Status.CRITICAL) for one in found)
    if not found:
        return unknown("symbols", "no symbol is collected")
    if ill == len(found):
        return Vital("symbols", Status.CRITICAL, "no symbol at all delivers as it should", 0.0, float(len(found)))
    reason = f"{len(found) - ill} of {len(found)} symbols deliver at their own rate"
    return Vital("symbols", Status.HEALTHY, reason, float(len(found) - ill), float(len(found)))
