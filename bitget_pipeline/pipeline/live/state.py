"""
What the live walk knows of itself, per symbol and overall: written to Redis every second, read by sensors and `status`.

Filled by intake.py, append.py, repair.py, shed.py and flush.py, published by news.py; watch/ turns it into a verdict. Times in
`_ms` are market time, Unix ms. How long something is silent is told by a steady clock instead: the clock on the wall may
jump.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...feed.pace import Pace, SilenceRules
from ...market.instrument import Symbol
from ...market.trade import TradeBatch
from ...storage.stream import Place, place_of
from .doubts import Doubts

LAGS_KEPT = 2048
RATE_OVER = 180.0
"""Seconds over which a rate is averaged."""
SILENCE = SilenceRules(least=30.0, most=3 * 86_400.0)
"""When a symbol's silence is unusual for people; the connection doubts it earlier (feed/session.py)."""
ANSWER_WITHIN = 12.0
"""Seconds for the exchange to answer such a doubt before anybody is told."""
MARK_MS = 1_000
MARKS_KEPT = 64
"""How fine and how far it is remembered which entry of the stream ended where."""


class Mark(NamedTuple):
    """A symbol's entry in the stream: its place, the time of its newest trade, and the trades appended up to it."""

    place: Place
    through_ms: int
    trades: int


@dataclass(slots=True)
class SymbolState:
    """
    One symbol. `trades` were appended since the run began, `last_trade_ms` is the newest trade's time, `last_data_ms`
    when it reached us.

    `stored_trades` and `stored_through_ms` say the same of ClickHouse, whichever process wrote them. `rate` is trades per
    second, smoothed over a few minutes.
    `paced` is how often something arrives: trades come in clusters, so silence is judged by arrivals; what comes within a
    second is one. Snapshots do not count: they are history. They do end a silence (`heard_at`, of a steady clock), and each one
    that holds nothing new (`proofs`) says that the market is quiet: twice the time may pass after it.
    """

    trades: int = 0
    last_trade_ms: int = 0
    last_data_ms: int = 0
    stored_trades: int = 0
    stored_through_ms: int = 0
    rate: float = 0.0
    silent: str = ""
    gap: bool = False
    repair: str = ""
    _marks: deque[Mark] = field(default_factory=deque)  # of entries that are not known to be acknowledged
    _fresh_trades: int = 0
    _settled: float = 0.0  # seconds
    paced: Pace = field(default_factory=Pace)
    heard_at: float | None = None
    proofs: int = 0

    @property
    def within(self) -> float | None:
        """How many seconds it may be silent, None until its pace is known."""
        if not self.paced.known:
            return None
        doubled: float = self.paced.silence_within(SILENCE) * (1 << min(self.proofs, 16))
        return min(doubled, SILENCE.most) + ANSWER_WITHIN

    @property
    def pace(self) -> float:
        """Arrivals per second, 0 until enough of them were seen."""
        return self.paced.per_second

    def note_entry(self, place: Place, through_ms: int) -> None:
        """
        Trades lie in the stream there. One mark a second is kept, its last entry's, and of many every other one: how far
        is stored shows a little later then, never too early.
        """
        marks = self._marks
        mark = Mark(place, max(through_ms, marks[-1].through_ms if marks else 0), self.trades)
        if marks and mark.through_ms // MARK_MS == marks[-1].through_ms // MARK_MS:
            marks[-1] = mark
            return
        marks.append(mark)
        if len(marks) > MARKS_KEPT:
            self._marks = deque(list(marks)[::-2][::-1])  # the last one stays

    def note_arrival(self, batch: TradeBatch, *, now: float) -> None:
        """Live trades came in."""
        self._fresh_trades += len(batch.trades)
        self.proofs = 0
        if self.paced.heard_at is None or now - self.paced.heard_at >= 1.0:
            self.paced.heard(now=now)


class LiveState:
    """Counts of one live run. Only ever touched in its event loop. `steady` is a clock that does not jump, in seconds."""

    def __init__(self, symbols: Iterable[Symbol], *, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self.symbols: dict[Symbol, SymbolState] = {symbol: SymbolState() for symbol in symbols}
        self._selected = frozenset(self.symbols)
        self.stage = "starting"
        self.reconnects = 0
        self.doubts = Doubts()
        self.connected: set[str] = set()
        self.set_aside = 0
        self.repaired_trades = 0
        self.repairs: dict[str, float | int | None] = {}  # how far they are, repair_ledger.Progress
        self.appended = 0
        self.stored = 0
        self.trouble = ""
        self.spilled = 0  # trades that went by way of the disk
        self.shed: dict[str, str] = {}  # what is not collected now, and why
        self.disk_free: float | None = None  # share of 1
        self.vitals: list[dict[str, Any]] = []  # how it stands, as watch/attention.py sees it
        self._lags: deque[tuple[int, int]] = deque(maxlen=LAGS_KEPT)

    def of(self, symbol: Symbol) -> SymbolState:
        """One symbol's part."""
        state = self.symbols.get(symbol)
        if state is None:
            state = self.symbols[symbol] = SymbolState()
        return state

    def selected(self, symbols: Iterable[Symbol]) -> None:
        """These are told about from now on; of one that left everything stays known until what it holds is stored."""
        before, self._selected = self._selected, frozenset(symbols)
        for symbol in self._selected - before:
            state = self.of(symbol)
            state.heard_at, state.silent = None, ""  # one that comes back was not silent: nobody listened
            state.paced = state.paced.resumed()

    def note_appended(self, batches: Sequence[TradeBatch], ids: Sequence[str]) -> None:
        """Live trades are in the stream, under these ids."""
        now = self._steady()
        for batch, entry in zip(batches, ids, strict=True):
            if self.doubts.open:
                self.doubts.appended(batch)
            state = self.of(batch.symbol)
            state.trades += len(batch.trades)
            self.appended += len(batch.trades)
            state.silent = ""
            if batch.snapshot:
                state.proofs = 0  # it holds what is new: the market is not quiet
            else:
                state.note_arrival(batch, now=now)
            state.heard_at = now
            state.last_data_ms = max(state.last_data_ms, batch.received_ms)
            state.last_trade_ms = max(state.last_trade_ms, batch.trades[-1].ts_ms)
            state.note_entry(place_of(entry), batch.trades[-1].ts_ms)

    def note_stored(self, batches: Iterable[TradeBatch], *, now_ms: int) -> None:
        """Trades can be queried, written by this run's own flusher."""
        for batch in batches:
            self.stored += len(batch.trades)
            if not batch.snapshot:
                self._lags.append((now_ms - batch.received_ms, len(batch.trades)))

    def note_snapshot(self, symbol: Symbol) -> None:
        """A subscription was answered with what was traded last, known or not: it is not mute."""
        state = self.of(symbol)
        state.heard_at = self._steady()
        state.proofs += 1

    def stood_still(self) -> None:
        """This process did not run for a while: nothing is known of that time, and nobody was silent in it."""
        now = self._steady()
        for state in self.symbols.values():
            state.paced = state.paced.resumed()
            if state.heard_at is not None:
                state.heard_at = now

    def note_acknowledged(self, before: Place) -> None:
        """All entries before this place are in ClickHouse, whichever process wrote them."""
        for state in self.symbols.values():
            marks = state._marks
            while marks and marks[0].place < before:
                mark = marks.popleft()
                state.stored_through_ms = max(state.stored_through_ms, mark.through_ms)
                state.stored_trades = max(state.stored_trades, mark.trades)

    def stored_through(self, symbol: Symbol, *, now_ms: int) -> int:
        """Up to when (Unix ms) the symbol's trades can be queried, as far as we know; 0 while a break is not bridged."""
        state = self.of(symbol)
        if state.gap:
            return 0
        return state.stored_through_ms if self.trouble or state._marks else now_ms

    def settle_rates(self, *, seconds: float) -> None:
        """Fold the last `seconds` into each symbol's rate."""
        if seconds <= 0:
            return
        for state in self.symbols.values():
            state._settled += seconds
            weight = min(
                1.0, seconds / min(state._settled, RATE_OVER)
            )  # a plain average at first, then one that forgets
            state.rate += weight * (state._fresh_trades / seconds - state.rate)
            state._fresh_trades = 0

    def lag_ms(self, quantile: float) -> int | None:
        """How long trades took from their arrival to the table, of the last batches; None before the first."""
        if not self._lags:
            return None
        ordered = sorted(self._lags)
        total = sum(rows for _, rows in ordered)
        reached = 0
        for lag, rows in ordered:
            reached += rows
            if reached >= quantile * total:
                return lag
        return ordered[-1][0]

    def overall(self, *, now_ms: int) -> dict[str, Any]:
        """The whole, as it is published."""
        return {
            "stage": self.stage,
            "at_ms": now_ms,
            "appended": self.appended,
            "stored": self.stored,
            "repaired": self.repaired_trades,
            **self.repairs,
            "reconnects": self.reconnects,
            "connected": len(self.connected),
            "set_aside": self.set_aside,
            "lag_p50_ms": self.lag_ms(0.5),
            "lag_p99_ms": self.lag_ms(0.99),
            "trouble": self.trouble,
            "spilled": self.spilled,
            "shed": dict(self.shed),
            "disk_free": None if self.disk_free is None else round(self.disk_free, 4),
            "vitals": self.vitals,
        }

    def published(self) -> dict[Symbol, dict[str, Any]]:
        """Each symbol, as it is published; `silent_for` and `within` (how long it may be silent) are in seconds."""
        now = self._steady()
        return {
            symbol: {
                "trades": state.trades,
                "last_trade_ms": state.last_trade_ms,
                "last_data_ms": state.last_data_ms,
                "stored_trades": state.stored_trades,
                "stored_through_ms": state.stored_through_ms,
                "rate": round(state.rate, 6),
                "pace": round(state.pace, 6),
                "arrivals": state.paced.arrivals,
                "silent_for": None if state.heard_at is None else round(now - state.heard_at, 1),
                "within": None if (within := state.within) is None else round(within, 1),
                "silent": state.silent,
                "gap": state.gap,
                "repair": state.repair,
            }
            for symbol, state in self.symbols.items()
            if symbol in self._selected
        }
