"""
How far we hold each symbol's trades without a hole.

Kept in Redis beside the stream and changed in the same call as the append (lua/append.lua), read by pipeline/ when it
resumes and repairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..market.instrument import Symbol


@dataclass(frozen=True, slots=True)
class OpenGap:
    """
    Trades may be missing after `after_id` and before `before_id`; both are held. `opened_ms` is when it was found, Unix
    ms of the Redis server.

    A repair works downwards and takes `before_id` along: it began at `top_id`, and has fetched `fetched` trades so far.
    """

    after_id: int
    before_id: int
    opened_ms: int
    top_id: int = 0
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class Anchor:
    """
    What we hold of a symbol: everything through `contiguous_id` (since the symbol's first trade here), and nothing
    above `highest_id`.

    They are the same unless a gap is open. `gaps` are those, the oldest first.
    """

    contiguous_id: int
    highest_id: int
    gaps: tuple[OpenGap, ...] = ()

    @property
    def gap(self) -> OpenGap | None:
        """The newest gap, which is repaired first."""
        return self.gaps[-1] if self.gaps else None


class Held(NamedTuple):
    """Everything of a symbol from `from_id` through `through_id` is held; `trades` of them were fetched for it."""

    symbol: Symbol
    from_id: int
    through_id: int
    trades: int = 0


def padded(trade_id: int) -> str:
    """An id as text that sorts like the number: Lua's numbers end at 2^53, ids do not."""
    return f"{trade_id:020d}"


def parse_anchor(text: str) -> Anchor:
    """The anchor that lua/append.lua wrote."""
    highest, _, rest = text.partition("|")
    gaps: list[OpenGap] = []
    if rest.strip("|"):
        for one in rest.replace("|", ",").split(";"):  # with bars: from before gaps had a progress
            after, before, opened, *more = (int(part) for part in one.split(","))
            top, fetched = more or (before, 0)
            gaps.append(OpenGap(after, before, opened, top, fetched))
    newest = int(highest or 0)
    return Anchor(gaps[0].after_id if gaps else newest, newest, tuple(gaps))
