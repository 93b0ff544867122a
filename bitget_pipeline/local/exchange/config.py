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
class Address:
    """Where a running exchange listens."""

    host: str
    port: int

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

    def instruments_of(self, market: str) -> int:
        """How many instruments the market lists."""
        counts = {
            "spot": self.spot_instruments,
            "usdtm": self.usdtm_instruments,
            "coinm": self.coinm,
            "usdcm": self.usdcm,
        }
        return counts[market]
