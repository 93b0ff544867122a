"""
The exchanges we speak to, by name, and who stands in for them.

The local exchange speaks the protocols of both: it is the same adapters at other addresses.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SettingsInvalid
from ..market.instrument import Market
from .binance.adapter import Binance
from .binance.products import PRODUCTS
from .bitget.adapter import Bitget
from .contract import Exchange, Substitute

EXCHANGES: dict[str, Callable[[], Exchange]] = {"bitget": Bitget, "local": Bitget}


def get(name: str) -> Exchange:
    """The exchange of that name. Raises SettingsInvalid for one we do not know."""
    if name not in EXCHANGES:
        raise SettingsInvalid(f"no exchange is called {name!r}", remedy=f"known are {', '.join(sorted(EXCHANGES))}")
    return EXCHANGES[name]()


def substitute(market: Market) -> Substitute | None:
    """Who stands in for a market while Bitget is dark, None where nobody can."""
    return Binance(market) if market in PRODUCTS else None
