"""
Run the kill suite on pipeline processes: `python -m bitget_pipeline_tests.chaos --rounds 200 --seed 1`.

A table on standard output, exit code 0 only if nothing at all differs; the folder with all logs is kept otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click
import structlog

from .kinds import KINDS
from .rounds import Report, play
from .scene import MOST_FLUSHERS, DidNotSettle, scene


async def _run(folder: Path, rounds: int, seed: int, only: tuple[str, ...]) -> Report:
    began = time.monotonic()

    def note(text: str) -> None:
        print(f"chaos {time.monotonic() - began:7.1f} s  {text}", file=sys.stderr, flush=True)

    kinds = [kind for kind in KINDS if not only or any(word in kind.name for word in only)]
    flushers = random.Random(seed).randint(1, MOST_FLUSHERS)
    async with scene(folder, flushers=flushers) as made:
        note(
            f"{len(kinds)} kinds, {rounds} rounds, seed {seed}, flushers beside the worker: {flushers}; logs in {folder}"
        )
        return await play(made, rounds=rounds, seed=seed, kinds=kinds, note=note)


@click.command()
@click.option("--rounds", default=200, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--only", multiple=True, help="A word of the kinds to draw from; may be given again.")
def main(rounds: int, seed: int, only: tuple[str, ...]) -> None:
    """Kill whatever can be killed, again and again, and compare what is stored with what was traded."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the exchange's own words
    logging.disable(logging.CRITICAL)  # the ClickHouse client's, of each question to a server that is away
    folder = Path(tempfile.mkdtemp(prefix="bitget-chaos-"))
    began = time.monotonic()
    try:
        report = asyncio.run(_run(folder / "scene", rounds, seed, only))
    except DidNotSettle as error:
        click.echo(f"chaos: {error}")
        sys.exit(1)
    click.echo(report.table())
    click.echo(f"{time.monotonic() - began:.0f} s; the worker ended with code {report.exit_code}")
    if report.agrees:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        click.echo(f"logs and data are kept in {folder}")
        sys.exit(1)


if __name__ == "__main__":
    main()
