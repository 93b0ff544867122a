"""
How subscriptions are spread over connections. Pure.

Given the subscriptions of the current selection (pipeline/live/run.py), answers with one tuple of subscriptions per
connection, which feed/keeper.py then keeps open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import SettingsInvalid
from ..exchange.contract import Subscription
from ..market.instrument import Symbol


@dataclass(frozen=True, slots=True)
class ShardRules:
    """
    What one connection may carry; the smaller of the two limits wins.

    The exchange recommends fewer than 50 channels a connection (reference 6.1); the symbols are a matter of the tier.
    """

    max_channels: int = 50
    max_symbols: int = 10

    def __post_init__(self) -> None:
        if self.max_channels < 1 or self.max_symbols < 1:
            raise SettingsInvalid(
                f"a connection cannot carry {self.max_channels} channels and {self.max_symbols} symbols",
                remedy="set both limits to 1 or more",
            )


def plan_connections(
    subscriptions: Iterable[Subscription], *, rules: ShardRules | None = None
) -> list[tuple[Subscription, ...]]:
    """
    One tuple of subscriptions for each connection; every subscription appears exactly once.

    All channels of a symbol share a connection where they fit, so that one break is one break of that symbol, and the
    connections are filled evenly, so that no single break hits more than its share. The order given is the order of
    importance and is kept within each connection.
    """
    rules = rules or ShardRules()
    by_symbol: dict[Symbol, dict[Subscription, None]] = {}
    for subscription in subscriptions:
        by_symbol.setdefault(subscription.symbol, {})[subscription] = None
    pieces = [
        tuple(channels)[start : start + rules.max_channels]
        for channels in by_symbol.values()
        for start in range(0, len(channels), rules.max_channels)
    ]
    fullest = max((len(piece) for piece in pieces), default=1)
    per_connection = min(rules.max_symbols, max(1, rules.max_channels // fullest))
    needed = -(-len(pieces) // per_connection)
    connections: list[list[Subscription]] = [[] for _ in range(needed)]
    for index, piece in enumerate(pieces):
        connections[index % needed].extend(piece)
    return [tuple(connection) for connection in connections]
