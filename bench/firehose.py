"""
An exchange that only sends: order books and trades of many symbols, at a steady pace, over loopback.

    python -m bench.firehose --symbols 600 --messages 10000000 --rate 8000

Frames are made beforehand but for numbers, times and ids, and are written as raw websocket bytes, so that the sender is
never the slow one. It says its port in one line of JSON, waits until every stream is subscribed, sends so many messages,
then stays. Each book has 200 levels a side, and every change tells one more far behind them that is never taken back: whoever
keeps everything grows without end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from dataclasses import dataclass, field

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

TRADE_SHARE = 0.4
LEVELS = 200
TRADE_ID_EPOCH_MS = 1_435_725_920_677
"""Trade ids carry their time (reference section 3.10)."""


def framed(payload: bytes) -> bytes:
    """A text message as an unmasked websocket frame."""
    size = len(payload)
    if size < 126:
        return b"\x81" + bytes([size]) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def levels(pairs: list[tuple[int, int]]) -> str:
    """Prices in cents and sizes in thousandths, as the wire has them."""
    return ",".join(f'["{price / 100:.2f}","{size / 1000:.3f}"]' for price, size in pairs)


class Book:
    """One symbol's book: a snapshot, and a ring of changes that may be told for ever."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.seq = chance.randrange(1 << 40)
        self._far = 0
        self._at = 0
        middle = chance.randrange(100_000, 10_000_000)
        sizes = [chance.randrange(1, 10**6) for _ in range(64)]
        self._middle = middle
        bids = [(middle - 1 - 2 * rank, sizes[rank % 64]) for rank in range(LEVELS)]
        asks = [(middle + 1 + 2 * rank, sizes[-rank % 64]) for rank in range(LEVELS)]
        self._head = f'"arg":{{"instType":"USDT-FUTURES","channel":"books","instId":"{name}"}},"data":[{{"asks":['
        self._whole = (levels(asks), levels(bids))
        self._ring: list[tuple[bytes, bytes]] = []
        for _ in range(16):  # one tells levels between the others, new sizes and gone ones; the next takes that back
            rank, other = chance.randrange(1, 40), chance.randrange(40, LEVELS)
            near = [(bids[rank][0] - 1, 5_000), (bids[other][0], 0), (bids[rank][0], chance.randrange(1, 10**6))]
            far = [(asks[rank][0] + 1, 7_000), (asks[other][0], 0), (asks[rank][0], chance.randrange(1, 10**6))]
            self._ring.append(self._parts(far, near))
            self._ring.append(
                self._parts(
                    [(far[0][0], 0), asks[other], (asks[0][0], chance.randrange(1, 10**6))],
                    [(near[0][0], 0), bids[other], (bids[0][0], chance.randrange(1, 10**6))],
                )
            )

    def _parts(self, asks: list[tuple[int, int]], bids: list[tuple[int, int]]) -> tuple[bytes, bytes]:
        return (f'{{"action":"update",{self._head}{levels(asks)}'.encode(), f'],"bids":[{levels(bids)}'.encode())

    def snapshot(self, now_ms: int) -> bytes:
        """The whole book as it is now."""
        self._at = self._far = 0
        self.seq += 1
        asks, bids = self._whole
        end = f'],"ts":"{now_ms}","seq":{self.seq},"pseq":0}}],"ts":{now_ms}}}'
        return framed(f'{{"action":"snapshot",{self._head}{asks}],"bids":[{bids}{end}'.encode())

    def change(self, now_ms: int) -> bytes:
        """The next change."""
        asks, bids = self._ring[self._at]
        self._at = (self._at + 1) % len(self._ring)
        self._far = (self._far + 1) % 20_000
        before, self.seq = self.seq, self.seq + 17
        ask = (self._middle + 10 * LEVELS + self._far) / 100
        bid = max(1, self._middle - 10 * LEVELS - self._far) / 100
        return framed(
            b'%b,["%.2f","1.0"]%b,["%.2f","1.0"]],"ts":"%d","seq":%d,"pseq":%d}],"ts":%d}'
            % (asks, ask, bids, bid, now_ms, self.seq, before, now_ms)
        )


class Tape:
    """One symbol's trades."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self._head = f'"arg":{{"instType":"USDT-FUTURES","channel":"trade","instId":"{name}"}},"data":['.encode()
        self._count = 0
        self._prices = [b"%.2f" % (chance.randrange(100_000, 100_400) / 100) for _ in range(32)]

    def snapshot(self, now_ms: int) -> bytes:
        """Some trades of just before."""
        return self.told(b"snapshot", b"%d" % now_ms, now_ms, 5)

    def change(self, now_ms: int) -> bytes:
        """One trade, or two."""
        return self.told(b"update", b"%d" % now_ms, now_ms, 1 + self._count % 2)

    def told(self, action: bytes, stamp: bytes, ids_from_ms: int, trades: int) -> bytes:
        """A frame of so many trades with `stamp` for their time; ids carry `ids_from_ms`, and grow."""
        rows: list[bytes] = []
        for _ in range(trades):
            self._count += 1
            trade_id = ((ids_from_ms - TRADE_ID_EPOCH_MS) << 22) + self._count % (1 << 22)
            price = self._prices[self._count % 32]
            side = b"buy" if self._count % 3 else b"sell"
            rows.append(
                b'{"ts":"%b","price":"%b","size":"0.0%d","side":"%b","tradeId":"%d"}'
                % (stamp, price, 1 + self._count % 97, side, trade_id)
            )
        return framed(b'{"action":"%b",%b%b],"ts":%b}' % (action, self._head, b",".join(reversed(rows)), stamp))


@dataclass(slots=True)
class Streams:
    """What is sent, to whom."""

    made: dict[tuple[str, str], Book | Tape]
    readers: dict[tuple[str, str], asyncio.StreamWriter] = field(default_factory=dict)
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0

    @classmethod
    def of(cls, names: list[str]) -> Streams:
        """Books and trades of these symbols."""
        chance = random.Random(11)
        made: dict[tuple[str, str], Book | Tape] = {}
        for name in names:
            made["books", name] = Book(name, chance)
            made["trade", name] = Tape(name, chance)
        return cls(made)


def now_ms() -> int:
    """Unix ms."""
    return time.time_ns() // 1_000_000


async def serve(streams: Streams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: acknowledge, begin with a snapshot, answer pings."""
    protocol = ServerProtocol(max_size=1 << 20)
    try:
        while data := await reader.read(65_536):
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Request):
                    protocol.send_response(protocol.accept(event))
                elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    _answer(streams, writer, bytes(event.data).decode(), protocol)
            for chunk in protocol.data_to_send():
                if chunk:
                    writer.write(chunk)
    finally:
        for key in [key for key, found in streams.readers.items() if found is writer]:
            del streams.readers[key]
        writer.close()


def _answer(streams: Streams, writer: asyncio.StreamWriter, text: str, protocol: ServerProtocol) -> None:
    for chunk in protocol.data_to_send():  # the handshake before anything else
        writer.write(chunk)
    if text == "ping":
        writer.write(framed(b"pong"))
        return
    asked = json.loads(text)
    for about in asked["args"]:
        key = (about["channel"], about["instId"])
        writer.write(framed(json.dumps({"event": asked["op"], "arg": about}).encode()))
        if asked["op"] == "subscribe":
            writer.write(streams.made[key].snapshot(now_ms()))
            streams.readers[key] = writer
            if len(streams.readers) == len(streams.made):
                streams.complete.set()
        else:
            streams.readers.pop(key, None)


async def pour(streams: Streams, *, messages: int, rate: float) -> None:
    """Send so many messages at that pace, every symbol as many as any other, once everything is subscribed."""
    await streams.complete.wait()
    books = [key for key in streams.made if key[0] == "books"]
    trades = [key for key in streams.made if key[0] == "trade"]
    chance = random.Random(3)
    began, place = time.monotonic(), {"books": 0, "trade": 0}
    while streams.sent < messages:
        due = min(messages, int((time.monotonic() - began) * rate)) - streams.sent
        now, touched = now_ms(), set[asyncio.StreamWriter]()
        for _ in range(min(due, 2_000)):
            kind, keys = ("trade", trades) if chance.random() < TRADE_SHARE else ("books", books)
            key = keys[place[kind] % len(keys)]
            place[kind] += 1
            writer = streams.readers.get(key)
            if writer is not None:
                writer.write(streams.made[key].change(now))
                touched.add(writer)
            streams.sent += 1
        for writer in touched:
            await writer.drain()
        await asyncio.sleep(0.01)


async def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--symbols", type=int, default=600)
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--rate", type=float, default=8_000.0, help="messages a second")
    chosen = parser.parse_args()
    streams = Streams.of([f"C{number:03}USDT" for number in range(chosen.symbols)])
    server = await asyncio.start_server(lambda r, w: serve(streams, r, w), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    async with server:
        await pour(streams, messages=chosen.messages, rate=chosen.rate)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
