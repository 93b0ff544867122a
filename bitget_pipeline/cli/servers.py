"""
The embedded servers as commands of their own: the local exchange, and ClickHouse's protocol over chDB.

`up` starts both this way; a person can too, for a test or a look. Their own packages do the work.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from ..errors import SettingsInvalid
from ..telemetry import configure
from .output import console, print_json

Serving = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


@click.command("warehouse")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the data.")
@click.option("--port", default=8123, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--query-log", is_flag=True, help="Keep system.query_log and system.part_log.")
@click.option("--json", "json_wanted", is_flag=True, help="Print the port as JSON once it listens.")
def warehouse_command(data: Path, port: int, query_log: bool, json_wanted: bool) -> None:
    """
    Serve ClickHouse's HTTP interface over the data in a folder, on 127.0.0.1.

    CLICKHOUSE_USER and CLICKHOUSE_PASSWORD say what clients must give; no password is asked for when it is empty.
    """
    from ..local.warehouse import WarehouseConfig, serve

    config = WarehouseConfig(
        data=data.absolute(),
        port=port,
        user=os.environ.get("CLICKHOUSE_USER") or "default",
        password=os.environ.get("CLICKHOUSE_PASSWORD", ""),
        query_log=query_log,
    )

    def ready(port: int) -> None:
        if json_wanted:
            print_json({"port": port, "data": str(config.data)})
        else:
            console().print(f"ClickHouse's interface at http://127.0.0.1:{port}; the data lies in {config.data}")

    _serve(lambda stop: serve(config, ready=ready, stop=stop))


@click.command("exchange")
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--seed", default=7, show_default=True, help="Another seed is another market.")
@click.option("--spot-instruments", default=3169, show_default=True, type=click.IntRange(1, 4000))
@click.option("--usdtm-instruments", default=805, show_default=True, type=click.IntRange(1, 4000))
@click.option("--active-per-market", default=60, show_default=True, type=click.IntRange(1), help="Steady symbols.")
@click.option("--trades-per-second", default=150.0, show_default=True, help="Over all symbols, on average.")
@click.option("--speed", default=1.0, show_default=True, help="Market seconds per second.")
@click.option("--limits/--no-limits", default=True, show_default=True, help="Enforce rate and socket limits.")
@click.option("--window", type=click.Choice(["fixed", "sliding"]), default="sliding", show_default=True)
@click.option("--binance/--no-binance", default=False, show_default=True, help="Play Binance too, on two more ports.")
@click.option("--binance-spot-port", default=0, show_default=True, type=click.IntRange(0, 65535))
@click.option("--binance-futures-port", default=0, show_default=True, type=click.IntRange(0, 65535))
@click.option("--recordings", type=click.Path(path_type=Path), help="Folder of recorded bars to replay.")
@click.option("--json", "json_wanted", is_flag=True, help="Print the addresses as JSON once it listens.")
def exchange_command(json_wanted: bool, **shape: Any) -> None:
    """
    Simulate the exchange on 127.0.0.1: Bitget's V2 protocol with a seeded market and known truth.

    It keeps nothing on disk: the same seed shows the same market again.
    """
    from ..local.exchange import Address, ExchangeConfig, serve

    def ready(address: Address) -> None:
        if json_wanted:
            binance = {"binance": address.binance.as_json()} if address.binance else {}
            print_json({"rest_url": address.rest_url, "ws_url": address.ws_url, **binance})
        else:
            console().print(f"the local exchange at {address.rest_url} and {address.ws_url}; it keeps no data on disk")

    _serve(lambda stop: serve(ExchangeConfig(**shape), ready=ready, stop=stop))


def _serve(serving: Serving) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    configure(level=_level(), json=os.environ.get("BITGET_PIPELINE_LOG_FORMAT") == "json")

    async def until_told() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serving(stop)

    asyncio.run(until_told())


def _level() -> str:
    level = os.environ.get("BITGET_PIPELINE_LOG_LEVEL", "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise SettingsInvalid(
            f"BITGET_PIPELINE_LOG_LEVEL is {level!r}: no such level", remedy="write DEBUG, INFO, WARNING or ERROR"
        )
    return level
