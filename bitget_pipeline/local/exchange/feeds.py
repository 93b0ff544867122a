"""
What flows into the sockets: trades, candles, tickers and books of the symbols somebody subscribed to.

One task ticks every 50 ms of wall time; each watched symbol brings its trades up to the market clock, and every frame is
encoded once for all its readers. Nothing is generated for symbols nobody watches. A frame is bent or lost here when a
lever says so; the snapshot a subscriber gets ends exactly where its updates begin.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from ...telemetry import get_logger
from .bars import WS_GRANULARITIES, Granularity
from .instruments import INST_TYPES, MINUTE_MS, Instrument, Trade
from .rest_common import recent_trades
from .tickers import push_ticker
from .venue import Venue
from .wire import candle_row, encode, push_row

log = get_logger(__name__)

SNAPSHOT_TRADES = 30
SNAPSHOT_CANDLES = 500
_LONGEST_JUMP_MS = 10 * MINUTE_MS
_LONGEST_CATCH_UP = 60  # bars
_when = attrgetter("ts")
_DEPTHS = {"books1": 1, "books5": 5, "books15": 15}


class Channel(NamedTuple):
    """What one subscription names: our market word, the symbol, the channel as the wire spells it."""

    market: str
    symbol: str
    name: str


class Reader(Protocol):
    """A connection, as the feeds see it."""

    channels: set[Channel]
    deaf: dict[Channel, bool]
    """Subscriptions that carry no data, and whether that outlasts a new beginning."""

    def send(self, frame: str) -> None:
        """Queue a frame."""


class Feed:
    """One watched symbol: how far its trades have been told, and who listens to which channel."""

    def __init__(self, venue: Venue, instrument: Instrument, now_ms: int) -> None:
        self._venue = venue
        self.instrument = instrument
        self.readers: dict[str, dict[Reader, None]] = {}
        self.told_until = now_ms
        self.held: dict[str, str] = {}
        self.candles: dict[str, CandleState] = {}
        self.last = venue.last_price(instrument, now_ms)

    def advance(self, now_ms: int) -> list[Trade]:
        """The trades after what was told, up to now, oldest first."""
        fresh: list[Trade] = []
        bars = self._venue.bars
        if now_ms - self.told_until > _LONGEST_JUMP_MS:  # the clock was set forward: those trades were never live
            self.told_until = now_ms - _LONGEST_JUMP_MS
        for minute in range(self.told_until // MINUTE_MS, now_ms // MINUTE_MS + 1):
            trades = bars.minute_trades(self.instrument, minute)
            first, end = (bisect_right(trades, moment, key=_when) for moment in (self.told_until, now_ms))
            fresh.extend(trades[first:end])
        self.told_until = max(now_ms, self.told_until)
        if fresh:
            self.last = fresh[-1].price
        return fresh


class CandleState:
    """One candle channel of one symbol: which bar is open, and what was last pushed of it."""

    def __init__(self, granularity: Granularity, now_ms: int) -> None:
        self.granularity = granularity
        self.opened = granularity.open_of(now_ms // MINUTE_MS)
        self.pushed: list[str] | None = None
        self.pushed_at = 0.0
        self.dirty = False


class Feeds:
    """All watched symbols of one venue."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._feeds: dict[tuple[str, str], Feed] = {}
        self._next_ticker = 0.0
        self._next_book = 0.0
        self._prefetched = (0, 0)
        self.each_tick: list[Callable[[], None]] = []

    def subscribe(self, reader: Reader, channel: Channel, instrument: Instrument) -> None:
        """Begin a channel for a reader with its snapshot."""
        now = self._venue.clock.now_ms()
        feed = self._feeds.get((channel.market, channel.symbol))
        if feed is None:
            feed = self._feeds[channel.market, channel.symbol] = Feed(self._venue, instrument, now)
        self._venue.counters.subscribed[channel.name] += channel not in reader.channels
        reader.channels.add(channel)
        readers = feed.readers.setdefault(channel.name, {})
        readers[reader] = None
        if not reader.deaf.get(channel, True):
            del reader.deaf[channel]
        rows = self._snapshot(feed, channel.name)
        if rows and channel not in reader.deaf and not self._muted(feed, channel.name):
            frame = self._frame(feed, channel.name, "snapshot", rows)
            reader.send(frame)
            if channel.name == "trade":
                self._venue.counters.trades_sent[channel.market] += len(rows)

    def unsubscribe(self, reader: Reader, channel: Channel) -> None:
        """End a channel for a reader."""
        self._venue.counters.subscribed[channel.name] -= channel in reader.channels
        reader.channels.discard(channel)
        feed = self._feeds.get((channel.market, channel.symbol))
        if feed is None:
            return
        readers = feed.readers.get(channel.name, {})
        readers.pop(reader, None)
        if not readers:
            feed.readers.pop(channel.name, None)
            feed.candles.pop(channel.name, None)
        if not any(name.startswith("books") for name in feed.readers):
            self._venue.watched_books.discard(feed.instrument)
        if not feed.readers:
            del self._feeds[channel.market, channel.symbol]

    async def run(self) -> None:
        """Tick until cancelled."""
        pause = self._venue.config.tick_seconds
        while True:
            began = time.monotonic()
            try:
                self.tick()
            except Exception:
                log.exception("exchange.tick_failed")
            await asyncio.sleep(max(0.001, pause - (time.monotonic() - began)))

    def tick(self) -> None:
        """Bring every watched symbol up to the market clock and push what is due."""
        for act in self.each_tick:
            act()
        now, wall = self._venue.clock.now_ms(), time.monotonic()
        tickers_due = wall >= self._next_ticker
        books_due = wall >= self._next_book
        if tickers_due:
            self._next_ticker = wall + self._venue.config.ticker_seconds
        if books_due:
            self._next_book = wall + self._venue.config.book_seconds
        for feed in list(self._feeds.values()):
            trades = feed.advance(now)
            if trades and "trade" in feed.readers:
                self._push_trades(feed, trades)
            for name, state in feed.candles.items():
                self._push_candle(feed, name, state, bool(trades), now, wall)
            if tickers_due and "ticker" in feed.readers:
                self._push(feed, "ticker", "snapshot", [self._ticker_row(feed, now)])
            if books_due and feed.instrument in self._venue.watched_books:
                self._push_books(feed, now)
        self._prefetch(now)

    def _prefetch(self, now_ms: int) -> None:
        """In the second half of a minute make the next one's trades, one symbol a tick, so that no tick has to make all."""
        minute = now_ms // MINUTE_MS
        if now_ms % MINUTE_MS < MINUTE_MS // 3 or not self._feeds:
            return
        done = self._prefetched[1] if self._prefetched[0] == minute else 0
        feeds = list(self._feeds.values())
        for feed in feeds[done : done + 2]:
            self._venue.bars.minute_trades(feed.instrument, minute + 1)
        self._prefetched = (minute, done + 2)

    # -------------------------------------------------------------- snapshots

    def _snapshot(self, feed: Feed, name: str) -> list[Any]:
        instrument, until = feed.instrument, feed.told_until
        if name == "trade":
            trades = recent_trades(self._venue, instrument, until, limit=SNAPSHOT_TRADES)
            return [push_row(instrument, trade) for trade in trades]
        if name.startswith("candle"):
            granularity = WS_GRANULARITIES[name.removeprefix("candle")]
            feed.candles.setdefault(name, CandleState(granularity, until))
            limit = SNAPSHOT_CANDLES if granularity.minutes and granularity.minutes < 360 else 100
            bars = self._venue.bars.page(
                instrument, granularity, end_ms=until + 1, limit=limit, now_ms=until, closed=False
            )
            return [candle_row(instrument, bar, columns=8) for bar in bars]
        if name == "ticker":
            return [self._ticker_row(feed, self._venue.clock.now_ms())]
        watched = self._venue.is_book_watched(instrument)
        book = self._venue.books.fresh(instrument, feed.last, until, watched=watched)
        self._venue.watched_books.add(instrument)
        return [self._venue.books.snapshot(book, depth=_DEPTHS.get(name, 400))]

    def _ticker_row(self, feed: Feed, now_ms: int) -> dict[str, str]:
        figures = self._venue.tickers.figures(feed.instrument, now_ms)
        figures.last = feed.last
        figures.high, figures.low = max(figures.high, feed.last), min(figures.low, feed.last)
        return push_ticker(feed.instrument, figures, now_ms)

    # -------------------------------------------------------------- pushes

    def _push_trades(self, feed: Feed, trades: list[Trade]) -> None:
        instrument = feed.instrument
        place = self._place(feed, "trade")
        if self._venue.faults.strikes("lose_trades", **place):
            self._venue.counters.frames_lost += 1
            return
        rows = [push_row(instrument, trade) for trade in reversed(trades)]
        sent = self._push(feed, "trade", "update", rows)
        self._venue.counters.trades_sent[instrument.market] += len(rows) * sent

    def _push_candle(self, feed: Feed, name: str, state: CandleState, traded: bool, now: int, wall: float) -> None:
        bars, instrument = self._venue.bars, feed.instrument
        current = state.granularity.open_of(now // MINUTE_MS)
        if current - state.opened > _LONGEST_CATCH_UP * max(state.granularity.minutes, 1):
            state.opened, state.pushed, state.dirty = current, None, True  # the clock was set forward
        while state.opened < current:
            following = state.granularity.next_of(state.opened)
            final = bars.bar(instrument, state.opened, following, now)
            if final is not None:
                row = candle_row(instrument, final, columns=8)
                if row != state.pushed:
                    self._push(feed, name, "update", [row])
            state.opened, state.pushed, state.dirty, state.pushed_at = following, None, True, 0.0
        state.dirty = state.dirty or traded
        if state.dirty and wall - state.pushed_at >= 1.0:
            forming = bars.bar(instrument, state.opened, state.granularity.next_of(state.opened), now)
            state.dirty = False
            if forming is not None:
                state.pushed = candle_row(instrument, forming, columns=8)
                self._push(feed, name, "update", [state.pushed])
            state.pushed_at = time.monotonic()  # not `wall`: this tick may have taken long

    def _push_books(self, feed: Feed, now: int) -> None:
        books = self._venue.books
        book = books.book(feed.instrument, feed.last, now)
        book.step(feed.last, now)
        for name in list(feed.readers):
            if name in _DEPTHS:
                self._push(feed, name, "snapshot", [books.snapshot(book, depth=_DEPTHS[name])])
            elif name == "books" and not self._venue.faults.strikes("pseq_gap", **self._place(feed, name)):
                self._push(feed, name, "update", [books.update(book)])

    def _push(self, feed: Feed, name: str, action: str, rows: list[Any]) -> int:
        """Send a frame to all readers of a channel; how many there were."""
        readers = feed.readers.get(name)
        if not readers or self._muted(feed, name):
            return 0
        frames = [self._frame(feed, name, action, rows)]
        if name == "trade":
            frames = self._bent(feed, frames)
        if self._venue.faults.strikes("bad_frame", **self._place(feed, name)):
            frames = [frame[: len(frame) // 2] for frame in frames]
        channel = Channel(feed.instrument.market, feed.instrument.symbol, name)
        hearing = [reader for reader in readers if channel not in reader.deaf]
        for reader in hearing:
            for frame in frames:
                reader.send(frame)
        return len(hearing)

    def _bent(self, feed: Feed, frames: list[str]) -> list[str]:
        """Trade frames doubled or out of order, when a lever says so."""
        faults, place = self._venue.faults, self._place(feed, "trade")
        held = feed.held.pop("trade", None)
        if held is not None:
            frames = [*frames, held]
        elif faults.strikes("reorder", **place):
            feed.held["trade"] = frames[0]
            return []
        if faults.strikes("duplicate", **place):
            frames = [frame for frame in frames for _ in range(2)]
        return frames

    def _muted(self, feed: Feed, name: str) -> bool:
        return self._venue.faults.strikes("mute", **self._place(feed, name)) is not None

    def _place(self, feed: Feed, name: str) -> dict[str, str]:
        return {"market": feed.instrument.market, "symbol": feed.instrument.symbol, "channel": name}

    def _frame(self, feed: Feed, name: str, action: str, rows: list[Any]) -> str:
        instrument = feed.instrument
        arg = {"instType": INST_TYPES[instrument.market], "channel": name, "instId": instrument.symbol}
        body = {"action": action, "arg": arg, "data": rows, "ts": self._venue.clock.now_ms()}
        return encode(body).decode()
