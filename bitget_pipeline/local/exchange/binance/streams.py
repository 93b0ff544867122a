"""
What flows into the streams of the Binance side: trades, joined trades and bars of the symbols somebody listens to.

`tick` brings every watched symbol up to the market clock. Trades go out one by one; a bar is pushed every two seconds
(250 ms on futures) while it changes, and once more, final, when it closes. Nothing is sent on subscribing.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

from ..bars import Granularity
from ..instruments import MINUTE_MS, Instrument
from ..wire import encode
from .endpoints import INTERVALS
from .market import joined_of
from .side import Side
from .wire import joined_event, kline_event, trade_event

PUSH_SECONDS = {"spot": 2.0, "usdtm": 0.25}
_LONGEST_JUMP_MS = 10 * MINUTE_MS


class Stream(NamedTuple):
    """One stream: the market, the symbol, and its kind as the wire spells it."""

    market: str
    symbol: str
    kind: str

    @property
    def name(self) -> str:
        """As it stands in subscriptions and wrapped frames."""
        return f"{''.join(c.lower() if c.isascii() else c for c in self.symbol)}@{self.kind}"


class Reader(Protocol):
    """A connection, as the streams see it."""

    def push(self, stream: str, event: bytes) -> None:
        """Queue an event."""


class _Bar:
    def __init__(self, grid: Granularity, now_ms: int) -> None:
        self.grid = grid
        self.opened = grid.open_of(now_ms // MINUTE_MS)
        self.pushed_at = 0.0
        self.pushed: Any = None


class _Watched:
    """One symbol: how far it has been told, and who listens to what."""

    def __init__(self, one: Instrument, now_ms: int) -> None:
        self.one = one
        self.told_until = now_ms
        self.readers: dict[str, dict[Reader, None]] = {}
        self.bars: dict[str, _Bar] = {}


class Streams:
    """All watched symbols of the Binance side."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._watched: dict[Instrument, _Watched] = {}

    def subscribe(self, reader: Reader, stream: Stream) -> None:
        """Begin a stream for a reader; an unknown symbol stays silent."""
        one = self._side.market.find(stream.market, stream.symbol)
        if one is None:
            return
        now_ms = self._side.clock.now_ms()
        watched = self._watched.setdefault(one, _Watched(one, now_ms))
        watched.readers.setdefault(stream.kind, {})[reader] = None
        interval = stream.kind.removeprefix("kline_")
        if interval in INTERVALS and stream.kind != interval:
            watched.bars.setdefault(interval, _Bar(INTERVALS[interval], now_ms))

    def unsubscribe(self, reader: Reader, stream: Stream) -> None:
        """End a stream for a reader."""
        one = self._side.market.find(stream.market, stream.symbol)
        watched = self._watched.get(one) if one is not None else None
        if one is None or watched is None:
            return
        readers = watched.readers.get(stream.kind, {})
        readers.pop(reader, None)
        if not readers:
            watched.readers.pop(stream.kind, None)
            watched.bars.pop(stream.kind.removeprefix("kline_"), None)
        if not watched.readers:
            del self._watched[one]

    def tick(self) -> None:
        """Push what is due."""
        now_ms, wall = self._side.clock.now_ms(), time.monotonic()
        for watched in list(self._watched.values()):
            since = max(watched.told_until, now_ms - _LONGEST_JUMP_MS)
            fills = self._side.market.between(watched.one, since + 1, now_ms + 1)
            watched.told_until = now_ms
            one = watched.one
            for fill in fills if "trade" in watched.readers else ():
                self._push(watched, "trade", trade_event(one, fill, now_ms))
            for row in joined_of(fills) if "aggTrade" in watched.readers else ():
                self._push(watched, "aggTrade", joined_event(one, row, now_ms))
            for interval, bar in watched.bars.items():
                self._push_bar(watched, interval, bar, now_ms, wall)

    def _push_bar(self, watched: _Watched, interval: str, bar: _Bar, now_ms: int, wall: float) -> None:
        one, market = watched.one, self._side.market
        current = bar.grid.open_of(now_ms // MINUTE_MS)
        if (current - bar.opened) * MINUTE_MS > max(_LONGEST_JUMP_MS, 2 * bar.grid.longest_ms):
            bar.opened = current  # the clock was set forward: those bars were never live
        while bar.opened < current:
            following = bar.grid.next_of(bar.opened)
            final = market.kline(one, bar.opened, following, now_ms)
            if final is not None:
                self._push(watched, f"kline_{interval}", kline_event(one, interval, final, now_ms))
            bar.opened, bar.pushed, bar.pushed_at = following, None, 0.0
        if wall - bar.pushed_at < PUSH_SECONDS[one.market]:
            return
        forming = market.kline(one, bar.opened, bar.grid.next_of(bar.opened), now_ms)
        bar.pushed_at = wall
        if forming is not None and forming != bar.pushed:
            bar.pushed = forming
            self._push(watched, f"kline_{interval}", kline_event(one, interval, forming, now_ms))

    def _push(self, watched: _Watched, kind: str, event: dict[str, Any]) -> None:
        side, one = self._side, watched.one
        place = {"market": one.market, "symbol": one.symbol, "channel": kind}
        is_trade = kind in ("trade", "aggTrade")
        if side.faults.strikes("mute", **place):
            return
        if is_trade and side.faults.strikes("lose_trades", **place):
            side.counters.frames_lost += 1
            return
        raw = encode(event)
        if side.faults.strikes("bad_frame", **place):
            raw = raw[: len(raw) // 2]
        stream = Stream(one.market, one.symbol, kind).name
        readers = list(watched.readers[kind])
        for reader in readers:
            for _ in range(2 if is_trade and side.faults.strikes("duplicate", **place) else 1):
                reader.push(stream, raw)
        if is_trade:
            side.counters.trades_sent[one.market] += len(readers)
