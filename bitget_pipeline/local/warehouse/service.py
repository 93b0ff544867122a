"""
The life of the embedded warehouse: claim the folder and the port, open the engine, serve, stop.

`serve` is for a process of its own (`__main__.py`, `up`, `bitget-pipeline warehouse`) and for tests.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from aiohttp import web

from ... import errors, telemetry
from .config import WarehouseConfig
from .engine import Engine, FolderLock
from .neighbours import is_loopback
from .server import Server

log = telemetry.get_logger(__name__)


async def serve(
    config: WarehouseConfig, *, ready: Callable[[int], None] | None = None, stop: asyncio.Event | None = None
) -> None:
    """
    Serve ClickHouse's HTTP interface until `stop` is set (or this task is cancelled), then end cleanly.

    `ready` is called once with the port when statements are accepted. A process can serve one folder only, and only once:
    the engine belongs to the process. Raises SettingsInvalid, FolderTaken, PortTaken, DiskFull or StoreRefused.
    """
    if not is_loopback(config.host):
        raise errors.SettingsInvalid(
            "the embedded warehouse listens on this machine only", where=config.host, remedy="use 127.0.0.1"
        )
    lock = FolderLock(config)
    try:
        listener = _listen(config)
        try:
            engine = await asyncio.to_thread(Engine, config)
            try:
                await _serve_on(listener, config, engine, lock, ready, stop or asyncio.Event())
            finally:
                await asyncio.to_thread(engine.close)
        finally:
            listener.close()
    finally:
        lock.release()


def _listen(config: WarehouseConfig) -> socket.socket:
    """The bound socket; nobody is answered before the engine is open."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise errors.PortTaken(
                "the warehouse's port is taken",
                where=f"{config.host}:{config.port}",
                remedy="stop the other program or choose another port (--port, or CLICKHOUSE_PORT)",
            ) from None
        raise errors.SettingsInvalid(f"cannot listen: {error}", where=f"{config.host}:{config.port}") from None
    return listener


async def _serve_on(
    listener: socket.socket,
    config: WarehouseConfig,
    engine: Engine,
    lock: FolderLock,
    ready: Callable[[int], None] | None,
    stop: asyncio.Event,
) -> None:
    server = Server(config, engine)
    runner = web.AppRunner(
        server.application(),
        handler_cancellation=True,
        access_log=None,
        handle_signals=False,
        auto_decompress=False,  # we know encodings that aiohttp does not
        max_line_size=2 << 20,  # statements and parameters travel in the address
        max_field_size=1 << 16,
        keepalive_timeout=75.0,
        shutdown_timeout=0.5,
    )
    await runner.setup()
    port: int = listener.getsockname()[1]
    expiry = asyncio.create_task(_expire(server))
    try:
        site = web.SockSite(runner, listener, backlog=512)
        await site.start()
        lock.sign(port)
        log.info("warehouse.ready", port=port, engine=engine.version, data=str(config.data))
        if ready is not None:
            ready(port)
        await stop.wait()
        await site.stop()
    finally:
        expiry.cancel()
        await server.finish(within=config.stop_within)
        await runner.cleanup()
        await server.close()
        log.info("warehouse.stopped", port=port)


async def _expire(server: Server) -> None:
    """End idle sessions, also when no request comes."""
    while True:
        await asyncio.sleep(1.0)
        server.sessions.expire()
