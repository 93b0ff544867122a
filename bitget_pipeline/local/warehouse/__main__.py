"""
The embedded warehouse as a process: prints {"port": ...} when it is ready, ends on SIGTERM or SIGINT.

The password comes from CLICKHOUSE_PASSWORD only: a command line can be read by every account of a machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import click

from ... import errors, telemetry
from . import WarehouseConfig, serve


async def _until_told_to_stop(config: WarehouseConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, ready=lambda port: click.echo(json.dumps({"port": port})), stop=stop)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the data; made if missing.")
@click.option("--host", default="127.0.0.1", show_default=True, help="An address of this machine itself.")
@click.option("--port", default=0, show_default=True, help="0 takes a free one.")
@click.option("--user", default="default", show_default=True)
@click.option("--max-memory-mb", default=0, show_default=True, help="Memory of the engine; 0 leaves it to the engine.")
@click.option("--query-log", is_flag=True, help="Keep system.query_log and system.part_log.")
@click.option("--log-level", default="INFO", show_default=True)
def main(data: Path, host: str, port: int, user: str, max_memory_mb: int, query_log: bool, log_level: str) -> None:
    """Serve ClickHouse's HTTP interface over the data in a folder."""
    telemetry.configure(level=log_level.upper())
    config = WarehouseConfig(
        data=data.absolute(),
        host=host,
        port=port,
        user=user,
        password=os.environ.get("CLICKHOUSE_PASSWORD", ""),
        max_memory_mb=max_memory_mb,
        query_log=query_log,
    )
    try:
        asyncio.run(_until_told_to_stop(config))
    except errors.PipelineError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
