"""
How often a symbol that is well is called silent, and how soon one that is not is noticed: on the simulated market's own tape.

    python -m bench.false_alarms [--days 28] [--each 12] [--seed 7] [--seeded]

The tape of `--each` symbols of each kind is played into feed/pace.py, as a live run feeds it (what comes within a second is
one arrival), without waiting for it. The first day teaches and does not count. `detected` is after how many seconds a symbol
that falls mute is called silent, at the end of the time.

An alarm is what people are told of: longer silent than the pace allows, and no answer to the connection's doubt, which comes
earlier and which a quiet market's snapshot answers (here after two seconds). `by_pace_alone` counts what would be told without
doubts, and `doubts` what the connection asks: two frames each.

With `--seeded` nothing is learned on the first day: its pace is guessed from the seconds that had trades, as a live run does
where Redis knows nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np

from bitget_pipeline.feed.pace import Pace, SilenceRules
from bitget_pipeline.local.exchange import ExchangeConfig
from bitget_pipeline.local.exchange.instruments import Instrument
from bitget_pipeline.local.exchange.tape import Tape
from bitget_pipeline.local.exchange.universe import Universe
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.live.paces import guessed
from bitget_pipeline.pipeline.live.state import ANSWER_WITHIN, SILENCE, SymbolState
from bitget_pipeline.storage.trade_rows import Stored

DAY, MINUTES = 86_400.0, 1_440
FIRST_DAY = 20_700  # since 1970
DOUBTED = SilenceRules()
ANSWERED_AFTER = 2.0

KINDS = {
    "a trade a second and more": (60.0, 1e9),
    "10 to 60 a minute": (10.0, 60.0),
    "1 to 10 a minute": (1.0, 10.0),
    "less than 1 a minute": (0.0, 1.0),
}
"""By trades a minute of the whole time."""


@dataclass
class Seen:
    """What the symbols of one kind showed."""

    symbols: int = 0
    alarms: int = 0
    by_pace_alone: int = 0
    doubts: int = 0
    days: float = 0.0
    detected: list[float] = field(default_factory=list)

    def told(self) -> dict[str, float | int]:
        weeks = self.days / 7
        return {
            "symbols": self.symbols,
            "symbol_weeks": round(weeks, 1),
            "alarms": self.alarms,
            "alarms_per_symbol_week": round(self.alarms / weeks, 3),
            "by_pace_alone_per_symbol_week": round(self.by_pace_alone / weeks, 3),
            "doubts_per_symbol_week": round(self.doubts / weeks, 2),
            "detected_median_s": round(median(self.detected), 1),
            "detected_most_s": round(max(self.detected), 1),
        }


def arrivals(tape: Tape, instrument: Instrument, days: int) -> Iterator[float]:
    """When something came of a symbol, seconds; what comes within a second of the last is left out."""
    last = -1.0
    for day in range(FIRST_DAY, FIRST_DAY + days):
        for trade in tape.trades(instrument, day * MINUTES, (day + 1) * MINUTES):
            at = trade.ts / 1000
            if at - last >= 1.0:
                last = at
                yield at


def of_a_day(moments: Sequence[float]) -> Pace:
    """The pace that a live run guesses from the trades of a day."""
    seconds = sorted({int(at) for at in moments})
    longest = max((later - before for before, later in pairwise(seconds)), default=0)
    symbol = Symbol(Market.SPOT, "ANYUSDT")
    stored = Stored(len(seconds), float(seconds[-1] - seconds[0]), float(longest))
    return guessed({symbol: stored}, steady=moments[-1]).get(symbol, Pace())


def play(moments: Sequence[float], seen: Seen, *, seeded: bool) -> None:
    """One symbol's arrivals, each gap held against what was allowed before it ended."""
    state, begins = SymbolState(), moments[0] + DAY
    if seeded:
        state.paced = of_a_day([at for at in moments if at <= begins])
        moments = [at for at in moments if at > begins]
    for at in moments:
        pace = state.paced
        if pace.heard_at is not None and at > begins and pace.known:
            gap = at - pace.heard_at
            if gap > pace.silence_within(DOUBTED):
                doubts, alarm = doubted(pace, gap)
                seen.doubts += doubts
                seen.alarms += alarm
                seen.by_pace_alone += gap > pace.silence_within(SILENCE) + ANSWER_WITHIN
        pace.heard(now=at)
    seen.symbols += 1
    seen.days += (moments[-1] - begins) / DAY
    seen.detected.append(state.within or 0.0)


def doubted(pace: Pace, gap: float) -> tuple[int, bool]:
    """How often a connection doubts in a gap (feed/session.py: ever more patiently), and whether anybody is told of it."""
    patience, told = pace.silence_within(DOUBTED), SymbolState(paced=pace)
    heard = asked = 0.0  # when the last snapshot came, and when it was asked for
    alarm = False
    while True:
        doubt = asked + min(patience * 2**told.proofs, DOUBTED.most)
        alarm = alarm or min(gap, doubt + ANSWERED_AFTER) - heard > (told.within or 0.0)
        if doubt >= gap:
            return told.proofs, alarm
        asked, heard = doubt, doubt + ANSWERED_AFTER
        told.proofs += 1


def chosen(universe: Universe, tape: Tape, each: int) -> dict[str, list[Instrument]]:
    """Some instruments of each kind that trade all the time, evenly out of all there are."""
    found: dict[str, list[Instrument]] = {kind: [] for kind in KINDS}
    for market in ("spot", "usdtm"):
        for one in universe.instruments(market):
            if one.listed_minute > (FIRST_DAY - 1) * MINUTES or one.closed_minute is not None:
                continue
            rate = float(np.mean([tape.day_counts(one, FIRST_DAY + day).sum() for day in (1, 3, 5)])) / MINUTES
            kind = next(name for name, (low, high) in KINDS.items() if low <= rate < high)
            if rate > 0:
                found[kind].append(one)
    return {kind: some[:: max(1, len(some) // each)][:each] for kind, some in found.items()}


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--each", type=int, default=12, help="symbols of each kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--seeded", action="store_true", help="begin with a pace that is guessed from the first day's trades"
    )
    wanted = parser.parse_args()
    universe = Universe(ExchangeConfig(seed=wanted.seed), now_ms=FIRST_DAY * 86_400_000)
    tape = Tape(cached_days=4)
    result: dict[str, dict[str, float | int]] = {}
    for kind, instruments in chosen(universe, tape, wanted.each).items():
        seen = Seen()
        for instrument in instruments:
            moments = list(arrivals(tape, instrument, wanted.days))
            if len(moments) > 100:
                play(moments, seen, seeded=wanted.seeded)
        if seen.symbols:
            result[kind] = seen.told()
    asked = {"days": wanted.days, "seed": wanted.seed, "seeded": wanted.seeded}
    print(json.dumps({"bench": "false_alarms", **asked, "kinds": result}))


if __name__ == "__main__":
    main()
