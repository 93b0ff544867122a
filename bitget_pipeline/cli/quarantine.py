"""The frames that the live run set aside because they made no sense: to be looked at, and forgotten."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from ..settings import redis_address
from ..storage.overview import Overview
from ..storage.redis_connection import connect_sync
from .facts import SHARD
from .output import as_json, boot_for, console, print_json, where

SHOWN_CHARACTERS = 300


@click.command("quarantine")
@where
@as_json
@click.option("--most", type=click.IntRange(1, 200), default=20, show_default=True, help="How many, newest first.")
@click.option("--clear", is_flag=True, help="Forget them all.")
def quarantine_command(demo: bool, home: Path | None, json_wanted: bool, most: int, clear: bool) -> int:
    """
    The frames of the exchange that made no sense: when, why, and how they begin.

    The newest 200 are kept for a week, the first 4096 bytes of each. What they may have held is fetched again; nothing is
    to be done, but a person may want to know. Exit code 0.
    """
    boot = boot_for(home=home, demo=demo)
    client = connect_sync(redis_address(boot))
    try:
        overview = Overview(client, boot.redis_prefix, SHARD)
        frames = overview.quarantine()
        forgotten = overview.clear_quarantine() if clear else 0
    finally:
        client.close()
    if json_wanted:
        shown = [asdict(frame) for frame in frames[:most]]
        print_json({"home": str(boot.home), "set_aside": len(frames), "forgotten": forgotten, "frames": shown})
        return 0
    out = console()
    if frames:
        table = Table("at (UTC)", "why", "frame", box=None)
        for one in frames[:most]:
            at = datetime.fromtimestamp(one.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
            more = f" … {one.bytes:,} bytes" if one.bytes > SHOWN_CHARACTERS else ""
            table.add_row(at, _plain(one.problem), _plain(one.frame[:SHOWN_CHARACTERS] + more))
        out.print(table)
    forgot = "; forgotten now" if clear and frames else ""
    out.print(f"{len(frames) or 'no'} frames were set aside{forgot}; the data lies in {boot.home}", markup=False)
    return 0


def _plain(text: str) -> Text:
    """What came from outside, without what would steer a terminal."""
    return Text("".join(character if character.isprintable() else "·" for character in text))
