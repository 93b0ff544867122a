"""
Bitget's public V2 requests: our question in, the address and its parameters out.

Sent by history/client. Limits are the published ones, per second and address, each endpoint counted by itself.
"""

from __future__ import annotations

from datetime import timedelta

from ...errors import RequestRefused
from ...market.candle import Resolution
from ...market.derivatives import PriceKind
from ...market.instrument import FORBIDDEN_IN_SYMBOLS, Market, Symbol
from ..contract import Family, Request
from .channels import PRODUCTS
from .granularity import granularity

MAX_CANDLES = 199
"""The exchange gives 200 a page; one is kept back, because spot may count a bar that opens at the page's very end."""
WIRE_MAX_CANDLES = 200
MAX_TRADES = 1000
MAX_FUNDING = 100
RECENT_TRADES = {Market.SPOT: 500, Market.USDTM: 100, Market.COINM: 100, Market.USDCM: 100}
LONGEST_WINDOW = timedelta(days=90)

TRADE_ID_EPOCH_MS = 1435725920677
"""Trade ids carry their time: (id >> 22) + this = Unix ms. Undocumented, true of every recorded trade since 2023."""


def trade_time_ms(trade_id: int) -> int:
    """The moment a trade id carries, Unix ms UTC."""
    return (trade_id >> 22) + TRADE_ID_EPOCH_MS


TIMED_IDS_FROM = (1_514_764_800_000 - TRADE_ID_EPOCH_MS) << 22
"""Ids below tell a time before 2018, and there was no Bitget: they count something else, as those in its documents do."""
APART_MS = 86_400_000
"""A trade whose time and id tell moments further apart than a day is noise: one of the two is wrong."""


def contradicts(trade_id: int, ms: int) -> bool:
    """Whether a trade cannot have this id and this time (Unix ms)."""
    return trade_id >= TIMED_IDS_FROM and abs(ms - trade_time_ms(trade_id)) >= APART_MS


def id_at(ms: int) -> int:
    """The first trade id of that millisecond; 0 before ids began."""
    return max(0, ms - TRADE_ID_EPOCH_MS) << 22


def wire_name(symbol: Symbol) -> str:
    """
    The symbol as the exchange spells it: ASCII letters upper case, anything else as it is.

    Raises RequestRefused for a name that is empty or has a character that other parts of the system split at.
    """
    if (
        not symbol.name
        or FORBIDDEN_IN_SYMBOLS & set(symbol.name)
        or any(character.isspace() for character in symbol.name)
    ):
        raise RequestRefused(
            f"{symbol.name!r} cannot be a symbol",
            where=symbol.market.value,
            remedy="write it like BTCUSDT, without | , [ ]",
        )
    return upper(symbol.name)


def upper(name: str) -> str:
    """ASCII letters in upper case; other scripts have no business changing."""
    return name.upper() if name.isascii() else "".join(c.upper() if c.isascii() else c for c in name)


def server_time() -> Request:
    """The exchange's clock."""
    return Request("/api/v2/public/time", (), "public.time", 20)


def instruments(market: Market) -> Request:
    """Every instrument of a market, in one answer."""
    if market is Market.SPOT:
        return Request("/api/v2/spot/public/symbols", (), "spot.symbols", 20)
    return Request("/api/v2/mix/market/contracts", (_product(market),), "mix.contracts", 20)


def tickers(market: Market) -> Request:
    """The last 24 hours of every instrument, in one answer."""
    if market is Market.SPOT:
        return Request("/api/v2/spot/market/tickers", (), "spot.tickers", 20)
    return Request("/api/v2/mix/market/tickers", (_product(market),), "mix.tickers", 20)


def candle_window(resolution: Resolution) -> timedelta:
    """The longest stretch one page covers: a full page, or the exchange's 90 days."""
    return min(resolution.length * MAX_CANDLES, LONGEST_WINDOW)


def candle_page(symbol: Symbol, resolution: Resolution, *, end_ms: int, limit: int | None = None) -> Request:
    """
    Closed bars that open before `end_ms`, newest `limit` of them (default: as many as a page holds).

    On futures `endTime` is exclusive on the open time (recorded). On spot nobody knows; one bar more is asked for, so
    that the wanted ones are there in either case.
    """
    most = int(candle_window(resolution) / resolution.length)
    wanted = most if limit is None else limit
    if not 1 <= wanted <= most:
        raise RequestRefused(
            f"a page of {wanted} bars of {resolution.value} is not served",
            where=str(symbol),
            remedy=f"ask for 1 to {most}",
        )
    spelling = ("granularity", granularity(symbol.market, resolution))
    if symbol.market is Market.SPOT:
        ends = (("endTime", str(end_ms)), ("limit", str(min(wanted + 1, WIRE_MAX_CANDLES))))
        return Request(
            "/api/v2/spot/market/history-candles", (*_named(symbol), spelling, *ends), "spot.history-candles", 20
        )
    ends = (("endTime", str(end_ms)), ("limit", str(wanted)))
    return Request("/api/v2/mix/market/history-candles", (*_named(symbol), spelling, *ends), "mix.history-candles", 20)


def price_page(
    symbol: Symbol, kind: PriceKind, resolution: Resolution, *, end_ms: int, limit: int | None = None
) -> Request:
    """Closed bars of the mark or index price that open before `end_ms`: the twins of `candle_page`, futures only."""
    _futures_only(symbol, f"{kind.value} prices")
    market = candle_page(symbol, resolution, end_ms=end_ms, limit=limit)
    word = f"history-{kind.value}-candles"
    return Request(f"/api/v2/mix/market/{word}", market.params, f"mix.{word}", 20)


def funding_page(symbol: Symbol, *, page: int) -> Request:
    """Settled funding, newest first, `MAX_FUNDING` a page, pages from 1. There is no filter by time."""
    _futures_only(symbol, "funding")
    params = (*_named(symbol), ("pageSize", str(MAX_FUNDING)), ("pageNo", str(page)))
    return Request("/api/v2/mix/market/history-fund-rate", params, "mix.history-fund-rate", 20)


def open_interest(symbol: Symbol) -> Request:
    """The contracts outstanding now."""
    _futures_only(symbol, "open interest")
    return Request("/api/v2/mix/market/open-interest", _named(symbol), "mix.open-interest", 20)


def recent_trades(symbol: Symbol) -> Request:
    """The newest trades with their milliseconds: 500 on spot, 100 on futures."""
    limit = ("limit", str(RECENT_TRADES[symbol.market]))
    if symbol.market is Market.SPOT:
        return Request("/api/v2/spot/market/fills", (*_named(symbol), limit), "spot.fills", 10)
    return Request("/api/v2/mix/market/fills", (*_named(symbol), limit), "mix.fills", 20)


def trade_page(symbol: Symbol, *, before_id: int | None = None, limit: int | None = None) -> Request:
    """Trades with ids below `before_id`, newest `limit` of them (default and most: 1000), back to 90 days."""
    wanted = MAX_TRADES if limit is None else limit
    if not 1 <= wanted <= MAX_TRADES:
        raise RequestRefused(
            f"a page of {wanted} trades is not served", where=str(symbol), remedy=f"ask for 1 to {MAX_TRADES}"
        )
    params = (*_named(symbol), ("limit", str(wanted)))
    if before_id is not None:
        params = (*params, ("idLessThan", str(before_id)))
    if symbol.market is Market.SPOT:
        return Request("/api/v2/spot/market/fills-history", params, "spot.fills-history", 10)
    return Request("/api/v2/mix/market/fills-history", params, "mix.fills-history", 10)


def book(symbol: Symbol) -> Request:
    """The order book now: 150 levels a side on spot, as many as the exchange gives on futures."""
    if symbol.market is Market.SPOT:
        return Request("/api/v2/spot/market/orderbook", (*_named(symbol), ("limit", "150")), "spot.orderbook", 20)
    return Request("/api/v2/mix/market/merge-depth", (*_named(symbol), ("limit", "max")), "mix.merge-depth", 20)


def account_info(family: Family) -> Request:
    """
    What a key may do. The classic call is documented; that the unified one (`permType`, `permissions`) shows the
    rights is known from public client code only.
    """
    if family is Family.CLASSIC:
        return Request("/api/v2/spot/account/info", (), "spot.account-info", 1)
    return Request("/api/v3/account/info", (), "account.info", 1)


def _futures_only(symbol: Symbol, what: str) -> None:
    if symbol.market is Market.SPOT:
        raise RequestRefused(
            f"spot has no {what}", where=str(symbol), remedy="ask for a future, for example usdtm:BTCUSDT"
        )


def _product(market: Market) -> tuple[str, str]:
    return "productType", PRODUCTS[market]


def _named(symbol: Symbol) -> tuple[tuple[str, str], ...]:
    name = ("symbol", wire_name(symbol))
    return (name,) if symbol.market is Market.SPOT else (name, _product(symbol.market))
