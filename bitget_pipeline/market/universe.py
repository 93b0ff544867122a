"""
Which instruments we follow: the selection, and when an instrument counts as gone.

Instruments and tickers in (as discovery stored them), a Selection out, stored in `universe`; it drives partitions and
live shards. Pure and independent of the order of its input.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from .instrument import COLLECTED, Instrument, Market, Status, Symbol, Ticker

FALLBACK = dict.fromkeys((Market.SPOT, Market.USDTM), ("BTCUSDT", "ETHUSDT", "SOLUSDT"))
"""What is followed when the very first discovery fails."""

SHRINKAGE = 0.05
RETIRE_AFTER = timedelta(hours=1)


class Reason(StrEnum):
    """Why an instrument is in the selection."""

    PINNED = "pinned"  # a person wants it
    VOLUME = "volume"  # among the most traded
    KEPT = "kept"  # was there before and is still close enough, or nothing better is known
    FALLBACK = "fallback"  # nothing is known yet


@dataclass(frozen=True, slots=True)
class SelectionRules:
    """
    What to follow. `top_n` counts per market, `min_volume_24h` is in USDT.

    `hysteresis` is the advantage of those already followed: their volume counts as (1 + hysteresis) times what it is,
    so that two neighbours at the edge, or one symbol at the minimum, do not change places all day.
    """

    markets: tuple[Market, ...]
    min_volume_24h: float = 1_000_000.0
    top_n: int = 30
    hysteresis: float = 0.2


@dataclass(frozen=True, slots=True)
class Chosen:
    """One instrument of the selection. `rank` is its place by volume among the chosen of its market, from 1; `volume`
    USDT of 24 hours."""

    symbol: Symbol
    rank: int
    volume: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class Selection:
    """What is followed, by market and rank; and the pins that cannot be followed, each with the reason."""

    chosen: list[Chosen]
    refused_pins: dict[Symbol, str] = field(default_factory=dict)

    @property
    def symbols(self) -> set[Symbol]:
        """The instruments alone."""
        return {one.symbol for one in self.chosen}


def select(
    instruments: Iterable[Instrument],
    tickers: Iterable[Ticker],
    previous: Collection[Symbol],
    pinned: Collection[Symbol],
    rules: SelectionRules,
) -> Selection:
    """
    Choose per market the `top_n` most traded instruments that can be traded and reach the minimum, and every pinned
    one.

    A market without any instrument (discovery failed) or without any ticker keeps what it had, or starts with the
    fallback. Never more than `top_n` and the pinned ones a market.
    """
    status = {one.symbol: one.status for one in instruments}
    volume = {one.symbol: one.usdt_volume_24h for one in tickers}
    refused = {pin: why for pin in pinned if (why := _refusal(pin, status, rules))}
    pins = set(pinned) - refused.keys()
    chosen: list[Chosen] = []
    for market in rules.markets:
        reasons = _by_volume(market, status, volume, set(previous), rules)
        reasons |= {pin: Reason.PINNED for pin in pins if pin.market is market}
        ranked = sorted(reasons, key=lambda symbol: (-volume.get(symbol, 0.0), symbol.name))
        chosen += [
            Chosen(symbol, rank, volume.get(symbol, 0.0), reasons[symbol])
            for rank, symbol in enumerate(ranked, start=1)
        ]
    return Selection(chosen, refused)


def _by_volume(
    market: Market,
    status: Mapping[Symbol, Status],
    volume: Mapping[Symbol, float],
    previous: Set[Symbol],
    rules: SelectionRules,
) -> dict[Symbol, Reason]:
    """The most traded of a market and why each is there."""
    listed = {symbol for symbol in status if symbol.market is market}
    followed = {symbol for symbol in previous if symbol.market is market}
    if not listed or not any(symbol in volume for symbol in listed):
        return _without_volumes(market, status, listed, followed, rules)

    def standing(symbol: Symbol) -> float:
        return volume[symbol] * (1 + rules.hysteresis if symbol in followed else 1)

    candidates = [
        symbol
        for symbol in listed
        if status[symbol] in COLLECTED and symbol in volume and standing(symbol) >= rules.min_volume_24h
    ]
    candidates.sort(key=lambda symbol: (-standing(symbol), symbol not in followed, symbol.name))
    plain = sorted(candidates, key=lambda symbol: (-volume[symbol], symbol.name))[: rules.top_n]
    by_merit = {symbol for symbol in plain if volume[symbol] >= rules.min_volume_24h}
    return {symbol: Reason.VOLUME if symbol in by_merit else Reason.KEPT for symbol in candidates[: rules.top_n]}


def _without_volumes(
    market: Market, status: Mapping[Symbol, Status], listed: Set[Symbol], followed: Set[Symbol], rules: SelectionRules
) -> dict[Symbol, Reason]:
    """Nothing to rank by: keep what was followed, else the fallback; only what is listed, if anything is."""
    reason = Reason.KEPT if followed else Reason.FALLBACK
    wanted = followed or {Symbol(market, name) for name in FALLBACK.get(market, ())}
    known = {symbol for symbol in wanted if not listed or status.get(symbol) in COLLECTED}
    return dict.fromkeys(sorted(known, key=lambda one: one.name)[: rules.top_n], reason)


def _refusal(pin: Symbol, status: Mapping[Symbol, Status], rules: SelectionRules) -> str | None:
    """Why a pinned instrument cannot be followed, None when it can."""
    if pin.market not in rules.markets:
        return f"the market {pin.market.value} is not followed"
    known = {symbol for symbol in status if symbol.market is pin.market}
    if known and pin not in known:
        return "the exchange does not list it"
    if status.get(pin) is Status.RETIRED:
        return "the exchange has retired it"
    return None


def shrunk(previous_count: int, count: int, *, tolerance: float = SHRINKAGE) -> bool:
    """Whether a list of instruments lost so many that it cannot be believed (more than 5 %)."""
    return count < previous_count * (1 - tolerance)


LOSS_BORNE = 3
"""A market of ten contracts loses a tenth whenever one is delivered: so few are believed to be missing, whatever their share."""
BELIEVED_AFTER = timedelta(hours=24)
BELIEVED_ANSWERS = 12
"""
A short list is believed when it lacks the same instruments for so long, in so many complete answers (discovery is hourly).
No trouble of an exchange that we know of lasts a day and cuts the same rows each time; and were it wrong all the same, only
rows are marked as gone: they come back with the next list that has them, and no data is ever deleted.
"""


@dataclass(frozen=True, slots=True)
class Doubt:
    """
    A list that is too short: which names every answer lacked since `since_ms` (Unix ms UTC), in how many answers, and
    whether a person accepted it.
    """

    missing: frozenset[str]
    since_ms: int
    answers: int
    accepted: bool = False


def doubt(earlier: Doubt | None, missing: Collection[str], *, before: int, at_ms: int) -> Doubt:
    """The doubt after one more answer; of another list than before it begins anew, and nobody has accepted that one."""
    names = frozenset(missing)
    if earlier is not None:
        lasting = names & earlier.missing
        if len(names - lasting) <= max(LOSS_BORNE, before * SHRINKAGE):
            return Doubt(lasting, earlier.since_ms, earlier.answers + 1, earlier.accepted)
    return Doubt(names, at_ms, 1)


def believable(found: Doubt, *, at_ms: int) -> str:
    """Why a short list is believed now, "" while it is not."""
    if found.accepted:
        return "a person accepted it"
    lasted = timedelta(milliseconds=at_ms - found.since_ms)
    if lasted >= BELIEVED_AFTER and found.answers >= BELIEVED_ANSWERS:
        return f"it was the same in {found.answers} complete answers over {lasted.total_seconds() / 3600:.0f} hours"
    return ""


@dataclass(frozen=True, slots=True)
class Absences:
    """Instruments that a complete list lacked: since when (Unix ms UTC of the first such list), and which are gone
    for good."""

    since: dict[Symbol, int]
    retired: set[Symbol]


def absences(
    known: Collection[Symbol], listed: Collection[Symbol], before: Mapping[Symbol, int], *, at_ms: int
) -> Absences:
    """
    What a complete list, taken at `at_ms`, says about instruments it lacks; `before` is the `since` of the list
    before it.

    An instrument is retired when two complete lists at least an hour apart, and all between them, lack it. One that
    comes back starts anew.
    """
    missing = set(known) - set(listed)
    since = {symbol: min(before.get(symbol, at_ms), at_ms) for symbol in missing}
    patience = int(RETIRE_AFTER.total_seconds() * 1000)
    return Absences(since, {symbol for symbol, first in since.items() if at_ms - first >= patience})
