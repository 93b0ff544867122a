"""A bare client of the Binance side: raw answers, raw frames, nothing interpreted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.local.exchange.config import BinanceAddress

from .client import Socket


class BinanceClient:
    """REST and sockets of the Binance side of one exchange."""

    def __init__(self, exchange: LocalExchange, session: aiohttp.ClientSession) -> None:
        self.exchange = exchange
        self.session = session

    @property
    def address(self) -> BinanceAddress:
        """Where it listens."""
        return self.exchange.binance.address

    async def answer(self, market: str, path: str, **params: Any) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers of a GET."""
        async with self.session.get(self.address.rest_url(market) + path, params=params) as response:
            text = await response.text()
            body = json.loads(text) if text[:1] in ("{", "[") else text
            return response.status, body, dict(response.headers)

    async def data(self, market: str, path: str, **params: Any) -> Any:
        """The body of a successful GET."""
        status, body, _ = await self.answer(market, path, **params)
        assert status == 200, body
        return body

    async def truth(self, what: str, **params: Any) -> list[dict[str, Any]]:
        """Rows of an admin truth path, of this side."""
        url = f"{self.exchange.rest_url}/admin/truth/{what}"
        async with self.session.get(url, params={"venue": "binance", **params}) as response:
            text = await response.text()
            assert response.status == 200, text
            return [json.loads(line) for line in text.splitlines()]

    @asynccontextmanager
    async def socket(self, market: str, path: str) -> AsyncIterator[Socket]:
        """An open socket at a path of the market's host."""
        base = self.address.rest_url(market).replace("http://", "ws://")
        async with self.session.ws_connect(base + path, max_msg_size=0) as ws:
            socket = Socket(ws)
            try:
                yield socket
            finally:
                await socket.stop()


def events(socket: Socket, kind: str) -> list[Any]:
    """The events of a kind that came bare."""
    return [frame for frame in socket.frames if isinstance(frame, dict) and frame.get("e") == kind]


async def quiet(socket: Socket, *, seconds: float = 0.4) -> None:
    """Nothing but answers comes for a while."""
    before = [frame for frame in socket.frames if "result" not in frame]
    await asyncio.sleep(seconds)
    assert [frame for frame in socket.frames if "result" not in frame] == before
