"""
Whether the exchange can be reached from here, and whether it accepts our key.

Asked by `up` before it starts anything against the real exchange, and by `doctor`. One request each, outside of the
shared budget: when they are sent, Redis may not run yet.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from ..errors import CredentialsRefused, ExchangeUnavailable, Malformed, RegionBlocked, Transient
from ..exchange import registry
from ..exchange.contract import Credentials, KeyVerdict
from ..history.client import HttpAddress, Patience, opened
from ..pipeline.watch.key_check import Alone, ask_account, require_read_only, server_time
from ..settings import Boot, exchange_address, ssl_context

SOCKET_WITHIN = 20.0
"""Seconds for opening a websocket and one answer."""
PATIENCE = Patience(attempts=3, deadline=15.0, first_wait=0.6, longest_wait=2.0)


@dataclass(frozen=True, slots=True)
class Reached:
    """The exchange answered. `skew_ms`: how far our clock is ahead of its, give or take half of `took_ms`."""

    url: str
    took_ms: float
    skew_ms: float


def http_address(boot: Boot) -> HttpAddress:
    """Where requests go, through the proxy and with the certificates of the settings."""
    proxy = boot.proxy.get_secret_value() if boot.proxy else None
    return HttpAddress(exchange_address(boot).rest_url, proxy, ssl_context(boot), connect_within=5.0, answer_within=8.0)


def reach(boot: Boot) -> Reached:
    """Ask the exchange for its time. Raises ExchangeUnavailable, RegionBlocked or another error of the tree."""
    return asyncio.run(_reach(boot))


def reach_socket(boot: Boot) -> float:
    """
    Open the exchange's websocket and ask for a sign of life; how long that took, in milliseconds.

    A firewall or proxy may pass requests and not this. Asked with the library `websockets`, not with the live run's
    socket, so that a fault of that one does not speak for the network. Raises ExchangeUnavailable.
    """
    return asyncio.run(_reach_socket(boot))


def require_exchange(boot: Boot) -> None:
    """
    Raises ExchangeUnavailable or RegionBlocked with one sentence that names the way out, or CredentialsRefused.
    """
    url = exchange_address(boot).rest_url
    try:
        reach(boot)
    except RegionBlocked as error:
        raise RegionBlocked(
            "Bitget does not serve this region", where=url, remedy="`make demo` runs everything on a local exchange"
        ) from error
    except (Transient, Malformed) as error:
        raise ExchangeUnavailable(
            f"Bitget cannot be reached: {error.what.removeprefix('the exchange cannot be reached: ')}",
            where=url,
            remedy="check the network or BITGET_PIPELINE_PROXY; `make demo` runs everything on a local exchange",
        ) from error
    if boot.has_credentials:
        check_credentials(boot)


def check_credentials(boot: Boot, *, where: str = "") -> KeyVerdict:
    """
    Ask by a signed call what the key may do; `where` is where it stands, if the settings do not know.

    Raises CredentialsRefused when the exchange does not accept the key, or the key may do more than read and
    BITGET_PIPELINE_ALLOW_TRADING_KEY is not set. No text of it shows the credentials.
    """
    credentials, where = boot.credentials, where or boot.credentials_from
    if credentials is None:
        raise CredentialsRefused(
            "there is no Bitget key",
            remedy="`bitget-pipeline credentials set` stores one; public data needs none",
        )
    try:
        verdict = asyncio.run(_ask_account(boot, credentials))
    except CredentialsRefused as error:
        refusal = CredentialsRefused(error.what, where=where, remedy=error.remedy)
        refusal.code = error.code
        raise refusal from None
    require_read_only(verdict, allowed=boot.allow_trading_key, where=where)
    return verdict


async def _reach(boot: Boot) -> Reached:
    exchange = registry.get(boot.exchange)
    address = http_address(boot)
    async with opened(exchange, address, Alone(), patience=PATIENCE) as client:
        await server_time(client)  # opens the connection: what it takes says nothing about the clock
        started, sent = time.monotonic(), time.time()  # in this order: whatever lies between them counts as taken
        theirs_ms = await server_time(client)
        took_ms = (time.monotonic() - started) * 1000
    return Reached(address.url, round(took_ms, 1), round(sent * 1000 + took_ms / 2 - theirs_ms, 1))


async def _reach_socket(boot: Boot) -> float:
    url, ping = exchange_address(boot).ws_url, registry.get(boot.exchange).ping()
    proxy = boot.proxy.get_secret_value() if boot.proxy else None
    started = time.monotonic()
    try:
        async with asyncio.timeout(SOCKET_WITHIN):
            tls = ssl_context(boot) if url.startswith("wss") else None
            async with connect(url, proxy=proxy, ssl=tls, ping_interval=None, close_timeout=1.0) as socket:
                await socket.send(ping)
                await socket.recv()
    except (WebSocketException, OSError, TimeoutError) as error:
        raise ExchangeUnavailable(
            f"no websocket: {str(error) or f'no sign of life within {SOCKET_WITHIN:g} s'}",
            where=url,
            remedy="requests pass and the socket does not: look at the firewall or BITGET_PIPELINE_PROXY",
        ) from error
    return round((time.monotonic() - started) * 1000, 1)


async def _ask_account(boot: Boot, credentials: Credentials) -> KeyVerdict:
    async with opened(registry.get(boot.exchange), http_address(boot), Alone(), patience=PATIENCE) as client:
        return await ask_account(client, credentials)
