"""
The spot endpoints (reference section 3), and the two lists of coins other clients ask for.
"""

from __future__ import annotations

from typing import Any

from .bars import SPOT_GRANULARITIES, Granularity
from .instruments import Instrument
from .rest import ApiError, Call, Endpoint
from .rest_common import (
    candle_page,
    history_trades,
    limit_of,
    number,
    recent_trades,
    retained,
    trade_page,
    truncated,
)
from .tickers import spot_row
from .venue import Venue
from .wire import fill_row, old_fill_row, text


def _instrument(venue: Venue, call: Call, *, code: str = "400172") -> Instrument:
    symbol = call.params.get("symbol", "")
    instrument = venue.universe.find("spot", symbol.upper())
    minute = venue.clock.now_ms() // 60_000
    if instrument is None or not venue.universe.is_listed(instrument, minute):
        if code == "40034":
            raise ApiError(code, f"Parameter {symbol} does not exist")
        raise ApiError(
            code, "Symbol is invalid or not supported" if code == "42016" else "Parameter verification failed"
        )
    return instrument


def server_time(venue: Venue, call: Call) -> Any:
    """`/api/v2/public/time`."""
    return {"serverTime": str(venue.clock.now_ms())}


def symbols(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/public/symbols`."""
    if call.params.get("symbol"):
        return [_symbol_row(venue, _instrument(venue, call, code="42016"))]
    rows = [_symbol_row(venue, i) for i in venue.universe.listed("spot", now_ms=venue.clock.now_ms())]
    return truncated(venue, rows, path=call.path, market="spot")


def _symbol_row(venue: Venue, instrument: Instrument) -> dict[str, str]:
    return {
        "symbol": instrument.symbol,
        "baseCoin": instrument.base,
        "quoteCoin": instrument.quote,
        "minTradeAmount": "0",
        "maxTradeAmount": "900000000000000000000",
        "takerFeeRate": "0.002",
        "makerFeeRate": "0.002",
        "pricePrecision": str(instrument.price_decimals),
        "quantityPrecision": str(instrument.size_decimals),
        "quotePrecision": str(instrument.price_decimals + instrument.size_decimals),
        "minTradeUSDT": "1",
        "status": venue.status_of(instrument),
        "buyLimitPriceRatio": "0.05",
        "sellLimitPriceRatio": "0.05",
        "orderQuantity": "500",
        "areaSymbol": "no",
        "openTime": str(instrument.listed_minute * 60_000),
        "offTime": "",
        "maxLimitOrderValue": "10000000",
        "maxMarketOrderValue": "1000000",
    }


def tickers(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/market/tickers`."""
    now = venue.clock.now_ms()
    if call.params.get("symbol"):
        instrument = _instrument(venue, call, code="42016")
        return [spot_row(instrument, venue.tickers.figures(instrument, now), now)]
    return venue.tickers.page("spot", now, spot_row)


def orderbook(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/market/orderbook`."""
    instrument = _instrument(venue, call, code="40034")
    limit = min(number(call.params, "limit", code="400172") or 150, 150)
    now = venue.clock.now_ms()
    book = venue.books.fresh(
        instrument, venue.last_price(instrument, now), now, watched=venue.is_book_watched(instrument)
    )
    bids, asks = book.top(limit)
    return {"asks": venue.books.rest_rows(book, asks), "bids": venue.books.rest_rows(book, bids), "ts": str(book.ts)}


def merge_depth(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/market/merge-depth`: prices merged to coarser scales."""
    return merged(venue, _instrument(venue, call, code="40034"), call, numbers=False)


def merged(venue: Venue, instrument: Instrument, call: Call, *, numbers: bool) -> Any:
    """The merged book; futures send JSON numbers, spot sends texts."""
    scale = {"scale0": 0, "scale1": 1, "scale2": 2, "scale3": 3}.get(call.params.get("precision") or "scale0")
    asked = call.params.get("limit") or "100"
    if scale is None or not (asked == "max" or asked.isdigit()):
        raise ApiError("400172" if instrument.market == "spot" else "40017", "Parameter verification failed")
    depth = 100 if asked == "max" else min(int(asked), 100)
    now = venue.clock.now_ms()
    last = venue.last_price(instrument, now)
    coarsest = max(s for s in range(4) if s == 0 or 10**s * 1000 <= last)
    scale = min(scale, coarsest)
    step = 10**scale
    book = venue.books.fresh(instrument, last, now, watched=venue.is_book_watched(instrument))
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    for price, size in book.bids.items():
        level = price // step * step
        bids[level] = bids.get(level, 0) + size
    for price, size in book.asks.items():
        level = -(-price // step) * step
        asks[level] = asks.get(level, 0) + size
    p, q = instrument.price_decimals, instrument.size_decimals

    def rows(levels: list[tuple[int, int]]) -> list[Any]:
        if numbers:
            return [[price / 10**p, size / 10**q] for price, size in levels]
        return [[text(price, p), text(size, q)] for price, size in levels]

    return {
        "asks": rows(sorted(asks.items())[:depth]),
        "bids": rows(sorted(bids.items(), reverse=True)[:depth]),
        "ts": str(book.ts),
        "scale": text(step, p),
        "precision": f"scale{scale}",
        "isMaxPrecision": "YES" if scale == coarsest else "NO",
    }


def _granularity(call: Call) -> Granularity:
    granularity = SPOT_GRANULARITIES.get(call.params.get("granularity", ""))
    if granularity is None:
        raise ApiError("400172", "Parameter verification failed")
    return granularity


def candles(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/market/candles`: anchored at endTime; startTime has no effect (reference 3.6)."""
    instrument, granularity = _instrument(venue, call), _granularity(call)
    limit = limit_of(venue, call.params, default=100, most=1000, code="400172")
    number(call.params, "startTime", code="400172")
    now = venue.clock.now_ms()
    end = number(call.params, "endTime", code="400172") or now + 1
    bars = venue.bars.page(instrument, granularity, end_ms=min(end, now + 1), limit=limit, now_ms=now, closed=False)
    return candle_page(
        venue,
        instrument,
        retained(bars, granularity, now),
        columns=8,
        path=call.path,
        granularity=call.params["granularity"],
    )


def history_candles(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/market/history-candles`: endTime is required (reference 3.7)."""
    instrument, granularity = _instrument(venue, call), _granularity(call)
    limit = limit_of(venue, call.params, default=100, most=200, code="400172")
    end = number(call.params, "endTime", code="400172")
    if end is None:
        raise ApiError("400172", "Parameter verification failed")
    now = venue.clock.now_ms()
    bars = venue.bars.page(instrument, granularity, end_ms=min(end, now + 1), limit=limit, now_ms=now, closed=True)
    return candle_page(venue, instrument, bars, columns=8, path=call.path, granularity=call.params["granularity"])


def fills(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/market/fills`."""
    instrument = _instrument(venue, call)
    limit = limit_of(venue, call.params, default=100, most=500, code="400172")
    trades = recent_trades(venue, instrument, venue.clock.now_ms(), limit=limit)
    return trade_page(venue, instrument, trades, fill_row, path=call.path)


def fills_history(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/market/fills-history`."""
    instrument = _instrument(venue, call)
    trades = history_trades(venue, instrument, call.params, path=call.path)
    return trade_page(venue, instrument, trades, old_fill_row, path=call.path)


def coins(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/public/coins`: each coin with one chain of its own name."""
    now = venue.clock.now_ms()
    wanted = call.params.get("coin", "").upper()
    names = dict.fromkeys(c for i in venue.universe.listed("spot", now_ms=now) for c in (i.base, i.quote))
    return [_coin_row(number, name) for number, name in enumerate(names, 1) if wanted in ("", name)]


def _coin_row(ident: int, name: str) -> dict[str, Any]:
    chain = {
        "chain": name,
        "needTag": "false",
        "withdrawable": "true",
        "rechargeable": "true",
        "withdrawFee": "0.0005",
        "extraWithdrawFee": "0",
        "depositConfirm": "1",
        "withdrawConfirm": "1",
        "minDepositAmount": "0.0001",
        "minWithdrawAmount": "0.001",
        "browserUrl": "",
        "contractAddress": "",
        "withdrawStep": "0",
        "withdrawMinScale": "8",
        "congestion": "normal",
    }
    return {"coinId": str(ident), "coin": name, "transfer": "true", "chains": [chain]}


def margin_currencies(venue: Venue, call: Call) -> Any:
    """`/api/v2/margin/currencies`: the leaders may be margined."""
    listed = venue.universe.listed("spot", now_ms=venue.clock.now_ms())
    return [
        {
            "symbol": i.symbol,
            "baseCoin": i.base,
            "quoteCoin": i.quote,
            "maxCrossedLeverage": "3",
            "maxIsolatedLeverage": "10",
            "warningRiskRatio": "0.8",
            "liquidationRiskRatio": "1",
            "minTradeAmount": "0.0001",
            "maxTradeAmount": "10000",
            "takerFeeRate": "0.001",
            "makerFeeRate": "0.001",
            "pricePrecision": str(i.price_decimals),
            "quantityPrecision": str(i.size_decimals),
            "minTradeUSDT": "5",
            "isBorrowable": True,
            "userMinBorrow": "0.00000001",
            "status": "1",
            "isIsolatedBaseBorrowable": True,
            "isIsolatedQuoteBorrowable": True,
            "isCrossBorrowable": True,
        }
        for i in listed
        if i.active and i.quote == "USDT"
    ]


ENDPOINTS: dict[str, Endpoint] = {
    "/api/v2/public/time": Endpoint(20, server_time),
    "/api/v2/spot/public/symbols": Endpoint(20, symbols),
    "/api/v2/spot/public/coins": Endpoint(3, coins),
    "/api/v2/margin/currencies": Endpoint(10, margin_currencies),
    "/api/v2/spot/market/tickers": Endpoint(20, tickers),
    "/api/v2/spot/market/orderbook": Endpoint(20, orderbook),
    "/api/v2/spot/market/merge-depth": Endpoint(20, merge_depth),
    "/api/v2/spot/market/candles": Endpoint(20, candles),
    "/api/v2/spot/market/history-candles": Endpoint(20, history_candles),
    "/api/v2/spot/market/fills": Endpoint(10, fills),
    "/api/v2/spot/market/fills-history": Endpoint(10, fills_history),
}
