"""
One websocket's bytes: how it is opened, through whatever proxy, and how it ends. Used by connection.py.

It is aiohttp's, for its reader is compiled: it takes a frame in half the time of the `websockets` library, and receiving
is the greatest part of what a frame costs (`python -m bench.front_half`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, cast

import aiohttp
from aiohttp import WSMsgType
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError

from ..errors import ExchangeUnavailable, RegionBlocked

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""150 book snapshots can reach 1 MB in a burst; a single frame beyond this is nothing we asked for."""
REGION_STATUSES = frozenset({403, 451})
TEXT, BINARY = WSMsgType.TEXT, WSMsgType.BINARY
"""The messages that carry something; any other is the end. To be compared with `is`: their hash is made in Python."""


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """Where the socket goes. `proxy` is an http:// or socks5:// address; `tls` None means the system's defaults."""

    url: str
    proxy: str | None = None
    tls: ssl.SSLContext | None = None
    open_within: float = 15.0


class SocketEnded(Exception):
    """Nothing more can be sent; why, in one line."""


class WebSocket:
    """An open socket. `receive` waits for the next message: bytes in `data` if its type is TEXT or BINARY, else the last."""

    def __init__(
        self, session: aiohttp.ClientSession, messages: aiohttp.ClientWebSocketResponse[Literal[False]]
    ) -> None:
        self._session = session
        self._messages = messages
        self.receive = cast("Callable[[], Awaitable[aiohttp.WSMessage]]", messages.receive)

    async def send(self, text: str) -> None:
        """Send a text. Raises SocketEnded."""
        try:
            await self._messages.send_str(text)
        except (aiohttp.ClientError, OSError) as error:
            raise SocketEnded(_cause(error)) from error

    def why(self, last: aiohttp.WSMessage) -> str:
        """Why it ended with this message, in one line."""
        if last.type is WSMsgType.ERROR:
            return _cause(last.data)
        if last.type is WSMsgType.CLOSE:
            return f"code {last.data}{f', {last.extra}' if last.extra else ''}"
        return "no closing frame came"

    async def abort(self) -> None:
        """Drop it: the exchange owes us nothing more, so there is no waiting for its closing handshake."""
        await self._session.close()


async def open_socket(address: SocketAddress) -> WebSocket:
    """Connect. Raises ExchangeUnavailable, or RegionBlocked when the exchange says so."""
    tls = address.tls if address.tls is not None else True
    proxy = address.proxy
    connector: aiohttp.BaseConnector
    if proxy is not None and proxy.startswith("socks"):
        connector, proxy = ProxyConnector.from_url(proxy, ssl=tls), None
    else:
        connector = aiohttp.TCPConnector(ssl=tls)
    session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": "bitget-pipeline"})
    try:
        async with asyncio.timeout(address.open_within):
            messages = await session.ws_connect(
                address.url,
                proxy=proxy,
                max_msg_size=MAX_FRAME_BYTES,
                decode_text=False,  # bytes are what the decoder wants
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
    except BaseException as error:
        await session.close()
        ours = _refusal(error, address)
        if ours is None:
            raise
        raise ours from error
    return WebSocket(session, messages)


def _refusal(error: BaseException, address: SocketAddress) -> ExchangeUnavailable | RegionBlocked | None:
    match error:
        case aiohttp.WSServerHandshakeError() if error.status in REGION_STATUSES:
            return RegionBlocked(
                f"the exchange refuses the websocket with HTTP {error.status}",
                where=address.url,
                remedy="it does not serve this region: use a proxy in one it serves, or try the local exchange",
            )
        case aiohttp.WSServerHandshakeError():
            what = f"{error.message} (HTTP {error.status})"
        case TimeoutError():
            what = f"no answer within {address.open_within:g} s"
        case aiohttp.ClientError() | OSError() | ProxyError() | ProxyConnectionError() | ProxyTimeoutError():
            what = _cause(error)
        case _:
            return None
    return ExchangeUnavailable(f"no websocket: {what}", where=address.url)


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__
