"""
The incidents as people read them: what is open, what was lately, and how many of each kind there were.

They are written by whoever notices something (pipeline/incidents.py); materializing only looks.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

import dagster as dg

from ...storage.incident_rows import ToldIncident
from ..freshness import EVERY_QUARTER
from ..metadata import KINDS, OWNERS, as_table, described
from ..resources import PipelineResource

SHOWN = 40
DAYS = 14
MOST_LETTERS = 400
"""Of an incident's details: two bars side by side fit."""


@dg.asset(
    group_name="health",
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=EVERY_QUARTER,
    deps=["coverage"],  # not what has a heartbeat: it would read "unsynced" for ever
    metadata=described("incidents"),
    description=(
        "What went wrong, from when to when, and what was done: open incidents, the worst first, then the newest of those that "
        "are over, each with its figures (where bars differ, both of them), and how many of each kind began on each of the last "
        "days. Looked at every quarter of an hour. Read `incidents_final`."
    ),
)
def incidents(pipeline: PipelineResource) -> dg.MaterializeResult:
    """Look, and show."""
    with pipeline.warehouse() as warehouse:
        told = warehouse.told_incidents(most=SHOWN)
        by_day = warehouse.incidents_by_day(days=DAYS)
        open_now = warehouse.open_by_severity()
    return dg.MaterializeResult(metadata=_in_figures(open_now, by_day) | _in_tables(told, by_day))


def _in_figures(open_now: Mapping[str, int], by_day: Mapping[date, Mapping[str, int]]) -> dict[str, dg.MetadataValue]:
    today = by_day[max(by_day)]
    return {
        "incidents open": dg.MetadataValue.int(sum(open_now.values())),
        "critical incidents open": dg.MetadataValue.int(open_now.get("critical", 0)),
        "incidents begun today": dg.MetadataValue.int(sum(today.values())),
        f"incidents begun in {DAYS} days": dg.MetadataValue.int(sum(sum(kinds.values()) for kinds in by_day.values())),
    }


def _in_tables(told: Sequence[ToldIncident], by_day: Mapping[date, Mapping[str, int]]) -> dict[str, dg.MetadataValue]:
    kinds = sorted({kind for of_day in by_day.values() for kind in of_day})
    if not told:
        return {}
    tables = {
        "open and latest": as_table(
            (
                {
                    "kind": one.kind.replace("_", " "),
                    "severity": one.severity,
                    "where": one.place,
                    "what": one.what,
                    "since": _moment(one.opened_ms),
                    "until": "open" if one.closed_ms is None else _moment(one.closed_ms),
                    "figures": _shortened(one.details),
                }
                for one in told
            ),
            columns=("kind", "severity", "where", "what", "since", "until", "figures"),
        )
    }
    if kinds:
        tables["begun by day and kind"] = as_table(
            (
                {"kind": kind.replace("_", " ")} | {f"{day:%d %b}": by_day[day].get(kind, 0) for day in by_day}
                for kind in kinds
            ),
            columns=("kind", *(f"{day:%d %b}" for day in by_day)),
        )
    return tables


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _shortened(details: str) -> str:
    text = "" if details == "{}" else details
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."
