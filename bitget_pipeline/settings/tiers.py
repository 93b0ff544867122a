"""
The two tiers: what each allows, what it does when nothing is said, and which of them a key has.

Read by operational.py; what the exchange said of a key is in refused_key.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Any, NamedTuple

from ..exchange.credentials import Credentials
from ..market.instrument import Market
from ..market.resolution import Resolution
from ..market.target import HistoryTarget
from . import reading
from .boot import CREDENTIALS, Boot, credentials_in
from .refused_key import accepted, refused

DEEP = tuple(map(HistoryTarget.parse, ("BTCUSDT=2020-01-01", "ETHUSDT=2021-01-01")))
DEEP_WITH_CREDENTIALS = (
    *DEEP,
    *(HistoryTarget(None, name, date(2021, 1, 1)) for name in ("BNBUSDT", "ADAUSDT", "DOTUSDT", "LINKUSDT")),
)

LIVE = (Resolution.M1, Resolution.M5, Resolution.M15, Resolution.H1)
LIVE_RESOLUTIONS = frozenset({Resolution.S1, Resolution.S5, Resolution.S15, *LIVE})


class Tier(StrEnum):
    """What we may use: public data without a key, or more with credentials."""

    PUBLIC = "public"
    CREDENTIALED = "credentialed"


class TierRules(NamedTuple):
    """What a tier allows, and what it does when nothing is said."""

    allowed_markets: tuple[Market, ...]
    max_symbols_per_market: int
    max_symbols_per_connection: int
    finest: Resolution
    max_book_levels: int
    defaults: Mapping[str, Any]


TIERS = {
    Tier.PUBLIC: TierRules(
        allowed_markets=(Market.SPOT, Market.USDTM),
        max_symbols_per_market=30,
        max_symbols_per_connection=10,
        finest=Resolution.M1,
        max_book_levels=15,
        defaults={
            "markets": (Market.SPOT, Market.USDTM),
            "symbols_per_market": 30,
            "symbols_per_connection": 10,
            "live_resolutions": LIVE,
            "book_levels": 15,
            "history_days": 30,
            "history_targets": DEEP,
        },
    ),
    Tier.CREDENTIALED: TierRules(
        allowed_markets=tuple(Market),
        max_symbols_per_market=150,
        max_symbols_per_connection=100,
        finest=Resolution.S1,
        max_book_levels=50,
        defaults={
            "markets": tuple(Market),
            "symbols_per_market": 150,
            "symbols_per_connection": 50,
            "live_resolutions": (Resolution.S1, Resolution.S5, Resolution.S15, *LIVE),
            "book_levels": 50,
            "history_days": 365,
            "history_targets": DEEP_WITH_CREDENTIALS,
        },
    ),
}


def tier_of(boot: Boot, key: Credentials | None) -> Tier:
    """
    The tier that a key has by what the exchange said last. A key that was not asked for yet, or is refused, has that of the
    key before it: a new one raises nothing before it is accepted, and one with a mistake in it lowers nothing.
    """
    before = accepted(boot.home)
    if key is None or before == "":
        return Tier.PUBLIC
    if before is None and refused(boot.home, key):
        return Tier.PUBLIC
    return Tier.CREDENTIALED


def tier_of_given(boot: Boot) -> Tier:
    """The tier of the key that the process was given as it started, whatever is stored beside it."""
    key = _given(boot)
    return Tier.CREDENTIALED if key is not None and not refused(boot.home, key) else Tier.PUBLIC


def key_now(boot: Boot) -> Credentials | None:
    """
    The key that is written down now, whether or not the exchange accepts it: in the environment of this process, else in the
    settings file as it is, else the stored one. Raises SettingsInvalid when it cannot be read.
    """
    if boot.credentials_from == reading.variable_of(CREDENTIALS[0], Boot.model_fields[CREDENTIALS[0]]):
        return boot.credentials
    written = credentials_in(boot.settings_file) if boot.settings_file is not None else None
    return written or boot.key_store.read()


def _given(boot: Boot) -> Credentials | None:
    """A key that was given to the process as it started, in its environment or the settings file."""
    return boot.credentials if boot.credentials_from != str(boot.key_store.path) else None
