"""What we ask: addresses, parameters, subscriptions, and what we refuse to ask."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.errors import RequestRefused, SettingsInvalid
from bitget_pipeline.exchange import registry
from bitget_pipeline.exchange.bitget.adapter import Bitget
from bitget_pipeline.exchange.contract import Channel, Subscription
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import FORBIDDEN_IN_SYMBOLS, Market, Symbol

SPOT = Symbol(Market.SPOT, "BTCUSDT")
FUTURE = Symbol(Market.USDTM, "btcusdt")
END = 1790358660000

names = st.text(st.characters(exclude_categories=["Cs", "Z", "C"], exclude_characters="|,[]"), min_size=1, max_size=24)
subscriptions = st.builds(Subscription, st.builds(Symbol, st.sampled_from(Market), names), st.sampled_from(Channel))


def test_a_page_of_bars_ends_before_its_end() -> None:
    """Futures exclude the end (recorded); spot may include it, so one bar more is asked for."""
    exchange = Bitget()
    spot = exchange.candle_page(SPOT, Resolution.M1, end_ms=END, limit=60)
    future = exchange.candle_page(FUTURE, Resolution.M1, end_ms=END, limit=60)
    assert spot.url_query() == f"symbol=BTCUSDT&granularity=1min&endTime={END}&limit=61"
    assert future.url_query() == f"symbol=BTCUSDT&productType=USDT-FUTURES&granularity=1m&endTime={END}&limit=60"
    assert spot.path == "/api/v2/spot/market/history-candles"
    assert future.path == "/api/v2/mix/market/history-candles"
    assert (spot.endpoint, future.endpoint) == ("spot.history-candles", "mix.history-candles")


@pytest.mark.parametrize("resolution", [r for r in Resolution if r.ms >= 60_000])
@pytest.mark.parametrize("market", Market)
def test_no_page_asks_for_more_than_the_exchange_gives(market: Market, resolution: Resolution) -> None:
    """At most 200 bars and at most 90 days, whatever the resolution."""
    exchange = Bitget()
    request = exchange.candle_page(Symbol(market, "X"), resolution, end_ms=END)
    limit = int(dict(request.params)["limit"])
    assert limit <= 200
    assert exchange.candle_window(resolution) <= timedelta(days=90)
    assert exchange.candle_window(resolution) <= exchange.max_candles_per_page * resolution.length


@pytest.mark.parametrize("resolution", [Resolution.H6, Resolution.H12, Resolution.D1])
@pytest.mark.parametrize("market", Market)
def test_long_bars_are_asked_for_in_utc(market: Market, resolution: Resolution) -> None:
    """Without the ending they would be aligned to UTC+8."""
    request = Bitget().candle_page(Symbol(market, "X"), resolution, end_ms=END)
    assert dict(request.params)["granularity"].endswith("utc")


@pytest.mark.parametrize(
    "asking",
    [
        lambda: Bitget().candle_page(SPOT, Resolution.S1, end_ms=END),
        lambda: Bitget().candle_page(SPOT, Resolution.M1, end_ms=END, limit=201),
        lambda: Bitget().candle_page(SPOT, Resolution.M1, end_ms=END, limit=0),
        lambda: Bitget().trade_page(SPOT, limit=1001),
        lambda: Bitget().recent_trades(Symbol(Market.SPOT, "A|B")),
        lambda: Bitget().recent_trades(Symbol(Market.SPOT, "")),
        lambda: Bitget().subscribe([Subscription(Symbol(Market.SPOT, "A B"), Channel.TRADE)]),
    ],
)
def test_what_the_exchange_would_refuse_is_refused_before(asking: object) -> None:
    """With a way out, and without a request."""
    with pytest.raises(RequestRefused) as refusal:
        asking()  # type: ignore[operator]
    assert refusal.value.remedy


def test_trades_are_paged_by_id() -> None:
    """fills-history goes back from an id; fills gives the newest, as many as each market allows."""
    exchange = Bitget()
    page = exchange.trade_page(FUTURE, before_id=1487438024184414208)
    assert page.url_query() == "symbol=BTCUSDT&productType=USDT-FUTURES&limit=1000&idLessThan=1487438024184414208"
    assert (page.endpoint, page.per_second) == ("mix.fills-history", 10)
    assert dict(exchange.recent_trades(SPOT).params)["limit"] == "500"
    assert dict(exchange.recent_trades(FUTURE).params)["limit"] == "100"


def test_symbols_of_other_scripts_are_encoded_in_addresses() -> None:
    """Percent-encoded as UTF-8 on the way out, raw for signing."""
    request = Bitget().recent_trades(Symbol(Market.USDTM, "龙虾usdt"))
    assert request.url_query().startswith("symbol=%E9%BE%99%E8%99%BEUSDT&")
    assert request.raw_query().startswith("symbol=龙虾USDT&")


def test_the_local_exchange_is_the_same_adapter() -> None:
    """It speaks the same protocol at another address; unknown names are refused."""
    assert type(registry.get("local")) is type(registry.get("bitget"))
    with pytest.raises(SettingsInvalid, match="bitget"):
        registry.get("bitgit")


@given(st.lists(subscriptions, max_size=120))
def test_subscribe_frames_are_few_small_and_complete(wanted: list[Subscription]) -> None:
    """Every stream once, in order; no frame over the limit in bytes; no two neighbours that would fit into one."""
    exchange = Bitget()
    frames = exchange.subscribe(wanted)
    groups = [json.loads(frame) for frame in frames]
    sent = [tuple(argument.values()) for group in groups for argument in group["args"]]
    assert all(group["op"] == "subscribe" for group in groups)
    assert len(sent) == len(set(sent))
    once = [json.loads(exchange.subscribe([one])[0])["args"][0] for one in wanted]
    assert set(sent) == {tuple(argument.values()) for argument in once}
    assert all(len(frame.encode()) <= exchange.limits.frame_bytes for frame in frames)
    for one, following in pairwise(frames):
        first_of_next = json.dumps(json.loads(following)["args"][0], separators=(",", ":"), ensure_ascii=False)
        assert len(one.encode()) + 1 + len(first_of_next.encode()) > exchange.limits.frame_bytes


def test_an_acknowledgement_of_what_we_asked_is_what_we_asked() -> None:
    """Every channel of every market survives the way out and back."""
    exchange = Bitget()
    for market in Market:
        for channel in Channel:
            wanted = Subscription(Symbol(market, "BTCUSDT"), channel)
            (frame,) = exchange.unsubscribe([wanted])
            argument = json.dumps(json.loads(frame)["args"][0])
            answer = exchange.decode(f'{{"event":"unsubscribe","arg":{argument}}}', received_ms=END)
            assert answer.subscription == wanted  # type: ignore[union-attr]
            assert not answer.subscribed  # type: ignore[union-attr]


def test_no_symbol_may_hold_what_partition_keys_are_split_at() -> None:
    """The four characters Dagster splits at are refused on the way out."""
    for character in FORBIDDEN_IN_SYMBOLS:
        with pytest.raises(RequestRefused):
            Bitget().trade_page(Symbol(Market.SPOT, f"A{character}B"))
