"""
A candle (bar), in our own terms, and many of them in columns.

Made by exchange/<name>/normalise.py or by market/rollup.py from trades; stored in `candles` and `candles_live`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, SupportsIndex, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from .resolution import Resolution as Resolution

Times: TypeAlias = NDArray[np.int64]
Numbers: TypeAlias = NDArray[np.float64]


class Candle(NamedTuple):
    """
    One bar. `open_ms` is its opening time, Unix milliseconds UTC; volumes in base and quote units.

    A Bitget bar usually opens at the previous bar's close, not at its first trade (measured on recordings).
    """

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    base_volume: float
    quote_volume: float


class Candles(Sequence[Candle]):
    """
    Bars of one symbol and resolution, in columns: what handles them by the thousand need not touch each of them.

    `open_ms` holds the opening times, `values` one row for each of `VALUES`. Read as a sequence it is of Candle, and
    equal to any sequence of the same bars. The columns may be views of others and are never changed.
    """

    VALUES = Candle._fields[1:]

    __slots__ = ("open_ms", "values")
    __hash__ = None  # type: ignore[assignment]  # as a list, and equal to one

    def __init__(self, open_ms: Times, values: Numbers) -> None:
        if values.shape != (len(self.VALUES), len(open_ms)):
            raise ValueError(f"columns of {len(open_ms)} bars cannot be of shape {values.shape}")
        self.open_ms = open_ms
        self.values = values

    @classmethod
    def of(cls, bars: Iterable[Candle]) -> Candles:
        """The bars in columns, in their order."""
        if isinstance(bars, Candles):
            return bars
        opens, *values = list(zip(*bars, strict=True)) or [()] * len(Candle._fields)
        return Candles(np.array(opens, dtype=np.int64), np.array(values, dtype=np.float64))

    @classmethod
    def joined(cls, parts: Sequence[Candles]) -> Candles:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return Candles.of(())
        return Candles(np.concatenate([one.open_ms for one in parts]), np.hstack([one.values for one in parts]))

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Candles:
        """Those that a mask, a list of places or a slice chooses."""
        return Candles(self.open_ms[chosen], self.values[:, chosen])

    def __len__(self) -> int:
        return len(self.open_ms)

    def __iter__(self) -> Iterator[Candle]:
        return map(Candle, self.open_ms.tolist(), *self.values.tolist())

    @overload
    def __getitem__(self, place: SupportsIndex) -> Candle: ...
    @overload
    def __getitem__(self, place: slice) -> Candles: ...
    def __getitem__(self, place: SupportsIndex | slice) -> Candle | Candles:
        if isinstance(place, slice):
            return self.where(place)
        return Candle(int(self.open_ms[place]), *self.values[:, place].tolist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Candles):
            return np.array_equal(self.open_ms, other.open_ms) and np.array_equal(self.values, other.values)
        return list(self) == other

    def __repr__(self) -> str:
        return f"Candles({list(self)})"
