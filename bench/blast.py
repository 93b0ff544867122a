"""
A websocket server that sends trade frames, made beforehand, as fast as they are taken: for bench/front_half.py.

    python -m bench.blast '<json of a Blast>'

Says its port in a line of JSON. Whoever connects and sends anything gets every frame once; then the connection stays
open until the other side ends it. The frames are those of Bitget's spot `trade` channel, shaped as the recordings are.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import sys
import time
from collections.abc import Iterator

import msgspec

from .firehose import TRADE_ID_EPOCH_MS

ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
CHUNK = 256 * 1024


class Blast(msgspec.Struct, frozen=True):
    """How many frames, how many trades in each, and of how many symbols."""

    frames: int
    trades_per_frame: int
    symbols: int = 10

    @property
    def names(self) -> list[str]:
        """The symbols, as the exchange spells them."""
        return [f"BENCH{number}USDT" for number in range(self.symbols)]

    @property
    def trades(self) -> int:
        """All of them."""
        return self.frames * self.trades_per_frame


def texts(blast: Blast) -> Iterator[bytes]:
    """The frames' texts; within one, trades are newest first."""
    rng = random.Random(7)
    now = round(time.time() * 1000)
    trade_id = (now - TRADE_ID_EPOCH_MS) << 22
    names = blast.names
    for _ in range(blast.frames):
        trades = []
        for _ in range(blast.trades_per_frame):
            trade_id += rng.randrange(1, 4000)
            price, size = f"{rng.uniform(80_000, 81_000):.2f}", f"{rng.uniform(0.0001, 2):.6f}"
            side = rng.choice(("buy", "sell"))
            trades.append({"ts": str(now), "price": price, "size": size, "side": side, "tradeId": str(trade_id)})
        about = {"instType": "SPOT", "channel": "trade", "instId": rng.choice(names)}
        yield msgspec.json.encode({"action": "update", "arg": about, "data": trades[::-1], "ts": now})


def framed(text: bytes) -> bytes:
    """One unmasked text frame (RFC 6455, section 5.2)."""
    size = len(text)
    head = bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")
    return head + text


async def serve(blast: Blast) -> None:
    """Make the frames, say where, send them to everybody who asks."""
    frames = b"".join(framed(text) for text in texts(blast))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in asked.split(b"\r\n")[1:] if line)
        key = next(
            line.split(b": ", 1)[1] for line in asked.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        assert lines[b"upgrade"] == b"websocket"
        proof = base64.b64encode(hashlib.sha1(key + ACCEPT).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
        )
        try:
            await reader.read(1)
            for start in range(0, len(frames), CHUNK):
                writer.write(frames[start : start + CHUNK])
                await writer.drain()
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass  # it has what it wanted
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=Blast)))
