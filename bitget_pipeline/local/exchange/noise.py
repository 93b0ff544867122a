"""
Seeded chance that can be asked for any moment without walking there.

Only integer hashing and +, -, *, /, sqrt and rounding are used: those give the same bits for one value or a million, on
every machine, so that a minute generated alone equals the same minute generated within its day.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_MASK16 = np.uint64(0xFFFF)
_SQRT3 = 1.7320508075688772

# Periods of the price path's layers in minutes, 3^0 to 3^12 (about a year), and which of them a volatility regime scales.
PERIODS: I64 = np.array([3**k for k in range(13)], dtype=np.int64)
_FAST = 7


def seed_of(*words: object) -> int:
    """A 64-bit seed from words, the same on every run."""
    text = "\x1f".join(str(word) for word in words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def mixed(values: U64) -> U64:
    """The splitmix64 finaliser: well-spread hashes of an array (at least one dimension, so that it may wrap silently)."""
    x = values + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


def hashed(seed: int | U64, *numbers: npt.NDArray[Any]) -> U64:
    """Hashes of (seed, n1, n2, …), elementwise with broadcasting."""
    state: U64 = np.atleast_1d(np.asarray(seed, dtype=np.uint64))
    for number in numbers:
        state = mixed(state ^ mixed(number.astype(np.uint64)))
    return state


def uniform(hashes: U64) -> F64:
    """[0, 1) with 53 bits."""
    return (hashes >> np.uint64(11)).astype(np.float64) * (1.0 / (1 << 53))


def normal(hashes: U64) -> F64:
    """About N(0, 1), bounded by ±3.5: four 16-bit uniforms added."""
    total = (
        (hashes & _MASK16)
        + ((hashes >> np.uint64(16)) & _MASK16)
        + ((hashes >> np.uint64(32)) & _MASK16)
        + (hashes >> np.uint64(48))
    )
    bell: F64 = (total.astype(np.float64) / 65536.0 - 2.0) * _SQRT3
    return bell


def exponential(x: F64) -> F64:
    """About exp(x), from multiplications only."""
    y = 1.0 + x * (1.0 / 1024.0)
    for _ in range(10):
        y = y * y
    return y


def layer(seed: int | U64, minutes: I64, period: int) -> F64:
    """One layer of value noise: random values every `period` minutes, joined smoothly; about N(0, 1) at the joints."""
    one: F64 = _layers(np.atleast_1d(np.asarray(seed, dtype=np.uint64)), minutes, np.array([period], dtype=np.int64))[0]
    return one


def _layers(seeds: U64, minutes: I64, periods: I64) -> F64:
    column = periods[:, None]
    index = minutes[None, :] // column
    along = (minutes[None, :] - index * column) / column
    smooth = along * along * (3.0 - 2.0 * along)
    base = mixed(seeds[None, :] ^ mixed(column.astype(np.uint64)))
    left = normal(mixed(base ^ mixed(index.astype(np.uint64))))
    right = normal(mixed(base ^ mixed((index + 1).astype(np.uint64))))
    joined: F64 = left + (right - left) * smooth
    return joined


def log_price(seeds: U64, minutes: I64, sigma: float | F64) -> F64:
    """
    The path of the logarithm of a price at given epoch minutes; `sigma` is the scale of one minute's move.

    Layers grow with the square root of their period, as a random walk does. A six-hour regime makes the fast layers
    calm or wild. `seeds` has one element, or one for each minute.
    """
    values = _layers(seeds, minutes, PERIODS)
    amplitude = np.sqrt(PERIODS.astype(np.float64))[:, None] * 0.6
    regime = exponential(0.8 * _layers(seeds ^ np.uint64(0x5A5A), minutes, np.array([360], dtype=np.int64))[0])
    weighted = values * amplitude
    fast, slow = weighted[0], weighted[_FAST]
    for row in weighted[1:_FAST]:  # added one by one: a reduction may add in another order for another shape
        fast = fast + row
    for row in weighted[_FAST + 1 :]:
        slow = slow + row
    path: F64 = (fast * regime + slow) * sigma
    return path
