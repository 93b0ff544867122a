"""
One market of Binance, as the contract wants it: every question and answer of a Substitute, by the modules beside this one.

Made by exchange/registry.py, one for spot and one for futures, because they live on different hosts. Pure and without
state that changes, so one object serves every connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise

import msgspec

from ...errors import MalformedPage, RequestRefused
from ...market.candle import Candles, Resolution
from ...market.instrument import Market, Symbol, Ticker
from ...market.trade import Trade
from ..contract import CandlePage, InstrumentPage, Page, Request, Subscription
from ..rows import Rows, each, settled
from . import answers, commands, normalise, products, requests
from .frames import AHEAD_MS, Reader
from .wire import ExchangeInfo, ServerTime, WireAggregate, WireCandle, WireSymbol, WireTicker, WireTrade

USED_WEIGHT_HEADER = "x-mbx-used-weight-1m"

_info = msgspec.json.Decoder(ExchangeInfo)
_time = msgspec.json.Decoder(ServerTime)
_symbols: Rows[WireSymbol] = Rows(WireSymbol)
_tickers: Rows[WireTicker] = Rows(WireTicker)
_candles: Rows[WireCandle] = Rows(WireCandle)
_singles: Rows[WireTrade] = Rows(WireTrade)
_aggregates: Rows[WireAggregate] = Rows(WireAggregate)


class Binance:
    """
    Binance's public market data of one market, spot or usdtm. Implements contract.Substitute.

    Its bars open at their first trade, not at the previous close, and its trades are joined on futures: see products.py.
    """

    name = "binance"

    def __init__(self, market: Market) -> None:
        """Raises RequestRefused for a market without a counterpart there."""
        self._product = products.product(market)
        self._joined = self._product.trades == "aggTrade"
        self.rest_url = self._product.rest_url
        self.ws_url = self._product.ws_url
        self.markets: tuple[Market, ...] = (market,)
        self.source = self._product.source
        self.limits = self._product.limits
        self.max_candles_per_page = self._product.max_candles
        self.max_trades_per_page = products.MAX_TRADES
        self.decode = Reader(self._product).decode  # without a call of its own, for it runs on every frame

    # ---- requests

    def server_time(self) -> Request:
        return self._product.request("time")

    def instruments(self, market: Market) -> Request:
        return self._own(market).request("instruments")

    def tickers(self, market: Market) -> Request:
        return self._own(market).request("tickers")

    def candle_page(self, symbol: Symbol, resolution: Resolution, *, end_ms: int, limit: int | None = None) -> Request:
        return requests.candle_page(self._product, symbol, resolution, end_ms=end_ms, limit=limit)

    def candle_window(self, resolution: Resolution) -> timedelta:
        return requests.candle_window(self._product, resolution)

    def recent_trades(self, symbol: Symbol) -> Request:
        return requests.recent_trades(self._product, symbol)

    def trade_page(self, symbol: Symbol, *, before_id: int | None = None, limit: int | None = None) -> Request:
        return requests.trade_page(self._product, symbol, before_id=before_id, limit=limit)

    def first_trade_since(self, symbol: Symbol, *, since_ms: int) -> Request:
        return requests.first_trade_since(self._product, symbol, since_ms=since_ms)

    # ---- answers

    def read_server_time(self, status: int, body: bytes) -> int:
        where = f"binance {self._product.market.value} time"
        return answers.read(_time, answers.checked(status, body, where=where), where=where).serverTime

    def read_instruments(self, market: Market, status: int, body: bytes) -> InstrumentPage:
        """The instruments quoted in the market's own coins; others of the same host belong to another market."""
        where = f"binance instruments of {market.value}"
        info = answers.read(_info, answers.checked(status, body, where=where), where=where)
        found, rejected = answers.rows(_symbols, info.symbols, where=where)
        quotes = self._own(market).quotes
        ours = [row for row in found if quotes is None or row.quoteAsset in quotes]
        listed = each(ours, lambda row: normalise.instrument(row, market), rejected)
        settled(listed, rejected, where=where)
        return InstrumentPage(list({one.symbol: one for one in listed}.values()), rejected)

    def read_tickers(self, market: Market, status: int, body: bytes) -> Page[Ticker]:
        where = f"binance tickers of {self._own(market).market.value}"
        found, rejected = answers.rows(_tickers, answers.checked(status, body, where=where), where=where)
        tickers = each(found, lambda row: normalise.ticker(row, market), rejected)
        settled(tickers, rejected, where=where)
        return Page(tickers, rejected)

    def read_candles(self, symbol: Symbol, resolution: Resolution, status: int, body: bytes) -> CandlePage:
        where = f"binance {resolution.value} bars of {symbol}"
        found, rejected = answers.rows(_candles, answers.checked(status, body, where=where), where=where)
        candles = each(found, lambda row: normalise.candle(row, resolution), rejected)
        settled(candles, rejected, where=where)
        ascending = sorted(set(candles))
        for earlier, later in pairwise(ascending):
            if earlier.open_ms == later.open_ms:
                raise MalformedPage(
                    f"two different bars open at {later.open_ms} ms", where=where, remedy="the page is asked for again"
                )
        return CandlePage(Candles.of(ascending), rejected)

    def read_trades(self, symbol: Symbol, status: int, body: bytes, *, received_ms: int) -> Page[Trade]:
        where = f"binance trades of {symbol}"
        trades, rejected = self._trades(answers.checked(status, body, where=where), where=where)
        latest = received_ms + AHEAD_MS
        rejected += [
            f"trade {one.trade_id} is dated {one.ts_ms} ms, in the future" for one in trades if one.ts_ms >= latest
        ]
        good = [one for one in trades if one.ts_ms < latest]
        settled(good, rejected, where=where)
        return Page(sorted({one.trade_id: one for one in good}.values()), rejected)

    def read_first_trade(self, symbol: Symbol, status: int, body: bytes) -> int | None:
        where = f"binance first trade of {symbol}"
        found, rejected = answers.rows(_aggregates, answers.checked(status, body, where=where), where=where)
        settled(found, rejected, where=where)
        return min((row.a if self._joined else row.f for row in found), default=None)

    def read_headers(self, headers: Mapping[str, str]) -> int | None:
        """0 once most of the minute's weight is used, whoever of this address used it; None before."""
        for name, value in headers.items():
            if name.lower() == USED_WEIGHT_HEADER and value.strip().isdecimal():
                return 0 if int(value) >= products.SHARE * self._product.weight_per_minute else None
        return None

    # ---- websocket

    def subscribe(self, subscriptions: Sequence[Subscription]) -> list[str]:
        return commands.frames(self._product, "SUBSCRIBE", commands.SUBSCRIBE_ID, subscriptions)

    def unsubscribe(self, subscriptions: Sequence[Subscription]) -> list[str]:
        return commands.frames(self._product, "UNSUBSCRIBE", commands.UNSUBSCRIBE_ID, subscriptions)

    def ping(self) -> str:
        return commands.PING

    # ---- what is ours

    def _own(self, market: Market) -> products.Product:
        if market is not self._product.market:
            raise RequestRefused(
                f"{market.value} lives on another host than Binance's {self._product.market.value}",
                remedy="use the venue of that market",
            )
        return self._product

    def _trades(self, body: bytes, *, where: str) -> tuple[list[Trade], list[str]]:
        if self._joined:
            aggregates, rejected = answers.rows(_aggregates, body, where=where)
            return [normalise.aggregate(row) for row in aggregates], rejected
        singles, rejected = answers.rows(_singles, body, where=where)
        return [normalise.trade(row) for row in singles], rejected
