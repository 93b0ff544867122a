"""
How often Python looks for garbage while a walk is at work: seldom.

What a frame or a page leaves behind is freed as soon as nobody holds it; only cycles need the collector, and the hot paths make
none. With the interpreter's defaults it looks through all young objects at every 700 new ones.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = (25_000, 20, 20)
"""New objects before a look at the young ones, and so many looks before one at the older, and at all."""

_at_work: list[tuple[int, int, int]] = []
"""The thresholds before each walk that is at work in this process; the first are those to go back to."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """For the length of a block; what is there already (modules, settings, tables) is not looked at in it."""
    if not _at_work:
        gc.collect()
        gc.freeze()
    _at_work.append(gc.get_threshold() if not _at_work else _at_work[0])
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        usual = _at_work.pop()
        if not _at_work:
            gc.set_threshold(*usual)
            gc.unfreeze()
