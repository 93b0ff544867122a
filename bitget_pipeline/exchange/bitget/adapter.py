"""
Bitget, as the contract wants it: every question and answer of exchange/contract.py, by the modules beside this one.

Made by exchange/registry.py. Pure and without state, so one object serves every connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise

import msgspec
import numpy as np

from ...errors import MalformedPage
from ...market.candle import Candles, Resolution
from ...market.derivatives import FundingRate, OpenInterest, PriceKind
from ...market.instrument import Market, Symbol, Ticker
from ...market.trade import Trade
from ..contract import (
    BookFrame,
    CandlePage,
    Credentials,
    Family,
    InstrumentPage,
    KeyVerdict,
    Page,
    ReleaseWindow,
    Request,
    SocketLimits,
    Subscription,
)
from ..rows import Rows, each, settled
from . import answers, books, commands, frames, normalise, requests, signing
from . import credentials as account
from .wire import (
    WireCandle,
    WireContract,
    WireFunding,
    WireOpenInterest,
    WireSpotSymbol,
    WireTicker,
    WireTrade,
)

REMAINING_HEADER = "x-mbx-used-remain-limit"

_spot_symbols: Rows[WireSpotSymbol] = Rows(WireSpotSymbol)
_contracts: Rows[WireContract] = Rows(WireContract)
_tickers: Rows[WireTicker] = Rows(WireTicker)
_candles: Rows[list[float]] = Rows(WireCandle)
_trades: Rows[WireTrade] = Rows(WireTrade)
_funding: Rows[WireFunding] = Rows(WireFunding)
_open_interest = msgspec.json.Decoder(WireOpenInterest, strict=False)


def _each_once(candles: Candles, *, where: str) -> Candles:
    """Ascending by open time. Raises MalformedPage when two rows contradict each other."""
    if (np.diff(candles.open_ms) > 0).all():
        return candles  # as the exchange sends them
    ascending = candles.where(np.argsort(candles.open_ms, kind="stable"))
    if (np.diff(ascending.open_ms) > 0).all():
        return ascending
    once = sorted(set(ascending))
    for earlier, later in pairwise(once):
        if earlier.open_ms == later.open_ms:
            raise MalformedPage(
                f"two different bars open at {later.open_ms} ms", where=where, remedy="the page is asked for again"
            )
    return Candles.of(once)


class WireTime(msgspec.Struct):
    """The data of the time call."""

    serverTime: int


_time = msgspec.json.Decoder(WireTime, strict=False)


class Bitget:
    """The exchange Bitget, V2 public market data. Implements contract.Exchange."""

    name = "bitget"
    rest_url = "https://api.bitget.com"
    ws_url = "wss://ws.bitget.com/v2/ws/public"
    markets: tuple[Market, ...] = (Market.SPOT, Market.USDTM, Market.COINM, Market.USDCM)
    limits = SocketLimits(
        max_channels=50,  # 1000 are allowed, fewer than 50 recommended
        messages_per_second=10,
        subscribes_per_hour=240,
        frame_bytes=4096,
        ping_every=20.0,
        pong_within=15.0,
        lifetime=86_400.0,
        connects_per_5min=300,
        releases=(ReleaseWindow(frozenset({1, 2, 3}), from_hour=6, until_hour=9),),  # reference 2.3
    )
    max_candles_per_page = requests.MAX_CANDLES
    max_trades_per_page = requests.MAX_TRADES
    max_funding_per_page = requests.MAX_FUNDING

    # ---- requests

    def server_time(self) -> Request:
        return requests.server_time()

    def instruments(self, market: Market) -> Request:
        return requests.instruments(market)

    def tickers(self, market: Market) -> Request:
        return requests.tickers(market)

    def candle_page(self, symbol: Symbol, resolution: Resolution, *, end_ms: int, limit: int | None = None) -> Request:
        return requests.candle_page(symbol, resolution, end_ms=end_ms, limit=limit)

    def candle_window(self, resolution: Resolution) -> timedelta:
        return requests.candle_window(resolution)

    def recent_trades(self, symbol: Symbol) -> Request:
        return requests.recent_trades(symbol)

    def trade_page(self, symbol: Symbol, *, before_id: int | None = None, limit: int | None = None) -> Request:
        return requests.trade_page(symbol, before_id=before_id, limit=limit)

    def book(self, symbol: Symbol) -> Request:
        return requests.book(symbol)

    def price_page(
        self, symbol: Symbol, kind: PriceKind, resolution: Resolution, *, end_ms: int, limit: int | None = None
    ) -> Request:
        return requests.price_page(symbol, kind, resolution, end_ms=end_ms, limit=limit)

    def funding_page(self, symbol: Symbol, *, page: int) -> Request:
        return requests.funding_page(symbol, page=page)

    def open_interest(self, symbol: Symbol) -> Request:
        return requests.open_interest(symbol)

    # ---- answers

    def read_server_time(self, status: int, body: bytes) -> int:
        raw = answers.data(status, body, where="bitget time")
        try:
            return _time.decode(raw or b"").serverTime
        except ValueError as error:
            raise MalformedPage(
                f"the time makes no sense: {error}", where="bitget time", remedy="it is set aside"
            ) from None

    def read_instruments(self, market: Market, status: int, body: bytes) -> InstrumentPage:
        where = f"bitget instruments of {market.value}"
        raw = answers.data(status, body, where=where)
        if market is Market.SPOT:
            symbols, rejected = answers.rows(_spot_symbols, raw, where=where)
            found = each(symbols, normalise.spot_instrument, rejected)
        else:
            contracts, rejected = answers.rows(_contracts, raw, where=where)
            found = each(contracts, lambda row: normalise.contract(row, market), rejected)
        settled(found, rejected, where=where)
        known = normalise.SPOT_STATUS if market is Market.SPOT else normalise.CONTRACT_STATUS
        unknown = [one for one in found if one.exchange_status not in known]
        return InstrumentPage(list({one.symbol: one for one in found}.values()), rejected, unknown)

    def read_tickers(self, market: Market, status: int, body: bytes) -> Page[Ticker]:
        where = f"bitget tickers of {market.value}"
        found, rejected = answers.rows(_tickers, answers.data(status, body, where=where), where=where)
        tickers = each(found, lambda row: normalise.ticker(row, market), rejected)
        settled(tickers, rejected, where=where)
        return Page(tickers, rejected)

    def read_candles(self, symbol: Symbol, resolution: Resolution, status: int, body: bytes) -> CandlePage:
        where = f"bitget {resolution.value} bars of {symbol}"
        found, rejected = answers.rows(_candles, answers.data(status, body, where=where), where=where)
        candles = normalise.candles(found, symbol.market, resolution, rejected)
        settled(candles, rejected, where=where)
        return CandlePage(_each_once(candles, where=where), rejected)

    def read_trades(self, symbol: Symbol, status: int, body: bytes, *, received_ms: int) -> Page[Trade]:
        where = f"bitget trades of {symbol}"
        found, rejected = answers.rows(_trades, answers.data(status, body, where=where), where=where)
        latest = received_ms + frames.AHEAD_MS
        rejected += [f"trade {row.tradeId} is dated {row.ts} ms, in the future" for row in found if row.ts >= latest]
        trades = each((row for row in found if row.ts < latest), normalise.trade, rejected)
        settled(trades, rejected, where=where)
        once = {one.trade_id: one for one in trades}.values()
        return Page(sorted(once, key=lambda one: (one.ts_ms, one.trade_id)), rejected)

    def read_book(self, symbol: Symbol, status: int, body: bytes) -> BookFrame:
        where = f"bitget book of {symbol}"
        raw = answers.data(status, body, where=where)
        try:
            return books.read(raw or b"", symbol, snapshot=True, depth=None)
        except (ValueError, RecursionError) as error:
            raise MalformedPage(f"the book makes no sense: {error}", where=where, remedy="it is set aside") from None

    def read_funding(self, symbol: Symbol, status: int, body: bytes) -> Page[FundingRate]:
        where = f"bitget funding of {symbol}"
        found, rejected = answers.rows(_funding, answers.data(status, body, where=where), where=where)
        rates = each(found, normalise.funding, rejected)
        settled(rates, rejected, where=where)
        return Page(sorted({one.settled_ms: one for one in rates}.values()), rejected)

    def read_open_interest(self, symbol: Symbol, status: int, body: bytes) -> OpenInterest | None:
        where = f"bitget open interest of {symbol}"
        raw = answers.data(status, body, where=where)
        if raw is None:
            return None
        try:
            data = _open_interest.decode(raw)
        except (ValueError, RecursionError) as error:
            raise MalformedPage(
                f"the open interest makes no sense: {error}", where=where, remedy="it is set aside"
            ) from None
        sizes = [row.size for row in data.openInterestList if requests.upper(row.symbol) == requests.wire_name(symbol)]
        return OpenInterest(data.ts, sizes[0]) if sizes else None

    def read_headers(self, headers: Mapping[str, str]) -> int | None:
        for name, value in headers.items():
            if name.lower() == REMAINING_HEADER and value.strip().isdecimal():
                return int(value)
        return None

    # ---- websocket

    def subscribe(self, subscriptions: Sequence[Subscription]) -> list[str]:
        return commands.frames("subscribe", subscriptions, frame_bytes=self.limits.frame_bytes)

    def unsubscribe(self, subscriptions: Sequence[Subscription]) -> list[str]:
        return commands.frames("unsubscribe", subscriptions, frame_bytes=self.limits.frame_bytes)

    def ping(self) -> str:
        return commands.PING

    decode = staticmethod(frames.decode)  # without a call of its own, for it runs on every frame

    # ---- trade ids

    def trade_time_ms(self, trade_id: int) -> int:
        return requests.trade_time_ms(trade_id)

    def id_at(self, ms: int) -> int:
        return requests.id_at(ms)

    # ---- credentials

    def account_info(self, family: Family = Family.CLASSIC) -> Request:
        return requests.account_info(family)

    def signed_headers(self, request: Request, credentials: Credentials, *, now_ms: int) -> dict[str, str]:
        return signing.headers(
            credentials, timestamp_ms=now_ms, method="GET", path=request.path, query=request.raw_query()
        )

    def read_account_info(self, status: int, body: bytes) -> KeyVerdict:
        return account.read(status, body)
