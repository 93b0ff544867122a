"""
What spot and futures endpoints share: reading parameters, refusing bad ones, and the pages of candles and trades.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .bars import Bar, Granularity
from .faults import Fault
from .instruments import MINUTE_MS, TRADE_EPOCH_MS, Instrument, Trade
from .rest import ApiError
from .venue import Venue
from .wire import candle_row

DAY_MS = 86_400_000
FILLS_HISTORY_DAYS = 90
FILLS_WINDOW_MS = 7 * DAY_MS


def number(params: Mapping[str, str], name: str, *, code: str) -> int | None:
    """An optional whole, non-negative number."""
    raw = params.get(name, "")
    if not raw:
        return None
    if not raw.isascii() or not raw.isdigit():
        raise ApiError(
            code, f"Parameter verification failed {name}" if code == "40017" else "Parameter verification failed"
        )
    return int(raw)


def limit_of(venue: Venue, params: Mapping[str, str], *, default: int, most: int, code: str) -> int:
    """The page size: clamped to the maximum, or refused above it, as the config says (the real behaviour is unknown)."""
    value = number(params, "limit", code=code)
    if value is None:
        return default
    if value == 0 or (value > most and venue.config.oversized_limit == "refuse"):
        raise ApiError("400172", "Parameter verification failed")
    return min(value, most)


def retained(bars: list[Bar], granularity: Granularity, now_ms: int) -> list[Bar]:
    """What the `candles` endpoint still has of these bars."""
    if granularity.retention_days is None:
        return bars
    oldest = now_ms - granularity.retention_days * DAY_MS
    return [bar for bar in bars if bar.open_ms >= oldest]


def candle_page(
    venue: Venue, instrument: Instrument, bars: list[Bar], *, columns: int, path: str, granularity: str
) -> list[list[str]]:
    """Rows of a page, bent by the levers that hide, change, double, spoil or shuffle bars."""
    place = {"path": path, "market": instrument.market, "symbol": instrument.symbol}

    def struck(kind: str, bar: Bar) -> Fault | None:
        fault = venue.faults.strikes(kind, **place)
        return fault if fault and _means(fault, bar, granularity) else None

    rows = []
    for bar in bars:
        if struck("missing_bar", bar):
            continue
        if struck("changed_bar", bar):
            bar = bar._replace(high=bar.high + 100 * instrument.tick, volume=bar.volume + 1)
        row = candle_row(instrument, bar, columns=columns)
        spoilt = struck("malformed_bar", bar)
        rows.append(_SPOILT[str(spoilt.params.get("how", "text"))](row) if spoilt else row)
        if struck("doubled_bar", bar):
            rows.append(row)
    if venue.faults.strikes("shuffled_bars", **place):
        rows = rows[1::2] + rows[::2]
    return rows


_SPOILT: dict[str, Callable[[list[str]], list[str]]] = {
    "text": lambda row: [*row[:2], "much", *row[3:]],
    "short": lambda row: row[:4],
    "zero": lambda row: [*row[:3], "0", *row[4:]],
    "off_grid": lambda row: [str(int(row[0]) + 1_500), *row[1:]],
}
"""What a `malformed_bar` looks like."""


def _means(fault: Fault, bar: Bar, granularity: str) -> bool:
    if fault.params.get("granularity") not in (None, granularity):
        return False
    if "before_ms" in fault.params:
        return bar.open_ms < int(fault.params["before_ms"])
    opened = fault.params.get("open_ms")
    if isinstance(opened, list):
        return bar.open_ms in opened
    return opened is None or bar.open_ms == int(opened)


def recent_trades(venue: Venue, instrument: Instrument, now_ms: int, *, limit: int) -> list[Trade]:
    """The last trades up to now, newest first; looks back three days at most."""
    return trades_before(venue, instrument, until_ms=now_ms + 1, since_ms=now_ms - 3 * DAY_MS, limit=limit)


def trades_before(
    venue: Venue, instrument: Instrument, *, until_ms: int, since_ms: int, limit: int, below_id: int | None = None
) -> list[Trade]:
    """
    Up to `limit` trades with since <= ts < until and id < below_id, newest first.

    Only the minutes that are needed are made: counts come from the day's plan.
    """
    if below_id is not None:
        until_ms = min(until_ms, (below_id >> 22) + TRADE_EPOCH_MS + 1)
    found: list[Trade] = []
    minute = (until_ms - 1) // MINUTE_MS
    first = max(since_ms // MINUTE_MS, instrument.listed_minute)
    while minute >= first and len(found) < limit:
        day_begin = max(first, minute // 1440 * 1440)
        counts = venue.tape.day(instrument, minute // 1440).counts[day_begin % 1440 : minute % 1440 + 1]
        backwards = np.cumsum(counts[::-1])
        begin = max(day_begin, minute - int(np.searchsorted(backwards, limit - len(found))))
        chunk = venue.tape.trades(instrument, begin, minute + 1)
        found.extend(
            trade
            for trade in reversed(chunk)
            if since_ms <= trade.ts < until_ms and (below_id is None or trade.trade_id < below_id)
        )
        minute = begin - 1
    return found[:limit]


def history_trades(venue: Venue, instrument: Instrument, params: Mapping[str, str], *, path: str) -> list[Trade]:
    """The trades of a `fills-history` request, newest first (reference 3.9)."""
    code = "400172" if instrument.market == "spot" else "40017"
    limit = limit_of(venue, params, default=500, most=1000, code=code)
    below = number(params, "idLessThan", code=code)
    start, end = (number(params, name, code=code) for name in ("startTime", "endTime"))
    now = venue.clock.now_ms()
    if start is not None and end is not None and start > end:
        raise ApiError("40707", "The start time must be earlier than the end time")
    if start is not None and end is not None and end - start > FILLS_WINDOW_MS:
        raise ApiError("00001", "The time window cannot exceed 7 days")
    lag = venue.faults.strikes("fills_history_lag", path=path, market=instrument.market, symbol=instrument.symbol)
    known_until = now + 1 - (int(float(lag.params.get("lag_seconds", 60)) * 1000) if lag else 0)
    until = min(known_until, end + 1 if end is not None else known_until)
    oldest = now - FILLS_HISTORY_DAYS * DAY_MS
    if start is None and below is None:
        start = until - FILLS_WINDOW_MS
    since = max(oldest, start if start is not None else oldest)
    return trades_before(venue, instrument, until_ms=until, since_ms=since, limit=limit, below_id=below)


def trade_page(
    venue: Venue,
    instrument: Instrument,
    trades: list[Trade],
    row_of: Callable[[Instrument, Trade], dict[str, str]],
    *,
    path: str,
) -> list[dict[str, str]]:
    """Rows of a page of trades, bent by the levers that spoil, double or shuffle them."""
    place = {"path": path, "market": instrument.market, "symbol": instrument.symbol}
    rows = []
    for trade in trades:
        row = row_of(instrument, trade)
        spoilt = venue.faults.strikes("malformed_trade", **place)
        rows.append(_SPOILT_TRADE[str(spoilt.params.get("how", "text"))](row) if spoilt else row)
        if venue.faults.strikes("doubled_trade", **place):
            rows.append(row)
    if venue.faults.strikes("shuffled_trades", **place):
        rows = rows[1::2] + rows[::2]
    return rows


_SPOILT_TRADE: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "text": lambda row: row | {"price": "much"},
    "short": lambda row: {name: value for name, value in row.items() if name != "tradeId"},
    "zero": lambda row: row | {"size": "0"},
}
"""What a `malformed_trade` looks like."""


def truncated(venue: Venue, rows: list[Any], *, path: str, market: str) -> list[Any]:
    """An instrument list, shortened when the lever says so."""
    fault = venue.faults.strikes("truncated_instruments", path=path, market=market)
    return rows[: int(len(rows) * float(fault.params.get("keep", 0.5)))] if fault else rows
