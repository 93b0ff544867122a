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
from ..live.lags import COUNTS_FOR
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
        *_lags(overall, rules, uptime),
        *connection_vitals(overall.get("connections") or {}, uptime=uptime, rules=rules),
        _renewed(overall.get("connections") or {}, rules),
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


def _lags(overall: Words, rules: HealthRules, uptime: float) -> Iterable[Vital]:
    none = "the run has just begun" if uptime < rules.starting else "none was stored in the last minute"
    # Of what waits the age would be told. What did not get so far is trouble, or lies on disk.
    elsewhere = overall.get("trouble") or overall.get("spill_bytes")
    quiet = overall.get("lag_p50_ms") is None and float(overall.get("quiet_for") or 0.0) >= COUNTS_FOR and not elsewhere
    for share, what, arrived, traded in (
        ("p50", "half of all trades are in the table", rules.lag_p50, rules.traded_lag_p50),
        ("p99", "99 of 100 trades are in the table", rules.lag_p99, rules.traded_lag_p99),
    ):
        for name, words, since, line in (
            (f"lag.{share}", f"lag_{share}_ms", "they arrived", arrived),
            (f"lag.traded_{share}", f"traded_lag_{share}_ms", "they were made", traded),
        ):
            found = overall.get(words)
            if found is None and quiet:
                yield Vital(name, Status.HEALTHY, "no trade came in the last minute, and none waits: none is late")
            elif found is None:
                yield unknown(name, f"how long trades take to the table after {since} is not known: {none}")
            else:
                seconds = float(found) / 1000
                yield measured(name, seconds, line, f"{what} {seconds:.1f} s after {since}")


def connection_vitals(connections: Mapping[str, Words], *, uptime: float, rules: HealthRules) -> list[Vital]:
    """Each planned connection: open or not. Of one that is being opened in the first moments nothing is known yet."""
    if not connections:
        return [unknown("connection.open", "the run has no connection to the exchange yet")]
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
        status = Status.DEGRADED if opened or uptime >= rules.starting else Status.UNKNOWN
        found.append(Vital("connection.open", status, f"{name} is not open{why}", subject=name))
    if all(one.value is None for one in found) and any(one.status is Status.DEGRADED for one in found):
        found.append(Vital("connection.open", Status.CRITICAL, "no connection to the exchange is open"))
    return found


def _renewed(connections: Mapping[str, Words], rules: HealthRules) -> Vital:
    """Whether connections are replaced before their natural end; the figure is how often they were, as planned."""
    ages = {name: float(one["age"]) for name, one in connections.items() if one.get("age") is not None}
    if not ages:
        return unknown("connection.renewed", "whether connections are renewed in time is not known: none is open")
    times = sum(int(one.get("renewed") or 0) for one in connections.values())
    name, age = max(ages.items(), key=lambda one: one[1])
    if age > rules.renewal_due:
        reason = f"{name} is {age / 3600:.1f} h old and was not renewed: the exchange will close it"
        return Vital("connection.renewed", Status.DEGRADED, reason, float(times), None)
    oldest = f"the oldest has been open for {age / 3600:.1f} h"
    return Vital(
        "connection.renewed",
        Status.HEALTHY,
        f"connections were renewed {times} times as planned; {oldest}",
        float(times),
    )


def flow_vitals(flow: Flow, *, rules: HealthRules) -> list[Vital]:
    """How much came of what was to be expected, how much of it made no sense, and how often connections broke."""
    minutes = f"the last {rules.over / 60:.0f} minutes"
    found = [_throughput(flow, minutes, rules)]
    wrong = flow.errors()
    if wrong is not None:
        found.append(measured("errors", wrong, rules.errors, f"{wrong:.1%} of the frames of {minutes} made no sense"))
    else:
        found.append(unknown("errors", f"how many frames make no sense is not known: none came in {minutes}"))
    broken = flow.reconnects()
    reason = f"{broken} connections broke in {minutes}"
    found.append(measured("connection.reconnects", float(broken), rules.reconnects, reason))
    return found


def _throughput(flow: Flow, minutes: str, rules: HealthRules) -> Vital:
    """A share where enough was to be expected; of few quiet symbols, whether anything came at all."""
    arrived, expected = flow.arrived()
    if expected <= 0:
        return unknown(
            "throughput", "how much is to be expected is not known: the symbols' paces are still being learned"
        )
    if expected >= rules.least_expected:
        share = arrived / expected
        reason = f"{share:.0%} of what the symbols' own paces let expect arrived in {minutes}"
        return measured("throughput", share, rules.throughput, reason)
    few = f"of {expected:.0f} arrivals that were to be expected in {minutes}"
    if not arrived:
        return unknown("throughput", f"none came {few}, which is too few to tell")
    return Vital("throughput", Status.HEALTHY, f"{arrived:.0f} came {few}, which is too few to tell a share")


def symbol_vitals(symbols: Mapping[Symbol, Words], *, rules: HealthRules, later: float = 0.0) -> list[Vital]:
    """Each symbol against its own rate, `later` seconds after these words were said."""
    ordered = sorted(symbols.items(), key=lambda item: str(item[0]))
    return [_symbol(f"{symbol.market}/{symbol.name}", said, rules=rules, later=later) for symbol, said in ordered]


def _symbol(subject: str, said: Words, *, rules: HealthRules, later: float) -> Vital:
    silent_for, unheard_for, within = (said.get(name) for name in ("silent_for", "unheard_for", "within"))
    age = None if silent_for is None else float(silent_for) + later
    if said.get("silent"):
        return Vital(SILENCE, Status.DEGRADED, f"{subject}: {said['silent']}", age, within, subject)
    if said.get("gap"):
        reason = str(said.get("repair") or "a gap is being repaired")
        return Vital(GAP, Status.DEGRADED, f"{subject}: {reason}", age, within, subject)
    if age is not None and within is None:  # a run of before, which learned a pace first
        return unknown(SILENCE, f"{subject}: its own rate is not known", subject=subject)
    waited = age if age is not None or unheard_for is None else float(unheard_for) + later
    if waited is None or within is None or (age is None and waited <= within):
        return unknown(SILENCE, f"{subject}: nothing came yet", subject=subject)
    if waited <= within:
        learning = "" if said.get("pace") or "pace" not in said else "; its rate is still being learned"
        return Vital(SILENCE, Status.HEALTHY, f"delivers{learning}", age, within, subject)
    status = Status.CRITICAL if waited > rules.critical_silence * within else Status.DEGRADED
    since = f"silent for {waited:.0f} s" if age is not None else f"nothing came for {waited:.0f} s"
    at_its_rate = "at its rate " if said.get("pace") or "pace" not in said else ""
    return Vital(
        SILENCE, status, f"{subject}: {since}, {at_its_rate}{within:.0f} s would be unusual", waited, within, subject
    )


def together(symbols: Iterable[Vital]) -> Vital:
    """
    Whether anything arrives at all: the symbols as one. A symbol that nobody knows about is none that delivers, and while that
    holds for most of them nothing is known of the whole.
    """
    found = list(symbols)
    if not found:
        return unknown("symbols", "no symbol is collected")
    well = sum(one.status is Status.HEALTHY for one in found)
    dark = sum(one.status is Status.UNKNOWN for one in found)
    reason = f"{well} of {len(found)} symbols deliver at their own rate" + (f", {dark} not known" if dark else "")
    status = Status.HEALTHY
    if dark == len(found) or 2 * dark > len(found):
        status = Status.UNKNOWN
    elif not well:
        status, reason = (
            Status.CRITICAL,
            "no symbol at all delivers as it should" + (f", {dark} not known" if dark else ""),
        )
    return Vital("symbols", status, reason, float(well), float(len(found)))
