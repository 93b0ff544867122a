"""
What a frame of Bitget's public websocket says: bytes in, one of the contract's frames out.

Called by feed/ for every frame, so the trade channel is read in one typed pass and nothing is decoded twice. Other
channels are rarer and are read in two steps. A row that makes no sense is set aside and counted; the good ones of its
frame are kept. A frame without a good row, or that is no V2 frame at all, raises MalformedFrame or ForeignGeneration
and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import msgspec

from ...errors import MalformedFrame
from ...market.candle import Candle
from ...market.instrument import Symbol
from ...market.trade import Trade, TradeBatch
from ..contract import (
    Acknowledged,
    CandlesFrame,
    Channel,
    Frame,
    Pong,
    Subscription,
    SubscriptionRefused,
    TickerFrame,
    TradesFrame,
)
from ..rows import Rows, each
from . import books, normalise
from .answers import foreign
from .channels import BY_WIRE_NAME, CHANNELS, FIRST_GENERATION_PRODUCTS, MARKETS
from .normalise import BUYS
from .requests import APART_MS, TIMED_IDS_FROM, TRADE_ID_EPOCH_MS
from .wire import Push, TradePush, WireArgument, WireCandle, WireTicker, WireTrade

AHEAD_MS = 86_400_000
"""A row dated more than a day after now is noise."""
_EARLIEST, _LATEST = TRADE_ID_EPOCH_MS - APART_MS, TRADE_ID_EPOCH_MS + APART_MS

_TRADE_MARK = b'"channel":"trade"'
_MARKED_WITHIN = 160  # bytes; a frame that says later what it is about is read in two steps, as any other
_SIGNS_OF_LIFE = frozenset({b"pong", b"ping"})  # the server has been seen to ping too; no answer is needed
_new = tuple.__new__

_trade_push = msgspec.json.Decoder(TradePush, strict=False).decode
_push = msgspec.json.Decoder(Push).decode
_trades: Rows[WireTrade] = Rows(WireTrade)
_candles: Rows[list[float]] = Rows(WireCandle)
_tickers: Rows[WireTicker] = Rows(WireTicker)
_EACH = msgspec.json.Decoder(list[msgspec.Raw])


def decode(frame: str | bytes, *, received_ms: int) -> Frame:
    """What the frame says. `received_ms` is the market clock's now; see contract.Exchange.decode."""
    push: Push | None = None
    try:
        raw = frame.encode() if isinstance(frame, str) else frame
        if raw.find(_TRADE_MARK, 0, _MARKED_WITHIN) >= 0:
            try:
                trades = _trade_push(raw)
            except msgspec.ValidationError:
                pass  # a bad row, or no trades at all: the careful way below finds out
            else:
                about = trades.arg
                symbol = _traded(about.instType, about.channel, about.instId)
                if symbol is not None:
                    return _trades_frame(symbol, trades.data, 0, trades.action == "snapshot", received_ms)
        elif raw in _SIGNS_OF_LIFE:
            return Pong()
        push = _push(raw)
        return _any(push, received_ms)
    except (ValueError, RecursionError) as error:
        malformed = MalformedFrame(
            f"a frame that makes no sense: {error}: {frame[:120]!r}", where="bitget websocket", remedy="it is set aside"
        )
        malformed.about = None if push is None else _subscription_if_known(push.arg)
        raise malformed from None


@lru_cache(maxsize=16_384)
def _traded(product: str, channel: str, name: str) -> Symbol | None:
    """Whose trades a frame holds, None when it holds no trades of a market we know. Cached, for it is asked every frame."""
    market = MARKETS.get(product)
    return None if market is None or channel != "trade" else normalise.symbol(market, name)


def _trades_frame(
    symbol: Symbol, rows: list[WireTrade], rejected: int, snapshot: bool, received_ms: int
) -> TradesFrame:
    latest = received_ms + AHEAD_MS
    trades: list[Trade] = [
        _new(Trade, (row.tradeId, row.ts, row.price, row.size, BUYS[row.side], True))
        for row in rows
        # As requests.contradicts, without a call.
        if row.ts < latest and (_EARLIEST < row.ts - (row.tradeId >> 22) < _LATEST or row.tradeId < TIMED_IDS_FROM)
    ]
    if len(trades) > 1:
        trades.sort()  # by id, which grows with time; the wire is newest first, which sorting only turns round
    rejected += len(rows) - len(trades)
    if rejected and not trades:
        raise ValueError(f"none of its {rejected} rows makes sense")
    return TradesFrame(TradeBatch(symbol, trades, received_ms, snapshot, rejected))


def _any(push: Push, received_ms: int) -> Frame:
    if push.event:
        return _event(push)
    if push.arg is None:
        raise ValueError("neither an event nor data")
    about = _subscription(push.arg)
    return _READERS[about.channel](about, push, received_ms)


def _event(push: Push) -> Frame:
    if push.event == "error":
        about = _subscription_if_known(push.arg)
        return SubscriptionRefused(about, int(push.code), push.msg)
    if push.event not in ("subscribe", "unsubscribe") or push.arg is None:
        raise ValueError(f"unknown event {push.event!r}")
    return Acknowledged(_subscription(push.arg), subscribed=push.event == "subscribe")


def _subscription(about: WireArgument) -> Subscription:
    """Which stream a frame is about. Raises ForeignGeneration for V1's and V3's, ValueError for one we do not know."""
    market = MARKETS.get(about.instType)
    channel = BY_WIRE_NAME.get(about.channel)
    if market is not None and channel is not None and about.instId:
        return Subscription(normalise.symbol(market, about.instId), channel)
    if about.topic:
        raise foreign("V3", where=f"bitget websocket, topic {about.topic}")
    if about.instType in FIRST_GENERATION_PRODUCTS:
        raise foreign("V1", where=f"bitget websocket, instType {about.instType}")
    raise ValueError(f"unknown stream {about.instType}/{about.channel}/{about.instId}")


def _subscription_if_known(about: WireArgument | None) -> Subscription | None:
    """Which stream a refusal is about; one we misspelt cannot be named in our words."""
    try:
        return None if about is None else _subscription(about)
    except ValueError:
        return None


def _read_trades(about: Subscription, push: Push, received_ms: int) -> Frame:
    rows, rejected = _trades.read(push.data)
    return _trades_frame(about.symbol, rows, len(rejected), push.action == "snapshot", received_ms)


def _read_candles(about: Subscription, push: Push, received_ms: int) -> Frame:
    resolution = CHANNELS[about.channel].resolution
    assert resolution is not None, "a candle channel has a resolution in channels.py"
    rows, rejected = _candles.read(push.data)
    latest = received_ms + AHEAD_MS

    def bar(row: list[float]) -> Candle:
        candle = normalise.candle(row, about.symbol.market, resolution)
        if candle.open_ms > latest:
            raise ValueError(f"a bar of the future: {candle.open_ms} ms")
        return candle

    candles = each(rows, bar, rejected)
    if rejected and not candles:
        raise ValueError(f"none of its bars makes sense; {rejected[0]}")
    latest_of_each = {candle.open_ms: candle for candle in candles}
    ascending = [latest_of_each[open_ms] for open_ms in sorted(latest_of_each)]
    return CandlesFrame(about.symbol, resolution, ascending, push.action == "snapshot", received_ms, len(rejected))


def _read_ticker(about: Subscription, push: Push, received_ms: int) -> Frame:
    rows, rejected = _tickers.read(push.data)
    if not rows:
        raise ValueError(f"a ticker frame without a ticker {''.join(rejected[:1])}")
    row = rows[-1]
    row.symbol = about.symbol.name
    return TickerFrame(normalise.ticker(row, about.symbol.market))


def _read_book(about: Subscription, push: Push, received_ms: int) -> Frame:
    found = _EACH.decode(push.data)
    if len(found) != 1:
        raise ValueError(f"a book frame holds one book, this one {len(found)}")
    return books.read(found[0], about.symbol, snapshot=push.action == "snapshot", depth=CHANNELS[about.channel].depth)


def _reader(channel: Channel) -> Callable[[Subscription, Push, int], Frame]:
    if CHANNELS[channel].resolution is not None:
        return _read_candles
    return {Channel.TRADE: _read_trades, Channel.TICKER: _read_ticker}.get(channel, _read_book)


_READERS: dict[Channel, Callable[[Subscription, Push, int], Frame]] = {channel: _reader(channel) for channel in Channel}
