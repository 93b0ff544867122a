"""
A picture of the ledger: a row for each symbol, a column for each day, a colour for each state.

Input: days as market/coverage_days.py folds them; output: a PNG as bytes, which the asset `coverage` shows in its
metadata. PNG's simplest form (a palette, no filter) needs nothing but zlib.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from datetime import date

from ..market.coverage import CoverageState
from ..market.coverage_days import DayCoverage
from ..market.instrument import Symbol

COLOURS: dict[str, tuple[int, int, int]] = {
    "complete": (46, 160, 67),
    "partial": (227, 160, 8),
    "verified_empty": (140, 170, 200),
    "unavailable": (190, 190, 190),
    "expired": (215, 215, 215),
    "unexplained": (160, 60, 180),
    "unknown": (207, 34, 46),
    "ground": (255, 255, 255),
}
_PALETTE = {name: index for index, name in enumerate(COLOURS)}
_WORST_FIRST = (
    CoverageState.UNKNOWN,
    CoverageState.UNEXPLAINED,
    CoverageState.PARTIAL,
    CoverageState.UNAVAILABLE,
    CoverageState.EXPIRED,
    CoverageState.COMPLETE,
    CoverageState.VERIFIED_EMPTY,
)
_CELLS_WIDE = 900
_CELLS_HIGH = 700

LEGEND = "green complete, amber partial, blue proven empty, grey unavailable, purple unexplained, red not known"


def heat_map(
    found: Mapping[tuple[Symbol, date], DayCoverage], *, symbols: Sequence[Symbol], days: Sequence[date]
) -> bytes:
    """
    The picture, symbols from top to bottom and days from left to right, cells as large as it bears. Of more days than it is wide
    some share a column, which shows the worst; what is not in `found` is left blank.
    """
    together = -(-len(days) // _CELLS_WIDE) or 1
    columns = [days[start : start + together] for start in range(0, len(days), together)]
    wide = max(1, min(24, _CELLS_WIDE // max(1, len(columns))))
    high = max(1, min(10, _CELLS_HIGH // max(1, len(symbols))))
    rows = bytearray()
    for symbol in symbols:
        row = bytearray()
        for column in columns:
            states = [found[symbol, day].state for day in column if (symbol, day) in found]
            colour = min(states, key=_WORST_FIRST.index).value if states else "ground"
            margin = 1 if wide > 3 else 0
            row += bytes([_PALETTE[colour]]) * (wide - margin) + bytes([_PALETTE["ground"]]) * margin
        margin = 1 if high > 3 else 0
        rows += (b"\0" + row) * (high - margin)
        rows += (b"\0" + bytes([_PALETTE["ground"]]) * len(row)) * margin
    return _png(bytes(rows), width=max(1, wide * len(columns)), height=max(1, high * len(symbols)))


def _png(rows: bytes, *, width: int, height: int) -> bytes:
    """Rows of palette indices, each after a zero (no filter), as a file (PNG specification, chunks IHDR PLTE IDAT IEND)."""
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    palette = b"".join(bytes(colour) for colour in COLOURS.values())
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
