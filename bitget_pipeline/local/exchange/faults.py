"""
The levers: what can be made to go wrong, where, how long and how likely.

Input: `POST /admin/faults` or the methods of LocalExchange. Output: questions the REST and socket code asks at the places
where a fault would act. The ground truth never changes through a fault; only what is served does.
"""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass, field
from typing import Any

# kind -> what it does. One row each; rest.py, sockets.py, feeds.py and levers.py ask for these names.
# Levers of bars act on one `granularity`, as it is spelt on the wire, or on all.
KINDS: dict[str, str] = {
    "dark": "nothing answers: REST requests are cut off, sockets are cut and new ones too",
    "rate_limit_storm": "REST answers 429 although the limit is not reached",
    "lower_limit": "REST endpoints allow only `per_second` requests (default 2), as their header of what remains says",
    "bad_json": "REST bodies are cut in the middle",
    "html_502": "REST answers 502 with an HTML page",
    "slow": "REST answers after `delay` seconds (default 5)",
    "truncated_instruments": "instrument lists lack all but the first `keep` share (default 0.5) of their rows",
    "empty_string": "REST bodies carry an empty string as data",
    "error_code": "REST answers HTTP 200 with error `code` (default 40010)",
    "release_window": "REST answers 45001, sockets are dropped once",
    "region_block": "REST answers 40000, or with `html` true a page with status 403; new sockets are refused with 403",
    "fills_history_lag": "fills-history does not know the last `lag_seconds` (default 60) yet",
    "clock_skew": "server time and requestTime are `skew_ms` (default 120000) ahead",
    "missing_bar": "candle pages lack bars: those opening at `open_ms` (one or a list) or before `before_ms`, or a share",
    "changed_bar": "candle pages show a higher high and volume in such bars",
    "doubled_bar": "candle pages have such bars twice",
    "malformed_bar": "candle pages have such bars spoilt: `how` text (the default), short, zero or off_grid",
    "shuffled_bars": "the bars of a candle page are not in order",
    "malformed_trade": "fills and fills-history have such trades spoilt: `how` text (the default), short or zero",
    "doubled_trade": "fills and fills-history have such trades twice",
    "shuffled_trades": "the trades of fills and fills-history are not in order",
    "drop": "sockets are cut without a close frame: once, or with `seconds` again and again",
    "refuse_connections": "new sockets are refused",
    "half_open": "sockets stay open, but nothing is read or sent any more (those open now; with `seconds` new ones too)",
    "mute": "sockets answer pings and acknowledge, but carry no data",
    "deaf": "subscriptions open now carry no data any more until they are begun again; `stubborn` true: until another socket",
    "lose_trades": "single trade frames are lost while the socket stays up",
    "duplicate": "trade frames are sent twice",
    "reorder": "trade frames change places with the next",
    "pseq_gap": "a books update is lost, so that pseq does not fit",
    "bad_frame": "socket frames are cut in the middle",
    "listing": "a new symbol `target` (market:SYMBOL) is listed and trades from the next minute",
    "delisting": "the symbol `target` leaves the list and stops trading",
    "halt": "the symbol `target` traded nothing from `from_ms` to `to_ms`, and has no bars of that time",
    "status": "the symbol `target` shows `status` in the instrument list",
}


BINANCE_KINDS = frozenset(
    {
        *("dark", "rate_limit_storm", "bad_json", "html_502", "slow", "error_code", "region_block", "clock_skew"),
        *("drop", "refuse_connections", "half_open", "mute", "lose_trades", "duplicate", "bad_frame"),
    }
)
"""Those that the same server can pull on its Binance side, independently."""


@dataclass(frozen=True)
class Target:
    """
    Where a fault acts: `*` everywhere; `/path/fragment` on REST paths; else `market[:symbol[:channel]]`, `*` for any.
    """

    path: str = ""
    market: str = "*"
    symbol: str = "*"
    channel: str = "*"

    @classmethod
    def parse(cls, text: str) -> Target:
        """From the text of a request."""
        if text.startswith("/"):
            return cls(path=text)
        parts = [*text.split(":"), "*", "*", "*"][:3] if text else ["*", "*", "*"]
        return cls("", *(part or "*" for part in parts))

    def covers(self, *, path: str = "", market: str = "", symbol: str = "", channel: str = "") -> bool:
        """Does it act there? What the place does not say (empty) matches nothing but `*`."""
        if self.path:
            return self.path in path
        given = ((self.market, market), (self.symbol, symbol), (self.channel, channel))
        return all(wanted in ("*", here) for wanted, here in given)


@dataclass
class Fault:
    """One active fault; `until` in wall seconds (monotonic), None until cleared."""

    id: int
    kind: str
    target: Target
    until: float | None
    probability: float
    params: dict[str, Any] = field(default_factory=dict)
    hits: int = 0

    def describe(self) -> dict[str, Any]:
        """For `GET /admin/faults`."""
        left = None if self.until is None else round(self.until - time.monotonic(), 3)
        return {
            "id": self.id,
            "kind": self.kind,
            "target": vars(self.target),
            "seconds_left": left,
            "probability": self.probability,
            "params": self.params,
            "hits": self.hits,
        }


class Faults:
    """The active faults of one server."""

    def __init__(self, *, seed: int = 0) -> None:
        self._active: dict[int, Fault] = {}
        self._ids = itertools.count(1)
        self._chance = random.Random(seed)

    def add(
        self, kind: str, *, target: str = "*", seconds: float | None = None, probability: float = 1.0, **params: Any
    ) -> Fault:
        """
        Start a fault; without `seconds` it lasts until cleared.

        :raises ValueError: an unknown kind; the text lists the known ones.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
        until = None if seconds is None else time.monotonic() + seconds
        fault = Fault(next(self._ids), kind, Target.parse(target), until, probability, params)
        self._active[fault.id] = fault
        return fault

    def clear(self, *, kind: str | None = None, ident: int | None = None) -> int:
        """End the faults of a kind, or the one with that id, or all; returns how many."""
        gone = [f.id for f in self._active.values() if (kind is None or f.kind == kind) and ident in (None, f.id)]
        for number in gone:
            del self._active[number]
        return len(gone)

    def active(self) -> list[Fault]:
        """What is going wrong now."""
        now = time.monotonic()
        for number in [f.id for f in self._active.values() if f.until is not None and f.until <= now]:
            del self._active[number]
        return list(self._active.values())

    def strikes(
        self, kind: str, *, path: str = "", market: str = "", symbol: str = "", channel: str = ""
    ) -> Fault | None:
        """The fault of that kind that acts here and now, its dice cast; counted as a hit."""
        if not self._active:
            return None
        for fault in self.active():
            if fault.kind != kind or not fault.target.covers(path=path, market=market, symbol=symbol, channel=channel):
                continue
            if fault.probability >= 1.0 or self._chance.random() < fault.probability:
                fault.hits += 1
                return fault
        return None
