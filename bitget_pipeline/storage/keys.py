"""
The names of our keys in Redis.

All begin with the prefix of the installation (BITGET_PIPELINE_REDIS_PREFIX). What one Lua script touches together
carries the same `{tag}`, so that it lies on one node of a Redis Cluster.
"""

from __future__ import annotations


def stamp_key(prefix: str) -> str:
    """Whose data lie under this prefix."""
    return f"{prefix}stamp"


def versions_key(prefix: str) -> str:
    """The counter of versions."""
    return f"{prefix}versions"


def shard_key(prefix: str, shard: str, what: str) -> str:
    """Something of one live shard: lease, fence, trades, anchors, control, live statistics."""
    return f"{prefix}{{live:{shard}}}:{what}"


def egress_key(prefix: str, egress: str, what: str) -> str:
    """Something of one egress address: its rate budget."""
    return f"{prefix}{{egress:{egress}}}:{what}"


def shelf_key(prefix: str, stretch: str) -> str:
    """The candle pages of a stretch that is being walked over."""
    return f"{prefix}pages:{stretch}"


def latest_key(prefix: str, what: str, symbol: str) -> str:
    """The newest order book (`book`) or ticker (`ticker`) of a symbol such as spot:BTCUSDT."""
    return f"{prefix}latest:{what}:{symbol}"


def alerts_key(prefix: str, what: str) -> str:
    """What was told of alerts and waits to be told (`book`), and who delivers now (`turn`)."""
    return f"{prefix}alerts:{what}"
