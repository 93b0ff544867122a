"""
What `bitget-pipeline backfill` does once its runs are launched: watch them, and say how it ended.

Dagster tells whether runs are over, the ledger what is stored: a run that succeeded may have left a day with holes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import PipelineError
from .dagster_backfills import Backfills, Standing
from .graphql import DagsterSilent
from .output import console, print_json

if TYPE_CHECKING:
    from ..market.coverage_days import DayCoverage
    from ..pipeline.history.report import Key
    from ..storage.warehouse import Warehouse

EVERY = 1.0  # seconds between two looks, at least
SILENCES_BORNE = 30
INTERRUPTED = 130
STILL_OPEN = 75
SHOWN = 10
TOLD_TO_PROGRAMS = 1000


class BackfillFailed(PipelineError):
    """The runs ended, and not all of them well."""


@dataclass(slots=True)
class Pace:
    """How often to ask somebody, so that asking takes at most `share` of the time: a question that is slow is asked seldom."""

    every: float = EVERY
    share: float = 0.05
    longest: float = 60.0
    _next: float = 0.0

    def due(self, *, now: float) -> bool:
        """Whether it is time to ask."""
        return now >= self._next

    def asked(self, took: float, *, now: float) -> None:
        """It was asked, and the answer took so long."""
        self._next = now + min(self.longest, max(self.every, took / self.share))


def watch(
    warehouse: Warehouse,
    dagster: Backfills,
    launched: Sequence[str],
    keys: Sequence[Key],
    *,
    refresh: bool,
    quiet: bool,
) -> list[Standing]:
    """
    Wait until all runs are over, with a bar on the terminal. Raises DagsterSilent when Dagster answers no more.

    The ledger tells each symbol-day as it is done, and is asked about those alone that were not done before; Dagster tells only
    whole runs, which is all there is on refresh, because the ledger knew the days already.
    """
    from ..pipeline.history.plan import unsettled

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    silences, runs, ledger, left = 0, Pace(), Pace(), list(keys)
    with Progress(*columns, console=console(), disable=quiet) as bar:
        task = bar.add_task("symbol-days", total=len(keys))
        while True:
            began = time.monotonic()
            if runs.due(now=began):
                try:
                    standings = [dagster.standing(backfill) for backfill in launched]
                    silences = 0
                except DagsterSilent:
                    silences += 1
                    if silences > SILENCES_BORNE:
                        raise
                    time.sleep(EVERY)
                    continue
                runs.asked(time.monotonic() - began, now=time.monotonic())
                if refresh:
                    targeted = max(1, sum(one.targeted for one in standings))
                    bar.update(task, completed=len(keys) * sum(one.materialized for one in standings) // targeted)
                if all(one.over for one in standings):
                    return standings
            began = time.monotonic()
            if not refresh and not quiet and ledger.due(now=began):
                left = unsettled(warehouse, left)
                bar.update(task, completed=len(keys) - len(left))
                ledger.asked(time.monotonic() - began, now=time.monotonic())
            time.sleep(EVERY)


def interrupted(dagster: Backfills, launched: Sequence[str], told: Mapping[str, Any], *, json_wanted: bool) -> int:
    """The runs go on without us; say where they are."""
    pages = [dagster.page(backfill) for backfill in launched]
    if json_wanted:
        print_json({**told, "status": "interrupted", "backfills": list(launched), "pages": pages})
    else:
        click.echo(
            f"\nRuns that were launched go on without this command. Watch or cancel them at {' and '.join(pages)}; what is "
            "stored stays, and the same command goes on with what is missing."
        )
    return INTERRUPTED


def left_at_work(dagster: Backfills, launched: Sequence[str], silent: DagsterSilent) -> PipelineError:
    """What to raise when Dagster refused a run, or fell silent: runs that were launched before it go on."""
    try:
        runs = sum(dagster.runs(backfill) for backfill in launched)
    except DagsterSilent:
        runs = None
    if runs == 0:
        return silent
    return BackfillFailed(
        f"{silent.what}; {'the' if runs is None else runs} runs that were launched before go on",
        where=" and ".join(dagster.page(backfill) for backfill in launched),
        remedy="watch or cancel them there; the same command goes on with what is missing",
    )


def over(
    warehouse: Warehouse,
    dagster: Backfills,
    launched: Sequence[str],
    standings: Sequence[Standing],
    keys: Sequence[Key],
    told: Mapping[str, Any],
    *,
    json_wanted: bool,
) -> int:
    """Say how it ended, by the runs and by what the ledger says of the days now; the exit code. Raises BackfillFailed."""
    from ..pipeline.history.plan import open_days

    succeeded = all(one.succeeded for one in standings)
    pages = [dagster.page(backfill) for backfill in launched]
    left = open_days(warehouse, keys, now_ms=time.time_ns() // 1_000_000)
    if json_wanted:
        found = [{"id": backfill, **asdict(one)} for backfill, one in zip(launched, standings, strict=True)]
        status = ("incomplete" if left else "complete") if succeeded else "failed"
        still_open = {"open_symbol_days": len(left), "open": [as_plain(one) for one in left[:TOLD_TO_PROGRAMS]]}
        print_json({**told, "status": status, "backfills": found, "pages": pages, **still_open})
        return (STILL_OPEN if left else 0) if succeeded else 1
    if not succeeded:
        failed = sum(one.failed for one in standings)
        why = next((one.error for one in standings if one.error), "")
        raise BackfillFailed(
            f"the runs of {failed} partitions failed or were cancelled{f': {why}' if why else ''}",
            where=" and ".join(pages),
            remedy="read the runs there; the same command goes on with what is missing",
        )
    out = console()
    if left:
        minutes = sum(one.open for one in left)
        out.print(f"the runs succeeded, but of {len(left):,} symbol-days {minutes:,} minutes are open:", markup=False)
        for one in left[:SHOWN]:
            out.print(f"  {in_words(one)}", markup=False)
        if len(left) > SHOWN:
            out.print(f"  and {len(left) - SHOWN:,} more; `bitget-pipeline coverage` shows them", markup=False)
    how = "the rest" if left else "done; all"
    out.print(f"{how} is stored, the data lies in {told['home']}, the runs at {' and '.join(pages)}", markup=False)
    return STILL_OPEN if left else 0


def in_words(day: DayCoverage) -> str:
    """A day with open minutes, in a line for a person."""
    retry = f"tried again {day.next_retry:%m-%d %H:%M} UTC" if day.next_retry else "tried again with the next run"
    return f"{day.symbol} {day.day}: {day.open:,} minutes, {_reason(day)}; {retry}"


def as_plain(day: DayCoverage) -> dict[str, Any]:
    """The same for programs."""
    return {
        "symbol": str(day.symbol),
        "day": day.day,
        "state": day.state.value,
        "minutes": day.open,
        "reason": _reason(day),
        "next_retry": day.next_retry,
    }


def _reason(day: DayCoverage) -> str:
    from ..market.coverage import OPEN

    said = [reason for _, state, reason in day.holes if state in OPEN]
    return said[0] if said else "not fetched yet"
