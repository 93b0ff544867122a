"""Who stands in for whom: by base and quote, in which unit, and never another coin of the same name."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.market.candle import Candle
from bitget_pipeline.market.instrument import Instrument, Market, Status, Symbol
from bitget_pipeline.market.stand_in import APART, StandIn, Verdict, decide, unit, without_market
from bitget_pipeline.market.trade import Trade

NOW, LATER = 1_790_000_000_000, 1_790_003_600_000


def an_instrument(base: str, quote: str = "USDT", market: Market = Market.SPOT, **fields: object) -> Instrument:
    kind = "spot" if market is Market.SPOT else "perpetual"
    made = Instrument(
        Symbol(market, f"{base}{quote}"), base, quote, Status.TRADING, "", Decimal("0.01"), Decimal("0.01"), kind
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def decided(
    ours: Instrument,
    *theirs: Instrument,
    price: float = 100.0,
    their_price: float = 100.0,
    before: StandIn | None = None,
) -> StandIn:
    """The decision for one of ours; every one of theirs has the same price."""
    (one,) = decide(
        [ours],
        {ours.symbol.market: theirs},
        {ours.symbol: price},
        {one.symbol: their_price for one in theirs},
        {before.symbol: before} if before else {},
        now_ms=LATER,
    )
    return one


def test_the_same_base_and_quote_stand_in():
    """
    By what is bought and what it is priced in, not by cutting names.
    """
    ours = an_instrument("BTC", symbol=Symbol(Market.SPOT, "XBT_USDT"))
    one = decided(ours, an_instrument("BTC", "USDC"), an_instrument("BTC"), price=100.0, their_price=100.5)
    assert (one.verdict, one.name, one.factor) == (Verdict.MATCHED, "BTCUSDT", 1.0)
    assert one.apart == pytest.approx(0.005)


def test_another_quote_or_kind_does_not():
    """
    A delivery contract is no perpetual, and USDC is not USDT.
    """
    ours = an_instrument("BTC", market=Market.USDTM)
    delivery = an_instrument("BTC", market=Market.USDTM, kind="delivery", symbol=Symbol(Market.USDTM, "BTCUSDT_261225"))
    assert decided(ours, delivery, an_instrument("BTC", "USDC", Market.USDTM)).verdict is Verdict.NOT_LISTED


@pytest.mark.parametrize(
    ("ours", "theirs", "factor"),
    [
        ("PEPE", "1000PEPE", 1000.0),
        ("1000BONK", "BONK", 0.001),
        ("1MBABYDOGE", "1000000BABYDOGE", 1.0),
        ("1000SATS", "1MSATS", 1000.0),
    ],
)
def test_units_differ_by_their_prefix(ours: str, theirs: str, factor: float):
    """
    Prices are as many times ours, sizes as many times fewer; the guard compares in one unit.
    """
    one = decided(
        an_instrument(ours, market=Market.USDTM),
        an_instrument(theirs, market=Market.USDTM),
        price=2.0,
        their_price=2.0 * factor,
    )
    assert (one.verdict, one.factor) == (Verdict.MATCHED, pytest.approx(factor))


def test_the_same_unit_is_preferred():
    """
    Where a venue lists a coin in several units.
    """
    ours = an_instrument("1000BONK")
    assert (
        decided(ours, an_instrument("BONK"), an_instrument("1000BONK"), an_instrument("1MBONK")).name == "1000BONKUSDT"
    )
    assert (
        decided(an_instrument("BONK"), an_instrument("1MBONK"), an_instrument("1000BONK"), price=0.1).name
        == "1000BONKUSDT"
    )


@pytest.mark.parametrize(
    ("base", "meant"),
    [("1INCH", (1.0, "1INCH")), ("1000", (1.0, "1000")), ("10000LADYS", (10_000.0, "LADYS")), ("1000X", (1000.0, "X"))],
)
def test_a_name_that_only_looks_like_a_multiple_is_itself(base: str, meant: tuple[float, str]):
    """
    A number counts only in front of a coin.
    """
    assert unit(base) == meant


def test_renamed_coins_are_found_by_the_table():
    """
    Ours is called $ALT on spot, theirs ALT; the table can be another one.
    """
    assert decided(an_instrument("$ALT"), an_instrument("ALT")).name == "ALTUSDT"
    ours = an_instrument("OLD")
    (one,) = decide(
        [ours],
        {Market.SPOT: [an_instrument("NEW")]},
        {ours.symbol: 1.0},
        {Symbol(Market.SPOT, "NEWUSDT"): 1.0},
        {},
        now_ms=NOW,
        renamed={(Market.SPOT, "OLD"): "NEW"},
    )
    assert one.name == "NEWUSDT"


@pytest.mark.parametrize("their_price", [97.9, 102.1, 310.0, 0.1])
def test_another_coin_of_the_same_name_is_refused_by_its_price(their_price: float):
    """
    More than two per cent apart; the refusal names it and both prices.
    """
    one = decided(an_instrument("MEME"), an_instrument("MEME"), their_price=their_price)
    assert (one.verdict, one.name, one.stands_in) == (Verdict.APART, "MEMEUSDT", False)
    assert (one.price, one.their_price) == (100.0, their_price)


def test_what_does_not_trade_there_does_not_stand_in():
    """
    Whatever else it may be.
    """
    assert decided(an_instrument("BTC"), an_instrument("BTC", status=Status.HALTED)).verdict is Verdict.NOT_TRADING
    assert decided(an_instrument("BTC")).verdict is Verdict.NOT_LISTED
    assert decided(an_instrument("BTC"), an_instrument("BTC"), price=0.0).verdict is Verdict.NO_PRICE


def test_what_we_do_not_collect_is_not_decided():
    """
    Retired, halted and announced instruments of ours need nobody.
    """
    assert decide([an_instrument("BTC", status=Status.RETIRED)], {Market.SPOT: []}, {}, {}, {}, now_ms=NOW) == []


def test_a_market_that_does_not_answer_keeps_what_was_decided():
    """
    Frozen, to the moment of the decision.
    """
    ours = an_instrument("BTC")
    before = StandIn(ours.symbol, Verdict.MATCHED, "BTCUSDT", 1.0, 99.0, 99.1, NOW)
    assert decide([ours], {}, {}, {}, {ours.symbol: before}, now_ms=LATER) == [before]
    assert decide([ours], {}, {}, {}, {}, now_ms=LATER) == []


def test_a_missing_price_proves_nothing_against_a_stand_in():
    """
    What was matched stays matched; what is apart, gone or halted does not.
    """
    ours, theirs = an_instrument("BTC"), an_instrument("BTC")
    before = StandIn(ours.symbol, Verdict.MATCHED, "BTCUSDT", 1.0, 99.0, 99.1, NOW)
    assert decided(ours, theirs, price=0.0, before=before) == before
    assert decided(ours, theirs, their_price=0.0, before=before) == before
    assert decided(ours, theirs, their_price=150.0, before=before).verdict is Verdict.APART
    assert decided(ours, before=before).verdict is Verdict.NOT_LISTED
    assert decided(ours, replace(theirs, status=Status.HALTED), before=before).verdict is Verdict.NOT_TRADING


def test_markets_without_a_counterpart_say_so():
    """
    Instead of silence.
    """
    found = without_market(
        [an_instrument("BTC", "USD", Market.COINM), an_instrument("BTC")], {Market.COINM}, now_ms=NOW
    )
    assert [(str(one.symbol), one.verdict) for one in found] == [("coinm:BTCUSD", Verdict.NO_MARKET)]


factors = st.sampled_from([1e-6, 1e-3, 1.0, 10.0, 1000.0, 1e6])
values = st.floats(1e-6, 1e6)


@given(factors, values, values)
def test_what_was_paid_is_the_same_in_either_unit(factor: float, price: float, size: float):
    """
    Price and size are converted the opposite way, of trades and of bars.
    """
    one = StandIn(Symbol(Market.USDTM, "X"), Verdict.MATCHED, "Y", factor)
    trade = one.trade(Trade(7, NOW, price, size, True))
    assert trade.price * trade.size == pytest.approx(price * size)
    assert (trade.trade_id, trade.ts_ms, trade.buy) == (7, NOW, True)
    bar = one.candle(Candle(NOW, price, price * 2, price / 2, price, size, price * size))
    assert (bar.quote_volume, bar.open_ms) == (price * size, NOW)
    assert bar.low * bar.base_volume == pytest.approx(price / 2 * size)


bases = st.sampled_from(["BTC", "PEPE", "1000PEPE", "1MPEPE", "$ALT", "ALT", "1INCH", "MEME", "LUNA2"])
quotes = st.sampled_from(["USDT", "USDC", "BTC"])
statuses = st.sampled_from(list(Status))
instruments = st.lists(
    st.builds(
        lambda base, quote, market, status: an_instrument(base, quote, market, status=status),
        bases,
        quotes,
        st.sampled_from([Market.SPOT, Market.USDTM, Market.COINM]),
        statuses,
    ),
    max_size=12,
    unique_by=lambda one: one.symbol,
)


@given(
    instruments,
    instruments,
    st.dictionaries(bases, st.floats(0, 1e6)),
    st.dictionaries(bases, st.floats(0, 1e6)),
    st.randoms(),
)
def test_whatever_the_lists_every_decision_holds(
    ours: list[Instrument],
    theirs: list[Instrument],
    prices: dict[str, float],
    their_prices: dict[str, float],
    chance: random.Random,
):
    """
    One decision for each of ours that is collected, in any order of the input; a stand-in is listed, trades, has the same
    quote, and its price is ours within the guard.
    """
    by_market = {
        market: [one for one in theirs if one.symbol.market is market] for market in (Market.SPOT, Market.USDTM)
    }
    arguments = (
        {one.symbol: prices.get(one.base, 0.0) for one in ours},
        {one.symbol: their_prices.get(one.base, 0.0) for one in theirs},
        {},
    )
    found = decide(ours, by_market, *arguments, now_ms=NOW)
    shuffled = [list(ours), *(list(one) for one in by_market.values())]
    for one in shuffled:
        chance.shuffle(one)
    again = decide(shuffled[0], dict(zip(by_market, shuffled[1:], strict=True)), *arguments, now_ms=NOW)
    assert found == again
    collected = {one.symbol: one for one in ours if one.status in (Status.TRADING, Status.RESTRICTED)}
    assert [one.symbol for one in found] == sorted((s for s in collected if s.market in by_market), key=str)
    names = {(one.symbol.market, one.symbol.name): one for one in theirs}
    for one in found:
        if one.stands_in:
            other = names[one.symbol.market, one.name]
            assert other.status is Status.TRADING
            assert other.quote == collected[one.symbol].quote
            assert one.apart is not None
            assert one.apart <= APART
            assert unit(other.base)[0] == pytest.approx(unit(collected[one.symbol].base.lstrip("$"))[0] * one.factor)
