"""
What a repair says of itself: evidence in the coverage ledger, incidents, and how far it is.

From repair.py. Every statement about a gap is about the whole of it, cut at months only, so that the newest one replaces
those before: while it is under way the gap is `partial` but for the part that is listed as missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from ..exchange.contract import Exchange
from ..market.instrument import Symbol
from ..market.interval import Interval, from_ms, to_ms
from ..market.trade import AtRest
from ..storage.anchors import OpenGap
from ..storage.versions import Versions
from ..storage.warehouse import CoverageState, Evidence, Warehouse
from .incidents import Incident, Severity, report_incident

STREAM = "trades"
BEING_REPAIRED = "a gap is being repaired"
NOT_REPAIRED_YET = "a break that is not repaired yet"
"""How the reasons begin of what the ledger calls unknown because a repair is not done."""


def held_before_open_breaks(
    warehouse: Warehouse, held: Mapping[Symbol, int], within: Interval, *, source: str
) -> dict[Symbol, AtRest]:
    """
    The ids through which symbols are held, lowered to where the oldest break begins that the ledger calls open, and where the
    newest one ends: Redis alone knew of them otherwise, and their newer parts may have been fetched. Blocks. Raises
    StoreUnavailable and its kin.
    """
    found = {symbol: AtRest(through) for symbol, through in held.items()}
    for one in warehouse.coverage(STREAM, interval=within) if held else ():
        if one.symbol not in found or one.state is not CoverageState.UNKNOWN:
            continue
        if one.reason.startswith((BEING_REPAIRED, NOT_REPAIRED_YET)):
            known = found[one.symbol]
            before = warehouse.held_at(one.symbol, one.interval.start_ms, source=source)
            end = warehouse.held_at(one.symbol, one.interval.end_ms - 1, source=source)
            if before is not None and end is not None:
                found[one.symbol] = AtRest(min(known.through, before), max(known.open_until or end, end))
    return found


class RepairLedger:
    """Writes evidence about gaps. Trades are in the stream by then, which loses nothing."""

    def __init__(
        self,
        exchange: Exchange,
        warehouse: Warehouse,
        versions: Versions,
        *,
        run_id: str,
        clock: Callable[[], int],
    ) -> None:
        self._exchange = exchange
        self._warehouse = warehouse
        self._versions = versions
        self._run_id = run_id
        self._clock = clock

    async def found(self, gaps: Callable[[], Awaitable[Mapping[Symbol, Sequence[tuple[OpenGap, str]]]]]) -> None:
        """
        These gaps are open, and nothing of them was fetched yet; each with the reason. Asked for after the version of this is
        taken: whatever is said of them meanwhile is the newer statement.
        """
        version, now = await self._versions.next(), from_ms(self._clock())
        evidence = [
            one
            for symbol, its in (await gaps()).items()
            for gap, reason in its
            for one in self._statements(symbol, gap, gap.before_id, CoverageState.UNKNOWN, reason, now)
        ]
        if evidence:
            await self._write(evidence, version)

    async def closed(self, symbol: Symbol, gap: OpenGap, state: CoverageState, reason: str) -> None:
        """Nothing is left to fetch of the gap; `gap.fetched` trades were found in it."""
        await self._store(symbol, gap, gap.after_id, state, reason, None)

    async def missing(
        self, symbol: Symbol, gap: OpenGap, state: CoverageState, reason: str, *, retry_in: float | None = None
    ) -> None:
        """What is older than `gap.before_id` is missing, for that reason; `retry_in` is in seconds of market time."""
        retry_at = None if retry_in is None else from_ms(self._clock() + round(retry_in * 1000))
        await self._store(symbol, gap, gap.before_id, state, reason, retry_at)

    async def not_repairable(self, symbol: Symbol, gap: OpenGap, reason: str) -> None:
        """What is older than `gap.before_id` will stay missing: evidence, and an incident."""
        await self.missing(symbol, gap, CoverageState.UNAVAILABLE, reason)
        after, through = (from_ms(self._exchange.trade_time_ms(one)) for one in (gap.after_id, gap.before_id))
        incident = Incident(
            incident_id=f"gap_not_repairable:{symbol}:{gap.after_id}",
            kind="gap_not_repairable",
            severity=Severity.DEGRADED,
            what=f"{symbol}: trades from {after:%Y-%m-%d %H:%M:%S} to {through:%Y-%m-%d %H:%M:%S} are not repairable: {reason}",
            opened_ms=self._clock(),
            symbol=symbol,
            details={"after_id": str(gap.after_id), "before_id": str(gap.before_id), "fetched": gap.fetched},
        )
        await report_incident(self._warehouse, self._versions, incident, run_id=self._run_id)

    async def _store(
        self,
        symbol: Symbol,
        gap: OpenGap,
        reached_id: int,
        state: CoverageState,
        reason: str,
        retry_at: datetime | None,
    ) -> None:
        version = await self._versions.next()
        await self._write(self._statements(symbol, gap, reached_id, state, reason, retry_at), version)

    async def _write(self, evidence: Sequence[Evidence], version: int) -> None:
        await asyncio.to_thread(self._warehouse.store_evidence, evidence, version=version, run_id=self._run_id)

    def _statements(
        self,
        symbol: Symbol,
        gap: OpenGap,
        reached_id: int,
        state: CoverageState,
        reason: str,
        retry_at: datetime | None,
    ) -> list[Evidence]:
        time_of = self._exchange.trade_time_ms
        whole = Interval(time_of(gap.after_id), time_of(gap.top_id) + 1)
        reached = time_of(reached_id) if reached_id != gap.top_id else whole.end_ms
        parts = by_month(whole)
        evidence: list[Evidence] = []

        def say(part: Interval, state: CoverageState, rows: int, reason: str) -> None:
            evidence.append(Evidence(symbol, STREAM, part, state, rows=rows, reason=reason, retry_at=retry_at))

        for part in parts:
            rows = gap.fetched if part is parts[-1] else 0  # the newest part is fetched first
            if reached_id == gap.after_id or reached >= part.end_ms:
                say(part, state, rows, reason)
            elif reached <= part.start_ms:
                say(part, CoverageState.COMPLETE, rows, "a break, refetched by trade id")
            else:
                say(part, CoverageState.PARTIAL, rows, "a break, refetched by trade id but for its older part")
                say(Interval(part.start_ms, reached), state, 0, reason)
        return evidence


class Progress:
    """How far the repairs are, and when they will be done at the pace so far."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._open: dict[Symbol, tuple[OpenGap, ...]] = {}
        self._closed_ms = 0
        self._began = 0.0

    def seen(self, symbol: Symbol, gaps: tuple[OpenGap, ...], *, now: float) -> None:
        """The open gaps of a symbol; `now` in seconds of a clock that does not go back."""
        if not self._open:
            self._began, self._closed_ms = now, 0
        if gaps:
            self._open[symbol] = gaps
        else:
            self._open.pop(symbol, None)

    def knows(self, symbol: Symbol) -> bool:
        """Whether a gap of it is being repaired."""
        return symbol in self._open

    def fetched(self, before_id: int, reached_id: int) -> None:
        """A page was stored that reaches from one trade down to the other."""
        self._closed_ms += self._exchange.trade_time_ms(before_id) - self._exchange.trade_time_ms(reached_id)

    def seconds_left(self, *, now: float) -> float | None:
        """Until no gap is open, at the pace so far; None while that is not known, 0.0 when none is."""
        if not self._open:
            return 0.0
        if now <= self._began or self._closed_ms <= 0:
            return None
        time_of = self._exchange.trade_time_ms
        left = sum(time_of(gap.before_id) - time_of(gap.after_id) for gaps in self._open.values() for gap in gaps)
        return left / (self._closed_ms / (now - self._began))

    def share(self, gap: OpenGap) -> float:
        """Which part of a gap is fetched, by time."""
        time_of = self._exchange.trade_time_ms
        top = time_of(gap.top_id)
        whole = top - time_of(gap.after_id)
        return (top - time_of(gap.before_id)) / whole if whole > 0 else 0.0

    def told(self, gap: OpenGap, *, now: float) -> str:
        """The progress of one gap, for a person."""
        left = self.seconds_left(now=now)
        end = "" if left is None else f", all repairs end in about {_duration(left)}"
        return f"{BEING_REPAIRED}: {self.share(gap):.0%} of {_duration(self._length(gap))} fetched{end}"

    def published(self, *, now: float) -> dict[str, float | int | None]:
        """Flat figures for `status` and the health sensor."""
        left = self.seconds_left(now=now)
        return {
            "gaps_open": sum(len(gaps) for gaps in self._open.values()),
            "repair_seconds_left": None if left is None else round(left, 1),
        }

    def _length(self, gap: OpenGap) -> float:
        return (self._exchange.trade_time_ms(gap.top_id) - self._exchange.trade_time_ms(gap.after_id)) / 1000


def _duration(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def by_month(interval: Interval) -> list[Interval]:
    """The interval cut at the beginnings of months (UTC): no evidence reaches over one."""
    parts: list[Interval] = []
    start = interval.start_ms
    while start < interval.end_ms:
        day = from_ms(start)
        following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=day.tzinfo)
        end = min(interval.end_ms, to_ms(following))
        parts.append(Interval(start, end))
        start = end
    return parts
