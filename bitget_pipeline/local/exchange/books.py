"""
Order books around the last price.

Not part of the ground truth: levels are drawn from a seeded generator while somebody looks. Within one server REST and
sockets show the same book, `seq` rises, and every update's `pseq` is the previous `seq`. Prices and sizes are integers.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

from .instruments import Instrument
from .wire import padded, text

DEPTH = 200


class Book:
    """One instrument's book; `step` moves it and remembers what changed."""

    def __init__(self, instrument: Instrument, last: int, *, seed: int) -> None:
        self.instrument = instrument
        self._chance = random.Random(seed ^ instrument.own_seed)
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.seq = 427_583_461_144 + self._chance.randrange(1 << 30)
        self.pseq = 0
        self.ts = 0
        self.changed_bids: list[tuple[int, int]] = []
        self.changed_asks: list[tuple[int, int]] = []
        self.step(last, 0)

    def step(self, last: int, now_ms: int) -> None:
        """Move to the last price, change a few levels, and take the next sequence number."""
        tick = self.instrument.tick
        best_bid = max(tick, last - tick) if self._chance.random() < 0.5 else last
        best_ask = max(best_bid, last - tick) + tick
        before = (dict(self.bids), dict(self.asks))
        for price in [p for p in self.bids if p > best_bid or p < best_bid - 3 * DEPTH * tick]:
            del self.bids[price]
        for price in [p for p in self.asks if p < best_ask or p > best_ask + 3 * DEPTH * tick]:
            del self.asks[price]
        self._fill(self.bids, best_bid, -tick)
        self._fill(self.asks, best_ask, tick)
        for side in (self.bids, self.asks):
            for price in self._chance.sample(sorted(side), k=min(4, len(side))):
                side[price] = self._size()
        self.changed_bids = sorted(_difference(before[0], self.bids), reverse=True)
        self.changed_asks = sorted(_difference(before[1], self.asks))
        self.pseq, self.seq = self.seq, self.seq + 1 + self._chance.randrange(5_000)
        self.ts = now_ms

    def top(self, depth: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Best bids (descending) and asks (ascending), as (price, size)."""
        return sorted(self.bids.items(), reverse=True)[:depth], sorted(self.asks.items())[:depth]

    def rows(self, levels: list[tuple[int, int]]) -> list[list[str]]:
        """Levels as the socket spells them: with trailing zeros; size zero stays `0`."""
        p, q = self.instrument.price_decimals, self.instrument.size_decimals
        return [[padded(price, p), padded(size, q) if size else "0"] for price, size in levels]

    def checksum(self) -> int:
        """CRC32 over the best 25 levels, bid and ask in turn, as a signed 32-bit integer (reference 6.6)."""
        bids, asks = (self.rows(side) for side in self.top(25))
        words: list[str] = []
        for i in range(25):
            for side in (bids, asks):
                if i < len(side):
                    words.extend(side[i])
        value = zlib.crc32(":".join(words).encode())
        return value - (1 << 32) if value >= 1 << 31 else value

    def _size(self) -> int:
        mean = max(2.0, self.instrument.mean_size)
        return max(1, int(mean * 2.0 * self._chance.expovariate(1.0)))

    def _fill(self, side: dict[int, int], best: int, step: int) -> None:
        if best > 0 and best not in side:
            side[best] = self._size()
        farthest = (min if step < 0 else max)(side, default=best)
        while len(side) < DEPTH:
            farthest += step * self._chance.choice((1, 1, 2, 3))
            if farthest <= 0:
                return
            side[farthest] = self._size()


class Books:
    """The books somebody has looked at."""

    def __init__(self, *, seed: int, checksum: bool) -> None:
        self._seed = seed
        self._checksum = checksum
        self._books: dict[Instrument, Book] = {}

    def book(self, instrument: Instrument, last: int, now_ms: int) -> Book:
        """The book, made on first sight."""
        book = self._books.get(instrument)
        if book is None:
            book = self._books[instrument] = Book(instrument, last, seed=self._seed)
            book.ts = now_ms
        return book

    def fresh(self, instrument: Instrument, last: int, now_ms: int, *, watched: bool) -> Book:
        """The book for a REST answer: moved to now, unless a socket's feed already moves it (its deltas must not skip)."""
        book = self.book(instrument, last, now_ms)
        if not watched:
            book.step(last, now_ms)
        return book

    def snapshot(self, book: Book, *, depth: int) -> dict[str, Any]:
        """The data object of a snapshot."""
        bids, asks = book.top(depth)
        data = {"asks": book.rows(asks), "bids": book.rows(bids), "ts": str(book.ts), "seq": book.seq, "pseq": 0}
        if self._checksum:
            data["checksum"] = 0
        return data

    def update(self, book: Book) -> dict[str, Any]:
        """The data object of an update: the levels the last step changed."""
        data = {
            "asks": book.rows(book.changed_asks),
            "bids": book.rows(book.changed_bids),
            "ts": str(book.ts),
            "seq": book.seq,
            "pseq": book.pseq,
        }
        if self._checksum:
            data["checksum"] = book.checksum()
        return data

    @staticmethod
    def rest_rows(book: Book, levels: list[tuple[int, int]]) -> list[list[str]]:
        """Levels as REST spells them: prices without trailing zeros, sizes padded to sixteen decimals."""
        p, q = book.instrument.price_decimals, book.instrument.size_decimals
        return [[text(price, p), padded(size * 10 ** (16 - q), 16)] for price, size in levels]


def _difference(before: dict[int, int], after: dict[int, int]) -> list[tuple[int, int]]:
    gone = [(price, 0) for price in before if price not in after]
    return gone + [(price, size) for price, size in after.items() if before.get(price) != size]
