"""
Spill files that nobody drained, and whose trades are stored all the same.

A live run drains its folder itself and removes what it drained. A file is left when the machine of a run was replaced:
the successor found the break and fetched it from the exchange. Such a file goes when each of its trades lies in
ClickHouse and no gap is open up to its newest one; any other stays, and is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from ...errors import PipelineError
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...market.trade import Broke, Trade, TradeBatch
from ...storage.anchors import Anchor
from ...storage.spill import SUFFIX, Spill, Torn
from ...storage.warehouse import Warehouse
from .report import Freed

LEFT_AFTER_MS = 86_400_000
"""A file that was not written to for a day is left over; younger ones are the live run's."""


async def remove_left_spills(
    folder: Path, anchors: Mapping[Symbol, Anchor], warehouse: Warehouse, *, source: str, now_ms: int, dry: bool
) -> Freed:
    """Look through the folders of all shards on this machine. `now_ms` is this machine's time."""
    freed = Freed("spill files")
    reasons: set[str] = set()
    for file in sorted(folder.glob(f"*/*{SUFFIX}")):
        try:
            told = file.stat()
            if now_ms - told.st_mtime * 1000 < LEFT_AFTER_MS:
                continue
            missing = await asyncio.to_thread(_missing, file, anchors, warehouse, source)
        except FileNotFoundError:  # drained meanwhile
            continue
        except PipelineError as error:
            freed.problem = str(error)
            continue
        if missing:
            freed.kept += 1
            reasons.add(missing)
            continue
        if not dry:
            file.unlink(missing_ok=True)
        freed.items += 1
        freed.bytes += told.st_size
    freed.why = "; ".join(sorted(reasons))
    return freed


def _missing(file: Path, anchors: Mapping[Symbol, Anchor], warehouse: Warehouse, source: str) -> str:
    """Why a file has to stay, empty when it need not."""
    held: dict[Symbol, list[Trade]] = {}
    for item in Spill(file.parent).read(file):
        if isinstance(item, Torn):
            return "a part of it cannot be read"
        if isinstance(item, TradeBatch) and item.trades:
            held.setdefault(item.symbol, []).extend(item.trades)
        elif isinstance(item, Broke) and any(symbol not in anchors or anchors[symbol].gaps for symbol in item.symbols):
            return "it tells of a break that is not repaired"
    for symbol, trades in held.items():
        anchor = anchors.get(symbol)
        if anchor is None or anchor.contiguous_id < max(trade.trade_id for trade in trades):
            return "it is not drained"
        times = [trade.ts_ms for trade in trades]
        # The exchange's history tells only the second of a trade.
        within = Interval(min(times) // 1000 * 1000, max(times) // 1000 * 1000 + 1000)
        stored = {trade.trade_id for trade in warehouse.trades(symbol, within, source=source)}
        if any(trade.trade_id not in stored for trade in trades):
            return "trades of it are not stored"
    return ""
