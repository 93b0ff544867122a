"""
What a walk over a day of trades came to, written into the ledger: the table is believed, not our memory.

Called by trades_history.py. Data first, evidence second; all statements of one account share a version, so that a minute
that does not add up is never called complete in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from ...exchange.contract import Exchange
from ...history.client import HistoryClient
from ...market.candle import Resolution
from ...market.coverage import next_retry
from ...market.instrument import Instrument, Symbol
from ...market.interval import Interval, from_ms, to_ms
from ...storage.warehouse import CoverageState, Evidence, Warehouse
from ..live.repair import STREAM
from .patience import PatientStores

MINUTE_MS = Resolution.M1.ms
DIFFER = "the trades of these minutes do not add up to the exchange's bars"
AGAIN = "on demand: a run of this day with `refresh` fetches them again"

Key = tuple[Symbol, date]


@dataclass(frozen=True, slots=True)
class DayOfTrades:
    """
    What one (symbol, day) came to. `trades` are stored for the day now, live ones included; `state` is that of the day.

    `differing` counts minutes whose trades do not add up to the exchange's bar, `holes` are what is not known of the day;
    `error` says why a failed key failed.
    """

    symbol: Symbol
    day: date
    state: CoverageState = CoverageState.UNKNOWN
    trades: int = 0
    differing: int = 0
    requests: int = 0
    seconds: float = 0.0
    error: str = ""
    holes: tuple[Interval, ...] = ()

    @property
    def rows(self) -> int:
        """The trades, under the name that all reports of a day have."""
        return self.trades

    @property
    def in_vain(self) -> bool:
        """Whether the day failed, or nothing is known of it: an empty answer proves nothing."""
        return bool(self.error) or self.state is CoverageState.UNKNOWN


@dataclass(slots=True)
class TradesReport:
    """All keys of one run. A caller fails when `failed` is not empty; the other keys are stored all the same."""

    keys: dict[Key, DayOfTrades] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failed(self) -> list[DayOfTrades]:
        """The keys that could not be served."""
        return [one for one in self.keys.values() if one.error]


@dataclass(frozen=True, slots=True)
class TradeWalkers:
    """What every key of one run shares; `newest` are the newest trades that the trade history has shown, by symbol."""

    client: HistoryClient
    exchange: Exchange
    warehouse: Warehouse
    stores: PatientStores
    instruments: Mapping[Symbol, Instrument]
    refresh: bool
    run_id: str
    source: str
    now_ms: Callable[[], int]
    resolutions: Sequence[Resolution]
    newest: dict[Symbol, int] = field(default_factory=dict)

    async def count(self, symbol: Symbol, within: Interval) -> int:
        """How many trades the table holds."""
        return await self.stores.ask(self.warehouse.trade_count, symbol, within, source=self.source)

    async def standing(self, symbol: Symbol, within: Interval) -> list[Evidence]:
        """What the ledger says."""
        return await self.stores.ask(self.warehouse.coverage, STREAM, symbol=symbol, interval=within)

    async def say(self, statements: Sequence[Evidence]) -> None:
        """Add these to the ledger, with one version."""
        version = await self.stores.next_version()
        await self.stores.ask(self.warehouse.store_evidence, statements, version=version, run_id=self.run_id)


async def note(
    walkers: TradeWalkers, symbol: Symbol, within: Interval, state: CoverageState, reason: str
) -> None:  # fmt: skip
    """One statement about a stretch, with what the table holds of it."""
    await walkers.say([await _statement(walkers, symbol, within, state, reason)])


def believed(standing: Sequence[Evidence]) -> list[Interval]:
    """The stretches that are complete, and of which nothing newer says that trades were lost."""
    return [
        one.interval
        for one in standing
        if one.state is CoverageState.COMPLETE
        and not any(
            other.state is CoverageState.UNKNOWN
            and other.version > one.version
            and other.interval.start_ms < one.interval.end_ms
            and other.interval.end_ms > one.interval.start_ms
            for other in standing
        )
    ]


async def account(
    walkers: TradeWalkers, instrument: Instrument, day: date, reached: int, oldest_served: int
) -> DayOfTrades:
    """What the table holds now, as evidence: the day, or the part that was reached, and the minutes that do not add up."""
    symbol, whole = instrument.symbol, Interval.of_day(day)
    listed = to_ms(instrument.listed_at) if instrument.listed_at is not None else 0
    if reached > whole.start_ms and listed >= whole.start_ms:
        reached = whole.start_ms  # nothing can be older: it was listed within the day
    served = Interval(min(reached, whole.end_ms), whole.end_ms)
    said: list[Evidence] = []
    state, holes = CoverageState.COMPLETE, tuple[Interval, ...]()
    if served != whole:
        gone = whole.start_ms < oldest_served
        missing = CoverageState.UNAVAILABLE if gone else CoverageState.UNKNOWN
        state = CoverageState.PARTIAL if not served.empty else missing
        hole = await _missing(walkers, symbol, Interval(whole.start_ms, served.start_ms), missing)
        said.append(hole)
        holes = () if gone else (hole.interval,)
    minutes = [] if served.empty else await _differing(walkers, instrument, served)
    wrong = [_unexplained(symbol, part) for part in _runs(minutes)]
    if not served.empty and all(one.interval != served for one in wrong):
        reason = "every trade, walked by id with overlap"
        said.append(await _statement(walkers, symbol, served, CoverageState.COMPLETE, reason))
    await walkers.say([*said, *wrong])
    rows = await walkers.count(symbol, whole)
    return DayOfTrades(symbol, day, state, rows, len(minutes), holes=holes + tuple(one.interval for one in wrong))


async def look_again(
    walkers: TradeWalkers, instrument: Instrument, day: date, standing: Sequence[Evidence]
) -> DayOfTrades:
    """
    A complete day, held once more against the exchange's minutes: they may have come after the trades, or were corrected.
    """
    symbol, whole = instrument.symbol, Interval.of_day(day)
    minutes = await _differing(walkers, instrument, whole)
    listed = [one for one in standing if one.state is CoverageState.UNEXPLAINED]
    fresh = [ms for ms in minutes if not any(ms in one.interval for one in listed)]
    said = [_unexplained(symbol, part) for part in _runs(fresh)]
    for one in listed:
        still = [ms for ms in minutes if ms in one.interval]
        if one.reason.startswith(DIFFER) and len(still) * MINUTE_MS < one.interval.end_ms - one.interval.start_ms:
            reason = "the trades of these minutes add up to the exchange's bars now"
            said.append(await _statement(walkers, symbol, one.interval, CoverageState.COMPLETE, reason))
            said += [_unexplained(symbol, part) for part in _runs(still)]
    if said:
        await walkers.say(said)
    rows = await walkers.count(symbol, whole)
    return DayOfTrades(symbol, day, CoverageState.COMPLETE, rows, len(minutes), holes=tuple(_runs(minutes)))


async def _missing(walkers: TradeWalkers, symbol: Symbol, hole: Interval, state: CoverageState) -> Evidence:
    """What no answer brought: gone for good, or tried again later."""
    if state is CoverageState.UNAVAILABLE:
        return Evidence(symbol, STREAM, hole, state, reason="older than the exchange's trade history")
    earlier = [one for one in await walkers.standing(symbol, hole) if one.state is state and one.interval == hole]
    attempts = 1 + max((one.attempts for one in earlier), default=0)
    retry_at = next_retry(state, attempts=attempts, now=from_ms(walkers.now_ms()))
    reason = "the answers bring nothing older, and an empty answer proves nothing"
    rows = await walkers.count(symbol, hole)
    return Evidence(symbol, STREAM, hole, state, rows=rows, reason=reason, retry_at=retry_at, attempts=attempts)


async def _differing(walkers: TradeWalkers, instrument: Instrument, within: Interval) -> list[int]:
    """The minutes whose trades do not add up to the exchange's bar, as far as that is stored."""
    return await walkers.stores.ask(
        walkers.warehouse.minutes_that_differ,
        instrument.symbol,
        within,
        source=walkers.source,
        tolerance=float(instrument.size_step) / 2,
    )


def _unexplained(symbol: Symbol, part: Interval) -> Evidence:
    return Evidence(symbol, STREAM, part, CoverageState.UNEXPLAINED, reason=f"{DIFFER}; {AGAIN}")


def _runs(minutes: Sequence[int]) -> list[Interval]:
    """Neighbouring minutes together."""
    runs: list[Interval] = []
    for ms in minutes:
        if runs and ms == runs[-1].end_ms:
            runs[-1] = replace(runs[-1], end_ms=ms + MINUTE_MS)
        else:
            runs.append(Interval(ms, ms + MINUTE_MS))
    return runs


async def _statement(
    walkers: TradeWalkers, symbol: Symbol, within: Interval, state: CoverageState, reason: str
) -> Evidence:
    rows = await walkers.count(symbol, within)
    if state is CoverageState.COMPLETE and rows == 0:
        reason = f"{reason}; there was none"
    return Evidence(symbol, STREAM, within, state, rows=rows, reason=reason)
