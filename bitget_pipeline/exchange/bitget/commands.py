"""
The frames we send on Bitget's websocket: subscribe, unsubscribe, ping.

Sent by feed/. A frame never exceeds the exchange's size in UTF-8 bytes, so a long list is split; frames are few,
because requests are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ..contract import Subscription
from .channels import CHANNELS, PRODUCTS
from .requests import wire_name

PING = "ping"


def frames(op: str, subscriptions: Sequence[Subscription], *, frame_bytes: int) -> list[str]:
    """The frames that say `op` ("subscribe" or "unsubscribe") for each stream once, each within `frame_bytes`."""
    head, tail = f'{{"op":"{op}","args":['.encode(), b"]}"
    arguments = list(dict.fromkeys(_argument(one) for one in subscriptions))
    room = frame_bytes - len(head) - len(tail)
    return [(head + b",".join(group) + tail).decode() for group in _groups(arguments, room=room)]


def _groups(arguments: Sequence[bytes], *, room: int) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    used = 0
    for argument in arguments:
        if group and used + len(argument) > room:
            yield group
            group, used = [], 0
        group.append(argument)
        used += len(argument) + 1
    if group:
        yield group


def _argument(one: Subscription) -> bytes:
    return msgspec.json.encode(
        {
            "instType": PRODUCTS[one.symbol.market],
            "channel": CHANNELS[one.channel].wire,
            "instId": wire_name(one.symbol),
        }
    )
