"""
How long trades take to the table: from their arrival, and from their own time at the exchange.

Part of a live run's state (state.py), which notes each batch that was stored; judged by watch/of_the_run.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...market.trade import TradeBatch

KEPT = 2048
COUNTS_FOR = 60.0
"""Seconds for which it counts how long a batch took."""
STUCK_AFTER = 5.0
"""Seconds that the oldest batch has to wait, with none stored meanwhile, until its own age tells more than those before it."""


class Lag(NamedTuple):
    """
    A batch of live trades that was stored, and when that was seen (of a steady clock): milliseconds since it `arrived`, and since
    its oldest trade was `made`, which is the difference of two clocks.
    """

    at: float
    arrived: int
    made: int
    rows: int


class Lags:
    """
    The batches of the last minute. `clock_ahead_ms` is the exchange's clock as its probes show it, None while nobody knows;
    watch/attention.py says so. `waits` is for how many seconds the oldest trades have been waiting that are not stored.
    """

    def __init__(self, steady: Callable[[], float]) -> None:
        self.clock_ahead_ms: float | None = None
        self._steady = steady
        self._lags: deque[Lag] = deque(maxlen=KEPT)

    def note(self, batch: TradeBatch, *, now_ms: int) -> None:
        """It can be queried. Snapshots and repairs hold what was traded long ago: they say nothing."""
        if batch.trades and not batch.snapshot:
            made = now_ms - batch.trades[0].ts_ms
            self._lags.append(Lag(self._steady(), now_ms - batch.received_ms, made, len(batch.trades)))

    def since_arrival(self, *quantiles: float, waits: float) -> list[int | None]:
        """
        Milliseconds from a trade's arrival to its row; at least the age of the oldest that waits when none was stored since
        it came. None when nothing is known of the last minute. `quantiles` ascend.
        """
        lately, waiting = self._lately(), round(waits * 1000)
        if not lately:
            return [waiting if waits > 0 else None] * len(quantiles)
        found = _quantiles([(one.arrived, one.rows) for one in lately], quantiles)
        if waits > STUCK_AFTER and self._steady() - lately[-1].at >= waits:
            return [max(one, waiting) for one in found]
        return list(found)

    def since_made(self, *quantiles: float, waits: float) -> list[int | None]:
        """The same from the oldest trade of each batch, by the exchange's clock; None while that is not known."""
        ahead = self.clock_ahead_ms
        if ahead is None:
            return [None] * len(quantiles)
        found = _quantiles([(round(one.made + ahead), one.rows) for one in self._lately()], quantiles)
        arrived = self.since_arrival(*quantiles, waits=waits)  # no trade arrives before it was made
        return [max(one, other or 0) for one, other in zip(found, arrived, strict=True)] if found else arrived

    def _lately(self) -> deque[Lag]:
        since = self._steady() - COUNTS_FOR
        while self._lags and self._lags[0].at < since:
            self._lags.popleft()
        return self._lags


def _quantiles(lags: list[tuple[int, int]], quantiles: Sequence[float]) -> list[int]:
    """Of lags and how many trades had each; empty without any."""
    if not lags:
        return []
    lags.sort()
    total, reached, found = sum(rows for _, rows in lags), 0, list[int]()
    for lag, rows in lags:
        reached += rows
        while len(found) < len(quantiles) and reached >= quantiles[len(found)] * total:
            found.append(lag)
    return found + [lags[-1][0]] * (len(quantiles) - len(found))
