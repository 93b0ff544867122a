"""
Recorded bars and trades of real markets, served as the history of their symbols.

Input: a folder of CSV files (optionally gzipped), all with a header:

- `<market>_<SYMBOL>_1m….csv[.gz]`, columns `open_ts_ms` (or `timestamp_ms`), `open`, `high`, `low`, `close`, `volume` (or
  `volume_base`), optionally `quote_volume` and `closed` (0: still open, left out);
- `<market>_<SYMBOL>_trades….csv[.gz]`, columns `ts_ms`, `price`, `size`, `side`, oldest first.

`market` is spot, usdtm, coinm or usdcm; `bitget_v1_mc_…`, `bitget_v1_sp_…`, `bitget_v2_usdtfutures_…` and `bitget_v2_spot_…`
are understood too. Where a file has no quote volume it is volume × the bar's mean price; trades get ids from their time.
Output: days of integer bars, and trades, as the tape asks for them.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import SettingsInvalid
from .instruments import DAY_MINUTES, TRADE_EPOCH_MS, Trade

_NAME = re.compile(
    r"^(?P<place>spot|usdtm|coinm|usdcm|bitget_v1_mc|bitget_v1_sp|bitget_v2_usdtfutures|bitget_v2_spot)"
    r"_(?P<symbol>[^_.]+)_(?P<kind>1m|trades)"
)
_PLACES = {"bitget_v1_mc": "usdtm", "bitget_v1_sp": "spot", "bitget_v2_usdtfutures": "usdtm", "bitget_v2_spot": "spot"}


@dataclass
class RecordedDay:
    """Bars of one UTC day; `minutes` are minutes of the day, the rest integers in the recording's units."""

    minutes: npt.NDArray[np.int64]
    open: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    close: npt.NDArray[np.int64]
    volume: npt.NDArray[np.int64]
    turnover: npt.NDArray[np.int64]


@dataclass
class Recording:
    """All that is recorded of one symbol."""

    market: str
    symbol: str
    price_decimals: int
    size_decimals: int
    days: dict[int, RecordedDay]
    trades: list[Trade]
    first_minute: int
    source: str = ""


class RecordedMarket:
    """Recordings by `market:symbol`, as the tape asks for them."""

    def __init__(self, recordings: dict[str, Recording]) -> None:
        self.recordings = recordings

    def covered(self, name: str, day: int) -> npt.NDArray[np.int64]:
        """Minutes of that day that are recorded."""
        bars = self.bars(name, day)
        return bars.minutes if bars is not None else np.zeros(0, dtype=np.int64)

    def bars(self, name: str, day: int) -> RecordedDay | None:
        """The recorded bars of a day, if any."""
        recording = self.recordings.get(name)
        return recording.days.get(day) if recording else None

    def trades(self, name: str, first_minute: int, end_minute: int) -> list[Trade]:
        """The recorded trades of the epoch minutes [first, end)."""
        recording = self.recordings.get(name)
        if recording is None:
            return []
        return [trade for trade in recording.trades if first_minute <= trade.ts // 60_000 < end_minute]


def load(folder: Path) -> RecordedMarket:
    """
    Read every recording of a folder.

    :raises SettingsInvalid: the folder does not exist, or a file cannot be understood.
    """
    if not folder.is_dir():
        raise SettingsInvalid("no such folder of recordings", where=str(folder), remedy="give an existing folder")
    bars: dict[str, list[dict[str, str]]] = {}
    trades: dict[str, list[dict[str, str]]] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.match(path.name)
        if match is None or not path.name.endswith((".csv", ".csv.gz")):
            continue
        market = _PLACES.get(match["place"], match["place"])
        into = bars if match["kind"] == "1m" else trades
        into.setdefault(f"{market}:{match['symbol']}", []).extend(_rows(path))
    try:
        return RecordedMarket({name: _recording(name, rows, trades.get(name, [])) for name, rows in bars.items()})
    except (KeyError, ValueError, InvalidOperation) as error:
        raise SettingsInvalid(f"a recording cannot be understood: {error!r}", where=str(folder)) from error


def _rows(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return list(csv.DictReader(io.StringIO(text)))


def _decimals(texts: list[str]) -> int:
    return max((-int(Decimal(text).normalize().as_tuple().exponent) for text in texts), default=0)


def _recording(name: str, rows: list[dict[str, str]], trades: list[dict[str, str]]) -> Recording:
    market, symbol = name.split(":")
    rows = [row for row in rows if row.get("closed", "1") != "0"]
    stamp = "open_ts_ms" if "open_ts_ms" in rows[0] else "timestamp_ms"
    amount = "volume_base" if "volume_base" in rows[0] else "volume"
    columns = ("open", "high", "low", "close")
    price_texts = [row[c] for row in rows for c in columns] + [t["price"] for t in trades]
    size_texts = [row[amount] for row in rows] + [t["size"] for t in trades]
    p, q = max(0, _decimals(price_texts)), max(0, _decimals(size_texts))

    def whole(text: str, decimals: int) -> int:
        return int(Decimal(text).scaleb(decimals))

    by_day: dict[int, list[tuple[int, ...]]] = {}
    for row in sorted(rows, key=lambda row: int(row[stamp])):
        minute = int(row[stamp]) // 60_000
        prices = [whole(row[c], p) for c in columns]
        volume = whole(row[amount], q)
        turnover = whole(row["quote_volume"], p + q) if row.get("quote_volume") else volume * sum(prices) // 4
        by_day.setdefault(minute // DAY_MINUTES, []).append((minute % DAY_MINUTES, *prices, volume, turnover))
    by_day = _without_holes(by_day)
    days = {
        day: RecordedDay(*(np.array(column, dtype=np.int64) for column in zip(*bars, strict=True)))
        for day, bars in by_day.items()
    }
    first = min(day * DAY_MINUTES + int(bars.minutes[0]) for day, bars in days.items())
    return Recording(market, symbol, p, q, days, _trades(trades, p, q), first)


def _without_holes(by_day: dict[int, list[tuple[int, ...]]]) -> dict[int, list[tuple[int, ...]]]:
    """Flat bars for minutes a source omits because nobody traded: Bitget sends them. Holes of a day or more stay holes."""
    filled: dict[int, list[tuple[int, ...]]] = {}
    last: tuple[int, int] | None = None  # epoch minute and close
    for day in sorted(by_day):
        for bar in by_day[day]:
            minute = day * DAY_MINUTES + bar[0]
            if last is not None and minute - last[0] < DAY_MINUTES:
                for missing in range(last[0] + 1, minute):
                    row = (missing % DAY_MINUTES, *(last[1],) * 4, 0, 0)
                    filled.setdefault(missing // DAY_MINUTES, []).append(row)
            filled.setdefault(day, []).append(bar)
            last = (minute, bar[4])
    return filled


def _trades(rows: list[dict[str, str]], p: int, q: int) -> list[Trade]:
    made: list[Trade] = []
    for row in rows:
        ts = int(row["ts_ms"])
        rank = sum(1 for trade in made if trade.ts == ts)
        ident = ((ts - TRADE_EPOCH_MS) << 22) | (rank << 12)
        price, size = (int(Decimal(row[c]).scaleb(d)) for c, d in (("price", p), ("size", q)))
        made.append(Trade(ts, ident, price, size, row["side"].lower()))
    return made
