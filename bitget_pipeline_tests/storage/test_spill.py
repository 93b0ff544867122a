"""Spill files: what was written is read back, whatever a crash cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitget_pipeline.errors import DiskFull
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.spill import Spill


def a_batch(trade_id: int) -> TradeBatch:
    """One trade."""
    return TradeBatch(Symbol(Market.SPOT, "我BTCUSDT"), [Trade(trade_id, 1, 0.1, 0.2, True)], 5)


def read_all(spill: Spill) -> list[int]:
    """The ids of all trades on disk, in order."""
    return [batch.trades[0].trade_id for file in spill.files() for batch in spill.read(file)]


def test_what_was_spilled_comes_back_in_order_over_files(tmp_path: Path) -> None:
    """
    Files are read oldest first, and removed one by one.
    """
    spill = Spill(tmp_path, file_bytes=200)
    for i in range(20):
        spill.append([a_batch(i)])

    assert len(spill.files()) > 3
    assert read_all(spill) == list(range(20))
    for file in spill.files():
        spill.remove(file)
    assert spill.state().files == 0
    spill.append([a_batch(99)])
    assert read_all(spill) == [99]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_file_that_a_crash_cut_off_is_read_up_to_the_cut(tmp_path_factory, cut: int) -> None:  # type: ignore[no-untyped-def]
    """
    Whole frames before the cut come back, nothing else does, and a successor's file is not hidden by it.
    """
    folder = tmp_path_factory.mktemp("spill")
    spill = Spill(folder)
    ends = []
    for i in range(5):
        spill.append([a_batch(i)])
        ends.append(spill.state().bytes)
    spill.close()
    (file,) = spill.files()
    file.write_bytes(file.read_bytes()[:cut])

    successor = Spill(folder)
    successor.append([a_batch(77)])

    assert read_all(successor) == [i for i, end in enumerate(ends) if end <= cut] + [77]


def test_a_damaged_frame_ends_its_file(tmp_path: Path) -> None:
    """
    A flipped bit is noticed; the other files are not affected.
    """
    spill = Spill(tmp_path)
    spill.append([a_batch(1), a_batch(2)])
    spill.close()
    (file,) = spill.files()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    spill.append([a_batch(3)])

    assert read_all(spill) == [1, 3]


def test_the_bound_is_kept(tmp_path: Path) -> None:
    """
    Past the bound nothing is written, and a person is told what to do.
    """
    spill = Spill(tmp_path, most_bytes=150)
    spill.append([a_batch(1)])

    with pytest.raises(DiskFull, match="bound"):
        spill.append([a_batch(2), a_batch(3), a_batch(4)])
    assert read_all(spill) == [1]
