"""
Minutes that agree with the exchange's, put together to stretches for the ledger. Used by reconcile.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..market.candle import Resolution
from ..market.instrument import Symbol
from ..market.interval import Interval
from ..storage.reconciliation_rows import WHOLE
from ..storage.warehouse import Agreement

MINUTE_MS = Resolution.M1.ms


def agreed_stretches(
    found: Mapping[tuple[Symbol, int], tuple[Agreement, int]],
) -> Iterator[tuple[Symbol, Interval, int]]:
    """
    The longest stretches of neighbouring minutes of a symbol of which no trade is missing, with their trades: one
    statement for an hour in which everything agrees.
    """
    start = end = trades = 0
    current: Symbol | None = None
    for (symbol, minute), (state, inside) in sorted(found.items(), key=lambda item: (str(item[0][0]), item[0][1])):
        if state not in WHOLE:
            continue
        if symbol != current or minute != end:
            if current is not None:
                yield current, Interval(start, end), trades
            current, start, trades = symbol, minute, 0
        end, trades = minute + MINUTE_MS, trades + inside
    if current is not None:
        yield current, Interval(start, end), trades
