"""
Whether a minute made of our trades is the exchange's own. Pure.

Asked by pipeline/beside/reconcile.py. Trade ids have holes, so a lost trade shows nowhere but here: the volume of the minute, and
often its prices, differ from the exchange's bar.
"""

from __future__ import annotations

from .candle import Candle
from .rollup import LiveCandle

VOLUME_ROUNDING = 1e-9
"""Of the volume, relative: ours is a sum of floats."""

Fields = tuple[str, ...]


def as_served(ours: LiveCandle | None, theirs: Candle, *, previous_close: float | None) -> Candle:
    """
    Our minute as the exchange would show it: it opens at the previous close, which also counts for high and low.

    That is a habit of the exchange and no law (measured), so a bar of theirs that opens at our first trade is read that
    way. Without trades it is flat at the previous close.
    """
    if ours is None:
        flat = theirs.open if previous_close is None else previous_close
        return Candle(theirs.open_ms, flat, flat, flat, flat, 0.0, 0.0)
    opened = ours.first if previous_close is None or theirs.open == ours.first else previous_close
    return Candle(
        ours.open_ms,
        opened,
        max(opened, ours.high),
        min(opened, ours.low),
        ours.last,
        ours.base_volume,
        ours.quote_volume,
    )


def differences(ours: Candle, theirs: Candle, *, size_step: float) -> Fields:
    """
    Which of open, high, low, close and base volume differ: prices exactly, the volume at the instrument's size step.

    Where neither has a trade, there is nothing to differ in.
    """
    tolerance = max(size_step / 2, VOLUME_ROUNDING * theirs.base_volume)
    if ours.base_volume < tolerance and theirs.base_volume < tolerance:
        return ()
    found = tuple(name for name in ("open", "high", "low", "close") if getattr(ours, name) != getattr(theirs, name))
    return (*found, "base_volume") if abs(ours.base_volume - theirs.base_volume) > tolerance else found


def trades_missing(differing: Fields) -> bool:
    """Whether the difference is one that trades make. Where the bar opens is the exchange's choice."""
    return bool(differing) and differing != ("open",)
