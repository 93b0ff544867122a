"""
What every exchange must offer, and the values that cross the border.

Three circles: a `Venue` can be asked and listened to; a `Substitute` can stand in for another while that is dark; an
`Exchange` is one whose whole market data we keep. Implemented by exchange/<name>/adapter.py and found by
exchange/registry.py; used by feed/, history/ and pipeline/. All of it is pure: it builds requests and frames, and turns
received bytes into our values. Whoever calls it does the sending.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Generic, Protocol, TypeAlias, TypeVar
from urllib.parse import quote

from msgspec import Struct

from ..market.candle import Candle, Candles, Resolution
from ..market.derivatives import FundingRate, OpenInterest, PriceKind
from ..market.instrument import Instrument, Market, Symbol, Ticker
from ..market.trade import Trade, TradeBatch
from .credentials import Credentials as Credentials

Row = TypeVar("Row")


class Channel(StrEnum):
    """The kinds of stream we know, in our words; bitget/channels.py has the exchange's."""

    TRADE = "trade"
    TICKER = "ticker"
    BOOKS = "books"  # the full book: one snapshot, then changes
    BOOKS_1 = "books_1"  # the best level, always a snapshot
    BOOKS_5 = "books_5"
    BOOKS_15 = "books_15"
    CANDLE_1M = "candle_1m"
    CANDLE_5M = "candle_5m"
    CANDLE_15M = "candle_15m"
    CANDLE_30M = "candle_30m"
    CANDLE_1H = "candle_1h"
    CANDLE_4H = "candle_4h"
    CANDLE_6H = "candle_6h"
    CANDLE_12H = "candle_12h"
    CANDLE_1D = "candle_1d"


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    """Percent-encoded as UTF-8. Kept, for nearly every request says the same words."""
    return quote(text, safe="")


@dataclass(frozen=True, slots=True)
class Request:
    """
    An HTTP GET that the history client sends, signed or not.

    `endpoint` is the key of its rate budget (`spot.history-candles`); `per_second` is the exchange's published limit.
    """

    path: str
    params: tuple[tuple[str, str], ...]
    endpoint: str
    per_second: float

    @property
    def family(self) -> str:
        """The endpoints that one service of the exchange answers, which fail together: `spot` of `spot.history-candles`."""
        return self.endpoint.rpartition(".")[0]

    def url_query(self) -> str:
        """The query as it stands in the URL, percent-encoded as UTF-8, without the question mark."""
        return "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in self.params)

    def raw_query(self) -> str:
        """The query as it is signed: the raw text, without the question mark."""
        return "&".join(f"{name}={value}" for name, value in self.params)

    def url(self, base: str) -> str:
        """The whole URL below `base`, percent-encoded; send it as it is, without encoding it again."""
        query = self.url_query()
        return f"{base.rstrip('/')}{self.path}" + (f"?{query}" if query else "")


@dataclass(frozen=True, slots=True)
class Subscription:
    """One stream of one instrument."""

    symbol: Symbol
    channel: Channel


@dataclass(frozen=True, slots=True)
class ReleaseWindow:
    """When the exchange puts new programs to work and may cut sockets: weekdays (Monday is 0) and hours, UTC."""

    weekdays: frozenset[int]
    from_hour: int
    until_hour: int


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """
    What the exchange bears on its public sockets. Times in seconds.

    `first_data_within` is how long a subscription may stay without data: short where each begins with a snapshot.
    """

    max_channels: int
    messages_per_second: int
    subscribes_per_hour: int
    frame_bytes: int
    ping_every: float
    pong_within: float
    lifetime: float
    connects_per_5min: int
    first_data_within: float = 10.0
    releases: tuple[ReleaseWindow, ...] = ()


# ---------------------------------------------------------------- what a frame can be


class TradesFrame(Struct, gc=False):
    """
    Trades of one symbol, oldest first (the wire has them newest first).

    `batch.rejected` counts the rows of the frame that made no sense and were left out. `batch.trades` is empty only
    when the frame had no rows.
    """

    batch: TradeBatch


@dataclass(slots=True)
class CandlesFrame:
    """
    Bars of one symbol, oldest first; the last one may still be forming (its end lies after the market clock's now).

    A later frame with the same open time replaces the bar. `rejected` counts rows left out. `final` says whether the
    last bar will not change any more, None where the exchange does not say.
    """

    symbol: Symbol
    resolution: Resolution
    candles: list[Candle]
    snapshot: bool
    received_ms: int
    rejected: int = 0
    final: bool | None = None


@dataclass(slots=True)
class TickerFrame:
    """The last 24 hours of one symbol."""

    ticker: Ticker


@dataclass(slots=True)
class BookFrame:
    """
    A book or a change of it. Prices and sizes are the exchange's own text (checksums are taken over it).

    Bids fall, asks rise; size zero deletes a level. `depth` is None for the full book, else the number of levels a
    side of a fixed-depth channel. `seq`, `prev_seq` and `checksum` are None where the frame has none.
    """

    symbol: Symbol
    snapshot: bool
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]
    seq: int | None
    prev_seq: int | None
    checksum: int | None
    ts_ms: int
    depth: int | None = None


@dataclass(slots=True)
class Acknowledged:
    """
    The exchange confirms a subscription or its end. It proves nothing: only a data frame does.

    `subscription` is None where the exchange confirms a whole frame of ours and does not say what was in it.
    """

    subscription: Subscription | None
    subscribed: bool


@dataclass(slots=True)
class SubscriptionRefused:
    """The exchange refuses a request on the socket; `subscription` is None when it does not say which one."""

    subscription: Subscription | None
    code: int
    message: str


@dataclass(slots=True)
class Pong:
    """A sign of life from the server."""


@dataclass(slots=True)
class Ending:
    """The server will close this connection soon: its successor is wanted now."""


Frame: TypeAlias = (
    TradesFrame | CandlesFrame | TickerFrame | BookFrame | Acknowledged | SubscriptionRefused | Pong | Ending
)


# ---------------------------------------------------------------- what an answer can be


class Page(list[Row], Generic[Row]):
    """
    The rows of one answer, in our values; `rejected` says in a line each which rows made no sense and were left out.

    Left out is not lost: a bar or trade that is missing shows as a hole, and holes are refetched.
    """

    def __init__(self, rows: Iterable[Row] = (), rejected: Sequence[str] = ()) -> None:
        super().__init__(rows)
        self.rejected: list[str] = list(rejected)


class CandlePage(Candles):
    """The bars of one answer, in columns; otherwise as `Page`."""

    __slots__ = ("rejected",)

    def __init__(self, candles: Candles, rejected: Sequence[str] = ()) -> None:
        super().__init__(candles.open_ms, candles.values)
        self.rejected: list[str] = list(rejected)


@dataclass(slots=True)
class InstrumentPage:
    """
    All instruments of a market, and in a line each the rows that were left out because they made no sense. `unknown` are those
    of them whose status is a word that nobody knows.
    """

    instruments: list[Instrument]
    rejected: list[str] = field(default_factory=list)
    unknown: list[Instrument] = field(default_factory=list)


class Family(StrEnum):
    """Which generation of private calls an account answers to."""

    CLASSIC = "classic"
    UNIFIED = "unified"


@dataclass(frozen=True, slots=True)
class KeyVerdict:
    """
    What a key may do.

    `read_only` is true only when every right is known to read alone; `rights` are the exchange's own words. A unified
    account asked in the classic way gives no rights and `family` UNIFIED: ask again with
    `account_info(Family.UNIFIED)`. `ip_restricted` says whether the key works from listed addresses alone.
    """

    read_only: bool
    rights: tuple[str, ...]
    ip_restricted: bool
    family: Family


class Venue(Protocol):
    """A place where things are traded: requests out, answers and frames in, all in our words."""

    name: str
    rest_url: str
    ws_url: str
    markets: tuple[Market, ...]
    limits: SocketLimits
    max_candles_per_page: int
    max_trades_per_page: int

    # ---- requests

    def server_time(self) -> Request:
        """Ask for the exchange's clock."""

    def instruments(self, market: Market) -> Request:
        """Ask for every instrument of a market."""

    def tickers(self, market: Market) -> Request:
        """Ask for the last 24 hours of every instrument of a market."""

    def candle_page(self, symbol: Symbol, resolution: Resolution, *, end_ms: int, limit: int | None = None) -> Request:
        """
        Ask for the closed bars that open before `end_ms` (Unix ms UTC, exclusive, aligned), newest `limit` of them.

        The answer may hold a bar that opens at `end_ms` itself, or, where `end_ms` lies ahead of the exchange's clock,
        one that is still forming: the caller keeps what it asked for.
        """

    def candle_window(self, resolution: Resolution) -> timedelta:
        """The longest stretch one candle page covers."""

    def recent_trades(self, symbol: Symbol) -> Request:
        """Ask for the newest trades, as many as the exchange gives at once, with milliseconds."""

    def trade_page(self, symbol: Symbol, *, before_id: int | None = None, limit: int | None = None) -> Request:
        """Ask for the trades with ids below `before_id`, newest `limit` of them; without it the newest of all."""

    # ---- answers: HTTP status and body in, our values out; they raise the error tree

    def read_server_time(self, status: int, body: bytes) -> int:
        """The exchange's clock, Unix ms UTC."""

    def read_instruments(self, market: Market, status: int, body: bytes) -> InstrumentPage:
        """Every instrument of the market."""

    def read_tickers(self, market: Market, status: int, body: bytes) -> Page[Ticker]:
        """The last 24 hours of every instrument, volume in USDT included."""

    def read_candles(self, symbol: Symbol, resolution: Resolution, status: int, body: bytes) -> CandlePage:
        """Bars, ascending by open time, each once. Raises MalformedPage when two rows contradict each other."""

    def read_trades(self, symbol: Symbol, status: int, body: bytes, *, received_ms: int) -> Page[Trade]:
        """Trades, oldest first, each once."""

    def read_headers(self, headers: Mapping[str, str]) -> int | None:
        """How many requests of this endpoint are left in this second, when the answer says so; 0 asks for a pause."""

    # ---- websocket

    def subscribe(self, subscriptions: Sequence[Subscription]) -> list[str]:
        """The frames that ask for these streams, each within the exchange's size limit."""

    def unsubscribe(self, subscriptions: Sequence[Subscription]) -> list[str]:
        """The frames that end these streams, each within the exchange's size limit."""

    def ping(self) -> str:
        """The text that asks for a sign of life."""

    def decode(self, frame: str | bytes, *, received_ms: int) -> Frame:
        """
        What a frame says. Bytes are faster than text. `received_ms` is the market clock's now (Unix ms UTC).

        Raises MalformedFrame when nothing of it can be understood, ForeignGeneration when it is V1 or V3.
        """


class Substitute(Venue, Protocol):
    """
    A venue that can stand in for one market of another while that is dark: its rows carry a `source` of their own.

    Its trade ids grow by one for each trade of a symbol, so that a loss shows.
    """

    source: str

    def first_trade_since(self, symbol: Symbol, *, since_ms: int) -> Request:
        """Ask for the first trade at or after a moment (Unix ms UTC), within the hour that follows it."""

    def read_first_trade(self, symbol: Symbol, status: int, body: bytes) -> int | None:
        """The id of that trade, None when there was none in that hour."""


class Exchange(Venue, Protocol):
    """An exchange whose whole public market data we keep, and that may know us by a key."""

    max_funding_per_page: int

    # ---- requests

    def book(self, symbol: Symbol) -> Request:
        """Ask for the order book now."""

    def price_page(
        self, symbol: Symbol, kind: PriceKind, resolution: Resolution, *, end_ms: int, limit: int | None = None
    ) -> Request:
        """
        Ask for closed bars of a future's mark or index price, like `candle_page`; `read_candles` reads the answer.
        """

    def funding_page(self, symbol: Symbol, *, page: int) -> Request:
        """Ask for settled funding of a future: page 1 holds the newest `max_funding_per_page` settlements."""

    def open_interest(self, symbol: Symbol) -> Request:
        """Ask for the contracts of a future that are outstanding now."""

    # ---- answers

    def read_book(self, symbol: Symbol, status: int, body: bytes) -> BookFrame:
        """The order book, always a snapshot."""

    def read_funding(self, symbol: Symbol, status: int, body: bytes) -> Page[FundingRate]:
        """Settled funding, oldest first, each settlement once."""

    def read_open_interest(self, symbol: Symbol, status: int, body: bytes) -> OpenInterest | None:
        """The contracts outstanding, None when the answer does not name the symbol."""

    # ---- trade ids

    def trade_time_ms(self, trade_id: int) -> int:
        """The moment a trade id carries, Unix ms UTC."""

    def id_at(self, ms: int) -> int:
        """The first trade id of that millisecond: `trade_page(before_id=id_at(t))` asks for what came before t."""

    # ---- credentials

    def account_info(self, family: Family = Family.CLASSIC) -> Request:
        """The call that shows what a key may do; to be sent with `signed_headers`."""

    def signed_headers(self, request: Request, credentials: Credentials, *, now_ms: int) -> dict[str, str]:
        """The headers that prove who asks, at the exchange's time `now_ms`."""

    def read_account_info(self, status: int, body: bytes) -> KeyVerdict:
        """What the key may do. Raises CredentialsRefused when the exchange refuses it."""
