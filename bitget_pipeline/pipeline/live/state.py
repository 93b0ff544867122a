"""
What the live walk knows of itself, per symbol and overall: written to Redis every second, read by sensors and `status`.

Filled by intake.py, append.py, repair.py, shed.py and flush.py, published by news.py; watch/ turns it into a verdict. Times in
`_ms` are market time, Unix ms. How long something is silent is told by a steady clock instead: the clock on the wall may
jump.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...feed.pace import UNPACED_WITHIN, Pace, SilenceRules
from ...market.instrument import Symbol
from ...market.trade import TradeBatch
from ...storage.stream import Place, place_of
from .doubts import Doubts
from .lags import Lags

RATE_OVER = 180.0
"""Seconds over which a rate is averaged."""
SILENCE = SilenceRules(least=30.0, most=3 * 86_400.0)
"""When a symbol's silence is unusual for people; the connection doubts it earlier (feed/session.py)."""
ANSWER_WITHIN = 12.0
"""Seconds for the exchange to answer such a doubt before anybody is told."""
UNPACED_SILENCE = 2 * UNPACED_WITHIN
"""How long a symbol may be silent whose pace is not known: the connection doubts it twice as early, as its allowance permits."""
MARK_MS = 1_000
MARKS_KEPT = 64
"""How fine and how far it is remembered which entry of the stream ended where."""


class Mark(NamedTuple):
    """
    A symbol's entry in the stream: its place, the time of its newest trade, the trades appended up to it, and when the
    oldest entry that it stands for was appended (of a steady clock).
    """

    place: Place
    through_ms: int
    trades: int
    at: float


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
    begun_at: float = 0.0  # since when it is collected, of a steady clock

    @property
    def within(self) -> float | None:
        """How many seconds it may be silent; None while its pace is not known and nothing was heard of it."""
        if not self.paced.known and self.heard_at is None:
            return None
        usual = self.paced.silence_within(SILENCE) if self.paced.known else UNPACED_SILENCE
        return min(usual * (1 << min(self.proofs, 16)), SILENCE.most) + ANSWER_WITHIN

    @property
    def pace(self) -> float:
        """Arrivals per second, 0 until enough of them were seen."""
        return self.paced.per_second

    def note_entry(self, place: Place, through_ms: int, *, now: float) -> None:
        """
        Trades lie in the stream there, since now. One mark a second is kept, its last entry's, and of many every other one:
        how far is stored shows a little later then, never too early.
        """
        marks = self._marks
        if not marks:
            marks.append(Mark(place, through_ms, self.trades, now))
            return
        last = marks[-1]
        through_ms = max(through_ms, last.through_ms)
        if through_ms // MARK_MS == last.through_ms // MARK_MS:
            marks[-1] = Mark(place, through_ms, self.trades, last.at)
            return
        marks.append(Mark(place, through_ms, self.trades, now))
        if len(marks) > MARKS_KEPT:
            oldest = marks[0].at
            marks = self._marks = deque(list(marks)[::-2][::-1])  # the last one stays
            marks[0] = marks[0]._replace(at=oldest)

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
        now = steady()
        self.symbols: dict[Symbol, SymbolState] = {symbol: SymbolState(begun_at=now) for symbol in symbols}
        self._selected = frozenset(self.symbols)
        self.stage = "starting"
        self.reconnects = 0
        self.doubts = Doubts()
        self.connected: set[str] = set()
        self._ever_connected = False
        self._arrived_at = now  # when a live trade did last, or this began
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
        self.lags = Lags(steady)

    def of(self, symbol: Symbol) -> SymbolState:
        """One symbol's part."""
        state = self.symbols.get(symbol)
        if state is None:
            state = self.symbols[symbol] = SymbolState(begun_at=self._steady())
        return state

    def seed(self, paces: Mapping[Symbol, Pace]) -> None:
        """So often something arrived of these before this run collected them; what it learned itself is known better."""
        for symbol, pace in paces.items():
            state = self.of(symbol)
            if not state.paced.known:
                state.paced = pace.resumed()

    def paces(self) -> dict[Symbol, Pace]:
        """How often something arrives of each selected symbol, where that is known."""
        return {
            symbol: one.paced for symbol, one in self.symbols.items() if symbol in self._selected and one.paced.known
        }

    def selected(self, symbols: Iterable[Symbol]) -> None:
        """These are told about from now on; of one that left everything stays known until what it holds is stored."""
        before, self._selected = self._selected, frozenset(symbols)
        for symbol in self._selected - before:
            state = self.of(symbol)
            state.heard_at, state.silent = None, ""  # one that comes back was not silent: nobody listened
            state.begun_at, state.proofs = self._steady(), 0
            state.paced = state.paced.resumed()

    def note_appended(
        self, batches: Sequence[TradeBatch], ids: Sequence[str], *, gaps: Collection[Symbol] = ()
    ) -> None:
        """Live trades are in the stream, under these ids; those of `gaps` do not follow on what was held."""
        now = self._steady()
        for batch, entry in zip(batches, ids, strict=True):
            if self.doubts.open:
                self.doubts.appended(batch, gap=batch.symbol in gaps)
            state = self.of(batch.symbol)
            state.trades += len(batch.trades)
            self.appended += len(batch.trades)
            state.silent = ""
            if batch.snapshot:
                state.proofs = 0  # it holds what is new: the market is not quiet
            else:
                state.note_arrival(batch, now=now)
                self._arrived_at = now
            state.heard_at = now
            state.last_data_ms = max(state.last_data_ms, batch.received_ms)
            state.last_trade_ms = max(state.last_trade_ms, batch.trades[-1].ts_ms)
            state.note_entry(place_of(entry), batch.trades[-1].ts_ms, now=now)

    def note_repaired(self, symbol: Symbol, entry: str) -> None:
        """Trades that a repair fetched are in the stream, under this id."""
        self.of(symbol).note_entry(place_of(entry), 0, now=self._steady())

    def note_stored(self, batches: Iterable[TradeBatch], *, now_ms: int) -> None:
        """Trades can be queried, written by this run's own flusher."""
        for batch in batches:
            self.stored += len(batch.trades)
            self.lags.note(batch, now_ms=now_ms)

    def note_connected(self, name: str) -> None:
        """A connection is open. Before the first one nothing could come: no silence is measured from then."""
        self.connected.add(name)
        if not self._ever_connected:
            self._ever_connected = True
            for state in self.symbols.values():
                state.begun_at = self._steady()

    def note_snapshot(self, symbol: Symbol) -> None:
        """A subscription was answered with what was traded last, known or not: it is not mute."""
        state = self.of(symbol)
        state.heard_at, state.silent = self._steady(), ""
        state.proofs += 1

    def stood_still(self) -> None:
        """This process did not run for a while: nothing is known of that time, and nobody was silent in it."""
        now = self._steady()
        for state in self.symbols.values():
            state.paced = state.paced.resumed()
            state.begun_at = now
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

    def oldest_wait(self) -> float:
        """For how many seconds the oldest trades have been in the stream that are not known to be stored; 0.0 without any."""
        oldest = min((state._marks[0].at for state in self.symbols.values() if state._marks), default=None)
        return 0.0 if oldest is None else max(0.0, self._steady() - oldest)

    def overall(self, *, now_ms: int) -> dict[str, Any]:
        """The whole, as it is published."""
        waits = self.oldest_wait()
        lag_p50, lag_p99 = self.lags.since_arrival(0.5, 0.99, waits=waits)
        traded_p50, traded_p99 = self.lags.since_made(0.5, 0.99, waits=waits)
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
            "quiet_for": round(self._steady() - self._arrived_at, 1),
            "lag_p50_ms": lag_p50,
            "lag_p99_ms": lag_p99,
            "traded_lag_p50_ms": traded_p50,
            "traded_lag_p99_ms": traded_p99,
            "trouble": self.trouble,
            "spilled": self.spilled,
            "shed": dict(self.shed),
            "disk_free": None if self.disk_free is None else round(self.disk_free, 4),
            "vitals": self.vitals,
        }

    def published(self) -> dict[Symbol, dict[str, Any]]:
        """
        Each symbol, as it is published. In seconds: `silent_for`, or `unheard_for` since it is collected while nothing came,
        and `within`, how long it may be silent.
        """
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
                "unheard_for": round(now - state.begun_at, 1) if state.heard_at is None else None,
                "within": None if (within := state.within) is None else round(within, 1),
                "silent": state.silent,
                "gap": state.gap,
                "repair": state.repair,
            }
            for symbol, state in self.symbols.items()
            if symbol in self._selected
        }
