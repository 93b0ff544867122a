"""
Lists of rows as exchanges send them: the good ones are kept, a bad one is set aside with its reason.

Used by exchange/<name>/ between the wire and normalise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from .. import telemetry
from ..errors import MalformedPage

Wire = TypeVar("Wire")
Theirs = TypeVar("Theirs")
Ours = TypeVar("Ours")

_EACH: msgspec.json.Decoder[list[Raw]] = msgspec.json.Decoder(list[Raw])


class Rows(Generic[Wire]):
    """
    Reads a JSON list of rows of one type: all at once, and one by one where a row makes no sense.

    A bad row is set aside with its reason and the good ones are kept. Raises ValueError when the text is no list at
    all.
    """

    def __init__(self, row: Any) -> None:
        self._all: msgspec.json.Decoder[list[Wire]] = msgspec.json.Decoder(list[row], strict=False)
        self._one: msgspec.json.Decoder[Wire] = msgspec.json.Decoder(row, strict=False)

    def read(self, data: bytes | Raw) -> tuple[list[Wire], list[str]]:
        """The rows, and in a line each why others were set aside."""
        try:
            return self._all.decode(data), []
        except msgspec.ValidationError:
            return self._one_by_one(_EACH.decode(data))

    def _one_by_one(self, raws: list[Raw]) -> tuple[list[Wire], list[str]]:
        good: list[Wire] = []
        rejected: list[str] = []
        for number, raw in enumerate(raws):
            try:
                good.append(self._one.decode(raw))
            except ValueError as error:
                rejected.append(f"row {number}: {error}: {bytes(raw)[:120].decode(errors='replace')}")
        return good, rejected


def each(rows: Iterable[Theirs], convert: Callable[[Theirs], Ours], rejected: list[str]) -> list[Ours]:
    """Convert every row; the reason of those that cannot be true is added to `rejected`."""
    good: list[Ours] = []
    for row in rows:
        try:
            good.append(convert(row))
        except ValueError as error:
            rejected.append(str(error))
    return good


def settled(good: Sequence[object], rejected: list[str], *, where: str) -> None:
    """Count what was set aside. Raises MalformedPage when nothing was left of an answer that held rows."""
    if not rejected:
        return
    telemetry.count("exchange.rows_rejected", len(rejected))
    if not good:
        raise MalformedPage(
            f"none of {len(rejected)} rows makes sense; {rejected[0]}", where=where, remedy="it is set aside"
        )
