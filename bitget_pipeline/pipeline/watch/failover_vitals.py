"""
How each market's failover stands, as vitals `failover.<market>`. Pure.

From what the failover of the live run publishes (pipeline/beside/substitute.py); read by attention.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...guard.vitals import Status, Vital
from .failover import NO_MAJOR


def failover_vitals(said: Mapping[str, Mapping[str, Any]]) -> list[Vital]:
    """One for each market; the figure is for how many seconds our exchange has been silent."""
    return [_vital(market, one) for market, one in sorted(said.items())]


def _vital(market: str, one: Mapping[str, Any]) -> Vital:
    name, silent = f"failover.{market}", one.get("silent_seconds")
    if one.get("nobody"):
        return Vital(name, Status.CRITICAL, f"{market} is dark and nobody stands in", silent)
    match one.get("state"):
        case "none":
            return Vital(name, Status.HEALTHY, str(one.get("reason", "")))
        case "ours" if one.get("repairing"):
            return Vital(name, Status.DEGRADED, f"Bitget delivers {market} again, its repair is under way", silent)
        case "ours":
            more = f"; {NO_MAJOR}" if one.get("majors") == 0 else ""
            more = "; the failover is switched off" if one.get("mode") == "off" else more
            return Vital(name, Status.HEALTHY, f"Bitget delivers {market}{more}", silent)
        case "substituted" | "returning":
            trouble = f"; {one['trouble']}" if one.get("trouble") else ""
            status = Status.DEGRADED if (one.get("feed") or {}).get("connected") else Status.CRITICAL
            return Vital(name, status, f"{one.get('substitute')} stands in: {one.get('reason')}{trouble}", silent)
    return Vital(name, Status.UNKNOWN, "the failover says nothing of it")
