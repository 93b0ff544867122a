"""
Which instruments exist, and when.

Built from the seed and the configured counts; changed by the listing and delisting levers. A part of the tail is young:
one slot after another of absolute time brings a new symbol (so that the same seed shows the same listing dates on every
start), and the symbol born 400 days ago leaves. Readers: the REST lists, the sockets, the tickers, the admin truth.
"""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Iterator

import numpy as np

from .config import MARKETS, ExchangeConfig
from .instruments import DAY_MINUTES, Instrument, decimals_for
from .names import LEADERS, tail_coin
from .noise import log_price, seed_of
from .recordings import Recording

YOUNG_DAYS = 400
_OLDEST = 18_700 * DAY_MINUTES  # 2021-03-14 UTC
_PATH_ANCHOR = 20_758 * DAY_MINUTES  # 2026-11-01 UTC: where paths pass through their reference price
_SHARE = {"spot": 0.38, "usdtm": 0.56, "coinm": 0.02, "usdcm": 0.04}
_LEADER_VOLUME = {"spot": 9e8, "usdtm": 4e9, "coinm": 4e8, "usdcm": 2e8}
_QUOTES = ("USDT",) * 24 + ("USDC", "USDC", "BTC", "ETH", "EUR", "BGB")
QUOTE_IN_USDT = {"USDT": 1.0, "USDC": 1.0, "USD": 1.0, "BTC": 84000.0, "ETH": 2750.0, "EUR": 1.08, "BGB": 3.6}

# Symbols worth meeting early: non-ASCII, scaled, tokenised shares. (market, rank) -> (base, price)
_SPECIAL: dict[tuple[str, int], tuple[str, float]] = {
    ("usdtm", 14): ("1000BONK", 0.0098),
    ("usdtm", 25): ("牛来", 0.0312),
    ("usdtm", 41): ("龙虾", 0.00774),
    ("usdtm", 63): ("币安人生", 0.121),
    ("usdtm", 66): ("LUNA2", 0.093),
    ("spot", 27): ("RAAPL", 268.0),
    ("spot", 39): ("RTSLA", 404.0),
    ("spot", 62): ("$ALT", 0.0127),
    ("spot", 64): ("MEMECOIN", 0.0016),
}

_SPOT_STATUS = {7: "halt", 11: "gray", 13: "offline"}
_MIX_STATUS = {7: "maintain", 11: "limit_open", 13: "restrictedAPI", 17: "off", 19: "listed"}


class Universe:
    """All instruments there ever were, and which of them the lists show now."""

    def __init__(self, config: ExchangeConfig, *, now_ms: int) -> None:
        self._config = config
        self._start_minute = now_ms // 60_000
        self._all: dict[tuple[str, str], Instrument] = {}
        self._order: dict[str, list[Instrument]] = {market: [] for market in MARKETS}
        self._period: dict[str, int] = {}
        self._born_until: dict[str, int] = {}
        self._harmonic = sum(k**-0.9 for k in range(1, config.active_per_market + 1))
        self._guests = 0
        self.withdrawn: set[tuple[str, str]] = set()
        self.version = 0
        for market in MARKETS:
            self._found(market)
        self.advance(now_ms)
        self._align([i for instruments in self._order.values() for i in instruments])

    def find(self, market: str, symbol: str) -> Instrument | None:
        """The instrument, also a delisted one."""
        return self._all.get((market, symbol))

    def known_elsewhere(self, market: str, symbol: str) -> bool:
        """Is this symbol real, but in another market?"""
        return any((other, symbol) in self._all for other in MARKETS if other != market)

    def instruments(self, market: str) -> list[Instrument]:
        """Everything ever listed on a market, most active first among the old ones."""
        return self._order[market]

    def listed(self, market: str, *, now_ms: int) -> Iterator[Instrument]:
        """What the market's list shows now."""
        self.advance(now_ms)
        minute = now_ms // 60_000
        for instrument in self._order[market]:
            if self.is_listed(instrument, minute):
                yield instrument

    def is_listed(self, instrument: Instrument, minute: int) -> bool:
        """Does the list show it in that minute?"""
        if (instrument.market, instrument.symbol) in self.withdrawn:
            return False
        if instrument.listed_minute > minute and instrument.status != "listed":
            return False
        gone = instrument.closed_minute is not None and instrument.closed_minute <= minute
        return not gone or bool(instrument.status)

    def advance(self, now_ms: int) -> None:
        """Bring in the symbols whose time of listing has come."""
        for market, period in self._period.items():
            latest = now_ms // 60_000 // (period * DAY_MINUTES)
            for slot in range(self._born_until[market] + 1, latest + 1):
                self._add(self._young(market, slot, period))
            self._born_until[market] = max(latest, self._born_until[market])

    def list_now(self, market: str, symbol: str, *, now_ms: int, rate: float = 30.0, price: float = 1.0) -> Instrument:
        """The listing lever: a new, active symbol, trading from the next minute."""
        base, quote = _split(market, symbol)
        instrument = self._make(market, base, quote, symbol, price=price, rank=30, rate=rate)
        instrument.listed_minute = now_ms // 60_000 + 1
        instrument.idle = 0.0
        instrument.index = 3900 + self._guests % 196
        self._guests += 1
        self._add(instrument)
        self._align([instrument])
        return instrument

    def delist_now(self, instrument: Instrument, *, now_ms: int) -> None:
        """The delisting lever: trading ends with this minute and the list forgets it."""
        instrument.closed_minute = now_ms // 60_000 + 1
        self.withdrawn.add((instrument.market, instrument.symbol))
        self.version += 1

    def adopt(self, recording: Recording) -> None:
        """Let a symbol be at least as old and as precise as its recording; a symbol unknown so far is added, quiet."""
        instrument = self.find(recording.market, recording.symbol)
        day = recording.days[max(recording.days)]
        price = float(day.close[-1]) / 10**recording.price_decimals
        if instrument is None:
            base, quote = _split(recording.market, recording.symbol)
            rank = self._config.active_per_market + 1
            instrument = self._make(recording.market, base, quote, recording.symbol, price=price, rank=rank)
            instrument.index = 3900 + self._guests % 196  # beside everything listed
            self._guests += 1
            instrument.listed_minute = recording.first_minute
            self._add(instrument)
        scale = 10.0 ** (recording.size_decimals - instrument.size_decimals)
        instrument.mean_size *= scale
        instrument.price_decimals, instrument.size_decimals = recording.price_decimals, recording.size_decimals
        instrument.listed_minute = min(instrument.listed_minute, recording.first_minute)
        instrument.recorded = True
        self._align([instrument])

    def _add(self, instrument: Instrument) -> None:
        if (instrument.market, instrument.symbol) in self._all:
            return
        self._all[instrument.market, instrument.symbol] = instrument
        self._order[instrument.market].append(instrument)
        self.version += 1

    def _found(self, market: str) -> None:
        total = self._config.instruments_of(market)
        delivery = _deliveries(self._start_minute) if market == "coinm" and total >= 6 else []
        young = 0 if market == "coinm" else min(YOUNG_DAYS, total // 8)
        number, rank = 0, 0
        while len(self._order[market]) < total - young - len(delivery):
            base, quote, price = self._coin(market, rank, number)
            number += 1
            symbol = _symbol(market, base, quote)
            if (market, symbol) in self._all:
                continue
            instrument = self._make(market, base, quote, symbol, price=price, rank=rank)
            self._give_status(instrument, rank)
            self._add(instrument)
            rank += 1
        for base, code, expiry, start, period in delivery:
            price = dict(LEADERS)[base]
            instrument = self._make(market, base, "USD", f"{base}USD{code}", price=price, rank=rank)
            instrument.delivery_ms, instrument.delivery_start_ms, instrument.delivery_period = expiry, start, period
            instrument.listed_minute, instrument.closed_minute = start // 60_000, expiry // 60_000
            instrument.index = 1000 + seed_of(base, code) % 2000
            self._add(instrument)
        if young:
            self._period[market] = max(1, YOUNG_DAYS // young)
            latest = self._start_minute // (self._period[market] * DAY_MINUTES)
            self._born_until[market] = latest - young

    def _coin(self, market: str, rank: int, number: int) -> tuple[str, str, float]:
        special = _SPECIAL.get((market, rank))
        quote = {"usdtm": "USDT", "coinm": "USD", "usdcm": "USDC"}.get(market, "USDT")
        if special is not None and (market, _symbol(market, special[0], quote)) not in self._all:
            return special[0], quote, special[1]
        if number < len(LEADERS):
            base, price = LEADERS[number]
            return base, quote, price
        base, price = LEADERS[number % 40] if market == "spot" and number % 9 == 0 else tail_coin(number)
        if market == "spot":
            quote = _QUOTES[seed_of("quote", number) % len(_QUOTES)]
            price /= QUOTE_IN_USDT[quote]
        return base, quote, price

    def _young(self, market: str, slot: int, period: int) -> Instrument:
        base, price = tail_coin(30_000 + slot % 30_000)
        quote = {"usdtm": "USDT", "usdcm": "USDC"}.get(market, "USDT")
        hot = slot % 40 == 0
        rank = 22 if hot else self._config.active_per_market + 40 + slot % 300
        symbol = _symbol(market, base, quote)
        instrument = self._make(market, base, quote, symbol, price=price, rank=rank)
        within = seed_of(self._config.seed, "birth", market, slot) % DAY_MINUTES
        instrument.listed_minute = slot * period * DAY_MINUTES + within
        total = min(YOUNG_DAYS, self._config.instruments_of(market) // 8) * period
        instrument.closed_minute = instrument.listed_minute + total * DAY_MINUTES
        instrument.index = 3100 + slot % 800  # not by position, which differs between starts
        self._align([instrument])
        return instrument

    def _make(
        self, market: str, base: str, quote: str, symbol: str, *, price: float, rank: int, rate: float | None = None
    ) -> Instrument:
        seed = self._config.seed
        edge = self._config.active_per_market
        active = rank < edge
        price_decimals, size_decimals = decimals_for(market, price)
        volume = _LEADER_VOLUME[market] * (rank + 1) ** -1.35
        if not active:
            volume = min(2.4e6, _LEADER_VOLUME[market] * edge**-1.35) * ((edge + 1) / (rank + 1)) ** 2
        volume /= QUOTE_IN_USDT[quote]
        own = seed_of(seed, market, symbol)
        if rate is None:
            share = self._config.trades_per_second * 60 * _SHARE[market] / self._harmonic
            rate = share * (rank + 1) ** -0.9 if active else 0.0
        slots = 0 if rate else min(240, max(1, int(240 * ((edge + 1) / (rank + 1)) ** 1.3)))
        trades_a_day = rate * DAY_MINUTES if rate else slots * 3.0
        path_quote = "USDT" if quote in ("USDT", "USDC", "USD") else quote
        path = seed_of(seed, "path", base.removeprefix("1000"), path_quote)
        oldest = _OLDEST + own % (300 * DAY_MINUTES)
        if self._config.listed_days is not None:
            oldest = (self._start_minute // DAY_MINUTES - self._config.listed_days) * DAY_MINUTES
        return Instrument(
            market=market,
            symbol=symbol,
            base=base,
            quote=quote,
            index=len(self._order[market]),
            price_decimals=price_decimals,
            tick=1,
            size_decimals=size_decimals,
            reference_price=price,
            sigma=0.00035 * (1.0 if base in ("BTC", "ETH") else 1.6 + (path % 100) / 100.0),
            rate=rate,
            slots=slots,
            idle=0.0 if rank < 8 else min(0.25, 0.004 * (rank - 7)),
            mean_size=volume / trades_a_day / price * 10**size_decimals,
            daily_volume=volume,
            path_seed=path,
            own_seed=own,
            listed_minute=oldest,
        )

    def _give_status(self, instrument: Instrument, rank: int) -> None:
        if rank < self._config.active_per_market:
            return
        names = _SPOT_STATUS if instrument.market == "spot" else _MIX_STATUS
        status = names.get(rank % 41, "")
        instrument.status = status
        if status in ("halt", "offline", "maintain", "off"):
            instrument.closed_minute = _OLDEST + (1200 + instrument.own_seed % 500) * DAY_MINUTES
        if status == "listed":
            instrument.listed_minute = 10**9  # announced, without a date yet

    def _align(self, instruments: list[Instrument]) -> None:
        """Make each path pass through its reference price at a fixed date, so that today's prices look like today's."""
        seeds = np.array([i.path_seed for i in instruments], dtype=np.uint64)
        minutes = np.full(len(instruments), _PATH_ANCHOR, dtype=np.int64)
        offsets = log_price(seeds, minutes, np.array([i.sigma for i in instruments]))
        for instrument, offset in zip(instruments, offsets, strict=True):
            instrument.path_offset = float(offset)


def _symbol(market: str, base: str, quote: str) -> str:
    return f"{base}PERP" if market == "usdcm" else f"{base}{quote}"


def _split(market: str, symbol: str) -> tuple[str, str]:
    if market == "usdcm":
        return symbol.removesuffix("PERP"), "USDC"
    for quote in ("USDT", "USDC", "USD", "BTC", "ETH", "EUR", "BGB"):
        if symbol.endswith(quote) and symbol != quote:
            return symbol[: -len(quote)], quote
    return symbol, "USDT"


def _deliveries(start_minute: int) -> list[tuple[str, str, int, int, str]]:
    """The coin-margined quarterlies: base, month code, delivery ms, listing ms, period. Last Friday of a quarter, 08:00."""
    today = dt.datetime.fromtimestamp(start_minute * 60, tz=dt.UTC)
    expiries: list[dt.datetime] = []
    for step in range(-1, 12):
        month = (today.month - 1) // 3 * 3 + 3 + 3 * step
        year, month = today.year + (month - 1) // 12, (month - 1) % 12 + 1
        last = calendar.monthrange(year, month)[1]
        day = dt.datetime(year, month, last, 8, tzinfo=dt.UTC)
        expiries.append(day - dt.timedelta(days=(day.weekday() - 4) % 7))
    coming = [expiry for expiry in expiries if expiry > today][:2]
    rows = []
    for base in ("BTC", "ETH"):
        for expiry, period in zip(coming, ("this_quarter", "next_quarter"), strict=True):
            code = "FGHJKMNQUVXZ"[expiry.month - 1] + f"{expiry.year % 100:02d}"
            begin = expiry - dt.timedelta(days=182)
            rows.append((base, code, int(expiry.timestamp() * 1000), int(begin.timestamp() * 1000), period))
    return rows
