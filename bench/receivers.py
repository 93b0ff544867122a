"""
Three ways to take the frames of bench/blast.py, each a process that says what CPU it used: for bench/front_half.py.

    python -m bench.receivers bare|ours|ccxt '<json of a Task>'

`bare`: the `websockets` library receives them, nothing else. `ours`: the live walk's front half, from the socket through
decoder, door and continuity into the stream in Redis. `ccxt`: ccxt.pro parses the same texts, without any socket.
"""

from __future__ import annotations

import asyncio
import functools
import json
import resource
import sys
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import msgspec
from websockets.asyncio.client import connect as connect_socket

from bitget_pipeline.exchange.contract import Channel, Subscription
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.connection import Connection, SocketAddress
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.garbage import seldom_collected
from bitget_pipeline.pipeline.live.append import Appender
from bitget_pipeline.pipeline.live.continuity import Continuity
from bitget_pipeline.pipeline.live.door import Door
from bitget_pipeline.pipeline.live.intake import Intake
from bitget_pipeline.pipeline.live.state import LiveState
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.redis_connection import RedisAddress, connect, server_identity
from bitget_pipeline.storage.stream import TradeStream
from bitget_pipeline.telemetry import configure

from .blast import Blast, texts


class Task(msgspec.Struct, frozen=True):
    """What is sent, and where it comes from and goes to."""

    blast: Blast
    port: int
    redis_port: int
    prefix: str


class Meter:
    """CPU seconds of this process, all threads, since `begin`."""

    def begin(self) -> None:
        """From here on it counts."""
        self.began = time.monotonic()
        self._before = resource.getrusage(resource.RUSAGE_SELF)

    def read(self) -> dict[str, float]:
        """What was used so far."""
        used, before = resource.getrusage(resource.RUSAGE_SELF), self._before
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        return {"cpu_seconds": cpu, "seconds": time.monotonic() - self.began}


async def bare(task: Task, meter: Meter) -> int:
    """Receive, and look at nothing."""
    meter.begin()
    async with connect_socket(
        f"ws://127.0.0.1:{task.port}", ping_interval=None, compression=None, max_queue=4096, close_timeout=0.1
    ) as socket:
        await socket.send("go")
        for _ in range(task.blast.frames):
            await socket.recv(decode=False)
        socket.transport.abort()
    return task.blast.trades


async def _nothing_at_rest(symbols: Collection[Symbol]) -> dict[Symbol, int]:
    return {}


async def ours(task: Task, meter: Meter) -> int:
    """Socket → decode → intake → door → Redis; ends when every trade was appended."""
    client = connect(RedisAddress("127.0.0.1", task.redis_port))
    symbols = [Symbol(Market.SPOT, name) for name in task.blast.names]
    state = LiveState(symbols)
    intake = Intake(state)
    appender = Appender(
        intake,
        TradeStream(client, task.prefix, "0"),
        Continuity(symbols, newest={}),
        Door(),
        state,
        fence=await Lease(client, task.prefix, "0").take("bench", 300.0),
        store_identity=functools.partial(server_identity, client),
        on_gap=lambda gap: None,
        at_rest=_nothing_at_rest,
        pause=lambda failures: 0.1,
    )
    exchange = get("bitget")
    connection = Connection(
        "bench",
        exchange,
        SocketAddress(f"ws://127.0.0.1:{task.port}"),
        [Subscription(symbol, Channel.TRADE) for symbol in symbols],
        intake,
        clock=lambda: time.time_ns() // 1_000_000,
        rules=SessionRules.within(exchange.limits),
    )
    with seldom_collected():  # as a live run is
        meter.begin()
        tasks = [asyncio.create_task(connection.run()), asyncio.create_task(appender.run())]
        while state.appended < task.blast.trades:
            done, _ = await asyncio.wait(tasks, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            assert not done, f"ended early, with {state.appended} trades: {done}"
    for one in tasks:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.aclose()
    return state.appended


async def ccxt(task: Task, meter: Meter) -> int:
    """What ccxt.pro does with a text once it has it: parse the JSON, make its trades, keep the newest 1,000."""
    import ccxt.pro

    exchange = ccxt.pro.bitget()
    markets = {}
    for name in task.blast.names:
        base = name.removesuffix("USDT")
        plain = {"id": name, "symbol": f"{base}/USDT", "base": base, "quote": "USDT", "type": "spot", "spot": True}
        markets[plain["symbol"]] = exchange.safe_market_structure(plain)
    exchange.set_markets(markets)
    client = exchange.client("ws://127.0.0.1:9/")
    frames = [text.decode() for text in texts(task.blast)]
    meter.begin()
    for frame in frames:
        client.handle_text_or_binary_message(frame)
    kept = sum(len(trades) for trades in exchange.trades.values())
    await exchange.close()
    assert kept, "it understood nothing"
    return task.blast.trades


RECEIVERS: dict[str, Callable[[Task, Meter], Coroutine[Any, Any, int]]] = {"bare": bare, "ours": ours, "ccxt": ccxt}


def main() -> None:
    """Run one of them and say what it used."""
    configure(level="ERROR")
    meter = Meter()
    trades = asyncio.run(RECEIVERS[sys.argv[1]](msgspec.json.decode(sys.argv[2], type=Task), meter))
    print(json.dumps({"trades": trades, **meter.read()}))


if __name__ == "__main__":
    main()
