"""
A small reader of V1 recordings: their order books, whose frames carry checksums as V2 documents them and no sequence numbers.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Any

import msgspec

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
