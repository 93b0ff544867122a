"""
Order books of Bitget, from a frame or an answer: the exchange's text in, a BookFrame out.

Levels keep the exact text of the wire, because checksums are taken over it. Some answers have numbers instead of
text; those keep their digits too.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec
from msgspec import Raw

from ...market.instrument import Symbol
from ..contract import BookFrame
from .wire import WireBook, WireNumberBook

_text = msgspec.json.Decoder(WireBook, strict=False).decode
_numbers = msgspec.json.Decoder(WireNumberBook, strict=False).decode


def read(raw: bytes | Raw, symbol: Symbol, *, snapshot: bool, depth: int | None) -> BookFrame:
    """One book. Raises ValueError when it makes no sense."""
    try:
        book = _text(raw)
    except msgspec.ValidationError:
        numbers = _numbers(raw)
        book = WireBook(
            numbers.ts, _as_text(numbers.bids), _as_text(numbers.asks), numbers.seq, numbers.pseq, numbers.checksum
        )
    return BookFrame(
        symbol=symbol,
        snapshot=snapshot,
        bids=book.bids,
        asks=book.asks,
        seq=book.seq,
        prev_seq=book.pseq,
        checksum=book.checksum,
        ts_ms=book.ts,
        depth=depth,
    )


def _as_text(levels: list[tuple[Decimal, Decimal]]) -> list[tuple[str, str]]:
    return [(f"{price:f}", f"{size:f}") for price, size in levels]
