"""The selection: never too much, never by accident, and calm."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitget_pipeline.market.instrument import Instrument, Market, Status, Symbol, Ticker
from bitget_pipeline.market.universe import Reason, SelectionRules, absences, select, shrunk

HOUR_MS = 3_600_000
MARKETS = (Market.SPOT, Market.USDTM)
RULES = SelectionRules(markets=MARKETS, min_volume_24h=1_000_000, top_n=3, hysteresis=0.2)

SPOT_RULES = replace(RULES, markets=(Market.SPOT,))


def instrument(symbol: Symbol, status: Status = Status.TRADING) -> Instrument:
    return Instrument(symbol, "A", "USDT", status, status.value, Decimal("0.1"), Decimal("0.1"), "spot")


def ticker(symbol: Symbol, volume: float) -> Ticker:
    return Ticker(symbol, datetime(2026, 9, 25, tzinfo=UTC), 1, 1, 1, 1, 1, volume, volume, volume, 0)


def spot(name: str) -> Symbol:
    return Symbol(Market.SPOT, name)


symbols = st.builds(Symbol, st.sampled_from(MARKETS), st.sampled_from([f"{letter}USDT" for letter in "ABCDEFGH"]))
volumes = st.floats(0, 5_000_000)
worlds = st.dictionaries(symbols, st.tuples(st.sampled_from(Status), volumes), max_size=16)
rules = st.builds(
    SelectionRules,
    markets=st.just(MARKETS),
    min_volume_24h=st.floats(0, 2_000_000),
    top_n=st.integers(0, 5),
    hysteresis=st.floats(0, 1),
)


def chosen_from(
    world: dict[Symbol, tuple[Status, float]], previous: set[Symbol], pinned: set[Symbol], by: SelectionRules
):  # type: ignore[no-untyped-def]
    return select(
        [instrument(symbol, status) for symbol, (status, _) in world.items()],
        [ticker(symbol, volume) for symbol, (_, volume) in world.items()],
        previous,
        pinned,
        by,
    )


@given(worlds, st.sets(symbols), st.sets(symbols, max_size=4), rules)
def test_a_market_never_has_more_than_its_share_and_the_pins(
    world: dict[Symbol, tuple[Status, float]], previous: set[Symbol], pinned: set[Symbol], by: SelectionRules
) -> None:
    """Whatever was followed before; every pin is followed or refused with a reason; nobody twice; ranks count from 1."""
    selection = chosen_from(world, previous, pinned, by)
    for market in MARKETS:
        mine = [one for one in selection.chosen if one.symbol.market is market]
        pins = [one for one in mine if one.reason is Reason.PINNED]
        assert len(mine) - len(pins) <= by.top_n
        assert [one.rank for one in mine] == list(range(1, len(mine) + 1))
        assert [one.volume for one in mine] == sorted((one.volume for one in mine), reverse=True)
    assert len(selection.symbols) == len(selection.chosen)
    assert pinned == (selection.symbols & pinned) | selection.refused_pins.keys()
    assert not selection.symbols & selection.refused_pins.keys()


@given(worlds, st.sets(symbols), st.sets(symbols, max_size=3), rules, st.randoms(use_true_random=False))
def test_the_order_of_the_lists_changes_nothing(
    world: dict[Symbol, tuple[Status, float]],
    previous: set[Symbol],
    pinned: set[Symbol],
    by: SelectionRules,
    chance: object,
) -> None:
    """The exchange may list its instruments as it likes."""
    items = list(world.items())
    chance.shuffle(items)  # type: ignore[attr-defined]
    assert chosen_from(dict(items), previous, pinned, by) == chosen_from(world, previous, pinned, by)


@settings(max_examples=60)
@given(
    st.dictionaries(symbols, st.floats(500_000, 3_000_000), min_size=1, max_size=16),
    st.lists(st.lists(st.floats(0.98, 1.02), min_size=16, max_size=16), max_size=6),
)
def test_the_selection_does_not_flap(base: dict[Symbol, float], jitters: list[list[float]]) -> None:
    """While volumes jitter by two per cent around what they were, nobody who is in ever leaves."""
    previous: set[Symbol] = chosen_from({s: (Status.TRADING, v) for s, v in base.items()}, set(), set(), RULES).symbols
    for jitter in jitters:
        now = {s: (Status.TRADING, v * by) for (s, v), by in zip(base.items(), jitter, strict=False)}
        current = chosen_from(now, previous, set(), RULES).symbols
        assert previous <= current
        previous = current


def test_a_newcomer_enters_by_merit_and_an_incumbent_stays_by_hysteresis() -> None:
    """At the edge the one that is in stays, until the other is clearly ahead."""
    world = {
        spot(name): (Status.TRADING, volume) for name, volume in {"A": 9e6, "B": 5e6, "C": 2.0e6, "D": 2.2e6}.items()
    }
    assert {one.symbol.name: one.reason for one in chosen_from(world, {spot("C")}, set(), SPOT_RULES).chosen} == {
        "A": Reason.VOLUME,
        "B": Reason.VOLUME,
        "C": Reason.KEPT,
    }
    world[spot("D")] = (Status.TRADING, 2.5e6)
    assert chosen_from(world, {spot("C")}, set(), SPOT_RULES).symbols == {spot("A"), spot("B"), spot("D")}


def test_what_cannot_be_traded_or_is_too_small_is_not_chosen() -> None:
    """Halted, announced and retired instruments, and those below the minimum."""
    world = {spot(status.value): (status, 9e6) for status in Status} | {spot("SMALL"): (Status.TRADING, 999_999)}
    assert chosen_from(world, set(), set(), SPOT_RULES).symbols == {spot("trading"), spot("restricted")}


def test_pins_are_followed_whatever_their_volume_and_refused_with_a_reason() -> None:
    """Unknown, retired and of a market that is not followed."""
    world = {spot("BIG"): (Status.TRADING, 9e6), spot("TINY"): (Status.HALTED, 0.0), spot("OLD"): (Status.RETIRED, 0.0)}
    pinned = {spot("TINY"), spot("OLD"), spot("NOPE"), Symbol(Market.COINM, "BTCUSD")}
    selection = chosen_from(world, set(), pinned, SPOT_RULES)
    assert [(one.symbol.name, one.reason) for one in selection.chosen] == [
        ("BIG", Reason.VOLUME),
        ("TINY", Reason.PINNED),
    ]
    assert selection.refused_pins == {
        spot("OLD"): "the exchange has retired it",
        spot("NOPE"): "the exchange does not list it",
        Symbol(Market.COINM, "BTCUSD"): "the market coinm is not followed",
    }


def test_a_first_discovery_that_fails_falls_back_to_the_three() -> None:
    """Nothing is known: BTCUSDT, ETHUSDT and SOLUSDT on spot and USDT-margined futures, and the pins."""
    selection = select([], [], set(), {spot("PINUSDT")}, RULES)
    assert {str(symbol) for symbol in selection.symbols} == {
        f"{market}:{name}" for market in ("spot", "usdtm") for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    } | {"spot:PINUSDT"}


def test_a_later_discovery_that_fails_changes_nothing() -> None:
    """What was followed stays followed, also when only the tickers are missing."""
    followed = {spot("AUSDT"), spot("BUSDT")}
    assert select([], [], followed, set(), RULES).symbols & {spot("AUSDT"), spot("BUSDT")} == followed
    listed = [instrument(symbol) for symbol in followed] + [instrument(spot("CUSDT"))]
    assert {s for s in select(listed, [], followed, set(), RULES).symbols if s.market is Market.SPOT} == followed


@pytest.mark.parametrize(
    ("before", "now", "believed"), [(1000, 950, True), (1000, 949, False), (0, 0, True), (100, 200, True)]
)
def test_a_list_that_lost_more_than_five_per_cent_is_not_believed(before: int, now: int, believed: bool) -> None:
    """An exchange does not delist that many at once; a truncated answer looks like that."""
    assert shrunk(before, now) is not believed


def test_an_instrument_is_retired_by_two_complete_lists_an_hour_apart() -> None:
    """One list is not enough, and one that has it again starts anew."""
    known = {spot("A"), spot("B")}
    first = absences(known, {spot("A")}, {}, at_ms=0)
    assert (first.since, first.retired) == ({spot("B"): 0}, set())
    soon = absences(known, {spot("A")}, first.since, at_ms=HOUR_MS - 1)
    assert soon.retired == set()
    back = absences(known, known, soon.since, at_ms=HOUR_MS)
    assert (back.since, back.retired) == ({}, set())
    assert absences(known, {spot("A")}, soon.since, at_ms=HOUR_MS).retired == {spot("B")}
