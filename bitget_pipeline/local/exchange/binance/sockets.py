"""
The websockets of the Binance side: one connection's protocol (reference 3.3, 4.1).

Raw (`/ws`) and combined (`/stream`) connections, streams in the address or by control frames, pings by the server, a
silent answer for what a path does not carry, and an announced end. What flows comes from streams.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from ..faults import Target
from ..limits import Allowance
from ..rest import cut_off
from ..wire import encode
from .endpoints import INTERVALS
from .side import Side
from .streams import Stream, Streams

MESSAGES_PER_SECOND = {"spot": 5, "usdtm": 10}
MAX_STREAMS = {"spot": 1024, "usdtm": 200}
ATTEMPTS_PER_5_MINUTES = 300
_OUTBOX = 20_000
_KLINES = frozenset(f"kline_{interval}" for interval in INTERVALS)

CARRIED: dict[str, frozenset[str]] = {
    "spot": frozenset({"trade", "aggTrade"}) | _KLINES,
    "public": frozenset({"trade"}),
    "market": frozenset({"aggTrade"}) | _KLINES,
    "private": frozenset(),
}
"""Which kinds of stream a class of connection carries; any other is acknowledged and silent."""


class Connection:
    """One open socket."""

    def __init__(
        self, side: Side, streams: Streams, request: web.Request, market: str, kind: str, *, combined: bool
    ) -> None:
        self._side = side
        self._streams = streams
        self._request = request
        self._market = market
        self._kind = kind
        self._combined = combined
        self._socket = web.WebSocketResponse(compress=False, autoping=False, max_msg_size=1 << 20)
        self._outbox: deque[str | bytes] = deque()
        self._wake = asyncio.Event()
        self._messages = Allowance(most=MESSAGES_PER_SECOND[market], seconds=1.0, window="sliding")
        self._pinged = self._ponged = self.opened = time.monotonic()
        self._announced = False
        self.names: dict[str, Stream | None] = {}
        self.half_open = False
        self.closed = False

    @property
    def carried(self) -> list[Stream]:
        """The streams that flow here."""
        return [stream for stream in self.names.values() if stream is not None]

    def push(self, stream: str, event: bytes) -> None:
        """Queue an event, wrapped when the connection is a combined one."""
        text = event.decode(errors="replace")
        self._send(f'{{"stream":{encode(stream).decode()},"data":{text}}}' if self._combined else text)

    def abort(self) -> None:
        """Cut the connection without a close frame."""
        if not self.closed:
            self.closed = True
            self._wake.set()
            self._side.counters.connections_dropped += 1
            if self._request.transport is not None:
                self._request.transport.abort()

    async def run(self, names: list[str]) -> web.WebSocketResponse:
        """Serve this socket to its end."""
        await self._socket.prepare(self._request)
        self._begin(names)
        writer = asyncio.create_task(self._write())
        keeper = asyncio.create_task(self._keep_time())
        try:
            async for message in self._socket:
                if not self.half_open:
                    self._receive(message)
                if self.closed:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed = True
            self._end(list(self.names))
            keeper.cancel()
            writer.cancel()
            await asyncio.gather(keeper, writer, return_exceptions=True)
        return self._socket

    def _receive(self, message: Any) -> None:
        self._side.counters.messages_received += 1
        if self._side.config.limits and not self._messages.take(time.monotonic()):
            self._side.counters.violations["ws_messages"] += 1
            self.abort()
        elif message.type is WSMsgType.PONG:
            self._ponged = time.monotonic()
        elif message.type is WSMsgType.PING:
            self._send(b"\x0a" + message.data)
        elif message.type is WSMsgType.TEXT:
            self._control(message.data)

    def _control(self, raw: str) -> None:
        try:
            body = msgspec.json.decode(raw)
        except (msgspec.DecodeError, ValueError):
            self._send(encode({"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}).decode())
            return
        number = body.get("id") if isinstance(body, dict) else None
        method = body.get("method") if isinstance(body, dict) else None
        names = body.get("params") if isinstance(body, dict) else None
        listed = isinstance(names, list) and all(isinstance(name, str) and "@" in name for name in names)
        if method == "LIST_SUBSCRIPTIONS":
            self._answer(list(self.names), number)
        elif method == "SUBSCRIBE" and listed and names:
            self._begin(names)
            self._answer(None, number)
        elif method == "UNSUBSCRIBE" and listed and names:
            self._end(names)
            self._answer(None, number)
        elif method == "SET_PROPERTY" and isinstance(names, list) and names[:1] == ["combined"]:
            self._combined = names[-1] is True
            self._answer(None, number)
        else:
            said = {"code": 2, "msg": "Invalid request: unknown variant or wrong parameters", "id": number}
            self._send(encode(said).decode())

    def _begin(self, names: list[str]) -> None:
        for name in names:
            if name in self.names:
                continue
            if self._side.config.limits and len(self.names) >= MAX_STREAMS[self._market]:
                self._side.counters.violations["ws_streams"] += 1
                self.abort()
                return
            symbol, _, kind = name.partition("@")
            lower = not any(c.isascii() and c.isupper() for c in symbol)
            carried = lower and kind in CARRIED[self._kind]
            upper = "".join(c.upper() if c.isascii() else c for c in symbol)
            self.names[name] = stream = Stream(self._market, upper, kind) if carried else None
            self._side.counters.subscriptions += 1
            if stream is not None:
                self._streams.subscribe(self, stream)

    def _end(self, names: list[str]) -> None:
        for name in names:
            stream = self.names.pop(name, None)
            if stream is not None:
                self._streams.unsubscribe(self, stream)

    def _answer(self, result: Any, number: Any) -> None:
        self._send(encode({"result": result, "id": number}).decode())

    def _send(self, frame: str | bytes) -> None:
        if self.half_open or self.closed:
            return
        if len(self._outbox) >= _OUTBOX:
            self.abort()
            return
        self._outbox.append(frame)
        self._wake.set()

    async def _write(self) -> None:
        """Texts as they are; bytes are control frames, the first byte saying which."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                frame = self._outbox.popleft()
                try:
                    if isinstance(frame, str):
                        await self._socket.send_str(frame)
                    elif frame[:1] == b"\x0a":
                        await self._socket.pong(frame[1:])
                    else:
                        await self._socket.ping(frame[1:])
                except (ConnectionError, RuntimeError):
                    self.closed = True
                    return
                self._side.counters.messages_sent += 1
            if self.closed:
                return

    async def _keep_time(self) -> None:
        """
        Ping; cut off who does not answer; announce the end of the longest life on spot, then close. Both ends come at the second
        look: when this process stood still, an answer lies here unread at the first, and the end was not announced.
        """
        config = self._side.config
        over = False
        while True:
            now = time.monotonic()
            unanswered = self._pinged > self._ponged and now - self._pinged >= config.binance_pong_seconds
            before, over = over, (unanswered and not self.half_open) or now >= self.opened + config.connection_lifetime
            if before and over:
                self.abort()
                return
            if not self._announced and now >= self.opened + config.connection_lifetime - config.binance_notice_seconds:
                self._announced = True
                if self._market == "spot":
                    event = encode({"e": "serverShutdown", "E": self._side.clock.now_ms()})
                    self.push("!serverShutdown", event)
            if self._pinged <= self._ponged and now - self._pinged >= config.binance_ping_seconds:
                self._pinged = now
                self._send(b"\x09" + str(self._side.clock.now_ms()).encode())
            await asyncio.sleep(min(0.25, config.binance_ping_seconds / 4))


class Sockets:
    """All open connections of the Binance side."""

    def __init__(self, side: Side, streams: Streams) -> None:
        self._side = side
        self._streams = streams
        self._attempts: dict[str, Allowance] = {}
        self.open: set[Connection] = set()

    async def respond(
        self, request: web.Request, market: str, kind: str, names: list[str], *, combined: bool
    ) -> web.StreamResponse:
        """Answer a request to open a socket."""
        side, address = self._side, request.remote or "?"
        if side.faults.strikes("dark", path=request.path, market=market):
            return cut_off(request)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400, text='Can "Upgrade" only to "WebSocket".')
        if side.faults.strikes("region_block", path=request.path, market=market):
            return web.Response(status=451, text="Unavailable For Legal Reasons")
        if side.faults.strikes("refuse_connections", path=request.path, market=market):
            return web.Response(status=503, text="Service Unavailable")
        if side.config.limits:
            attempts = self._attempts.setdefault(
                address, Allowance(most=ATTEMPTS_PER_5_MINUTES, seconds=300.0, window="sliding")
            )
            if not attempts.take(time.monotonic()):
                side.counters.violations["ws_connections"] += 1
                return web.Response(status=429, text="Too Many Requests")
        connection = Connection(side, self._streams, request, market, kind, combined=combined)
        connection.half_open = side.faults.strikes("half_open") is not None
        self.open.add(connection)
        side.counters.connections_opened += 1
        side.counters.connections_open += 1
        try:
            return await connection.run(names)
        finally:
            self.open.discard(connection)
            side.counters.connections_open -= 1

    def strike(self) -> None:
        """Let the levers that act on whole connections act."""
        if not self._side.faults.active():
            return
        for connection in list(self.open):
            if self._struck("drop", connection) or self._struck("dark", connection):
                connection.abort()
            elif self._struck("half_open", connection):
                connection.half_open = True

    def strike_once(self, kind: str, target: Target) -> int:
        """`drop` or `half_open` for the connections open now that carry what is aimed at; how many."""
        struck = [one for one in self.open if not one.closed and _aims(target, one)]
        for connection in struck:
            if kind == "drop":
                connection.abort()
            else:
                connection.half_open = True
        return len(struck)

    def _struck(self, kind: str, connection: Connection) -> bool:
        faults = self._side.faults
        return faults.strikes(kind, market=connection._market) is not None or any(
            faults.strikes(kind, market=s.market, symbol=s.symbol, channel=s.kind) for s in connection.carried
        )


def _aims(target: Target, connection: Connection) -> bool:
    return target.covers(market=connection._market) or any(
        target.covers(market=s.market, symbol=s.symbol, channel=s.kind) for s in connection.carried
    )
