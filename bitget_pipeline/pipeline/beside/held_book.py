"""
What a live run holds of one symbol's order book: the newest whole frame, or a book followed change by change. Pure.

Fed with frames by pipeline/beside/order_books.py, which samples it, and begins its subscription anew while it is `broken`.
"""

from __future__ import annotations

from ...errors import BookBroken
from ...exchange.contract import BookFrame
from ...market.order_book import Level, OrderBook

AHEAD_MS = 86_400_000
BEHIND_MS = 7 * 86_400_000
"""A book dated further from now than this is noise; an older one would be past its table's retention at once."""
GREATEST_SEQ = 2**63


class HeldBook:
    """
    One symbol's book as far as it is known. `broken` says why it needs a new snapshot, empty while it needs none.

    The other fields are the companion's notes: when and as what it was sampled, shown, asked for and told of.
    """

    __slots__ = (
        "_book",
        "_doubted",
        "_frame",
        "asked",
        "asked_at",
        "broken",
        "received_ms",
        "shared_at",
        "taken",
        "told_at",
    )

    def __init__(self, *, followed: bool) -> None:
        self._book = OrderBook() if followed else None  # None: every frame is a whole book
        self._frame: BookFrame | None = None  # the newest of them
        self._doubted = False  # nobody carries it, or something was missed
        self.broken = ""
        self.received_ms = 0
        self.asked = 0  # how often in a row it was begun anew
        self.asked_at = 0.0
        self.taken: tuple[int | None, int] | None = None  # number and time of the last sample
        self.shared_at = 0.0
        self.told_at = float("-inf")

    def take(self, frame: BookFrame, *, now_ms: int) -> bool:
        """
        A frame came. False when it told nothing new: the slower of two connections brings everything once more. Raises
        BookBroken when it cannot be, or does not follow.
        """
        try:
            _possible(frame, now_ms=now_ms)
        except BookBroken:
            if self._book is not None:  # a change was missed
                self._book.doubt()
            raise
        fresh = self._replace(frame) if self._book is None else self._follow(self._book, frame)
        self.received_ms = now_ms
        return fresh

    def _replace(self, frame: BookFrame) -> bool:
        """A whole book; what is in it is looked at when it is sampled."""
        if self._frame is not None and not self._doubted and _older(frame, self._frame):
            return False
        self._frame = frame
        self._doubted = False
        return True

    def _follow(self, book: OrderBook, frame: BookFrame) -> bool:
        if not frame.snapshot and not book.intact:  # what still comes of a stream that broke
            self.broken = self.broken or "changes without a snapshot"
            return True
        try:
            if frame.snapshot:
                fresh = book.snapshot(frame.bids, frame.asks, ts_ms=frame.ts_ms, seq=frame.seq, checksum=frame.checksum)
                self.broken = ""
                return fresh
            return book.change(
                frame.bids,
                frame.asks,
                ts_ms=frame.ts_ms,
                seq=frame.seq,
                prev_seq=frame.prev_seq,
                checksum=frame.checksum,
            )
        except BookBroken as error:
            self.broken = error.what
            raise

    def doubt(self) -> None:
        """Nobody carries it any more, or something was missed: not to be shown until it is proven whole."""
        self._doubted = True
        if self._book is not None:
            self._book.doubt()

    def forget(self) -> None:
        """What was sampled cannot be a book: wait for the next frame."""
        self._frame = None

    def state(self) -> tuple[int | None, int] | None:
        """Number and time of the book at hand; None when there is none to be trusted."""
        if self._book is not None:
            return (self._book.seq, self._book.ts_ms) if self._book.usable else None
        return None if self._frame is None or self._doubted else (self._frame.seq, self._frame.ts_ms)

    def levels(self, count: int) -> tuple[list[Level], list[Level]]:
        """The best levels of each side; asked only while there is a state."""
        if self._book is not None:
            return self._book.top(count)
        assert self._frame is not None, "there is no book"
        return self._frame.bids[:count], self._frame.asks[:count]

    def kept(self) -> int:
        """How many levels of a followed book are kept, of both sides."""
        return 0 if self._book is None else len(self._book)


def _older(frame: BookFrame, known: BookFrame) -> bool:
    """Whether it is not newer than the one known, by number and by time. Without numbers nobody can tell."""
    return frame.seq is not None and known.seq is not None and frame.seq <= known.seq and frame.ts_ms <= known.ts_ms


def _possible(frame: BookFrame, *, now_ms: int) -> None:
    """Raise BookBroken when time or number cannot be."""
    if not now_ms - BEHIND_MS < frame.ts_ms < now_ms + AHEAD_MS:
        raise BookBroken(f"a book of {frame.ts_ms} ms, while it is {now_ms}")
    for number in (frame.seq, frame.prev_seq):
        if number is not None and not 0 <= number < GREATEST_SEQ:
            raise BookBroken(f"the sequence number {number} cannot be")
