"""Sockets open, refuse and end as servers on this machine make them; every end has a reason for people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSMsgType, web

from bitget_pipeline.errors import ExchangeUnavailable, RegionBlocked
from bitget_pipeline.feed.websocket import MAX_FRAME_BYTES, TEXT, SocketAddress, SocketEnded, open_socket

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[SocketAddress]:
    """A server whose every path is answered so."""
    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield SocketAddress(f"ws://127.0.0.1:{runner.addresses[0][1]}/v2/ws/public", open_within=60.0)
    finally:
        await runner.cleanup()


def talking(talk: Callable[[web.WebSocketResponse], Awaitable[object]]) -> Handler:
    """A server that accepts every socket, and does this with it."""

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await talk(socket)
        return socket

    return handler


def answering(status: int) -> Handler:
    """A server that answers with a page where a socket was asked for."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<html>a page</html>")

    return handler


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, RegionBlocked), (451, RegionBlocked), (502, ExchangeUnavailable), (200, ExchangeUnavailable)],
)
async def test_a_page_instead_of_a_socket_says_what_to_do(status: int, error: type[Exception]) -> None:
    """A blocked region stops, anything else is tried again."""
    async with served(answering(status)) as address:
        with pytest.raises(error, match=str(status)):
            await open_socket(address)


async def test_nobody_there_is_unavailable() -> None:
    """The exchange, or the way to it, is down."""
    async with served(answering(200)) as address:
        pass
    with pytest.raises(ExchangeUnavailable, match="no websocket"):
        await open_socket(address)


async def test_a_server_that_never_answers_is_given_up() -> None:
    """It took the connection and says nothing."""
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(ExchangeUnavailable, match=r"no answer within 0\.2 s"):
            await open_socket(SocketAddress(f"ws://127.0.0.1:{port}/", open_within=0.2))


async def test_texts_come_as_bytes_and_a_close_tells_its_reason() -> None:
    """What arrived before the end is delivered before it; afterwards nothing can be sent."""

    async def talk(socket: web.WebSocketResponse) -> None:
        heard = await socket.receive_str()
        await socket.send_str(f"you said {heard}")
        await socket.close(code=4001, message=b"renewal")

    async with served(talking(talk)) as address:
        socket = await open_socket(address)
        await socket.send("ping")
        first, last = await socket.receive(), await socket.receive()
        assert (first.type, first.data) == (TEXT, b"you said ping")
        assert last.type is WSMsgType.CLOSE
        assert socket.why(last) == "code 4001, renewal"
        with pytest.raises(SocketEnded):
            await socket.send("ping")
        await socket.abort()


async def test_an_end_without_a_word_is_an_end() -> None:
    """A load balancer that was replaced says nothing."""

    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_str("one")
        transport = socket._req.transport if socket._req is not None else None
        assert transport is not None
        transport.abort()

    async with served(talking(talk)) as address:
        socket = await open_socket(address)
        assert (await socket.receive()).data == b"one"
        last = await socket.receive()
        assert last.type is not TEXT
        assert socket.why(last)
        await socket.abort()


async def test_a_frame_without_measure_ends_the_socket() -> None:
    """It is nothing that was asked for, and it must not fill the memory."""

    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(bytes(MAX_FRAME_BYTES + 1))
        await socket.receive()

    async with served(talking(talk)) as address:
        socket = await open_socket(address)
        last = await socket.receive()
        assert last.type is WSMsgType.ERROR
        assert "size" in socket.why(last)
        await socket.abort()
