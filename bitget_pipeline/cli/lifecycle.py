"""The commands that start, stop and remove an instance."""

from __future__ import annotations

from pathlib import Path

import click

from .output import as_json, boot_for, console, print_json, where


@click.command("up")
@where
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Of the Dagster page.")
@click.option("--headless", is_flag=True, help="No live view; a line when something happens.")
@click.option("--seed", type=int, help="Seed of the local exchange (with --demo).")
@click.option("--for", "seconds", type=click.FloatRange(min=0), help="Stop after so many seconds.")
@as_json
def up_command(
    demo: bool,
    home: Path | None,
    port: int,
    headless: bool,
    seed: int | None,
    seconds: float | None,
    json_wanted: bool,
) -> int:
    """
    Start everything and keep it running until Ctrl-C.

    ClickHouse and Redis run on this machine, in the instance's folder, unless CLICKHOUSE_HOST and REDIS_HOST name
    others. With --demo the exchange is a simulated one on this machine, and nothing else is needed.
    """
    from .up.run import Options, run

    return run(Options(home, demo, port, headless, seed, seconds, json_wanted))


@click.command("down")
@where
@as_json
def down_command(demo: bool, home: Path | None, json_wanted: bool) -> None:
    """Stop an instance that runs, and end what a killed one left. The data stays."""
    from .up.run import stop_running

    boot = boot_for(home=home, demo=demo)
    ran, left = stop_running(boot.home)
    if json_wanted:
        print_json({"home": str(boot.home), "stopped": ran, "left_over": left})
        return
    said = "stopped" if ran else "nothing ran"
    if left:
        said += f"; ended what a killed one had left: {', '.join(left)}"
    console().print(f"{said}; the data lies in {boot.home}", markup=False)


@click.command("reset")
@where
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def reset_command(demo: bool, home: Path | None, yes: bool, json_wanted: bool) -> None:
    """
    Remove an instance's data: embedded ClickHouse and Redis, Dagster's records, logs.

    Servers named by CLICKHOUSE_HOST and REDIS_HOST are not touched, and neither are settings.toml and a stored key.
    """
    from .up import folder

    boot = boot_for(home=home, demo=demo)
    if not yes:
        click.confirm(f"Remove all data of the instance in {boot.home}?", abort=True, err=True)
    removed = folder.clear(boot.home)
    if json_wanted:
        print_json({"home": str(boot.home), "removed": removed})
    else:
        console().print(f"removed from {boot.home}: {', '.join(removed)}", markup=False)
