"""
Play the drills: `python -m bitget_pipeline_tests.drill [--only silent] [--seed 1] [--json]`.

A table on standard output; exit code 0 only if every fault was noticed and nothing is missing. The folder with all logs is kept
otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import structlog

from ..chaos.scene import DidNotSettle
from .attempt import Outcome
from .drills import ASLEEP, DRILLS
from .report import as_json, played, table
from .scene import MARKET
from .through_dagster import DRILLS as THROUGH_DAGSTER
from .through_dagster import played_through_dagster

CALM_MARKET = replace(MARKET, trades_per_second=15.0)
"""Eight hours of it are fetched again."""


@click.command()
@click.option("--only", multiple=True, help="A word of the drills to play; may be given again.")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "for_programs", is_flag=True, help="An object a line instead of the table.")
def main(only: tuple[str, ...], seed: int, for_programs: bool) -> None:
    """Let the exchange, the stores and the machine fail by name, and see what is noticed, done and missing."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the exchange's own words
    logging.disable(logging.CRITICAL)  # the ClickHouse client's, of each question to a server that is away
    folder = Path(tempfile.mkdtemp(prefix="bitget-drill-"))
    began = time.monotonic()

    def note(text: str) -> None:
        print(f"drill {time.monotonic() - began:7.1f} s  {text}", file=sys.stderr, flush=True)

    def wanted(name: str) -> bool:
        return not only or any(word in name for word in only)

    outcomes: list[Outcome] = []
    try:
        if drills := [drill for drill in DRILLS if wanted(drill.name)]:
            outcomes += asyncio.run(played(folder / "scene", drills, seed=seed, note=note))
        if wanted(ASLEEP.name):
            outcomes += asyncio.run(played(folder / "asleep", [ASLEEP], seed=seed, note=note, market=CALM_MARKET))
        if names := [name for name in THROUGH_DAGSTER if wanted(name)]:
            outcomes += played_through_dagster(folder / "dagster", names=names, seed=seed, note=note)
    except DidNotSettle as error:
        click.echo(f"drill: {error}")
        sys.exit(1)
    click.echo(as_json(outcomes) if for_programs else table(outcomes))
    if outcomes and all(one.kept for one in outcomes):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        click.echo(f"logs and data are kept in {folder}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
