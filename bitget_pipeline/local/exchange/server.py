"""
The local exchange as a server: REST, socket and admin on one loopback port, and Binance on two more when it plays that.

`serve` runs until told to stop (the command line); `running` is the same for a test, with levers as methods.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web

from ...errors import PortTaken, SettingsInvalid
from ...telemetry import get_logger
from . import rest_mix, rest_private, rest_spot
from .admin import Admin
from .binance import BinanceSide, playing
from .config import MARKETS, Address, ExchangeConfig
from .feeds import Feeds
from .levers import Levers
from .rest import Router
from .sockets import Sockets
from .venue import Venue
from .wire import encode

log = get_logger(__name__)


class LocalExchange:
    """A running exchange and its levers."""

    def __init__(self, venue: Venue, address: Address, sockets: Sockets, binance: BinanceSide | None = None) -> None:
        self.venue = venue
        self.address = address
        self._binance = binance
        self._levers = Levers(venue, sockets)

    @property
    def rest_url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return self.address.rest_url

    @property
    def ws_url(self) -> str:
        """`ws://127.0.0.1:PORT/v2/ws/public`."""
        return self.address.ws_url

    @property
    def binance(self) -> BinanceSide:
        """The Binance side and its levers. Raises ValueError when it is not played."""
        if self._binance is None:
            raise ValueError("this exchange does not play Binance: start it with ExchangeConfig(binance=True)")
        return self._binance

    def now_ms(self) -> int:
        """Market time, Unix ms."""
        return self.venue.clock.now_ms()

    def counters(self) -> dict[str, Any]:
        """What `GET /admin/counters` shows."""
        return self.venue.counters.as_json()

    def fault(
        self, kind: str, target: str = "*", seconds: float | None = None, *, probability: float = 1.0, **params: Any
    ) -> dict[str, Any]:
        """Pull a lever (faults.KINDS); without `seconds` it lasts until `clear`."""
        return self._levers.fault(kind, target=target, seconds=seconds, probability=probability, **params)

    def clear(self, kind: str | None = None) -> int:
        """End the faults of a kind, or all; how many."""
        return self.venue.faults.clear(kind=kind)

    @contextmanager
    def faulty(self, kind: str, target: str = "*", *, probability: float = 1.0, **params: Any) -> Iterator[None]:
        """A fault for the length of a block."""
        fault = self.venue.faults.add(kind, target=target, probability=probability, **params)
        try:
            yield
        finally:
            self.venue.faults.clear(ident=fault.id)

    @contextmanager
    def muted(self, target: str = "*") -> Iterator[None]:
        """Sockets stay up and answer pings, but no data comes."""
        with self.faulty("mute", target):
            yield

    def drop(self) -> int:
        """Cut every open socket without a close frame; how many."""
        return int(self._levers.fault("drop")["connections"])

    def forgive(self) -> None:
        """Forget all rate-limit counts and penalties."""
        self.venue.limiter.forgive()


@asynccontextmanager
async def running(config: ExchangeConfig | None = None) -> AsyncIterator[LocalExchange]:
    """
    An exchange for the length of a block.

    :raises PortTaken: the port is in use. :raises SettingsInvalid: a setting makes no sense.
    """
    config = config or ExchangeConfig()
    _check(config)
    venue = Venue(config)
    feeds = Feeds(venue)
    sockets = Sockets(venue, feeds)
    feeds.each_tick += [sockets.strike, venue.warm_next]
    async with AsyncExitStack() as stack:
        binance = await stack.enter_async_context(playing(config, venue, feeds)) if config.binance else None
        async with _bitget(config, venue, feeds, sockets, binance) as exchange:
            yield exchange


@asynccontextmanager
async def _bitget(
    config: ExchangeConfig, venue: Venue, feeds: Feeds, sockets: Sockets, binance: BinanceSide | None
) -> AsyncIterator[LocalExchange]:
    runner = web.AppRunner(_app(venue, sockets, binance), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    ticking: asyncio.Task[None] | None = None
    try:
        site = web.TCPSite(runner, config.host, config.port, backlog=512)
        try:
            await site.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SettingsInvalid(
                    f"cannot listen: {error.strerror}", where=f"{config.host}:{config.port}"
                ) from error
            raise PortTaken(
                f"port {config.port} is in use",
                where="local exchange",
                remedy="stop what uses it, or choose another port (0 finds a free one)",
            ) from error
        address = Address(config.host, runner.addresses[0][1], binance.address if binance else None)
        ticking = asyncio.create_task(feeds.run())
        log.info("exchange.ready", rest_url=address.rest_url, ws_url=address.ws_url, seed=config.seed)
        yield LocalExchange(venue, address, sockets, binance)
    finally:
        if ticking is not None:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
        for connection in list(sockets.open):
            connection.abort()
        await runner.cleanup()


async def serve(config: ExchangeConfig, *, ready: Callable[[Address], None] | None = None, stop: asyncio.Event) -> None:
    """Run an exchange until `stop` is set; `ready` is told the address once it listens."""
    async with running(config) as exchange:
        if ready is not None:
            ready(exchange.address)
        await stop.wait()


def _check(config: ExchangeConfig) -> None:
    if config.host not in ("127.0.0.1", "::1", "localhost"):
        raise SettingsInvalid(
            "the local exchange listens on this machine only", where=config.host, remedy="use 127.0.0.1"
        )
    for port in (config.port, config.binance_spot_port, config.binance_futures_port):
        if not 0 <= port <= 65535:
            raise SettingsInvalid(f"no such port: {port}", remedy="use 0 to 65535")
    if max(config.instruments_of(market) for market in MARKETS) > 3500:
        raise SettingsInvalid("at most 3,500 instruments a market", remedy="lower the count")
    if config.speed < 0 or config.trades_per_second <= 0 or config.active_per_market < 1:
        raise SettingsInvalid("speed, trades_per_second and active_per_market must be positive")


def _app(venue: Venue, sockets: Sockets, binance: BinanceSide | None) -> web.Application:
    router = Router(venue, {**rest_spot.ENDPOINTS, **rest_mix.ENDPOINTS, **rest_private.ENDPOINTS})

    async def old_socket(request: web.Request) -> web.Response:
        venue.counters.requests["(v1 socket)"] += 1
        body = {
            "code": "30032",
            "msg": "The V1 API has been decommissioned. Please migrate to a newer version.",
            "requestTime": venue.clock.now_ms(),
            "data": None,
        }
        return web.Response(status=400, body=encode(body), content_type="application/json")

    app = web.Application(client_max_size=1 << 20)
    app.add_routes(Admin(venue, Levers(venue, sockets), binance).routes())
    app.router.add_get("/v2/ws/public", sockets.respond)
    app.router.add_get("/spot/v1/stream", old_socket)
    app.router.add_get("/mix/v1/stream", old_socket)
    app.router.add_route("*", "/{tail:.*}", router.respond)
    return app
