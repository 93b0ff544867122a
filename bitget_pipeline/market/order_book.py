"""
An order book kept up to date from a snapshot and changes. Pure.

Fed by pipeline/beside/order_books.py with the exchange's own text of prices and sizes; it proves after every change that
nothing is missing (sequence numbers, checksum, bids below asks) and refuses to be used when something is. Facts:
reference section 6.6.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from zlib import crc32

from ..errors import BookBroken
from .instrument import Symbol

Level = tuple[str, str]
"""Price and size, as the exchange spells them."""

MOST_LEVELS = 500
"""
Levels kept on each side. The exchange's own window is 400 by its documentation, 500 at most as seen: what lies behind it is
no longer told, and comes again when it enters the window.
"""

CHECKED_LEVELS = 25
"""Levels of each side that a checksum covers."""


@dataclass(frozen=True, slots=True)
class BookSnapshot:
    """
    The best levels of a book at one moment. Bids fall, asks rise; prices in quote units, sizes in base units.

    `ts_ms` is the exchange's time, `received_ms` ours (Unix ms UTC); `seq` is 0 where the exchange numbers nothing. The
    numbers lie in arrays, because many snapshots may have to wait for a store.
    """

    symbol: Symbol
    ts_ms: int
    seq: int
    bid_prices: array[float]
    bid_sizes: array[float]
    ask_prices: array[float]
    ask_sizes: array[float]
    received_ms: int


class _Side:
    """
    One side, best level first: `keys` rise (a bid's key is its price below zero), beside each its level as `price:size`.

    That is 80 bytes a level instead of 240 for tuples and lists, and hundreds of books have up to a thousand levels each.
    """

    __slots__ = ("_sign", "keys", "texts")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self.keys = array("d")
        self.texts: list[str] = []

    def clear(self) -> None:
        self.keys = array("d")
        self.texts.clear()

    def change(self, changes: Iterable[Level], *, most: int) -> None:
        """Sizes replace what was there, zero deletes; what falls behind the worst of `most` levels is forgotten."""
        keys, texts, sign = self.keys, self.texts, self._sign
        for level in changes:
            price, size = numbers(level)
            key = sign * price
            at = bisect_left(keys, key)
            known = at < len(keys) and keys[at] == key
            if size == 0:
                if known:
                    del keys[at], texts[at]
            elif known:
                texts[at] = f"{level[0]}:{level[1]}"
            else:
                keys.insert(at, key)
                texts.insert(at, f"{level[0]}:{level[1]}")
        if len(keys) > most:
            del keys[most:], texts[most:]

    def top(self, count: int) -> list[Level]:
        """The best levels, in the exchange's own text."""
        found: list[Level] = []
        for text in self.texts[:count]:
            price, _, size = text.partition(":")
            found.append((price, size))
        return found


class OrderBook:
    """
    One instrument's book. `intact` says whether it may be used; `snapshot` makes it so.

    A frame that cannot be true, or that does not follow, raises BookBroken and leaves the book discarded: ask the exchange
    for a new snapshot then.
    """

    __slots__ = ("_asks", "_bids", "_fresh", "_most", "_unproven", "intact", "seq", "ts_ms")

    def __init__(self, *, most_levels: int = MOST_LEVELS) -> None:
        self._bids = _Side(-1)
        self._asks = _Side(1)
        self._most = most_levels
        self._fresh = False  # nothing but the snapshot was applied yet
        self._unproven = False
        self.intact = False
        self.seq: int | None = None
        self.ts_ms = 0

    def __len__(self) -> int:
        """How many levels are kept, of both sides."""
        return len(self._bids.keys) + len(self._asks.keys)

    def snapshot(
        self,
        bids: Sequence[Level],
        asks: Sequence[Level],
        *,
        ts_ms: int,
        seq: int | None = None,
        checksum: int | None = None,
    ) -> bool:
        """
        Begin anew from a whole book. False when it is older than the book at hand, as the slower one of two connections
        brings it while one replaces the other: then it changes nothing.
        """
        if self.usable and seq is not None and self.seq is not None and seq <= self.seq and ts_ms <= self.ts_ms:
            return False
        self._discarded()
        try:
            _in_order(bids, asks)
            self._bids.change(bids, most=self._most)
            self._asks.change(asks, most=self._most)
            self._proven(checksum)
        except BookBroken:
            self._discarded()
            raise
        self.intact, self._fresh, self._unproven = True, True, False
        self.seq, self.ts_ms = seq, ts_ms
        return True

    def change(
        self,
        bids: Sequence[Level],
        asks: Sequence[Level],
        *,
        ts_ms: int,
        seq: int | None = None,
        prev_seq: int | None = None,
        checksum: int | None = None,
    ) -> bool:
        """
        Apply a change. False when it was applied already (two connections tell the same while one replaces the other).

        In order is a change whose `prev_seq` is the number of the one before; the first after a snapshot may also begin
        before it. Without numbers only the checksum can tell.
        """
        if not self.intact:
            raise BookBroken("a change without a snapshot before it")
        try:
            if seq is not None and self.seq is not None:
                if seq <= self.seq and ts_ms <= self.ts_ms:
                    return False
                self._follows(seq, prev_seq)
            elif self._unproven:
                raise BookBroken("something was missed, and its changes carry no numbers")
            self._bids.change(bids, most=self._most)
            self._asks.change(asks, most=self._most)
            self._proven(checksum)
        except BookBroken:
            self._discarded()
            raise
        self._fresh = self._unproven = False
        self.seq = self.seq if seq is None else seq
        self.ts_ms = ts_ms
        return True

    def doubt(self) -> None:
        """Something may have been missed: the book is usable again once a change in order proves the opposite."""
        self._unproven = True

    @property
    def usable(self) -> bool:
        """Whether it is whole as far as anybody knows."""
        return self.intact and not self._unproven

    def top(self, levels: int) -> tuple[list[Level], list[Level]]:
        """The best bids and asks, best first, in the exchange's own text."""
        return self._bids.top(levels), self._asks.top(levels)

    def checksum(self) -> int:
        """The checksum the exchange would send of it."""
        return _crc(zip_longest(self._bids.texts[:CHECKED_LEVELS], self._asks.texts[:CHECKED_LEVELS]))

    def _follows(self, seq: int, prev_seq: int | None) -> None:
        known = self.seq
        assert known is not None, "asked only of numbered books"
        if seq <= known:
            raise BookBroken(f"the sequence went back from {known} to {seq}")
        if prev_seq is None:
            return  # numbered, but not linked: the checksum and the next snapshot have to do
        if prev_seq != known and not (self._fresh and 0 < prev_seq < known):
            raise BookBroken(f"a change that follows {prev_seq}, while the last one was {known}")

    def _proven(self, checksum: int | None) -> None:
        bids, asks = self._bids.keys, self._asks.keys
        if bids and asks and -bids[0] >= asks[0]:
            raise BookBroken(f"crossed: a bid at {-bids[0]:g}, an ask at {asks[0]:g}")
        if checksum and checksum != (own := self.checksum()):
            raise BookBroken(f"its checksum is {own}, the exchange's {checksum}")

    def _discarded(self) -> None:
        self.intact, self.seq, self.ts_ms = False, None, 0
        self._bids.clear()
        self._asks.clear()


def numbers(level: Level) -> tuple[float, float]:
    """Price and size as numbers. Raises BookBroken when they cannot be true."""
    try:
        price, size = float(level[0]), float(level[1])
    except ValueError:
        raise BookBroken(f"a level of {level[0]!r} and {level[1]!r}") from None
    if not (0 < price < 1e308 and 0 <= size < 1e308):  # refuses NaN too
        raise BookBroken(f"a level of {level[0]} and {level[1]} cannot be")
    return price, size


def _in_order(bids: Sequence[Level], asks: Sequence[Level]) -> None:
    """Raise BookBroken unless bids fall and asks rise, each price once."""
    for word, rising in (("bids", [-numbers(level)[0] for level in bids]), ("asks", [numbers(one)[0] for one in asks])):
        if any(before >= after for before, after in pairwise(rising)):
            raise BookBroken(f"{word} that are not in order")


def whole(
    symbol: Symbol, bids: Sequence[Level], asks: Sequence[Level], *, ts_ms: int, seq: int | None, received_ms: int
) -> BookSnapshot:
    """These levels as numbers. Raises BookBroken when they cannot be a book."""
    bid_prices, bid_sizes = _columns(bids)
    ask_prices, ask_sizes = _columns(asks)
    if any(before <= after for before, after in pairwise(bid_prices)):
        raise BookBroken("bids that are not in order")
    if any(before >= after for before, after in pairwise(ask_prices)):
        raise BookBroken("asks that are not in order")
    if not all(bid_sizes) or not all(ask_sizes):
        raise BookBroken("a level of size zero")
    if bid_prices and ask_prices and bid_prices[0] >= ask_prices[0]:
        raise BookBroken(f"crossed: a bid at {bid_prices[0]:g}, an ask at {ask_prices[0]:g}")
    return BookSnapshot(symbol, ts_ms, seq or 0, bid_prices, bid_sizes, ask_prices, ask_sizes, received_ms)


def checksum_of(bids: Sequence[Level], asks: Sequence[Level]) -> int:
    """
    The exchange's checksum over the best 25 levels: bid and ask in turn, CRC32 over the original text, as a signed 32-bit
    number.
    """
    bought = [f"{price}:{size}" for price, size in bids[:CHECKED_LEVELS]]
    return _crc(zip_longest(bought, [f"{price}:{size}" for price, size in asks[:CHECKED_LEVELS]]))


def _crc(pairs: Iterable[tuple[str | None, str | None]]) -> int:
    value = crc32(":".join(text for pair in pairs for text in pair if text is not None).encode())
    return value - (1 << 32) if value >= 1 << 31 else value


def _columns(levels: Sequence[Level]) -> tuple[array[float], array[float]]:
    pairs = [numbers(level) for level in levels]
    return array("d", [price for price, _ in pairs]), array("d", [size for _, size in pairs])
