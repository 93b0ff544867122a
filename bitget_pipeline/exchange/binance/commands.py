"""
The frames we send on Binance's websocket: subscribe, unsubscribe, and a question that takes the place of a ping.

Sent by feed/. The exchange pings with ping frames, which the socket answers by itself; text pings are errors here. A
client that wants a sign of life can ask what it is subscribed to: the answer comes from the part that sends the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..contract import Subscription
from .channels import stream
from .products import Product
from .requests import wire_name

SUBSCRIBE_ID, UNSUBSCRIBE_ID, ALIVE_ID = 1, 2, 3
"""An answer repeats the id of the frame it answers, and nothing else of it."""

PING = f'{{"method":"LIST_SUBSCRIPTIONS","id":{ALIVE_ID}}}'
NAMES_PER_FRAME = 200


def frames(product: Product, method: str, number: int, subscriptions: Sequence[Subscription]) -> list[str]:
    """The frames that say `method` for each stream once, each within the exchange's size, in bytes and in names."""
    names = list(dict.fromkeys(_name(product, one) for one in subscriptions))
    room = product.limits.frame_bytes - len(f'{{"method":"{method}","params":[],"id":{number}}}')
    groups: list[list[str]] = []
    used = 0
    for name in names:
        size = len(msgspec.json.encode(name)) + 1
        if not groups or used + size > room + 1 or len(groups[-1]) >= NAMES_PER_FRAME:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return [msgspec.json.encode({"method": method, "params": group, "id": number}).decode() for group in groups]


def _name(product: Product, one: Subscription) -> str:
    symbol = wire_name(one.symbol, product)
    lower = "".join(c.lower() if c.isascii() else c for c in symbol)
    return f"{lower}@{stream(one.channel, trades=product.trades)}"
