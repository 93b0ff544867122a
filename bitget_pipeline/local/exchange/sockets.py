"""
The public V2 socket: one connection's protocol (reference section 6).

`Connection` reads requests, answers acks, errors and pongs, and keeps the limits; what it subscribes to comes from
feeds.py. Frames leave through a bounded outbox, so that a slow reader stalls nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from ...telemetry import get_logger
from .bars import WS_GRANULARITIES
from .faults import Target
from .feeds import Channel, Feeds
from .instruments import MARKET_OF_INST_TYPE
from .limits import Allowance
from .rest import cut_off
from .venue import Venue
from .wire import encode

log = get_logger(__name__)

MAX_FRAME_BYTES = 4096
MAX_CHANNELS = 1000
MESSAGES_PER_SECOND = 10
SUBSCRIBES_PER_HOUR = 240
ATTEMPTS_PER_5_MINUTES = 300
OPEN_PER_ADDRESS = 100
_OUTBOX = 20_000

CHANNELS = {"trade", "ticker", "books", "books1", "books5", "books15"} | {f"candle{g}" for g in WS_GRANULARITIES}


class Connection:
    """One open socket."""

    def __init__(self, venue: Venue, feeds: Feeds, request: web.Request) -> None:
        self._venue = venue
        self._feeds = feeds
        self._request = request
        self._socket = web.WebSocketResponse(compress=False, autoping=True, max_msg_size=1 << 20)
        self._outbox: deque[str] = deque()
        self._wake = asyncio.Event()
        self._messages = Allowance(most=MESSAGES_PER_SECOND, seconds=1.0, window="sliding")
        self._subscribes = Allowance(most=SUBSCRIBES_PER_HOUR, seconds=3600.0, window="sliding")
        self._last_ping = time.monotonic()
        self.opened = time.monotonic()
        self.channels: set[Channel] = set()
        self.deaf: dict[Channel, bool] = {}
        self.half_open = False
        self.closed = False

    @property
    def address(self) -> str:
        """The client's address."""
        return self._request.remote or "?"

    def send(self, frame: str) -> None:
        """Queue a frame; a reader that is 20,000 frames behind is cut off."""
        if self.half_open or self.closed:
            return
        if len(self._outbox) >= _OUTBOX:
            log.warning("exchange.slow_reader", address=self.address)
            self.abort()
            return
        self._outbox.append(frame)
        self._wake.set()

    def abort(self) -> None:
        """Cut the connection without a close frame, as the real exchange does."""
        self.closed = True
        self._wake.set()
        self._venue.counters.connections_dropped += 1
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    async def run(self) -> web.WebSocketResponse:
        """Serve this socket to its end."""
        await self._socket.prepare(self._request)
        writer = asyncio.create_task(self._write())
        keeper = asyncio.create_task(self._keep_time())
        try:
            async for message in self._socket:
                if self.half_open:
                    continue
                if message.type is WSMsgType.TEXT:
                    self._venue.counters.messages_received += 1
                    self.receive(message.data)
                if self.closed:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed = True
            self._wake.set()
            for channel in list(self.channels):
                self._feeds.unsubscribe(self, channel)
            keeper.cancel()
            writer.cancel()
            await asyncio.gather(keeper, writer, return_exceptions=True)
        return self._socket

    def receive(self, raw: str) -> None:
        """Act on one text message of the client."""
        violations = self._venue.counters.violations
        if self._venue.config.limits and not self._messages.take(time.monotonic()):
            violations["ws_messages"] += 1
            self.abort()
            return
        if raw == "ping":
            self._last_ping = time.monotonic()
            self.send("pong")
            return
        if raw == "pong":
            return
        if self._venue.config.limits and len(raw.encode()) > MAX_FRAME_BYTES:
            violations["ws_frame_size"] += 1
            self._error(30002, "Unrecognized request: frame exceeds 4096 bytes")
            return
        try:
            request = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            self._error(30002, f"Unrecognized request:{raw}")
            return
        if not isinstance(request, dict) or not isinstance(request.get("op"), str):
            self._error(30002, f"Unrecognized request:{raw}")
            return
        op, args = request["op"], request.get("args")
        if op == "login":
            self._error(30005, "Login failed")
        elif op not in ("subscribe", "unsubscribe"):
            self._error(30003, "Invalid op")
        elif not isinstance(args, list) or not args:
            self._error(30016, "Param error", op=op)
        elif op == "subscribe" and self._venue.config.limits and not self._subscribes.take(time.monotonic()):
            violations["ws_subscribe_requests"] += 1
            self._error(30007, "Request over limit, connection close")
            asyncio.get_running_loop().call_later(0.05, self.abort)
        else:
            for arg in args:
                self._act(op, arg)

    def _act(self, op: str, arg: Any) -> None:
        if not isinstance(arg, dict) or not all(isinstance(arg.get(k), str) for k in ("instType", "channel", "instId")):
            self._error(30016, "Param error", arg=arg, op=op)
            return
        inst_type, name, inst_id = arg["instType"], arg["channel"], arg["instId"]
        market = MARKET_OF_INST_TYPE.get(inst_type)
        if market is None or name not in CHANNELS:
            self._error(30016, "Param error", arg=arg, op=op)
            return
        universe, symbol = self._venue.universe, inst_id.upper()
        instrument = universe.find(market, symbol)
        minute = self._venue.clock.now_ms() // 60_000
        if instrument is not None and not universe.is_listed(instrument, minute):
            instrument = None
        if instrument is None and not universe.known_elsewhere(market, symbol):
            text = f"instType:{inst_type},channel:{name},instId:{inst_id},precision:null doesn't exist"
            self._error(30001, text, arg=arg, op=op)
            return
        channel = Channel(market, symbol, name)
        echoed = {"instType": inst_type, "channel": name, "instId": symbol}
        if op == "unsubscribe":
            self._feeds.unsubscribe(self, channel)
            self._control({"event": op, "arg": echoed})
            return
        if self._venue.config.limits and channel not in self.channels and len(self.channels) >= MAX_CHANNELS:
            self._venue.counters.violations["ws_channels"] += 1
            self._error(30007, "Request over limit, connection close", arg=arg, op=op)
            asyncio.get_running_loop().call_later(0.05, self.abort)
            return
        self._control({"event": op, "arg": echoed})
        self._venue.counters.subscriptions += 1
        if instrument is None:
            self._venue.counters.subscribed[channel.name] += channel not in self.channels
            self.channels.add(channel)  # a real symbol of another market: acknowledged, then silence
        else:
            self._feeds.subscribe(self, channel, instrument)

    def _error(self, code: int, message: str, *, arg: Any = None, op: str | None = None) -> None:
        body: dict[str, Any] = {"event": "error"}
        if arg is not None:
            body["arg"] = arg
        body |= {"code": code, "msg": message}
        if op is not None:
            body["op"] = op
        self._control(body)

    def _control(self, body: dict[str, Any]) -> None:
        self.send(encode(body).decode())

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                frame = self._outbox.popleft()
                try:
                    await self._socket.send_str(frame)
                except (ConnectionError, RuntimeError):
                    self.closed = True
                    return
                self._venue.counters.messages_sent += 1
            if self.closed:
                return

    async def _keep_time(self) -> None:
        """
        Close after the longest life, or when the client forgot to ping; both without a close frame, and at the second look:
        when this process stood still, a ping lies here unread at the first.
        """
        config = self._venue.config
        over = False
        while True:
            now = time.monotonic()
            until = min(self._last_ping + config.ping_timeout, self.opened + config.connection_lifetime)
            if over and now >= until and not self.half_open:
                self.abort()
                return
            over = now >= until
            await asyncio.sleep(max(0.1, until - now))


class Sockets:
    """All open connections of one venue, and the limits on opening them."""

    def __init__(self, venue: Venue, feeds: Feeds) -> None:
        self._venue = venue
        self._feeds = feeds
        self._attempts: dict[str, Allowance] = {}
        self.open: set[Connection] = set()

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Answer a request to open the public socket."""
        venue, address = self._venue, request.remote or "?"
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400, text='Can "Upgrade" only to "WebSocket".')
        if venue.faults.strikes("dark"):
            return cut_off(request)
        if venue.faults.strikes("region_block"):
            return web.Response(status=403, text="Forbidden")
        if venue.faults.strikes("refuse_connections"):
            return web.Response(status=503, text="Service Unavailable")
        if venue.config.limits:
            attempts = self._attempts.setdefault(
                address, Allowance(most=ATTEMPTS_PER_5_MINUTES, seconds=300.0, window="sliding")
            )
            crowded = sum(1 for c in self.open if c.address == address) >= OPEN_PER_ADDRESS
            if crowded or not attempts.take(time.monotonic()):
                venue.counters.violations["ws_connections"] += 1
                return web.Response(status=429, text="Too Many Requests")
        connection = Connection(venue, self._feeds, request)
        connection.half_open = venue.faults.strikes("half_open") is not None
        self.open.add(connection)
        venue.counters.connections_opened += 1
        venue.counters.connections_open += 1
        try:
            return await connection.run()
        finally:
            self.open.discard(connection)
            venue.counters.connections_open -= 1

    def strike(self) -> None:
        """Let the levers that act on whole connections act; called by the feeds' tick."""
        faults = self._venue.faults
        if not faults.active():
            return
        for connection in list(self.open):
            if connection.closed:
                continue
            if self._struck("drop", connection) or self._struck("dark", connection):
                connection.abort()
            elif self._struck("half_open", connection):
                connection.half_open = True

    def strike_once(self, kind: str, target: Target) -> int:
        """`drop` or `half_open` for the connections open now that carry what is aimed at; how many."""
        struck = [
            connection
            for connection in self.open
            if not connection.closed
            and (
                target.covers()
                or any(target.covers(market=c.market, symbol=c.symbol, channel=c.name) for c in connection.channels)
            )
        ]
        for connection in struck:
            if kind == "drop":
                connection.abort()
            else:
                connection.half_open = True
        return len(struck)

    def deafen(self, target: Target, *, stubborn: bool) -> int:
        """The subscriptions aimed at carry no data any more, though their sockets are well; how many."""
        struck = 0
        for connection in self.open:
            for c in connection.channels:
                if target.covers(market=c.market, symbol=c.symbol, channel=c.name):
                    connection.deaf[c] = stubborn
                    struck += 1
        return struck

    def _struck(self, kind: str, connection: Connection) -> bool:
        """Does a fault aim at all connections, or at a channel of this one?"""
        faults = self._venue.faults
        return faults.strikes(kind) is not None or any(
            faults.strikes(kind, market=c.market, symbol=c.symbol, channel=c.name) for c in list(connection.channels)
        )
