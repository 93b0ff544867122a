"""
The key of an account. Apart from contract.py, because settings need it and nothing else of an exchange.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the exchange knows us by. Its text form shows none of it."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    passphrase: str = field(repr=False)
