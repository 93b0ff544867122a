"""The promises in figures, of one day: what holds, what does not, and what cannot be known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from ..errors import SettingsInvalid
from ..market.instrument import Market
from ..market.scorecard import Figure, metric_of, ordered
from ..settings import warehouse_address
from .output import as_json, boot_for, console, print_json, where

WIDE = 160
"""Columns where there is no terminal: a file or a pipe bears long lines."""


@click.command("scorecard")
@click.option("--day", type=click.DateTime(formats=["%Y-%m-%d"]), help="The UTC day [default: yesterday].")
@click.option("--now", "anew", is_flag=True, help="As it stands now, also if it was computed before; stores nothing.")
@where
@as_json
def scorecard_command(day: datetime | None, anew: bool, demo: bool, home: Path | None, json_wanted: bool) -> int:
    """
    A day in figures, by market: completeness, holes and breaks, agreement, latency, requests, incidents.

    What the nightly run stored, or, of a day that it did not compute, how it stands now. `?` cannot be known; the last column
    says why. A promise that is broken is red.

    Exit code 0: no promise of that day is broken; 1: one is.
    """
    from ..pipeline.watch.scorecard import assess
    from ..storage.migrations import migrate
    from ..storage.warehouse import Warehouse

    boot = boot_for(home=home, demo=demo)
    today = datetime.now(UTC).date()
    wanted = day.date() if day else today - timedelta(days=1)
    if wanted > today:
        raise SettingsInvalid(f"{wanted} has not begun", where="--day", remedy="name a day up to today, UTC")
    with Warehouse.open(warehouse_address(boot)) as warehouse:
        migrate(warehouse)
        figures = [] if anew else warehouse.scorecard(wanted, wanted).get(wanted, [])
        stored = bool(figures)
        if not stored:
            now_ms = time.time_ns() // 1_000_000
            figures = assess(warehouse, wanted, source=boot.exchange, now_ms=now_ms)
    if json_wanted:
        print_json(
            {"home": str(boot.home), "day": wanted, "stored": stored, "figures": [_line(one) for one in figures]}
        )
    else:
        out = console()
        if not out.is_terminal:
            out.width = max(out.width, WIDE)
        out.print(as_table(figures))
        said = "as stored by the asset scorecard" if stored else "as it stands now; the asset scorecard stores a day"
        console().print(f"{wanted}: {said}; the data lies in {boot.home}", markup=False)
    return 1 if any(metric_of(one.metric).met(one.value) is False for one in figures) else 0


def as_table(figures: Sequence[Figure]) -> Table:
    """A row for each figure, a column for each market."""
    markets = [None, *(market for market in Market if any(one.market is market for one in figures))]
    found = {(one.metric, one.market): one for one in figures}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("figure", no_wrap=True)
    for market in markets:
        table.add_column(str(market or "all"), justify="right", no_wrap=True)
    table.add_column("promised", justify="right", no_wrap=True)
    table.add_column("", style="dim")
    for name in ordered(figures):
        metric, whole = metric_of(name), found.get((name, None))
        cells = [_cell(found.get((name, market))) for market in markets]
        why = (whole.reason if whole is not None else "") or metric.about
        table.add_row(metric.label, *cells, metric.promise, why)
    return table


def _cell(figure: Figure | None) -> Text:
    if figure is None:
        return Text("")
    metric = metric_of(figure.metric)
    broken = metric.met(figure.value) is False
    return Text(metric.shown(figure.value), style="red" if broken else "dim" if figure.value is None else "")


def _line(one: Figure) -> dict[str, Any]:
    metric = metric_of(one.metric)
    return {
        "metric": one.metric,
        "market": one.market.value if one.market else None,
        "value": one.value,
        "unit": metric.unit,
        "target": metric.target,
        "met": metric.met(one.value),
        "reason": one.reason,
    }
