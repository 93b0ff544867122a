"""
The state of the Binance side: its market, its levers and what it has counted.

Made by server.py; clock and universe are those of the Bitget side, faults and counters its own, so that one can be dark
while the other lives.
"""

from __future__ import annotations

from functools import cached_property

from ..clock import MarketClock
from ..config import ExchangeConfig
from ..faults import Faults
from ..universe import Universe
from ..venue import Counters
from .listing import listing
from .market import BinanceMarket


class Side:
    """What REST and streams of the Binance side share."""

    def __init__(self, config: ExchangeConfig, clock: MarketClock, universe: Universe) -> None:
        self.config = config
        self.clock = clock
        self.faults = Faults(seed=config.seed + 1)
        self.counters = Counters()
        self._universe = universe

    @cached_property
    def market(self) -> BinanceMarket:
        """What happens there; made when somebody asks for the first time."""
        now_ms = self.clock.now_ms()
        return BinanceMarket(listing(self._universe, seed=self.config.seed, now_ms=now_ms))
