"""What an instance is doing: its processes and addresses, the live run and its lease, health, and figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from ..settings import Boot, boot_in_force, operational_in_force
from .facts import WITHIN, Facts, Gatherer
from .output import as_json, console, meant_environment, print_json, where
from .up import folder, leftovers
from .up.remedies import remedies_table, rules_table
from .up.view import headlines, rows

SOCKETS_SHOWN = 12
SUBSCRIPTIONS = ("live", "asked", "silent", "refused", "resting", "paced")
CONNECTIONS = ("opened", "renewed", "reconnects")
VITALS_SHOWN = 16
WORST_FIRST = ("critical", "degraded", "unknown", "healthy")
COLOURS = {"critical": "bold red", "degraded": "yellow", "unknown": "magenta", "healthy": "green"}
NOT_RUNNING = 3
"""Exit code when nothing runs; 1 when health is critical."""
UNSEEN = 75
"""Exit code when it runs, but somebody who was asked did not answer: try again later."""


@click.command("status")
@where
@as_json
@click.option(
    "--within",
    type=click.FloatRange(min=0.1, max=300),
    default=WITHIN,
    show_default=True,
    help="Seconds for ClickHouse, Redis and Dagster to answer, side by side; of who does not, all is unknown.",
)
@click.option("--rules", "every_rule", is_flag=True, help="Every rule of remediation, also those that are calm.")
def status_command(demo: bool, home: Path | None, json_wanted: bool, within: float, every_rule: bool) -> int:
    """
    What runs, where, and how it goes.

    Exit code 0: it runs; 1: its health is critical; 3: it does not run; 75: it runs, but who was asked did not answer.
    """
    environ = meant_environment(home=home, demo=demo)
    boot = boot_in_force(environ, looking=True)
    status = collect(boot, environ=environ, within=within)
    if json_wanted:
        print_json(status)
    else:
        _print(boot, status, every_rule=every_rule)
    if not status["running"]:
        return NOT_RUNNING
    facts = status["facts"]
    if facts["health"] == "critical":
        return 1
    return UNSEEN if facts["late"] or {"clickhouse", "redis"} & facts["unreachable"].keys() else 0


def collect(boot: Boot, *, environ: dict[str, str], within: float = WITHIN) -> dict[str, Any]:
    """Everything `status` knows, for programs; who was asked is waited for `within` seconds."""
    run = folder.read_run(boot.home)
    pid = folder.owner(boot.home)
    status: dict[str, Any] = {"home": str(boot.home), "exchange": boot.exchange, "running": pid is not None, "pid": pid}
    if pid is None and boot.embedded_warehouse and boot.embedded_redis:
        return status
    gatherer = Gatherer(boot, operational_in_force(boot, environ, looking=True).settings, environ, within=within)
    try:
        facts = gatherer.gather()
    finally:
        gatherer.close()
    status |= {
        "started_at": run.get("started_at"),
        "addresses": run.get("addresses", {}),
        "processes": _processes(run),
        "facts": facts.as_json(),
    }
    return status


def _processes(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The newest process of each program, and whether it lives."""
    newest = {session.name: session for session in leftovers.recorded_sessions(run)}
    return {
        name: {"pid": session.pid, "alive": leftovers.is_alive(session.pid, session.created)}
        for name, session in newest.items()
    }


def _print(boot: Boot, status: dict[str, Any], *, every_rule: bool = False) -> None:
    out = console()
    if "facts" not in status:
        out.print(f"nothing runs in {boot.home}; start it with `bitget-pipeline up`", markup=False)
        return
    facts = Facts(**status["facts"])
    table = Table.grid(padding=(0, 2))
    if status["addresses"]:
        for name, value in headlines(boot.home, status["addresses"]):
            table.add_row(name, value)
    for name, process in status["processes"].items():
        table.add_row(name, f"process {process['pid']}" + ("" if process["alive"] else ", gone"))
    for name, value in rows(facts, None):
        table.add_row(name, value)
    out.print(table)
    if facts.connections:
        out.print(socket_table(facts.connections))
    if facts.vitals:
        out.print(health_table(facts.vitals))
    if (rules := rules_table(facts.remediation, every=every_rule)) is not None:
        out.print(rules)
    if (remedies := remedies_table(facts.remediation)) is not None:
        out.print(remedies)
    since = f"runs since {status['started_at']}" if status["running"] else "`up` does not run"
    out.print(f"{since} (seen {time.strftime('%H:%M:%S')}); the data lies in {boot.home}", markup=False)


def socket_table(connections: Mapping[str, Mapping[str, Any]]) -> Table:
    """The live run's sockets; those that trouble most come first, and the rest is a line."""
    table = Table("socket", "open for", "frames/s", *SUBSCRIPTIONS, *CONNECTIONS, "ended last", box=None)
    ordered = sorted(
        connections.items(), key=lambda one: (one[1]["age"] is not None, -one[1]["silent"], -one[1]["reconnects"])
    )
    for name, one in ordered[:SOCKETS_SHOWN]:
        age = "not open" if one["age"] is None else f"{timedelta(seconds=round(one['age']))}"
        figures = (f"{one['frames_per_second']:,.1f}", *(one.get(what, "") for what in (*SUBSCRIPTIONS, *CONNECTIONS)))
        table.add_row(Text(name), age, *map(str, figures), Text(str(one["last_reason"])[:60]))
    if len(ordered) > SOCKETS_SHOWN:
        table.add_row(f"and {len(ordered) - SOCKETS_SHOWN} more")
    return table


def health_table(vitals: Sequence[Mapping[str, Any]]) -> Table:
    """What is not well, worst first, each with its reason; and how much is. `--json` has all with their figures."""
    table = Table("health", "what", "why", box=None, pad_edge=False)
    counts = Counter(str(one["status"]) for one in vitals)
    ill = sorted(
        (one for one in vitals if one["status"] != "healthy"), key=lambda one: WORST_FIRST.index(one["status"])
    )
    for one in ill[:VITALS_SHOWN]:
        what = " ".join(filter(None, (one["name"], one.get("subject", ""))))
        table.add_row(Text(one["status"], style=COLOURS[one["status"]]), Text(what), Text(one["reason"]))
    if len(ill) > VITALS_SHOWN:
        table.add_row("", f"and {len(ill) - VITALS_SHOWN} more", "")
    well = counts["healthy"]
    table.add_row(Text("healthy", style=COLOURS["healthy"]), f"{well} of {len(vitals)}", "figures that are watched")
    return table
