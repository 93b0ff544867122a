"""
`python -m bitget_pipeline.local.exchange`: an exchange as a process of its own.

Prints one JSON line with its addresses when it listens, and stops cleanly on SIGINT or SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from ...errors import PipelineError
from ...telemetry import configure
from .config import Address, ExchangeConfig
from .server import serve


def _announce(address: Address) -> None:
    said: dict[str, Any] = {"rest_url": address.rest_url, "ws_url": address.ws_url}
    if address.binance is not None:
        said["binance"] = address.binance.as_json()
    print(json.dumps(said), flush=True)


async def _run(config: ExchangeConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(config, ready=_announce, stop=stop)


@click.command()
@click.option("--port", default=0, show_default=True, help="0 finds a free one.")
@click.option("--seed", default=7, show_default=True, help="Another seed is another market.")
@click.option("--spot-instruments", default=ExchangeConfig.spot_instruments, show_default=True)
@click.option("--usdtm-instruments", default=ExchangeConfig.usdtm_instruments, show_default=True)
@click.option("--active-per-market", default=ExchangeConfig.active_per_market, show_default=True)
@click.option("--trades-per-second", default=ExchangeConfig.trades_per_second, show_default=True)
@click.option("--speed", default=1.0, show_default=True, help="Market seconds per second.")
@click.option("--limits/--no-limits", default=True, show_default=True, help="Enforce rate and socket limits.")
@click.option("--window", type=click.Choice(["fixed", "sliding"]), default="sliding", show_default=True)
@click.option("--binance/--no-binance", default=False, show_default=True, help="Play Binance too, on two more ports.")
@click.option("--binance-spot-port", default=0, show_default=True)
@click.option("--binance-futures-port", default=0, show_default=True)
@click.option(
    "--listed-days", type=int, default=None, help="Days since the old instruments were listed [default: since 2021]."
)
@click.option("--recordings", type=click.Path(path_type=Path), default=None, help="Folder of recorded bars to replay.")
def main(**settings: Any) -> None:
    """Run the local exchange until interrupted."""
    configure(level="WARNING")
    try:
        asyncio.run(_run(ExchangeConfig(**settings)))
    except PipelineError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
