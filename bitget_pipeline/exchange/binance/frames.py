"""
What a frame of Binance's websocket says: bytes in, one of the contract's frames out.

Called by feed/ for every frame, so trades are read in one typed pass. Events come bare, or wrapped with the name of
their stream: both are understood. A frame that holds nothing we can use raises MalformedFrame and nothing else.
"""

from __future__ import annotations

import msgspec

from ...errors import MalformedFrame
from ...market.instrument import Symbol
from ...market.trade import Trade, TradeBatch
from ..contract import Acknowledged, CandlesFrame, Ending, Frame, Pong, SubscriptionRefused, TradesFrame
from . import normalise
from .channels import RESOLUTIONS
from .commands import UNSUBSCRIBE_ID
from .products import Product
from .wire import NOTHING, AggregateEvent, BarEvent, Push, TradeEvent

AHEAD_MS = 86_400_000
"""An event dated more than a day after now is noise."""

_push = msgspec.json.Decoder(Push).decode
_bar = msgspec.json.Decoder(BarEvent, strict=False).decode
_trade = msgspec.json.Decoder(TradeEvent, strict=False).decode
_aggregate = msgspec.json.Decoder(AggregateEvent, strict=False).decode
_new = tuple.__new__


class Reader:
    """Reads the frames of one market."""

    def __init__(self, product: Product) -> None:
        self._market = product.market
        self._trades = product.trades
        self._mark = f'{{"e":"{product.trades}"'.encode()
        self._read_trade = self._single if product.trades == "trade" else self._joined

    def decode(self, frame: str | bytes, *, received_ms: int) -> Frame:
        """What the frame says. `received_ms` is the market clock's now; see contract.Venue.decode."""
        try:
            raw = frame.encode() if isinstance(frame, str) else frame
            if raw.startswith(self._mark):
                return self._read_trade(raw, received_ms)
            return self._any(raw, received_ms)
        except (ValueError, RecursionError) as error:
            raise MalformedFrame(
                f"a frame that makes no sense: {error}: {frame[:120]!r}",
                where=f"binance {self._market.value} websocket",
                remedy="it is set aside",
            ) from None

    def _any(self, raw: bytes, received_ms: int) -> Frame:
        push = _push(raw)
        if push.stream:
            raw = bytes(push.data)
            push = _push(raw)
        if push.e == self._trades:
            return self._read_trade(raw, received_ms)
        if push.e == "kline":
            return self._candles(raw, received_ms)
        if push.e == "serverShutdown":
            return Ending()
        if push.e:
            raise ValueError(f"an event {push.e!r} nobody asked for")
        return _answer(push)

    def _single(self, raw: bytes, received_ms: int) -> Frame:
        event = _trade(raw)
        return self._one(event.s, event.t, event.T, event.p, event.q, event.m, received_ms)

    def _joined(self, raw: bytes, received_ms: int) -> Frame:
        event = _aggregate(raw)
        return self._one(event.s, event.a, event.T, event.p, event.q, event.m, received_ms)

    def _one(
        self, name: str, number: int, ts_ms: int, price: float, size: float, sold: bool, received_ms: int
    ) -> TradesFrame:
        if ts_ms >= received_ms + AHEAD_MS:
            raise ValueError(f"a trade of the future: {ts_ms} ms")
        found: Trade = _new(Trade, (number, ts_ms, price, size, not sold, True))
        return TradesFrame(TradeBatch(self._symbol(name), [found], received_ms))

    def _candles(self, raw: bytes, received_ms: int) -> CandlesFrame:
        event = _bar(raw)
        resolution = RESOLUTIONS.get(event.k.i)
        if resolution is None:
            raise ValueError(f"a bar of {event.k.i!r}, which nobody asked for")
        candle = normalise.pushed_candle(event.k, resolution)
        if candle.open_ms > received_ms + AHEAD_MS:
            raise ValueError(f"a bar of the future: {candle.open_ms} ms")
        return CandlesFrame(
            self._symbol(event.s), resolution, [candle], snapshot=False, received_ms=received_ms, final=event.k.x
        )

    def _symbol(self, name: str) -> Symbol:
        return normalise.symbol(self._market, name)


def _answer(push: Push) -> Frame:
    """The answer to one of our frames. It says which by an id, so that a refusal names no subscription."""
    refusal = push.error or push
    if refusal.code is not None:
        return SubscriptionRefused(None, refusal.code, refusal.msg)
    if push.result == NOTHING:
        raise ValueError("neither an event nor an answer")
    if bytes(push.result) == b"null":
        return Acknowledged(None, subscribed=push.id != UNSUBSCRIBE_ID)
    return Pong()
