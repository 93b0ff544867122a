"""
One exchange's parts, put together: what REST, sockets and admin share.

Made by server.py from a config; holds no behaviour of its own beyond wiring and counting.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ...telemetry import get_logger
from .bars import BarBuilder
from .books import Books
from .clock import MarketClock
from .config import MARKETS, ExchangeConfig
from .faults import Faults
from .instruments import Instrument
from .limits import RateLimiter
from .recordings import RecordedMarket, load
from .tape import Tape
from .tickers import Tickers
from .universe import Universe

log = get_logger(__name__)


@dataclass
class Counters:
    """What happened, for `GET /admin/counters`; `subscribed` is what is carried now, by the channel's name."""

    requests: Counter[str] = field(default_factory=Counter)
    answered_429: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    connections_opened: int = 0
    connections_open: int = 0
    connections_dropped: int = 0
    subscriptions: int = 0
    subscribed: Counter[str] = field(default_factory=Counter)
    messages_sent: int = 0
    messages_received: int = 0
    trades_sent: Counter[str] = field(default_factory=Counter)
    frames_lost: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain numbers and objects."""
        return {
            "requests": dict(self.requests),
            "requests_total": self.requests.total(),
            "429": self.answered_429,
            "limit_violations": dict(self.violations),
            "limit_violations_total": self.violations.total(),
            "connections": {
                "opened": self.connections_opened,
                "open": self.connections_open,
                "dropped": self.connections_dropped,
            },
            "subscriptions": self.subscriptions,
            "subscribed": {name: times for name, times in sorted(self.subscribed.items()) if times},
            "messages_sent": self.messages_sent,
            "messages_received": self.messages_received,
            "trades_sent": dict(self.trades_sent),
            "trades_sent_total": self.trades_sent.total(),
            "frames_lost": self.frames_lost,
        }


class Venue:
    """The state of one running exchange."""

    def __init__(self, config: ExchangeConfig) -> None:
        self.config = config
        self.started = time.monotonic()
        self.clock = MarketClock(config.speed)
        recorded = load(config.recordings) if config.recordings else RecordedMarket({})
        self.recorded = recorded
        self.universe = Universe(config, now_ms=self.clock.now_ms())
        for name, recording in recorded.recordings.items():
            self.universe.adopt(recording)
            log.info("exchange.recording", symbol=name, days=len(recording.days), trades=len(recording.trades))
        self.tape = Tape(recorded)
        self.bars = BarBuilder(self.tape)
        self.tickers = Tickers(self.bars, self.universe)
        self.books = Books(seed=config.seed, checksum=config.book_checksum)
        self.faults = Faults(seed=config.seed)
        self.limiter = RateLimiter(
            window=config.window, per_minute=config.requests_per_minute, penalty_seconds=config.penalty_seconds
        )
        self.counters = Counters()
        self.statuses: dict[str, str] = {}
        self._cold = [i for market in MARKETS for i in self.universe.instruments(market) if i.active]
        self.watched_books: set[Instrument] = set()

    def status_of(self, instrument: Instrument) -> str:
        """The status the instrument list shows, a lever's word first."""
        default = "online" if instrument.market == "spot" else "normal"
        return self.statuses.get(instrument.name) or instrument.status or default

    def warm_next(self) -> None:
        """Sum the last 24 hours of the next active symbol, so that after some seconds ticker requests find all summed."""
        if self._cold:
            self.tickers.figures(self._cold.pop(), self.clock.now_ms())

    def is_book_watched(self, instrument: Instrument) -> bool:
        """Does a socket's feed move this book?"""
        return instrument in self.watched_books

    def last_price(self, instrument: Instrument, now_ms: int) -> int:
        """The price of the last trade up to now, as an integer."""
        bar = self.bars.forming_minute(instrument, now_ms)
        if bar is not None:
            return bar.close
        minute = (instrument.closed_minute or instrument.listed_minute + 1) - 1
        close = self.tape.close_before(instrument, minute // 1440 + 1)
        return close if close is not None else 1
