"""
How far we hold each symbol's trades without a hole.

Kept in Redis beside the stream and changed in the same call as the append (lua/append.lua), read by pipeline/ when it
resumes and repairs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OpenGap:
    """
    Trades may be missing after `after_id` and before `before_id`; both are held. `opened_ms` is when it was found, Unix
    ms of the Redis server.
    """

    after_id: int
    before_id: int
    opened_ms: int


@dataclass(frozen=True, slots=True)
class Anchor:
    """
    What we hold of a symbol: everything through `contiguous_id` (since the symbol's first trade here), and nothing
    above `highest_id`.

    They are the same unless a gap is open.
    """

    contiguous_id: int
    highest_id: int
    gap: OpenGap | None = None


def padded(trade_id: int) -> str:
    """An id as text that sorts like the number: Lua's numbers end at 2^53, ids do not."""
    return f"{trade_id:020d}"


def parse_anchor(text: str) -> Anchor:
    """The anchor that lua/append.lua wrote."""
    highest, after, before, opened = text.split("|")
    if not after:
        return Anchor(int(highest or 0), int(highest or 0))
    return Anchor(int(after), int(highest or 0), OpenGap(int(after), int(before), int(opened)))
