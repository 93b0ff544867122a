"""
How subscriptions are spread over connections, and how they move when the selection changes. Pure.

Given the subscriptions of the current selection (pipeline/live/run.py), answers with one tuple of subscriptions per
connection, which feed/keeper.py then keeps open; given what is carried now too, with the way from there that moves least.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    pieces, per_connection = _pieces(subscriptions, rules or ShardRules())
    return _spread(pieces, per_connection)


@dataclass(frozen=True, slots=True)
class Moves:
    """
    What each connection that is there carries from now on, by its name (nothing: it may end), and what new ones carry.
    """

    carried: dict[str, tuple[Subscription, ...]]
    opened: list[tuple[Subscription, ...]]


def move_connections(
    current: Mapping[str, Sequence[Subscription]],
    wanted: Iterable[Subscription],
    *,
    rules: ShardRules | None = None,
) -> Moves:
    """
    How to come from what is carried to what is wanted; every wanted subscription appears exactly once.

    A symbol stays where it is as long as its connection may carry that many. The others go where there is room, the
    emptiest connection first, and only what is left over opens new ones.
    """
    pieces, per_connection = _pieces(wanted, rules or ShardRules())
    at: dict[Subscription, str] = {one: name for name, carried in current.items() for one in carried}
    load: dict[str, list[Piece]] = {name: [] for name in current}
    homeless: list[Piece] = []
    for piece in pieces:
        home = next((at[one] for one in piece if one in at), None)
        if home is not None and len(load[home]) < per_connection:
            load[home].append(piece)
        else:
            homeless.append(piece)
    room = {name for name, carried in load.items() if len(carried) < per_connection}
    rest: list[Piece] = []
    for piece in homeless:
        if not room:
            rest.append(piece)
            continue
        emptiest = min(room, key=lambda name: (len(load[name]), name))
        load[emptiest].append(piece)
        if len(load[emptiest]) == per_connection:
            room.discard(emptiest)
    carried = {name: tuple(one for piece in pieces for one in piece) for name, pieces in load.items()}
    return Moves(carried, _spread(rest, per_connection))


Piece = tuple[Subscription, ...]
"""The channels of one symbol, as many as a connection bears."""


def _pieces(subscriptions: Iterable[Subscription], rules: ShardRules) -> tuple[list[Piece], int]:
    """What stays together, and how many of these a connection carries."""
    by_symbol: dict[Symbol, dict[Subscription, None]] = {}
    for subscription in subscriptions:
        by_symbol.setdefault(subscription.symbol, {})[subscription] = None
    pieces = [
        tuple(channels)[start : start + rules.max_channels]
        for channels in by_symbol.values()
        for start in range(0, len(channels), rules.max_channels)
    ]
    fullest = max((len(piece) for piece in pieces), default=1)
    return pieces, min(rules.max_symbols, max(1, rules.max_channels // fullest))


def _spread(pieces: Sequence[Piece], per_connection: int) -> list[tuple[Subscription, ...]]:
    """As few connections as possible, filled evenly."""
    needed = -(-len(pieces) // per_connection)
    connections: list[list[Subscription]] = [[] for _ in range(needed)]
    for index, piece in enumerate(pieces):
        connections[index % needed].extend(piece)
    return [tuple(connection) for connection in connections]
