"""`doctor`: everything that could be wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from ..errors import PipelineError
from ..settings import load_boot, load_operational
from .checks import CHECKS, Finding, State
from .output import as_json, console, meant_environment, print_json, where

MARKS = {State.FINE: ("ok", "green"), State.NOTE: ("--", "yellow"), State.PROBLEM: ("!!", "red")}


@click.command("doctor")
@where
@as_json
def doctor_command(demo: bool, home: Path | None, json_wanted: bool) -> int:
    """
    Look for problems: settings, machine, exchange, Redis, ClickHouse; each with what to do.

    Exit code 0: no problem; 1: at least one.
    """
    findings: list[Finding] = []
    for finding in _examine(home=home, demo=demo):
        findings.append(finding)
        if not json_wanted:
            _print(finding)
    problems = sum(finding.state is State.PROBLEM for finding in findings)
    if json_wanted:
        print_json({"problems": problems, "findings": [finding.as_json() for finding in findings]})
    else:
        console().print("no problem found" if not problems else f"{problems} problem{'s' if problems > 1 else ''}")
    return 1 if problems else 0


def _examine(*, home: Path | None, demo: bool) -> Iterator[Finding]:
    environ = meant_environment(home=home, demo=demo)
    try:
        boot = load_boot(environ)
        operational = load_operational(boot, environ)
    except PipelineError as error:
        yield Finding(
            "settings", State.PROBLEM, error.what + (f" ({error.where})" if error.where else ""), error.remedy
        )
        return
    tier = f"tier {operational.tier}, generation {operational.generation}, data in {boot.home}"
    yield Finding("settings", State.FINE, f"{tier}, exchange {boot.exchange}")
    for check in CHECKS:
        yield from check(boot, operational)


def _print(finding: Finding) -> None:
    mark, colour = MARKS[finding.state]
    remedy = f" — {finding.remedy}" if finding.remedy else ""
    click.echo(f"{click.style(mark, fg=colour)} {finding.name:<20} {finding.said}{remedy}")
