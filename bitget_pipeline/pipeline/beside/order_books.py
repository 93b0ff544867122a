"""
Order books of a live run: frames in, once a second the best levels into ClickHouse, and the newest book into Redis.

A companion of pipeline/live/run.py. Up to 15 levels come from `books15`, whose every frame is a whole book: nothing has to
follow on anything, so nothing can break. More levels come from `books`, a snapshot and its changes, which market/order_book.py
maintains and proves; a book that does not hold is discarded and its subscription begun anew.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import BookBroken, DiskFull, StoreUnavailable
from ...exchange.contract import BookFrame, Channel, Frame, Subscription
from ...guard.backoff import Backoff
from ...market.instrument import Symbol
from ...market.order_book import BookSnapshot, whole
from ...storage.latest import Latest, LatestBook
from ...storage.warehouse import Warehouse
from ...telemetry import count, get_logger
from ..live.companion import Writing
from .held_book import HeldBook
from .waiting import Waiting

log = get_logger(__name__)

FIXED_LEVELS = 15
"""What `books15` holds; the exchange has no `books50` (reference 6.6)."""
TELL_EVERY = 60.0
"""Seconds between two lines about one symbol in the log."""
AT_A_TIME = 256
"""Books sampled between two looks at the sockets: some 15 ms. Under load a look at all sockets takes much longer than that."""


@dataclass(frozen=True, slots=True)
class BookRules:
    """
    How many levels a side, and when they are written. Times in seconds.

    An insert costs 10 to 25 ms whatever its size (measured), so rows are gathered for `write_every`. `renew_within`: a
    book in Redis that did not change is written again, so that it does not vanish there. `ask_again` spaces the requests
    to begin one subscription anew: each costs two of the connection's 240 frames an hour.
    """

    levels: int = FIXED_LEVELS
    sample_every: float = 1.0
    write_every: float = 5.0
    most_rows: int = 5_000
    most_waiting: int = 20_000
    renew_within: float = 10.0
    ask_again: Backoff = field(default_factory=lambda: Backoff(base=4.0, ceiling=300.0))
    forgive_after: float = 600.0
    store_retries: Backoff = field(default_factory=lambda: Backoff(base=0.5, ceiling=10.0))

    @property
    def channel(self) -> Channel:
        """The channel that has enough levels and the least that can go wrong."""
        return Channel.BOOKS_15 if self.levels <= FIXED_LEVELS else Channel.BOOKS


class OrderBooks:
    """The companion. `clock` is market time (Unix ms), `steady` any clock that only goes forward (seconds)."""

    name = "order_books"
    frames: tuple[type, ...] = (BookFrame,)

    def __init__(
        self,
        symbols: Sequence[Symbol],
        latest: Latest,
        warehouse: Warehouse,
        *,
        clock: Callable[[], int],
        rules: BookRules | None = None,
        steady: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.rules = rules or BookRules()
        self.channels: tuple[Channel, ...] = (self.rules.channel,)
        self._depth = FIXED_LEVELS if self.rules.channel is Channel.BOOKS_15 else None
        self._held = {symbol: HeldBook(followed=self._depth is None) for symbol in symbols}
        self._latest = latest
        self._warehouse = warehouse
        self._clock = clock
        self._steady = steady
        self._rng = rng or random.Random()
        self._writing: Writing | None = None
        self._waiting = Waiting(
            "books",
            self._store,
            most=self.rules.most_waiting,
            most_at_once=self.rules.most_rows,
            pause=lambda failures: self.rules.store_retries.delay(failures, self._rng),
        )
        self.set_aside = 0
        self.foreign = 0
        self.repeated = 0
        self.begun_anew = 0
        self.quarantine: deque[tuple[Symbol, str]] = deque(maxlen=50)
        self._redis_trouble = ""
        self._to_show: dict[Symbol, LatestBook] = {}
        self._sampled = asyncio.Event()

    # ------------------------------------------------------------ what the sockets bring

    def frame(self, frame: Frame) -> None:
        """A book or a change of one."""
        assert isinstance(frame, BookFrame), "it asked for no other frames"
        held = self._held.get(frame.symbol)
        if held is None or frame.depth != self._depth:
            self.foreign += 1
            count("books.foreign")
            return
        try:
            fresh = held.take(frame, now_ms=self._clock())
        except BookBroken as error:
            self._put_aside(frame.symbol, held, error, frame)
        else:
            self.repeated += not fresh

    def _put_aside(self, symbol: Symbol, held: HeldBook, error: BookBroken, shown: object) -> None:
        """Count it; once a minute and symbol, say so and keep what it was where all frames are that make no sense."""
        self.set_aside += 1
        count("books.set_aside")
        self.quarantine.append((symbol, error.what))
        now = self._steady()
        if now >= held.told_at + TELL_EVERY:
            held.told_at = now
            log.warning("books.set_aside", symbol=str(symbol), problem=error.what)
            if self._writing is not None:
                self._writing.set_aside(f"a book of {symbol}: {error.what}", repr(shown))

    def lost(self, subscriptions: Sequence[Subscription]) -> None:
        """Nobody carries these any more, or something of theirs was missed: not to be shown until proven whole."""
        for subscription in subscriptions:
            held = self._held.get(subscription.symbol)
            if held is None or subscription.channel not in self.channels:
                continue
            held.doubt()

    def selected(self, symbols: Sequence[Symbol]) -> None:
        """Follow the books of these from now on; what is known of the others is forgotten."""
        self._held = {symbol: self._held.get(symbol) or HeldBook(followed=self._depth is None) for symbol in symbols}

    # ------------------------------------------------------------ what is written

    async def ahead(self) -> None:
        """Sample every second from now on; what is sampled waits until `run` may write."""
        while self._writing is None:
            await asyncio.sleep(self._until_next())
            if self._writing is None:
                rows, _ = await self._take()
                self._waiting.add(rows)

    async def run(self, writing: Writing, symbols: Sequence[Symbol]) -> None:
        """Sample every second, write every few, begin anew what is broken."""
        self._writing = writing
        beside = [asyncio.create_task(work) for work in (self._waiting.run(every=self.rules.write_every), self._show())]
        try:
            while not any(task.done() for task in beside):
                await asyncio.sleep(self._until_next())
                self._begin_anew()
                await self._sample()
            for task in beside:
                if task.done():
                    task.result()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def drain(self) -> None:
        """Write what still waits, once."""
        await self._waiting.drain()

    async def _sample(self) -> None:
        rows, shared = await self._take()
        self._waiting.add(rows)
        if shared:
            self._to_show |= shared
            self._sampled.set()

    async def _show(self) -> None:
        """Show in Redis what was sampled, the newest of each: beside the sampling, so that a Redis that hangs costs no row."""
        while True:
            await self._sampled.wait()
            self._sampled.clear()
            sampled, self._to_show = self._to_show, {}
            trusted = {symbol for symbol, held in self._held.items() if held.state() is not None}
            try:
                await self._latest.put_books({symbol: book for symbol, book in sampled.items() if symbol in trusted})
            except (StoreUnavailable, DiskFull) as error:
                self._redis_trouble = str(error)
                count("books.redis_failures")
            else:
                self._redis_trouble = ""

    def _until_next(self) -> float:
        """Seconds to the next full one of market time."""
        every = round(self.rules.sample_every * 1000)
        return (every - self._clock() % every) / 1000

    def _store(self, rows: Sequence[BookSnapshot]) -> int:
        assert self._writing is not None, "rows are sampled by `run` alone"
        return self._warehouse.store_books(rows, source=self._writing.source, run_id=self._writing.run_id)

    async def _take(self) -> tuple[list[BookSnapshot], dict[Symbol, LatestBook]]:
        """Of all books that can be trusted: those that changed, as rows; and those to be shown in Redis."""
        rows: list[BookSnapshot] = []
        shared: dict[Symbol, LatestBook] = {}
        for number, (symbol, held) in enumerate(self._held.items()):
            if number % AT_A_TIME == AT_A_TIME - 1:
                await asyncio.sleep(0)  # the sockets come first
            state, now = held.state(), self._steady()
            if state is None or (state == held.taken and now - held.shared_at < self.rules.renew_within):
                continue
            seq, ts_ms = state
            bids, asks = held.levels(self.rules.levels)
            if state != held.taken:
                held.taken = state
                try:
                    row = whole(symbol, bids, asks, ts_ms=ts_ms, seq=seq, received_ms=held.received_ms)
                except BookBroken as error:
                    self._put_aside(symbol, held, error, (bids, asks))
                    held.forget()
                    continue
                if not bids and not asks:
                    continue
                rows.append(row)
            held.shared_at = now
            shared[symbol] = LatestBook(ts_ms, seq or 0, self._source(), held.received_ms, bids, asks)
        return rows, shared

    def _source(self) -> str:
        return self._writing.source if self._writing is not None else ""

    def _begin_anew(self) -> None:
        """Ask for a new snapshot of every broken book, less and less often while it stays broken."""
        assert self._writing is not None, "called by `run` alone"
        now = self._steady()
        for symbol, held in self._held.items():
            if not held.broken:
                continue
            since = now - held.asked_at
            if held.asked and since > self.rules.forgive_after:
                held.asked = 0
            if held.asked and since < self.rules.ask_again.delay(held.asked, self._rng):
                continue
            held.asked += 1
            held.asked_at = now
            if self._writing.again(Subscription(symbol, self.rules.channel)):
                self.begun_anew += 1
                count("books.begun_anew")
                log.info("books.begun_anew", symbol=str(symbol), because=held.broken, times=held.asked)

    # ------------------------------------------------------------ how it goes

    def published(self) -> dict[str, Any]:
        """Books that can be trusted, those that are broken, rows stored and waiting, and what was set aside."""
        states = [held.state() for held in self._held.values()]
        last = f"{self.quarantine[-1][0]}: {self.quarantine[-1][1]}" if self.quarantine else ""
        waiting = self._waiting.published()
        return waiting | {
            "channel": self.rules.channel.value,
            "symbols": len(self._held),
            "usable": sum(state is not None for state in states),
            "broken": sum(bool(held.broken) for held in self._held.values()),
            "levels_kept": sum(held.kept() for held in self._held.values()),
            "begun_anew": self.begun_anew,
            "set_aside": self.set_aside,
            "foreign": self.foreign,
            "repeated": self.repeated,
            "last_set_aside": last,
            "trouble": waiting["trouble"] or self._redis_trouble,
        }
