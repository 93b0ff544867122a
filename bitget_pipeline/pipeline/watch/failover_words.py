"""
The failover as a person reads it beside the rules of remediation: its condition, what it does, the way back, its limits. Pure.

From the figures that failover.py decides by: the README's table and `status` say what is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from .failover import FailoverRules


@dataclass(frozen=True, slots=True)
class FailoverWords:
    """One line each."""

    when: str
    does: str
    back: str
    limits: str


def in_words(rules: FailoverRules | None = None) -> FailoverWords:
    """What these rules mean."""
    rules = rules or FailoverRules()
    return FailoverWords(
        when=(
            f"all majors of a market silent for {rules.silent_after:g} s and {rules.failing} of the last {rules.probes} probes "
            f"failed within {rules.probes_within:g} s, while Binance answers"
        ),
        does="lets Binance stand in for the market, labelled, until it is over",
        back=(
            f"both signals good for {rules.steady_for:g} s; then our trades are fetched, and what was lent is retired"
        ),
        limits=(
            f"no number an hour: the way back takes twice as long with every failover of the last "
            f"{rules.remembered_for / 60:g} minutes, {rules.longest_steady / 60:g} minutes at most"
        ),
    )


def as_row(rules: FailoverRules | None = None) -> str:
    """The row below the table of rules, as the README has it."""
    words = in_words(rules)
    return f"| `failover` | {words.when} | {words.does} | {words.limits} | {words.back} |\n"
