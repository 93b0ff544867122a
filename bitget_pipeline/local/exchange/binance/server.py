"""
The Binance side as servers: spot and futures on a loopback port each, beside the Bitget side in one process.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web

from ....errors import PortTaken
from ..config import BinanceAddress, ExchangeConfig
from ..faults import BINANCE_KINDS, Target
from ..feeds import Feeds
from ..venue import Venue
from .rest import Router
from .side import Side
from .sockets import Sockets
from .streams import Streams

CLASSES = ("public", "market", "private")


class BinanceSide:
    """The running Binance side and its levers."""

    def __init__(self, side: Side, address: BinanceAddress, sockets: Sockets) -> None:
        self.side = side
        self.address = address
        self._sockets = sockets

    def counters(self) -> dict[str, Any]:
        """What `GET /admin/counters?venue=binance` shows."""
        return self.side.counters.as_json()

    def fault(
        self, kind: str, target: str = "*", seconds: float | None = None, *, probability: float = 1.0, **params: Any
    ) -> dict[str, Any]:
        """
        Pull a lever of this side alone (faults.BINANCE_KINDS); without `seconds` it lasts until `clear`.

        :raises ValueError: a kind that this side does not have.
        """
        if kind not in BINANCE_KINDS:
            raise ValueError(f"Binance has no lever {kind!r}; it has: {', '.join(sorted(BINANCE_KINDS))}")
        if kind in ("drop", "half_open") and seconds is None:
            return {
                "kind": kind,
                "target": target,
                "connections": self._sockets.strike_once(kind, Target.parse(target)),
            }
        fault = self.side.faults.add(kind, target=target, seconds=seconds, probability=probability, **params)
        return fault.describe()

    def clear(self, kind: str | None = None) -> int:
        """End the faults of a kind, or all; how many."""
        return self.side.faults.clear(kind=kind)

    @contextmanager
    def faulty(self, kind: str, target: str = "*", *, probability: float = 1.0, **params: Any) -> Iterator[None]:
        """A fault for the length of a block."""
        fault = self.side.faults.add(kind, target=target, probability=probability, **params)
        try:
            yield
        finally:
            self.side.faults.clear(ident=fault.id)


@asynccontextmanager
async def playing(config: ExchangeConfig, venue: Venue, feeds: Feeds) -> AsyncIterator[BinanceSide]:
    """
    The Binance side for the length of a block, on the clock and universe of the Bitget side.

    :raises PortTaken: one of its ports is in use.
    """
    side = Side(config, venue.clock, venue.universe)
    streams = Streams(side)
    sockets = Sockets(side, streams)
    ports: dict[str, int] = {}
    runners: list[web.AppRunner] = []
    try:
        wanted = {"spot": config.binance_spot_port, "usdtm": config.binance_futures_port}
        for market, port in wanted.items():
            runner = web.AppRunner(_app(Router(side, market), sockets, market), access_log=None, shutdown_timeout=1.0)
            runners.append(runner)
            await runner.setup()
            ports[market] = await _listening(runner, config.host, port)
        feeds.each_tick += [sockets.strike, streams.tick]
        address = BinanceAddress(config.host, ports["spot"], ports["usdtm"])
        yield BinanceSide(side, address, sockets)
    finally:
        for act in (sockets.strike, streams.tick):
            if act in feeds.each_tick:
                feeds.each_tick.remove(act)
        for connection in list(sockets.open):
            connection.abort()
        for runner in runners:
            await runner.cleanup()


async def _listening(runner: web.AppRunner, host: str, port: int) -> int:
    try:
        await web.TCPSite(runner, host, port, backlog=512).start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortTaken(
            f"port {port} is in use",
            where="local exchange, Binance side",
            remedy="stop what uses it, or choose another port (0 finds a free one)",
        ) from error
    return int(runner.addresses[0][1])


def _app(router: Router, sockets: Sockets, market: str) -> web.Application:
    app = web.Application(client_max_size=1 << 20)
    for kind, base in [("spot", "")] if market == "spot" else [("public", ""), *((k, f"/{k}") for k in CLASSES)]:
        _add_sockets(app, sockets, market, kind, base)
    app.router.add_route("*", "/{tail:.*}", router.respond)
    return app


def _add_sockets(app: web.Application, sockets: Sockets, market: str, kind: str, base: str) -> None:
    """Raw and combined connections below `base`. Futures without a class carry what the public class carries."""

    async def raw(request: web.Request) -> web.StreamResponse:
        tail = request.match_info.get("streams", "")
        names = [name for name in tail.split("/") if "@" in name]
        return await sockets.respond(request, market, kind, names, combined=False)

    async def combined(request: web.Request) -> web.StreamResponse:
        names = [name for name in request.query.get("streams", "").split("/") if "@" in name]
        return await sockets.respond(request, market, kind, names, combined=True)

    app.router.add_get(f"{base}/ws", raw)
    app.router.add_get(f"{base}/ws/{{streams:.*}}", raw)
    app.router.add_get(f"{base}/stream", combined)
