"""
Whether the exchange answers, how fast, how often not, and how far its clock and ours are apart: vitals of probes. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ...guard.vitals import Status, Vital, measured, unknown
from .health_rules import HealthRules
from .probe import Probe

REST, LATENCY, ERRORS, CLOCK = "exchange.rest", "exchange.latency", "exchange.errors", "exchange.clock"

FAILING = 2
"""Of the last three probes: the exchange does not answer then."""


def exchange_vitals(probes: Sequence[Probe], *, now: float, withheld: str, rules: HealthRules) -> list[Vital]:
    """
    From the probes of the last while, oldest first. `now` is of the clock they were made by; `withheld` says why none is made.
    """
    lately = [probe for probe in probes if now - probe.at <= rules.probes_over]
    if not lately:
        why = f"the exchange is not asked: {withheld}" if withheld else "the exchange was not asked yet"
        return [unknown(name, why) for name in (REST, LATENCY, ERRORS, CLOCK)]
    return [_rest(lately), _latency(lately, rules), _errors(lately, rules), _clock(lately, rules)]


def _rest(lately: Sequence[Probe]) -> Vital:
    last = lately[-1]
    failed = sum(not probe.answered for probe in lately[-3:])
    if not failed:
        return Vital(REST, Status.HEALTHY, "the exchange answers over HTTP", 0.0, float(FAILING))
    status = Status.CRITICAL if failed >= FAILING else Status.DEGRADED
    problem = next(probe.problem for probe in reversed(lately) if not probe.answered)
    if last.answered:
        reason = f"{failed} of the last 3 probes of the exchange failed, the newest was answered: {problem}"
    else:
        reason = f"the exchange does not answer over HTTP ({failed} of the last 3 probes failed): {problem}"
    return Vital(REST, status, reason, float(failed), float(FAILING))


def _latency(lately: Sequence[Probe], rules: HealthRules) -> Vital:
    found = [probe.latency for probe in lately if probe.latency is not None]
    if not found:
        return unknown(LATENCY, "the exchange's latency is not known: no probe was answered in the last minute")
    typical = median(found)
    return measured(
        LATENCY, typical, rules.latency, f"the exchange answers in {_seconds(typical)} (median of a minute)"
    )


def _errors(lately: Sequence[Probe], rules: HealthRules) -> Vital:
    share = sum(not probe.answered for probe in lately) / len(lately)
    return measured(
        ERRORS, share, rules.failed_probes, f"{share:.0%} of the exchange's answers of the last minute were no use"
    )


def clock_ahead(probes: Sequence[Probe], *, now: float, rules: HealthRules) -> float | None:
    """How many seconds the exchange's clock is ahead of ours, by the probes of the last while; None when none tells."""
    told = _quickest([probe for probe in probes if now - probe.at <= rules.probes_over])
    return None if told is None else told[1]


def _quickest(lately: Sequence[Probe]) -> tuple[float, float] | None:
    """Latency and skew of the quickest answer: its time on the way is the smallest error."""
    return min(
        ((probe.latency, probe.skew) for probe in lately if probe.latency is not None and probe.skew is not None),
        default=None,
    )


def _clock(lately: Sequence[Probe], rules: HealthRules) -> Vital:
    told = _quickest(lately)
    if told is None:
        return unknown(CLOCK, "how far our clock is from the exchange's is not known: no probe was answered")
    latency, skew = told
    apart = max(0.0, abs(skew) - latency / 2)
    which = "behind" if skew > 0 else "ahead of"
    reason = f"our clock is {_seconds(abs(skew))} {which} the exchange's" if apart else "our clock is the exchange's"
    return measured(CLOCK, apart, rules.skew, reason)


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
