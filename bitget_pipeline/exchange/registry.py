"""
The exchanges we speak to, by name.

The local exchange speaks Bitget's protocol: it is the same adapter at other addresses.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SettingsInvalid
from .bitget.adapter import Bitget
from .contract import Exchange

EXCHANGES: dict[str, Callable[[], Exchange]] = {"bitget": Bitget, "local": Bitget}


def get(name: str) -> Exchange:
    """The exchange of that name. Raises SettingsInvalid for one we do not know."""
    if name not in EXCHANGES:
        raise SettingsInvalid(f"no exchange is called {name!r}", remedy=f"known are {', '.join(sorted(EXCHANGES))}")
    return EXCHANGES[name]()
