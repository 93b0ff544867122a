"""
The futures ("mix") endpoints (reference section 4). Every one needs productType.
"""

from __future__ import annotations

from typing import Any

from .bars import MIX_GRANULARITIES, Granularity
from .instruments import MARKET_OF_PRODUCT, MARKETS_OF_MIX, Instrument
from .rest import ApiError, Call, Endpoint
from .rest_common import (
    DAY_MS,
    candle_page,
    history_trades,
    limit_of,
    number,
    recent_trades,
    retained,
    trade_page,
    truncated,
)
from .rest_spot import merged
from .tickers import FUNDING_MS, funding_rate, holding, mix_row, next_funding_ms
from .venue import Venue
from .wire import fill_row, old_fill_row, text

_DEPARTED = ("SUSDT-FUTURES", "SCOIN-FUTURES", "SUSDC-FUTURES")
_WINDOW_MS = 90 * DAY_MS


def _market(call: Call) -> str:
    product = call.params.get("productType", "")
    market = MARKET_OF_PRODUCT.get(product.upper())
    if market is None:
        raise ApiError("40019", f"Parameter {product or 'productType'} cannot be empty")
    return market


def _instrument(venue: Venue, call: Call, *, any_product: bool = False) -> Instrument:
    market = _market(call)
    symbol = call.params.get("symbol", "")
    if not symbol:
        raise ApiError("40019", "Parameter symbol cannot be empty")
    markets = (market, *MARKETS_OF_MIX) if any_product else (market,)
    minute = venue.clock.now_ms() // 60_000
    for place in markets:
        instrument = venue.universe.find(place, symbol.upper())
        if instrument is not None and venue.universe.is_listed(instrument, minute):
            return instrument
    raise ApiError("40034", f"Parameter {symbol} does not exist")


def contracts(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/contracts`."""
    if call.params.get("productType", "").upper() in _DEPARTED:
        return []
    if call.params.get("symbol"):
        return [_contract_row(venue, _instrument(venue, call))]
    market = _market(call)
    rows = [_contract_row(venue, i) for i in venue.universe.listed(market, now_ms=venue.clock.now_ms())]
    return truncated(venue, rows, path=call.path, market=market)


def _contract_row(venue: Venue, i: Instrument) -> dict[str, Any]:
    delivery = i.delivery_ms is not None
    margin = {"usdtm": ["USDT"], "usdcm": ["USDC"]}.get(i.market, [i.base])
    step = text(1, i.size_decimals)
    return {
        "symbol": i.symbol,
        "baseCoin": i.base,
        "quoteCoin": i.quote,
        "buyLimitPriceRatio": "0.05",
        "sellLimitPriceRatio": "0.05",
        "feeRateUpRatio": "0.005",
        "makerFeeRate": "0.0002",
        "takerFeeRate": "0.0006",
        "openCostUpRatio": "0.01",
        "supportMarginCoins": margin,
        "minTradeNum": step,
        "priceEndStep": str(i.tick),
        "volumePlace": str(i.size_decimals),
        "pricePlace": str(i.price_decimals),
        "sizeMultiplier": step,
        "symbolType": "delivery" if delivery else "perpetual",
        "minTradeUSDT": "5",
        "maxSymbolOrderNum": "200",
        "maxProductOrderNum": "1000",
        "maxPositionNum": "200",
        "symbolStatus": venue.status_of(i),
        "offTime": "-1",
        "limitOpenTime": "-1",
        "deliveryTime": str(i.delivery_ms) if delivery else "",
        "deliveryStartTime": str(i.delivery_start_ms) if delivery else "",
        "deliveryPeriod": i.delivery_period,
        "launchTime": ""
        if i.status == "listed" or (i.market == "usdcm" and i.active)
        else str(i.listed_minute * 60_000),
        "fundInterval": "8",
        "minLever": "1",
        "maxLever": "125" if i.active else "25",
        "posLimit": "0.2",
        "maintainTime": "",
        "openTime": "",
        "maxMarketOrderQty": "20000",
        "maxOrderQty": "100000",
        "isRwa": "NO",
    }


def tickers(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/tickers`: every contract, one stamp."""
    return venue.tickers.page(_market(call), venue.clock.now_ms(), mix_row)


def ticker(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/ticker`: a list of one."""
    now = venue.clock.now_ms()
    instrument = _instrument(venue, call)
    return [mix_row(instrument, venue.tickers.figures(instrument, now), now)]


def merge_depth(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/merge-depth`: JSON numbers; serves a real symbol even under the wrong product."""
    return merged(venue, _instrument(venue, call, any_product=True), call, numbers=True)


def _granularity(call: Call) -> Granularity:
    raw = call.params.get("granularity", "")
    if not raw:
        raise ApiError("40019", "Parameter granularity cannot be empty")
    granularity = MIX_GRANULARITIES.get(raw)
    if granularity is None:
        raise ApiError("400172", "Parameter verification failed")
    return granularity


def _window(call: Call, now: int) -> tuple[int | None, int]:
    start, end = (number(call.params, name, code="40017") for name in ("startTime", "endTime"))
    if start is not None and end is not None:
        if start > end:
            raise ApiError("40707", "The start time must be earlier than the end time")
        if end - start > _WINDOW_MS:
            raise ApiError("40705", "The start and end time cannot exceed 90 days")
    return start, min(now + 1, end if end is not None else now + 1)


def candles(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/candles`: the recent ones, the forming bar included."""
    instrument, granularity = _instrument(venue, call), _granularity(call)
    limit = limit_of(venue, call.params, default=100, most=1000, code="40017")
    kind = (call.params.get("kLineType") or "MARKET").upper()
    if kind not in ("MARKET", "MARK", "INDEX"):
        raise ApiError("40017", "Parameter verification failed kLineType")
    now = venue.clock.now_ms()
    start, end = _window(call, now)
    if kind == "MARKET":
        bars = venue.bars.page(instrument, granularity, end_ms=end, limit=limit, now_ms=now, closed=False)
    else:
        bars = venue.bars.mark_page(instrument, granularity, end_ms=end, limit=limit)
    bars = [bar for bar in retained(bars, granularity, now) if start is None or bar.open_ms >= start]
    return candle_page(venue, instrument, bars, columns=7, path=call.path, granularity=call.params["granularity"])


def history_candles(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/history-candles`: closed bars only, endTime exclusive on the open time."""
    instrument, granularity = _instrument(venue, call), _granularity(call)
    limit = limit_of(venue, call.params, default=100, most=200, code="40017")
    now = venue.clock.now_ms()
    start, end = _window(call, now)
    bars = venue.bars.page(instrument, granularity, end_ms=end, limit=limit, now_ms=now, closed=True)
    bars = [bar for bar in bars if start is None or bar.open_ms >= start]
    return candle_page(venue, instrument, bars, columns=7, path=call.path, granularity=call.params["granularity"])


def history_mark_candles(venue: Venue, call: Call) -> Any:
    """`history-mark-candles` and `history-index-candles`."""
    instrument, granularity = _instrument(venue, call), _granularity(call)
    limit = limit_of(venue, call.params, default=100, most=200, code="40017")
    start, end = _window(call, venue.clock.now_ms())
    bars = venue.bars.mark_page(instrument, granularity, end_ms=end, limit=limit)
    bars = [bar for bar in bars if start is None or bar.open_ms >= start]
    return candle_page(venue, instrument, bars, columns=7, path=call.path, granularity=call.params["granularity"])


def fills(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/fills`."""
    instrument = _instrument(venue, call)
    limit = limit_of(venue, call.params, default=100, most=100, code="40017")
    trades = recent_trades(venue, instrument, venue.clock.now_ms(), limit=limit)
    return trade_page(venue, instrument, trades, fill_row, path=call.path)


def fills_history(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/fills-history`."""
    instrument = _instrument(venue, call)
    trades = history_trades(venue, instrument, call.params, path=call.path)
    return trade_page(venue, instrument, trades, old_fill_row, path=call.path)


def current_fund_rate(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/current-fund-rate`."""
    now = venue.clock.now_ms()
    if call.params.get("symbol"):
        chosen = [_instrument(venue, call)]
    else:
        chosen = [i for i in venue.universe.listed(_market(call), now_ms=now) if i.delivery_ms is None]
    return [
        {
            "symbol": i.symbol,
            "fundingRate": funding_rate(i, now),
            "fundingRateInterval": "8",
            "nextUpdate": str(next_funding_ms(now)),
            "minFundingRate": "-0.003",
            "maxFundingRate": "0.003",
        }
        for i in chosen
    ]


def history_fund_rate(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/history-fund-rate`: newest first, by page."""
    instrument = _instrument(venue, call)
    size = min(number(call.params, "pageSize", code="40017") or 20, 100)
    page = max(number(call.params, "pageNo", code="40017") or 1, 1)
    newest = venue.clock.now_ms() // FUNDING_MS * FUNDING_MS - (page - 1) * size * FUNDING_MS
    times = (newest - k * FUNDING_MS for k in range(size))
    return [
        {"symbol": instrument.symbol, "fundingRate": funding_rate(instrument, t - 1), "fundingTime": str(t)}
        for t in times
        if t > instrument.listed_minute * 60_000
    ]


def funding_time(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/funding-time`."""
    instrument = _instrument(venue, call)
    next_ms = next_funding_ms(venue.clock.now_ms())
    return [{"symbol": instrument.symbol, "nextFundingTime": str(next_ms), "ratePeriod": "8"}]


def open_interest(venue: Venue, call: Call) -> Any:
    """`/api/v2/mix/market/open-interest`."""
    instrument = _instrument(venue, call)
    row = {"symbol": instrument.symbol, "size": holding(instrument)}
    return {"openInterestList": [row], "ts": str(venue.clock.now_ms())}


ENDPOINTS: dict[str, Endpoint] = {
    "/api/v2/mix/market/contracts": Endpoint(20, contracts),
    "/api/v2/mix/market/tickers": Endpoint(20, tickers),
    "/api/v2/mix/market/ticker": Endpoint(20, ticker),
    "/api/v2/mix/market/merge-depth": Endpoint(20, merge_depth),
    "/api/v2/mix/market/candles": Endpoint(20, candles),
    "/api/v2/mix/market/history-candles": Endpoint(20, history_candles),
    "/api/v2/mix/market/history-mark-candles": Endpoint(20, history_mark_candles),
    "/api/v2/mix/market/history-index-candles": Endpoint(20, history_mark_candles),
    "/api/v2/mix/market/fills": Endpoint(20, fills),
    "/api/v2/mix/market/fills-history": Endpoint(10, fills_history),
    "/api/v2/mix/market/current-fund-rate": Endpoint(20, current_fund_rate),
    "/api/v2/mix/market/history-fund-rate": Endpoint(20, history_fund_rate),
    "/api/v2/mix/market/funding-time": Endpoint(20, funding_time),
    "/api/v2/mix/market/open-interest": Endpoint(20, open_interest),
}
