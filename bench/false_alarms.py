"""
How often a symbol that is well is called silent, and how soon one that is not is noticed: on the simulated market's own tape.

    python -m bench.false_alarms [--days 28] [--each 12] [--seed 7] [--seeded]

The tape of `--each` symbols of each kind is played to what listens in a live run, without waiting for it: the session of its
connection (feed/session.py: it doubts a silence, asks again, is replaced every day), the live run's state, and health's verdict
on it (pipeline/watch/of_the_run.py). An exchange that is well answers a doubt with a snapshot after two seconds. What comes
within a second is one arrival, as there. The first day teaches and does not count. The market is taken twice, the second time
with a tenth of the trades, so that there are symbols of every kind.

An alarm is a silence that health calls degraded or critical. `by_pace_alone` counts what would be told without doubts, and
`doubts` what the connection asks: two frames each. `detected` is after how many seconds a symbol that falls mute at the end is
called silent. Exit code 1 when a kind has more than one alarm a symbol-week.

With `--seeded` nothing is learned on the first day: its pace is guessed from the seconds that had trades, as a live run does
where Redis knows nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from statistics import median

import numpy as np

from bitget_pipeline.exchange.contract import Channel, Subscription
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.actions import Reconnect, Renew, Report, Send, Stale
from bitget_pipeline.feed.pace import Pace
from bitget_pipeline.feed.session import Session
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.guard.vitals import Status
from bitget_pipeline.local.exchange import ExchangeConfig
from bitget_pipeline.local.exchange.instruments import Instrument
from bitget_pipeline.local.exchange.tape import Tape
from bitget_pipeline.local.exchange.universe import Universe
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.live.paces import guessed
from bitget_pipeline.pipeline.live.state import ANSWER_WITHIN, SILENCE, LiveState
from bitget_pipeline.pipeline.watch.health_rules import HealthRules
from bitget_pipeline.pipeline.watch.of_the_run import symbol_vitals
from bitget_pipeline.storage.trade_rows import Stored

DAY, MINUTES = 86_400.0, 1_440
FIRST_DAY = 20_700  # since 1970
ANSWERED_AFTER = 2.0
MOST_A_WEEK = 1.0
QUIETER = 0.1
"""The part of the usual trades that the second market has."""

KINDS = {
    "a trade a second and more": (60.0, 1e9),
    "10 to 60 a minute": (10.0, 60.0),
    "1 to 10 a minute": (1.0, 10.0),
    "less than 1 a minute": (0.0, 1.0),
}
"""By trades a minute of the whole time."""

SYMBOL = Symbol(Market.SPOT, "AUSDT")
TRADES = Subscription(SYMBOL, Channel.TRADE)
ARRIVAL = TradeBatch(SYMBOL, [Trade(1, 0, 1.0, 1.0, True)], 0)
RULES = SessionRules.within(get("bitget").limits)
HEALTH = HealthRules()
ILL = (Status.DEGRADED, Status.CRITICAL)


@dataclass
class Seen:
    """What the symbols of one kind showed."""

    symbols: int = 0
    alarms: int = 0
    by_pace_alone: int = 0
    doubts: int = 0
    days: float = 0.0
    detected: list[float] = field(default_factory=list)

    @property
    def a_week(self) -> float:
        """Alarms a symbol-week."""
        return self.alarms / (self.days / 7)

    def told(self) -> dict[str, float | int]:
        weeks = self.days / 7
        return {
            "symbols": self.symbols,
            "symbol_weeks": round(weeks, 1),
            "alarms": self.alarms,
            "alarms_per_symbol_week": round(self.a_week, 3),
            "by_pace_alone_per_symbol_week": round(self.by_pace_alone / weeks, 3),
            "doubts_per_symbol_week": round(self.doubts / weeks, 2),
            "detected_median_s": round(median(self.detected), 1),
            "detected_most_s": round(max(self.detected), 1),
        }


class Words:
    """How control frames are spelled here."""

    def subscribe(self, subscriptions: Sequence[Subscription], /) -> list[str]:
        return ["subscribe"]

    def unsubscribe(self, subscriptions: Sequence[Subscription], /) -> list[str]:
        return ["end"]

    def ping(self) -> str:
        return "ping"


class Listening:
    """One symbol as a live run listens to it, and an exchange that answers, unless it is `mute`."""

    def __init__(self, pace: Pace, *, now: float) -> None:
        self.mute = False
        self.doubts = 0
        self._now = self._opened = now
        self._state = LiveState([SYMBOL], steady=lambda: self._now)
        self._state.of(SYMBOL).paced = pace.resumed()
        self._session = Session(Words(), [TRADES], now=now, rules=RULES, paces={TRADES: pace})
        self._answer_at = inf
        self._alarmed = False  # within this silence

    @property
    def is_known(self) -> bool:
        """Whether its pace is."""
        return self._state.of(SYMBOL).paced.known

    def by_pace_alone(self, gap: float) -> bool:
        """Whether a gap would be called silent without asking anybody."""
        return gap > self._state.of(SYMBOL).paced.silence_within(SILENCE) + ANSWER_WITHIN

    def arrives(self, at: float) -> bool:
        """Something comes; whether the silence until then was called one."""
        self._pass(until=at)
        self._now = at
        alarmed, self._alarmed = self._alarmed or self.is_ill, False
        self._session.heard([TRADES], now=at)
        self._session.data(TRADES)
        self._state.note_appended([ARRIVAL], ["1-1"])
        return alarmed

    @property
    def is_ill(self) -> bool:
        """Health's verdict now."""
        return symbol_vitals(self._state.published(), rules=HEALTH)[0].status in ILL

    def noticed_after(self) -> float:
        """The seconds after which a symbol that is mute from now on is called silent."""
        self.mute, self._answer_at, began = True, inf, self._now
        while not self.is_ill:
            self._step(self._next(began))
        return self._now - began

    def _pass(self, *, until: float) -> None:
        """
        Time goes by without anything new. Nothing is doubted before the least silence, so nobody has to ask until then, unless
        the connection's time is over.
        """
        began = self._now
        if until - began <= RULES.silence.least and until < min(self._answer_at, self._opened + RULES.renew_after):
            return
        while self._now < until:
            self._step(min(until, self._next(began)))

    def _next(self, began: float) -> float:
        """When to look again: soon while frames wait to be sent, else every second, and every five in a long silence."""
        due = self._session.due(now=self._now)
        look = self._now + (1.0 if self._now - began < 120.0 else 5.0)
        return max(self._now + 1e-3, min(self._answer_at, due if due < self._now + 0.5 else look))

    def _step(self, now: float) -> None:
        if now >= self._answer_at:
            self._now = self._answer_at
            self._alarmed = self._alarmed or self.is_ill
            self._session.acknowledged(TRADES)
            self._session.data(TRADES, snapshot=True)
            self._state.note_snapshot(SYMBOL)
            self._answer_at = inf
        self._now = now
        for action in self._session.tick(now=now):
            match action:
                case Send("ping"):
                    self._session.ponged()
                case Send("subscribe") if not self.mute:
                    self._answer_at = now + ANSWERED_AFTER
                case Stale():
                    self.doubts += 1
                case Report(_, problem):
                    self._state.of(SYMBOL).silent = problem
                case Renew() | Reconnect():
                    paces = self._session.paces()
                    self._session, self._opened = Session(Words(), [TRADES], now=now, rules=RULES, paces=paces), now


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
    stored = Stored(len(seconds), float(seconds[-1] - seconds[0]), float(longest))
    return guessed({SYMBOL: stored}, steady=moments[-1]).get(SYMBOL, Pace())


def play(moments: Sequence[float], seen: Seen, *, seeded: bool) -> None:
    """One symbol's arrivals, and its end."""
    begins, pace = moments[0] + DAY, Pace()
    if seeded:
        pace = of_a_day([at for at in moments if at <= begins])
        moments = [at for at in moments if at > begins]
    last, doubts = moments[0], 0
    listening = Listening(pace, now=last - 1.0)
    for at in moments:
        counts = at > begins and listening.is_known
        seen.by_pace_alone += counts and listening.by_pace_alone(at - last)
        alarmed = listening.arrives(at)
        seen.alarms += counts and alarmed
        seen.doubts += listening.doubts - doubts if counts else 0
        doubts, last = listening.doubts, at
    seen.symbols += 1
    seen.days += (moments[-1] - begins) / DAY
    seen.detected.append(listening.noticed_after())


def markets(seed: int) -> Iterator[tuple[Universe, Tape]]:
    """The market as it is, and with fewer trades."""
    usual = ExchangeConfig(seed=seed).trades_per_second
    for part in (1.0, QUIETER):
        config = ExchangeConfig(seed=seed, trades_per_second=usual * part)
        yield Universe(config, now_ms=FIRST_DAY * 86_400_000), Tape(cached_days=4)


def chosen(seed: int, each: int) -> dict[str, list[tuple[Tape, Instrument]]]:
    """Some instruments of each kind that trade all the time, evenly out of all there are."""
    found: dict[str, list[tuple[Tape, Instrument]]] = {kind: [] for kind in KINDS}
    for universe, tape in markets(seed):
        for market in ("spot", "usdtm"):
            for one in universe.instruments(market):
                if one.listed_minute > (FIRST_DAY - 1) * MINUTES or one.closed_minute is not None:
                    continue
                rate = float(np.mean([tape.day_counts(one, FIRST_DAY + day).sum() for day in (1, 3, 5)])) / MINUTES
                if rate > 0:
                    kind = next(name for name, (low, high) in KINDS.items() if low <= rate < high)
                    found[kind].append((tape, one))
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
    found: dict[str, Seen] = {}
    for kind, instruments in chosen(wanted.seed, wanted.each).items():
        seen = Seen()
        for tape, instrument in instruments:
            moments = list(arrivals(tape, instrument, wanted.days))
            if len(moments) > 100:
                play(moments, seen, seeded=wanted.seeded)
        if seen.symbols:
            found[kind] = seen
    told = {kind: seen.told() for kind, seen in found.items()}
    asked = {"days": wanted.days, "seed": wanted.seed, "seeded": wanted.seeded}
    print(json.dumps({"bench": "false_alarms", **asked, "kinds": told}))
    sys.exit(int(any(seen.a_week > MOST_A_WEEK for seen in found.values())))


if __name__ == "__main__":
    main()
