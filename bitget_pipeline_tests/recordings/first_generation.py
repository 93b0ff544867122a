"""
A small reader of V1 recordings: their order books, whose frames carry checksums as V2 documents them and no sequence numbers,
and their trades and bars. V1's trades have no ids; they are numbered here in the order of their times.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from bitget_pipeline.market.candle import Candle
from bitget_pipeline.market.trade import Trade

from . import BITGET

Level = tuple[str, str]


@dataclass(frozen=True, slots=True)
class BookMessage:
    """One frame of V1's `books`, in the words of market/order_book.py."""

    snapshot: bool
    bids: list[Level]
    asks: list[Level]
    checksum: int
    ts_ms: int


def book_messages(name: str) -> list[BookMessage]:
    """The frames of a recording, in their order."""
    lines = gzip.decompress((BITGET / name).read_bytes()).splitlines()
    return [_message(msgspec.json.decode(line)) for line in lines]


def _message(frame: dict[str, Any]) -> BookMessage:
    (book,) = frame["data"]
    bids, asks = ([(price, size) for price, size in book[side]] for side in ("bids", "asks"))
    return BookMessage(frame["action"] == "snapshot", bids, asks, book["checksum"], int(book["ts"]))


@dataclass(slots=True)
class Session:
    """
    What a recording holds of one instrument: its trades, oldest first and numbered, and the exchange's closed minutes by open
    time (their quote volume is not sent). `since_ms` is the first trade's time: what was traded before is not in it.
    """

    trades: list[Trade] = field(default_factory=list)
    bars: dict[int, Candle] = field(default_factory=dict)

    @property
    def since_ms(self) -> int:
        return self.trades[0].ts_ms

    @property
    def covered(self) -> list[Candle]:
        """The closed minutes of which every trade is in the recording."""
        return [bar for open_ms, bar in sorted(self.bars.items()) if open_ms > self.since_ms]


def sessions(path: Path) -> dict[str, Session]:
    """
    The instruments of a raw recording, JSON lines with the frame as text in `raw`, plain or gzip; `sp:GOGUSDT` is spot.

    The last bar of each is left out: it was still open. A trade that comes in the snapshot and again is one trade.
    """
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    rows: dict[str, dict[tuple[int, float, float, bool], None]] = {}
    found: dict[str, Session] = {}
    for line in lines:
        frame = msgspec.json.decode(msgspec.json.decode(line)["raw"])
        of, data_rows = frame.get("arg") or {}, frame.get("data")
        if not data_rows or of.get("channel") not in ("trade", "candle1m"):
            continue
        name = f"{of['instType']}:{of['instId']}"
        session = found.setdefault(name, Session())
        if of["channel"] == "trade":
            # Newest first. Two trades of one millisecond with equal price, size and side would be taken for one.
            seen = rows.setdefault(name, {})
            for ts, price, size, side in reversed(data_rows):
                seen[int(ts), float(price), float(size), side == "buy"] = None
        else:
            bars = (Candle(int(row[0]), *map(float, row[1:6]), 0.0) for row in data_rows)
            session.bars.update((bar.open_ms, bar) for bar in bars)
    for name, session in found.items():
        numbers = count(1)
        session.trades = [Trade(next(numbers), *row) for row in sorted(rows.get(name, ()), key=itemgetter(0))]
        session.bars.pop(max(session.bars, default=0), None)
    return found
