"""
What a local exchange is started with.

Made by the command line or a test, read by every module of this package. Nothing here changes while the server runs:
what can change (clock, faults, universe) has its own lever.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MARKETS = ("spot", "usdtm", "coinm", "usdcm")


@dataclass(frozen=True)
class Credential:
    """An API key this exchange recognises; `family` decides between error codes 40084 and 40085."""

    key: str
    secret: str
    passphrase: str
    authorities: tuple[str, ...] = ("coor", "cpor", "wtor")
    family: Literal["classic", "unified"] = "classic"
    allowed_ips: tuple[str, ...] = ()


@dataclass(frozen=True)
class BinanceAddress:
    """Where the Binance side listens: spot and futures are hosts of their own."""

    host: str
    spot_port: int
    futures_port: int

    def rest_url(self, market: str) -> str:
        """Base of the REST paths of spot or usdtm."""
        return f"http://{self.host}:{self._port(market)}"

    def ws_url(self, market: str) -> str:
        """The socket for raw streams: on usdtm the one of market data."""
        return f"ws://{self.host}:{self._port(market)}" + ("/ws" if market == "spot" else "/market/ws")

    def _port(self, market: str) -> int:
        return self.spot_port if market == "spot" else self.futures_port

    def as_json(self) -> dict[str, dict[str, str]]:
        """Both markets with both addresses."""
        return {m: {"rest_url": self.rest_url(m), "ws_url": self.ws_url(m)} for m in ("spot", "usdtm")}


@dataclass(frozen=True)
class Address:
    """Where a running exchange listens; `binance` is None when it does not play that too."""

    host: str
    port: int
    binance: BinanceAddress | None = None

    @property
    def rest_url(self) -> str:
        """Base of every REST path, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """The public V2 socket."""
        return f"ws://{self.host}:{self.port}/v2/ws/public"


@dataclass(frozen=True)
class ExchangeConfig:
    """
    Everything that shapes one local exchange.

    The instrument counts are those of the real exchange on 2026-09-25. `trades_per_second` is the expected sum over all
    active symbols of all markets; `active_per_market` symbols trade steadily (Zipf), the rest a few times a day.
    `listed_days`: None lists the old instruments in 2021; a number lists them that many days before the server starts.
    `speed` accelerates market time only; the protocol timers below (seconds) stay wall time.
    `recordings`: a folder of recorded bars (see recordings.py), served as the history of their symbols.
    `binance`: play Binance too, on two ports of its own (0 finds free ones), with pings every `binance_ping_seconds`
    that want their answer within `binance_pong_seconds`, and `serverShutdown` announced `binance_notice_seconds` before
    a connection's end.
    """

    seed: int = 7
    host: str = "127.0.0.1"
    port: int = 0
    spot_instruments: int = 3169
    usdtm_instruments: int = 805
    coinm: int = 10
    usdcm: int = 49
    active_per_market: int = 60
    trades_per_second: float = 150.0
    listed_days: int | None = None
    speed: float = 1.0
    limits: bool = True
    window: Literal["fixed", "sliding"] = "sliding"
    oversized_limit: Literal["clamp", "refuse"] = "clamp"
    requests_per_minute: int = 6000
    penalty_seconds: float = 300.0
    ping_timeout: float = 120.0
    connection_lifetime: float = 86_400.0
    tick_seconds: float = 0.05
    ticker_seconds: float = 0.3
    book_seconds: float = 0.2
    book_checksum: bool = False
    recordings: Path | None = None
    credentials: tuple[Credential, ...] = ()
    binance: bool = False
    binance_spot_port: int = 0
    binance_futures_port: int = 0
    binance_ping_seconds: float = 20.0
    binance_pong_seconds: float = 60.0
    binance_notice_seconds: float = 600.0

    def instruments_of(self, market: str) -> int:
        """How many instruments the market lists."""
        counts = {
            "spot": self.spot_instruments,
            "usdtm": self.usdtm_instruments,
            "coinm": self.coinm,
            "usdcm": self.usdcm,
        }
        return counts[market]
