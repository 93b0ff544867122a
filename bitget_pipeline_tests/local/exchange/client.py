"""
A bare client for tests: raw HTTP answers, raw frames, nothing interpreted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp

from bitget_pipeline.local.exchange import LocalExchange

ONE_MOMENT = SimpleNamespace(monotonic=lambda: 1000.5)
"""A clock for limits that stands still: the second that they count does not end while a test asks."""


class Socket:
    """One connection and every frame it has received, in order (None: it was closed)."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.frames: list[Any] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.ws:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            try:
                self.frames.append(json.loads(message.data))
            except ValueError:
                self.frames.append(message.data)
        self.frames.append(None)

    async def send(self, body: Any) -> None:
        """Send text as it is, anything else as JSON."""
        await self.ws.send_str(body if isinstance(body, str) else json.dumps(body, ensure_ascii=False))

    async def subscribe(self, *args: tuple[str, str, str]) -> None:
        """Subscribe to (instType, channel, instId)s in one frame."""
        wanted = [{"instType": t, "channel": c, "instId": i} for t, c, i in args]
        await self.send({"op": "subscribe", "args": wanted})

    async def until(self, true: Callable[[list[Any]], Any], *, seconds: float = 60.0) -> list[Any]:
        """Wait until the frames satisfy a condition."""
        deadline = time.monotonic() + seconds
        while not true(self.frames):
            assert time.monotonic() < deadline, f"not within {seconds}s; got {str(self.frames)[-600:]}"
            await asyncio.sleep(0.01)
        return self.frames

    async def flood(self, body: Any) -> None:
        """Send the same again and again, more than any second may hold, however the machine cuts them in two."""
        with contextlib.suppress(ConnectionError):  # the other side is gone
            for _ in range(60):
                await self.send(body)

    async def settled(self) -> None:
        """Wait until nothing comes any more."""
        seen = -1
        while seen != len(self.frames):
            seen = len(self.frames)
            for _ in range(10):  # what lies unread after a standstill in one of them is read in the others
                await asyncio.sleep(0.02)

    async def closed(self, *, seconds: float = 60.0) -> None:
        """Wait until the other side is gone."""
        await self.until(lambda frames: frames and frames[-1] is None, seconds=seconds)

    def data(self, channel: str, action: str | None = None) -> list[Any]:
        """The rows of all data frames of a channel, in order of arrival (the order inside frames kept)."""
        return [row for frame in self.data_frames(channel, action) for row in frame["data"]]

    def data_frames(self, channel: str, action: str | None = None) -> list[Any]:
        """All data frames of a channel."""
        frames = (f for f in self.frames if isinstance(f, dict) and "action" in f and f["arg"]["channel"] == channel)
        return [frame for frame in frames if action in (None, frame["action"])]

    async def stop(self) -> None:
        """Close the connection."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self.ws.close()


class Client:
    """REST and sockets of one exchange."""

    def __init__(self, exchange: LocalExchange, session: aiohttp.ClientSession) -> None:
        self.exchange = exchange
        self.session = session

    async def answer(self, path: str, **params: Any) -> tuple[int, Any]:
        """Status and JSON body of a GET."""
        async with self.session.get(self.exchange.rest_url + path, params=params) as response:
            return response.status, json.loads(await response.text())

    async def data(self, path: str, **params: Any) -> Any:
        """The data of a successful GET."""
        status, body = await self.answer(path, **params)
        assert (status, body["code"]) == (200, "00000"), body
        return body["data"]

    async def code(self, path: str, **params: Any) -> tuple[int, str]:
        """Status and code of a GET."""
        status, body = await self.answer(path, **params)
        return status, body["code"]

    async def truth(self, what: str, **params: Any) -> list[dict[str, Any]]:
        """Rows of an admin truth path."""
        async with self.session.get(f"{self.exchange.rest_url}/admin/truth/{what}", params=params) as response:
            assert response.status == 200, await response.text()
            return [json.loads(line) for line in (await response.text()).splitlines()]

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[Socket]:
        """An open socket."""
        async with self.session.ws_connect(self.exchange.ws_url, max_msg_size=0) as ws:
            socket = Socket(ws)
            try:
                yield socket
            finally:
                await socket.stop()
