"""
Whether trades connect to those we hold. Pure.

Trade ids are not gap-free, so a hole cannot be seen in them. What can be known: a connection delivers without loss from
its snapshot on, and the snapshot holds the trades just before it. So after each break the first answer must contain the
newest trade we hold; then nothing is missing. Otherwise there is a gap, which pipeline/live/repair.py closes over HTTP. The
same is asked of every snapshot, because a connection that is replaced in peace may have missed something too.

Facts come from storage (the anchors, kept with the stream) and from feed/ (what broke); the gaps go into the same Redis
call as the first append after the break.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from ...market.instrument import Symbol
from ...market.trade import Arrived, AtRest, Follows, TradeBatch


class Gap(NamedTuple):
    """
    Trades may be missing between two ids that we hold (or are about to append): after `after_id`, before `before_id`.
    """

    symbol: Symbol
    after_id: int
    before_id: int


class Continuity:
    """
    Follows each symbol's trades through breaks. Starts with every symbol broken: nothing is known yet.

    `newest` is the highest id held per symbol when this begins (the anchors of a predecessor, else what is stored); a symbol
    without one is new, and what was before its first snapshot is no gap. A break that the ledger calls open (`meet`) is a gap
    whatever the next snapshot reaches back to: what it holds of it may not be all, and the ledger waits for a repair.
    """

    def __init__(self, symbols: Iterable[Symbol], *, newest: Mapping[Symbol, int]) -> None:
        self._broken = set(symbols)
        self._newest = dict(newest)
        self._ends: dict[Symbol, int] = {}  # of breaks that are open; it counts while we hold less than that

    @property
    def broken(self) -> Set[Symbol]:
        """The symbols whose next trades have to prove that nothing is missing."""
        return self._broken

    def broke(self, symbols: Iterable[Symbol]) -> None:
        """These symbols were cut off."""
        self._broken.update(symbols)

    def everything(self) -> set[Symbol]:
        """Every symbol known so far."""
        return self._broken | self._newest.keys()

    def mark(self) -> Follows:
        """Where it stands now; what comes next follows on this."""
        return Follows(dict(self._newest), set(self._broken))

    def restore(self, mark: Follows) -> None:
        """Back to where it stood: what came since was not stored."""
        self._newest, self._broken = dict(mark.newest), set(mark.broken)

    def follow(self, mark: Follows) -> None:
        """
        What comes next followed on `mark` when it arrived. A symbol of which we hold at least that much needs no proof;
        the others do.
        """
        newest = self._newest
        self._broken |= mark.broken
        for symbol, held in mark.newest.items():
            if symbol not in mark.broken and newest.get(symbol, -1) >= max(held, self._ends.get(symbol, held)):
                self._broken.discard(symbol)
            else:
                self._broken.add(symbol)

    def unknown_to(self, anchors: Iterable[Symbol]) -> set[Symbol]:
        """The symbols of which we hold trades and that are not among these."""
        return self._newest.keys() - set(anchors)

    def strangers(self, items: Iterable[Arrived]) -> set[Symbol]:
        """The symbols of these trades of which nothing was held before."""
        if not self._broken:  # nothing is new
            return set()
        return {one.symbol for one in items if isinstance(one, TradeBatch) and one.symbol not in self._newest}

    def meet(self, at_rest: Mapping[Symbol, AtRest]) -> None:
        """These are stored through there although the stream did not know them: what comes has to follow on that."""
        self._newest = {symbol: stored.through for symbol, stored in at_rest.items()} | self._newest
        self._note_ends(at_rest)

    def _note_ends(self, at_rest: Mapping[Symbol, AtRest]) -> None:
        self._ends |= {symbol: stored.open_until for symbol, stored in at_rest.items() if stored.open_until is not None}

    def rewind(self, newest: Mapping[Symbol, int], at_rest: Mapping[Symbol, AtRest]) -> None:
        """
        The store may have lost its last moments, or everything: believe these ids instead of our own, and prove everything
        again. What it does not know any more of a symbol begins at what lies `at_rest`, and never above what we held.
        """
        self._broken.update(self._newest)
        forgotten = {symbol: self._newest[symbol] for symbol in self.unknown_to(newest)}
        self._newest = dict(newest) | {
            symbol: min(held, at_rest[symbol].through) if symbol in at_rest else held
            for symbol, held in forgotten.items()
        }
        self._note_ends(at_rest)
        self._broken.update(newest)

    def admit(self, batch: TradeBatch) -> Gap | None:
        """Note trades that arrived (oldest first); the gap before them, if this batch is the proof that there is one."""
        symbol, trades = batch.symbol, batch.trades
        if batch.snapshot:  # a subscription begins: whoever delivered until then may have gone deaf before
            self._broken.add(symbol)
        if not trades:
            if batch.rejected:
                self._broken.add(symbol)
            return None
        held = self._newest.get(symbol)
        last = trades[-1].trade_id
        torn = held is not None and held < self._ends.get(symbol, held)
        if torn and last < self._ends[symbol]:
            return None  # an answer from within a break proves nothing about its end
        if held is None or last > held:
            self._newest[symbol] = last
        if batch.rejected:  # something of it was unreadable: refetch from what we held before to what comes next
            self._broken.add(symbol)
            return Gap(symbol, held, last) if held is not None and held < last else None
        if not self._broken or symbol not in self._broken:
            return None
        if held is not None and last < held:
            return None  # an answer from before what we hold proves nothing about what came after it
        self._broken.discard(symbol)
        if held is None:
            return None
        if torn:
            return Gap(symbol, held, last)
        if any(trade.trade_id == held for trade in trades):
            return None
        first = trades[0].trade_id
        # Ids on both sides of the one we hold, but not that one: this answer is not whole, so its last trade is the
        # first one we can be sure to hold on from.
        return Gap(symbol, held, first if first > held else last)
