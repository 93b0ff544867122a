"""
The REST paths of the Binance side: a row each, path → (weight, handler). Bare JSON, oldest first (reference 3.2, 4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..bars import Granularity
from ..instruments import DAY_MINUTES, MINUTE_MS, Instrument
from ..tape import anchors
from ..tickers import Figures, modelled
from .market import BinanceMarket, Kline, joined_of
from .wire import joined_row, kline_row, price, size, trade_row, turnover

HOUR_MS = 3_600_000
_MONDAY = 4 * DAY_MINUTES  # 1970-01-05

INTERVALS: dict[str, Granularity] = {
    "1m": Granularity(1),
    "3m": Granularity(3),
    "5m": Granularity(5),
    "15m": Granularity(15),
    "30m": Granularity(30),
    "1h": Granularity(60),
    "2h": Granularity(120),
    "4h": Granularity(240),
    "6h": Granularity(360),
    "8h": Granularity(480),
    "12h": Granularity(720),
    "1d": Granularity(DAY_MINUTES),
    "3d": Granularity(3 * DAY_MINUTES),
    "1w": Granularity(7 * DAY_MINUTES, offset=_MONDAY),
    "1M": Granularity(0),
}
"""Bars of one second are not played: the market has no price path below the minute."""


class BinanceError(Exception):
    """An answer with an error code."""

    def __init__(self, code: int, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Call(NamedTuple):
    """What a handler is told about a request."""

    market: str
    params: Mapping[str, str]
    now_ms: int


class Endpoint(NamedTuple):
    """The weight of a request, given its parameters, and who answers it."""

    weight: Callable[[Mapping[str, str]], int]
    handler: Callable[[BinanceMarket, Call], Any]


def _number(params: Mapping[str, str], name: str) -> int | None:
    raw = params.get(name)
    if raw is None:
        return None
    if not raw:
        raise BinanceError(-1105, f"Parameter '{name}' was empty.")
    if not raw.isascii() or not raw.isdigit():
        raise BinanceError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(raw)


def _limit(params: Mapping[str, str], most: int) -> int:
    limit = _number(params, "limit")
    if limit is not None and limit < 1:
        raise BinanceError(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(most, 500 if limit is None else limit)


def _instrument(market: BinanceMarket, call: Call) -> Instrument:
    name = call.params.get("symbol")
    if name is None:
        raise BinanceError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    one = market.find(call.market, name)
    if one is None:
        raise BinanceError(-1121, "Invalid symbol.")
    return one


def ping(market: BinanceMarket, call: Call) -> Any:
    """`ping`."""
    return {}


def server_time(market: BinanceMarket, call: Call) -> Any:
    """`time`."""
    return {"serverTime": call.now_ms}


def klines(market: BinanceMarket, call: Call) -> Any:
    """`klines`: from `startTime` upward, else the newest up to `endTime`, both inclusive on the open time."""
    one = _instrument(market, call)
    interval = call.params.get("interval")
    if interval is None:
        raise BinanceError(-1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.")
    grid = INTERVALS.get(interval)
    if grid is None:
        raise BinanceError(-1120, "Invalid interval.")
    limit = _limit(call.params, 1000 if call.market == "spot" else 1500)
    start, end = _number(call.params, "startTime"), _number(call.params, "endTime")
    newest = grid.open_of(min(call.now_ms, call.now_ms if end is None else end) // MINUTE_MS)
    bars: list[Kline] = []
    if start is not None:
        opened = grid.open_of(max(-(-start // MINUTE_MS), one.listed_minute))
        if opened * MINUTE_MS < start:
            opened = grid.next_of(opened)
        while len(bars) < limit and opened <= newest:
            bars += _bar(market, one, grid, opened, call.now_ms)
            opened = grid.next_of(opened)
    else:
        opened = newest
        while len(bars) < limit and grid.next_of(opened) > one.listed_minute:
            bars += _bar(market, one, grid, opened, call.now_ms)
            opened = grid.open_of(opened - 1)
        bars.reverse()
    return [kline_row(one, bar) for bar in bars]


def _bar(market: BinanceMarket, one: Instrument, grid: Granularity, opened: int, now_ms: int) -> list[Kline]:
    bar = market.kline(one, opened, grid.next_of(opened), now_ms)
    return [] if bar is None else [bar]


def aggregates(market: BinanceMarket, call: Call) -> Any:
    """`aggTrades`: from an id, or of a stretch of time, or the newest."""
    one = _instrument(market, call)
    limit = _limit(call.params, 1000)
    number = _number(call.params, "fromId")
    start, end = _number(call.params, "startTime"), _number(call.params, "endTime")
    if number is not None:
        fills = market.from_number(one, number, call.now_ms, limit=limit, joined=True)
    elif start is None and end is None:
        fills = market.newest(one, call.now_ms, limit=limit * 2)
        return [joined_row(one, row) for row in joined_of(fills)[1:][-limit:]]
    else:
        if start is not None and end is not None and call.market == "usdtm" and end - start > HOUR_MS:
            raise BinanceError(-1127, "More than 1 hours between startTime and endTime.")  # ccxt asks for a whole hour
        upto = min(call.now_ms, call.now_ms if end is None else end) + 1
        fills = market.between(one, upto - HOUR_MS if start is None else start, upto, limit=limit * 2 + 1)
    return [joined_row(one, row) for row in joined_of(fills)[:limit]]


def trades(market: BinanceMarket, call: Call) -> Any:
    """`trades`: the newest."""
    one = _instrument(market, call)
    fills = market.newest(one, call.now_ms, limit=_limit(call.params, 1000))
    return [trade_row(one, fill) for fill in fills]


def historical_trades(market: BinanceMarket, call: Call) -> Any:
    """`historicalTrades`: from an id on."""
    one = _instrument(market, call)
    limit = _limit(call.params, 1000)
    number = _number(call.params, "fromId")
    if number is None:
        return trades(market, call)
    return [trade_row(one, fill) for fill in market.from_number(one, number, call.now_ms, limit=limit)]


def tickers(market: BinanceMarket, call: Call) -> Any:
    """
    `ticker/24hr`: of one symbol, summed if it is busy; or of all, from their paths alone (see ../tickers.py): to sum a
    hundred busy ones would hold up everything else for seconds.
    """
    minute = call.now_ms // MINUTE_MS
    if "symbol" in call.params:
        one = _instrument(market, call)
        return _ticker(
            one, _summed(market, one, call.now_ms) if one.active else modelled([one], minute)[one], call.now_ms
        )
    listed = list(market.listed[call.market].values())
    quiet = [one for one in listed if not one.active]
    figures = modelled(quiet, minute) if quiet else {}
    return [_ticker(one, figures.get(one) or _sampled(one, minute), call.now_ms) for one in listed]


def _sampled(one: Instrument, minute: int) -> Figures:
    """The 24 hours of a busy symbol from its price path, a sample a quarter of an hour; the volume is what is expected."""
    path = anchors(one, np.arange(minute - 1 - DAY_MINUTES, minute, 15, dtype=np.int64))
    last, opened = int(path[-1]), int(path[0])
    price_units, size_units = 10.0**one.price_decimals, 10.0**one.size_decimals
    volume = int(one.daily_volume / (last / price_units) * size_units)
    return Figures(last, int(path.max()), int(path.min()), opened, opened, volume, volume * last)


def _summed(market: BinanceMarket, one: Instrument, now_ms: int) -> Figures:
    end = now_ms // MINUTE_MS + 1
    bar = market.kline(one, end - DAY_MINUTES, end, now_ms)
    if bar is None:
        return Figures(0, 0, 0, 0, 0, 0, 0)
    return Figures(bar.close, bar.high, bar.low, bar.open, bar.open, bar.volume, bar.turnover)


def _ticker(one: Instrument, of: Figures, now_ms: int) -> dict[str, Any]:
    change = of.last - of.open_24h
    row = {
        "symbol": one.symbol,
        "priceChange": price(one, change) if change >= 0 else f"-{price(one, -change)}",
        "priceChangePercent": f"{change / of.open_24h * 100 if of.open_24h else 0.0:.3f}",
        "weightedAvgPrice": price(one, of.turnover // of.volume if of.volume else of.last),
        "lastPrice": price(one, of.last),
        "lastQty": size(one, 1),
        "openPrice": price(one, of.open_24h),
        "highPrice": price(one, of.high),
        "lowPrice": price(one, of.low),
        "volume": size(one, of.volume),
        "quoteVolume": turnover(one, of.turnover),
        "openTime": now_ms - 86_400_000,
        "closeTime": now_ms,
        "firstId": -1,
        "lastId": -1,
        "count": 0,
    }
    if one.market == "spot":
        row |= {"prevClosePrice": row["openPrice"], "bidQty": size(one, 1), "askQty": size(one, 1)}
        row |= {"bidPrice": price(one, max(of.last - 1, 0)), "askPrice": price(one, of.last + 1 if of.last else 0)}
    return row


def exchange_info(market: BinanceMarket, call: Call) -> Any:
    """`exchangeInfo`: limits and instruments."""
    spot = call.market == "spot"
    rows = [_spot_symbol(one) if spot else _contract(one) for one in market.listed[call.market].values()]
    weight = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": WEIGHTS[call.market]}
    said = {"timezone": "UTC", "serverTime": call.now_ms, "rateLimits": [weight], "exchangeFilters": []}
    return said | {"symbols": rows}


def _filters(one: Instrument) -> list[dict[str, str]]:
    return [
        {"filterType": "PRICE_FILTER", "minPrice": price(one, 1), "maxPrice": "1000000.00", "tickSize": price(one, 1)},
        {"filterType": "LOT_SIZE", "minQty": size(one, 1), "maxQty": "9000.00000000", "stepSize": size(one, 1)},
    ]


def _spot_symbol(one: Instrument) -> dict[str, Any]:
    trading = one.status not in ("halt",)
    return {
        "symbol": one.symbol,
        "status": "TRADING" if trading else "BREAK",
        "baseAsset": one.base,
        "baseAssetPrecision": 8,
        "quoteAsset": one.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": trading,
        "isMarginTradingAllowed": False,
        "filters": _filters(one),
        "permissions": [],
        "permissionSets": [["SPOT"]],
    }


def _contract(one: Instrument) -> dict[str, Any]:
    return {
        "symbol": one.symbol,
        "pair": one.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": one.listed_minute * MINUTE_MS,
        "status": "SETTLING" if one.status == "maintain" else "TRADING",
        "baseAsset": one.base,
        "quoteAsset": one.quote,
        "marginAsset": one.quote,
        "pricePrecision": one.price_decimals,
        "quantityPrecision": one.size_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "orderTypes": ["LIMIT", "MARKET"],
        "filters": _filters(one),
    }


def _flat(weight: int) -> Callable[[Mapping[str, str]], int]:
    return lambda params: weight


def _by_symbol(one: int, all_of_them: int) -> Callable[[Mapping[str, str]], int]:
    return lambda params: one if "symbol" in params else all_of_them


def _by_rows(params: Mapping[str, str]) -> int:
    raw = params.get("limit", "500")
    rows = int(raw) if raw.isascii() and raw.isdigit() else 500
    return 1 if rows < 100 else 2 if rows < 500 else 5 if rows <= 1000 else 10


WEIGHTS = {"spot": 6000, "usdtm": 2400}
"""What an address may use in a minute."""

ENDPOINTS: dict[str, dict[str, Endpoint]] = {
    "spot": {
        "/api/v3/ping": Endpoint(_flat(1), ping),
        "/api/v3/time": Endpoint(_flat(1), server_time),
        "/api/v3/exchangeInfo": Endpoint(_flat(20), exchange_info),
        "/api/v3/klines": Endpoint(_flat(2), klines),
        "/api/v3/aggTrades": Endpoint(_flat(4), aggregates),
        "/api/v3/trades": Endpoint(_flat(25), trades),
        "/api/v3/historicalTrades": Endpoint(_flat(25), historical_trades),
        "/api/v3/ticker/24hr": Endpoint(_by_symbol(2, 80), tickers),
    },
    "usdtm": {
        "/fapi/v1/ping": Endpoint(_flat(1), ping),
        "/fapi/v1/time": Endpoint(_flat(1), server_time),
        "/fapi/v1/exchangeInfo": Endpoint(_flat(1), exchange_info),
        "/fapi/v1/klines": Endpoint(_by_rows, klines),
        "/fapi/v1/aggTrades": Endpoint(_flat(20), aggregates),
        "/fapi/v1/trades": Endpoint(_flat(5), trades),
        "/fapi/v1/ticker/24hr": Endpoint(_by_symbol(1, 40), tickers),
    },
}
