"""The maintained order book: equal to a naive one whatever changes, checksums of reality, and never used when broken."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.errors import BookBroken
from bitget_pipeline.exchange.bitget.adapter import Bitget
from bitget_pipeline.exchange.contract import BookFrame
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.order_book import Level, OrderBook, checksum_of, whole

from ..recordings import BITGET, bitget
from ..recordings.first_generation import book_messages

NOW_MS = 1_790_358_773_905
SYMBOL = Symbol(Market.SPOT, "BTCUSDT")

# Bids lie at 1 to 40 cents, asks at 41 to 80, so that no change can cross them; the same price is spelled in two ways.
sizes = st.sampled_from(["0", "0.000", "1", "1.50", "2.5000", "17"])


def side(low: int, high: int) -> st.SearchStrategy[list[Level]]:
    cents = st.integers(low, high)
    spelled = st.builds(lambda cent, zeros: f"{cent / 100:.2f}{'0' * zeros}", cents, st.integers(0, 1))
    return st.lists(st.tuples(spelled, sizes), max_size=12)


changes = st.lists(st.tuples(side(1, 40), side(41, 80)), max_size=30)


class NaiveBook:
    """What a book is, in the plainest words: a size for each price."""

    def __init__(self) -> None:
        self.sides: tuple[dict[Decimal, Level], dict[Decimal, Level]] = ({}, {})

    def change(self, bids: list[Level], asks: list[Level]) -> None:
        for side, levels in zip(self.sides, (bids, asks), strict=True):
            for price, size in levels:
                if Decimal(size) == 0:
                    side.pop(Decimal(price), None)
                else:
                    side[Decimal(price)] = (price, size)

    def top(self, count: int) -> tuple[list[Level], list[Level]]:
        bids, asks = self.sides
        falling = [bids[price] for price in sorted(bids, reverse=True)]
        return falling[:count], [asks[price] for price in sorted(asks)][:count]


def filled(**more: int) -> OrderBook:
    """A book of two bids and two asks, numbered 100."""
    book = OrderBook(**more)
    book.snapshot([("1.0", "3"), ("0.9", "1")], [("1.1", "2"), ("1.2", "5")], ts_ms=NOW_MS, seq=100)
    return book


@given(changes, st.integers(1, 40))
def test_any_changes_make_the_same_book_as_a_plain_one(some: list[tuple[list[Level], list[Level]]], count: int) -> None:
    """Inserted, replaced, deleted in whatever order, spelled with or without zeros: the levels and their text are equal."""
    book, naive = OrderBook(), NaiveBook()
    book.snapshot([], [], ts_ms=NOW_MS, seq=1)
    for number, (bids, asks) in enumerate(some, start=1):
        book.change(bids, asks, ts_ms=NOW_MS + number, seq=number + 1, prev_seq=number)
        naive.change(bids, asks)
        assert book.top(count) == naive.top(count)
    assert book.checksum() == checksum_of(*naive.top(25))


@given(changes, st.integers(1, 10))
def test_the_depth_is_bounded_and_the_best_levels_stay(some: list[tuple[list[Level], list[Level]]], most: int) -> None:
    """However many levels are told, no more than the bound is kept, and while nothing is deleted they are the best ones."""
    book, naive = OrderBook(most_levels=most), NaiveBook()
    book.snapshot([], [], ts_ms=NOW_MS)
    for number, (bids, asks) in enumerate(some, start=1):
        growing = [[level for level in levels if Decimal(level[1]) > 0] for levels in (bids, asks)]
        book.change(growing[0], growing[1], ts_ms=NOW_MS + number)
        naive.change(growing[0], growing[1])
        assert len(book) <= 2 * most
        assert book.top(most)[0] == naive.top(most)[0]
        assert [price for price, _ in book.top(most)[1]] == [price for price, _ in naive.top(most)[1]]


@pytest.mark.parametrize("name", sorted(path.name for path in BITGET.glob("v1_books_*")))
def test_recorded_books_pass_their_checksums(name: str) -> None:
    """A snapshot and all updates of a real session: the exchange's own checksum holds after each of them."""
    messages = book_messages(name)
    book = OrderBook()
    for message in messages:
        apply = book.snapshot if message.snapshot else book.change
        assert apply(message.bids, message.asks, ts_ms=message.ts_ms, checksum=message.checksum)
    assert len(messages) > 30
    assert book.usable


def test_a_recorded_change_that_is_missing_shows_in_the_next_checksum() -> None:
    """Without sequence numbers the checksum finds that something was lost, and the book is discarded."""
    snapshot, _, *rest = book_messages("v1_books_sp_SUNUSDT.jsonl.gz")
    book = OrderBook()
    book.snapshot(snapshot.bids, snapshot.asks, ts_ms=snapshot.ts_ms, checksum=snapshot.checksum)

    def follow_the_rest() -> None:
        for message in rest:
            book.change(message.bids, message.asks, ts_ms=message.ts_ms, checksum=message.checksum)

    with pytest.raises(BookBroken, match=r"its checksum is -?[0-9]+, the exchange's -?[0-9]+"):
        follow_the_rest()
    assert not book.usable
    assert len(book) == 0


@pytest.mark.parametrize(
    ("bids", "asks", "value"),
    [
        ([("43231.1", "4"), ("43231", "6")], [("43232.8", "9"), ("43232.9", "8")], -1504501796),
        ([("3366.1", "7")], [("3366.8", "9"), ("3368", "8"), ("3372", "8")], 831078360),
        (
            [("83715.69", "0.074435"), ("83715.60", "0.5000"), ("83714.00", "1.200000")],
            [("83715.70", "2.145777"), ("83718.23", "0.959984")],
            734582825,
        ),
    ],
)
def test_the_checksum_is_taken_over_the_original_text(bids: list[Level], asks: list[Level], value: int) -> None:
    """The worked examples of the protocol: bid and ask in turn, a missing side skipped, zeros kept, signed."""
    assert checksum_of(bids, asks) == value


def test_recorded_changes_with_numbers_chain() -> None:
    """A recorded V2 snapshot and its two updates follow on each other by their numbers."""
    book = OrderBook()
    for name in ("snapshot_seq", "update_seq_1", "update_seq_2"):
        frame = Bitget().decode(bitget(f"ws_usdtm_books_{name}.json"), received_ms=NOW_MS)
        assert isinstance(frame, BookFrame)
        if frame.snapshot:
            book.snapshot(frame.bids, frame.asks, ts_ms=frame.ts_ms, seq=frame.seq)
        else:
            book.change(frame.bids, frame.asks, ts_ms=frame.ts_ms, seq=frame.seq, prev_seq=frame.prev_seq)
    assert book.seq == 427583480664
    assert book.top(3)[0] == [("0.01038", "4311.15"), ("0.01037", "175152.28"), ("0.01036", "463711.3")]


@pytest.mark.parametrize(
    ("seq", "prev_seq", "reason"),
    [
        (102, 101, "follows 101, while the last one was 100"),
        (102, 99, None),  # the first change after a snapshot may begin before it
        (102, 0, "follows 0, while the last one was 100"),
        (99, 98, "went back from 100 to 99"),
    ],
)
def test_a_change_that_does_not_follow_discards_the_book(seq: int, prev_seq: int, reason: str | None) -> None:
    """A gap, a zero where a number should be, a number that goes back: the book is not used any more."""
    book = filled()
    if reason is None:
        assert book.change([], [], ts_ms=NOW_MS + 1, seq=seq, prev_seq=prev_seq)
        with pytest.raises(BookBroken, match="follows 99"):
            book.change([], [], ts_ms=NOW_MS + 2, seq=103, prev_seq=99)
        return
    with pytest.raises(BookBroken, match=reason):
        book.change([("1.0", "4")], [], ts_ms=NOW_MS + 1, seq=seq, prev_seq=prev_seq)
    assert not book.usable
    with pytest.raises(BookBroken, match="without a snapshot"):
        book.change([], [], ts_ms=NOW_MS + 2, seq=seq + 1, prev_seq=seq)


def test_a_new_snapshot_mends_a_broken_book() -> None:
    """After a break the next snapshot counts, even when the exchange numbers from the start again."""
    book = filled()
    with pytest.raises(BookBroken):
        book.change([], [], ts_ms=NOW_MS + 1, seq=200, prev_seq=150)
    assert book.snapshot([("1.0", "4")], [("1.3", "1")], ts_ms=NOW_MS + 2, seq=7)
    assert book.usable
    assert book.top(5) == ([("1.0", "4")], [("1.3", "1")])


def test_two_connections_that_tell_the_same_make_one_book() -> None:
    """While one connection replaces another, snapshot and changes come twice: the later ones change nothing."""
    book = filled()
    assert book.change([("1.0", "4")], [], ts_ms=NOW_MS + 1, seq=101, prev_seq=100)
    assert not book.snapshot([("1.0", "3")], [("1.1", "2")], ts_ms=NOW_MS, seq=100)
    assert not book.change([("1.0", "4")], [], ts_ms=NOW_MS + 1, seq=101, prev_seq=100)
    assert book.change([("0.9", "0")], [], ts_ms=NOW_MS + 2, seq=102, prev_seq=101)
    assert book.top(5) == ([("1.0", "4")], [("1.1", "2"), ("1.2", "5")])


def test_a_book_in_doubt_is_usable_again_once_a_change_follows() -> None:
    """Something may have been missed: the next number in order proves that nothing was; without numbers nothing does."""
    book = filled()
    book.doubt()
    assert not book.usable
    book.change([], [], ts_ms=NOW_MS + 1, seq=101, prev_seq=100)
    assert book.usable
    unnumbered = OrderBook()
    unnumbered.snapshot([("1.0", "3")], [("1.1", "2")], ts_ms=NOW_MS)
    unnumbered.doubt()
    with pytest.raises(BookBroken, match="carry no numbers"):
        unnumbered.change([], [], ts_ms=NOW_MS + 1)


@pytest.mark.parametrize(
    ("bids", "asks", "reason"),
    [
        ([("1.0", "-3")], [], "cannot be"),
        ([("-1.0", "3")], [], "cannot be"),
        ([("0", "3")], [], "cannot be"),
        ([("NaN", "3")], [], "cannot be"),
        ([("1.0", "inf")], [], "cannot be"),
        ([("", "3")], [], "a level of ''"),
        ([("1.0", "one")], [], "and 'one'"),
        ([("1.2", "1")], [], "crossed: a bid at 1.2, an ask at 1.1"),
    ],
)
def test_levels_that_cannot_be_true_discard_the_book(bids: list[Level], asks: list[Level], reason: str) -> None:
    """Negative, endless, wordy or crossed: nobody knows what the book is then."""
    book = filled()
    with pytest.raises(BookBroken, match=reason):
        book.change(bids, asks, ts_ms=NOW_MS + 1, seq=101, prev_seq=100)
    assert not book.usable


@pytest.mark.parametrize(
    ("bids", "asks", "reason"),
    [
        ([("0.9", "1"), ("1.0", "1")], [("1.1", "1")], "bids that are not in order"),
        ([("1.0", "1")], [("1.2", "1"), ("1.1", "1")], "asks that are not in order"),
        ([("1.0", "1"), ("1.00", "2")], [("1.1", "1")], "bids that are not in order"),
        ([("1.1", "1")], [("1.1", "1")], "crossed"),
    ],
)
def test_a_whole_book_that_is_reversed_or_crossed_is_refused(bids: list[Level], asks: list[Level], reason: str) -> None:
    """As a snapshot to begin with, and as a frame that is a whole book."""
    with pytest.raises(BookBroken, match=reason):
        OrderBook().snapshot(bids, asks, ts_ms=NOW_MS)
    with pytest.raises(BookBroken, match=reason):
        whole(SYMBOL, bids, asks, ts_ms=NOW_MS, seq=1, received_ms=NOW_MS)


def test_a_whole_book_becomes_numbers() -> None:
    """Text in, falling bids and rising asks as numbers out; a level of size zero is none."""
    found = whole(SYMBOL, [("1.0", "3"), ("0.9", "1")], [("1.10", "0.5000")], ts_ms=5, seq=None, received_ms=7)
    assert [list(column) for column in (found.bid_prices, found.bid_sizes, found.ask_prices, found.ask_sizes)] == [
        [1.0, 0.9],
        [3.0, 1.0],
        [1.1],
        [0.5],
    ]
    assert (found.ts_ms, found.seq, found.received_ms) == (5, 0, 7)
    with pytest.raises(BookBroken, match="size zero"):
        whole(SYMBOL, [("1.0", "0")], [], ts_ms=5, seq=1, received_ms=7)
