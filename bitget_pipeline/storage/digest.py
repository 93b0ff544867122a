"""
A digest of bars that we and ClickHouse compute alike, to prove that what was stored is what was sent.

Each bar becomes a number from the bits of its values, in arithmetic modulo 2^64; the digest is the sum, so the order of
rows does not matter. It finds accidents (lost, doubled, mixed-up or changed rows), not forgeries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..market.candle import Candle, Candles

# Odd numbers without pattern: the first words of splitmix64's stream, made odd.
_FACTORS = (
    0xE220A8397B1DCDAF,
    0x6E789E6AA1B965F5,
    0x06C45D188009454F,
    0xF88BB8A8724C81ED,
    0x1B39896A51A8749B,
    0x53CB9F0C747EA2EB,
    0x2C829ABE1F4532E1,
)
_STIR = 0xC584133AC916AB3D


def candle_digest(candles: Sequence[Candle]) -> tuple[int, int]:
    """How many bars, and their digest."""
    bars = Candles.of(candles)
    words = [bars.open_ms.view(np.uint64), *bars.values.view(np.uint64)]
    with np.errstate(over="ignore"):
        mixed = np.zeros(len(bars), dtype=np.uint64)
        for word, factor in zip(words, _FACTORS, strict=True):
            mixed += word * np.uint64(factor)
        mixed ^= mixed >> np.uint64(32)
        mixed *= np.uint64(_STIR)
        return len(bars), int(mixed.sum(dtype=np.uint64))


def digest_sql() -> str:
    """The same over the columns of `candles`, as an aggregate of ClickHouse (UInt64 arithmetic wraps there too)."""
    words = ["reinterpretAsUInt64(toUnixTimestamp64Milli(open_time))"]
    words += [f"reinterpretAsUInt64({name})" for name in Candles.VALUES]
    mixed = " + ".join(f"{word} * toUInt64({factor})" for word, factor in zip(words, _FACTORS, strict=True))
    return f"sumWithOverflow(bitXor({mixed} AS mixed, bitShiftRight(mixed, 32)) * toUInt64({_STIR}))"
