"""Spill files: what was written is read back, whatever a crash cut off."""

from __future__ import annotations

import resource
import signal
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitget_pipeline.errors import DiskFull
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Broke, Follows, Trade, TradeBatch
from bitget_pipeline.storage.spill import Spill, Torn

NOTHING = Follows({}, frozenset())


def a_batch(trade_id: int) -> TradeBatch:
    """One trade."""
    return TradeBatch(Symbol(Market.SPOT, "我BTCUSDT"), [Trade(trade_id, 1, 0.1, 0.2, True)], 5)


def read_all(spill: Spill) -> list[int]:
    """The ids of all trades on disk, in order."""
    items = [item for file in spill.files() for item in spill.read(file)]
    return [item.trades[0].trade_id for item in items if isinstance(item, TradeBatch)]


def write(spill: Spill, *ids: int) -> None:
    """A batch for each id."""
    spill.append([a_batch(one) for one in ids], follows=lambda: NOTHING)


def test_what_was_spilled_comes_back_in_order_over_files(tmp_path: Path) -> None:
    """
    Files are read oldest first, and removed one by one.
    """
    spill = Spill(tmp_path, file_bytes=200)
    for i in range(20):
        write(spill, i)

    assert len(spill.files()) > 3
    assert read_all(spill) == list(range(20))
    for file in spill.files():
        spill.remove(file)
    assert spill.state().files == 0
    write(spill, 99)
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
        write(spill, i)
        ends.append(spill.state().bytes)
    spill.close()
    (file,) = spill.files()
    file.write_bytes(file.read_bytes()[:cut])

    successor = Spill(folder)
    successor.own(2)
    write(successor, 77)

    assert read_all(successor) == [i for i, end in enumerate(ends) if end <= cut] + [77]


def test_a_damaged_frame_ends_its_file(tmp_path: Path) -> None:
    """
    A flipped bit is noticed; the other files are not affected.
    """
    spill = Spill(tmp_path)
    write(spill, 1, 2)
    spill.close()
    (file,) = spill.files()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    write(spill, 3)

    assert read_all(spill) == [1, 3]


def test_the_bound_is_kept(tmp_path: Path) -> None:
    """
    Past the bound nothing is written, and a person is told what to do.
    """
    spill = Spill(tmp_path, most_bytes=250)
    write(spill, 1)

    with pytest.raises(DiskFull, match="bound"):
        write(spill, *range(2, 20))
    assert read_all(spill) == [1]


def test_marks_keep_their_place_among_the_trades(tmp_path: Path) -> None:
    """
    What a file follows on, breaks between trades, and rows that were unreadable come back as they were, in order.
    """
    spill = Spill(tmp_path)
    spill.own(7)
    symbol = Symbol(Market.USDTM, "BTCUSDT")
    before = Follows({symbol: 2**60, a_batch(1).symbol: 3}, frozenset({symbol}))
    items = [a_batch(1), Broke((symbol, a_batch(1).symbol)), TradeBatch(symbol, [], 9, True, rejected=2), a_batch(2)]
    spill.append(items, follows=lambda: before)

    (file,) = spill.files()
    assert list(spill.read(file)) == [before, *items]
    assert spill.is_own(file)
    assert not Spill(tmp_path).is_own(file)


def test_a_file_of_another_make_is_read_up_to_there(tmp_path: Path) -> None:
    """
    A whole frame that is none of ours ends its file, and says so: nothing is known of what came behind it.
    """
    spill = Spill(tmp_path)
    write(spill, 1)
    spill.close()
    (file,) = spill.files()
    foreign = b"\x93\xa3new\x01\x02"
    file.write_bytes(file.read_bytes() + struct.pack("<II", len(foreign), zlib.crc32(foreign)) + foreign)

    *_, trade, last = spill.read(file)
    assert (trade, last) == (a_batch(1), Torn())


def test_a_run_with_a_later_fence_is_read_after_its_predecessor(tmp_path: Path) -> None:
    """
    A run that was cut off and writes on does so into files of its own, which come first.
    """
    old, new = Spill(tmp_path), Spill(tmp_path)
    old.own(999_999)
    new.own(1_000_000)
    write(new, 3)
    write(old, 1)
    write(old, 2)

    assert read_all(Spill(tmp_path)) == [1, 2, 3]


def test_a_disk_that_takes_only_a_part_keeps_what_was_whole(tmp_path: Path) -> None:
    """
    The system refuses in the middle of a write: nothing of it counts, what was written before comes back, and later
    writes go on.
    """
    spill = Spill(tmp_path)
    write(spill, 1)
    before = spill.state().bytes
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before + 60, hard))
        with pytest.raises(DiskFull, match="cannot be spilled"):
            write(spill, *range(2, 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    write(spill, 99)

    assert read_all(spill) == [1, 99]
