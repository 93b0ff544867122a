"""Tickers of a live run: the newest in Redis, a row a minute in the table the selection ranks by; bad ones set aside."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import redis.asyncio

from bitget_pipeline.errors import MalformedFrame
from bitget_pipeline.exchange.contract import Channel, Subscription
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.market.instrument import Instrument, Market, Status, Symbol
from bitget_pipeline.market.interval import from_ms
from bitget_pipeline.pipeline.beside.tickers import TickerRules, Tickers
from bitget_pipeline.pipeline.live.companion import Writing
from bitget_pipeline.pipeline.universe.discover import refresh_tickers
from bitget_pipeline.storage.latest import KEPT_SECONDS, Latest, latest_ticker, latest_tickers
from bitget_pipeline.storage.redis_connection import connect_sync
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import until
from ..live.test_run import SYMBOLS, live

NOW_MS = 1_790_358_773_905
BTC, PAIR = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.SPOT, "ETHBTC")
QUICK = TickerRules(share_every=0.1, store_every=0.3)


async def test_tickers_are_shown_and_stored(
    where, local_exchange, warehouse, redis_client, redis_address, client, exchange
):
    """
    The newest of every symbol lies in Redis and vanishes by itself; the table has rows of every symbol, with the same
    figures as the hourly discovery's, the volume in USDT that the selection ranks by included.
    """
    tickers = Tickers(SYMBOLS, Latest(redis_client, where.prefix), warehouse, clock=local_exchange.now_ms, rules=QUICK)
    async with live(where, local_exchange, companions=(tickers,)) as run:
        await until(lambda: {one.symbol for one in warehouse.tickers()} == set(SYMBOLS), what="stored tickers")
        await until(lambda: tickers.published()["stored"] >= 2 * len(SYMBOLS), what="more of them")
        seen = connect_sync(redis_address)
        await until(lambda: set(latest_tickers(seen, where.prefix, SYMBOLS)) == set(SYMBOLS), what="them in Redis")
        shown = latest_tickers(seen, where.prefix, SYMBOLS)
        assert 0 < seen.ttl(f"{where.prefix}latest:ticker:spot:BTCUSDT") <= KEPT_SECONDS
        assert shown[BTC].bid <= shown[BTC].last <= shown[BTC].ask
        await until(
            lambda: run.overview.published().overall["tickers"]["heard"] == len(SYMBOLS), what="that it is said"
        )
        await run.end()
    live_ones = {one.symbol: one for one in warehouse.tickers()}
    assert set(live_ones) == set(SYMBOLS)
    await refresh_tickers(
        client, exchange, warehouse, markets=(Market.SPOT, Market.USDTM), source="local", run_id="discovery"
    )
    for one in warehouse.tickers():
        if one.symbol in live_ones:
            before = live_ones[one.symbol]
            assert before.usdt_volume_24h == pytest.approx(one.usdt_volume_24h, rel=0.05)
            assert (before.open_interest is None) == (one.open_interest is None)


# ---------------------------------------------------------------- what is not as promised


def frame_of(symbol: str = "BTCUSDT", **changed: Any) -> bytes:
    row = {"instId": symbol, "lastPr": "2", "bidPr": "1.9", "askPr": "2.1", "high24h": "3", "low24h": "1"}
    row |= {"change24h": "0.01", "baseVolume": "10", "quoteVolume": "20", "ts": str(NOW_MS)} | changed
    about = {"instType": "SPOT", "channel": "ticker", "instId": symbol}
    return json.dumps({"action": "snapshot", "arg": about, "data": [row], "ts": NOW_MS}).encode()


@pytest.fixture
def tickers(redis_client: redis.asyncio.Redis, redis_prefix: str, warehouse: Warehouse) -> Tickers:
    latest = Latest(redis_client, redis_prefix)
    return Tickers((BTC, PAIR), latest, warehouse, clock=lambda: NOW_MS, rules=QUICK)


def hear(tickers: Tickers, raw: bytes) -> None:
    tickers.frame(get("bitget").decode(raw, received_ms=NOW_MS))


@pytest.mark.parametrize(
    ("changed", "figure"),
    [
        ({"ts": str(NOW_MS + 10**9)}, "set_aside"),
        ({"ts": "1690358773905"}, "set_aside"),
        ({"symbol": "ETHUSDT"}, "foreign"),
    ],
)
def test_a_ticker_of_another_time_or_symbol_is_counted_and_not_shown(tickers, changed, figure):
    """
    Neither stored nor shown, and nothing ends by it.
    """
    hear(tickers, frame_of(**({"ts": str(NOW_MS)} | changed)))
    assert (tickers.published()[figure], tickers.published()["heard"]) == (1, 0)


def test_the_selection_changes_while_tickers_come(tickers):
    """
    One that joins is heard from its first frame on, one that left is not shown any more.
    """
    joined = Symbol(Market.SPOT, "SOLUSDT")
    hear(tickers, frame_of())
    tickers.selected((BTC, PAIR, joined))
    hear(tickers, frame_of("SOLUSDT"))
    assert tickers.published()["heard"] == 2
    tickers.selected((PAIR, joined))
    hear(tickers, frame_of())
    assert (tickers.published()["heard"], tickers.published()["foreign"]) == (1, 1)


@pytest.mark.parametrize(
    "changed", [{"lastPr": "-1"}, {"lastPr": "a lot"}, {"bidPr": "inf"}, {"ts": ""}, {"ts": "99999999999999"}]
)
def test_an_unreadable_ticker_names_its_subscription(changed):
    """
    It is set aside with its text, and nobody but this ticker is in doubt.
    """
    with pytest.raises(MalformedFrame) as refusal:
        get("bitget").decode(frame_of(**changed), received_ms=NOW_MS)
    assert refusal.value.about == Subscription(BTC, Channel.TICKER)


def test_numbers_come_as_numbers_or_as_text_and_an_older_ticker_changes_nothing(tickers):
    """
    Both spellings are understood; of two connections the slower one does not turn back the clock.
    """
    hear(tickers, frame_of(lastPr=2.5, ts=NOW_MS))
    hear(tickers, frame_of(lastPr="1", ts=str(NOW_MS - 1)))
    assert tickers._known[BTC].last == 2.5


async def test_a_pair_quoted_in_another_coin_is_stored_with_its_volume_in_usdt(
    tickers, warehouse, redis_prefix, redis_address
):
    """
    The channel does not tell it: it is the volume times the coin's own price. Until that is known there is no row, since
    the selection would take it for a volume of nothing.
    """
    hear(tickers, frame_of("ETHBTC", quoteVolume="20"))
    assert tickers._fresh() == []
    assert tickers.published()["without_usdt"] == 1
    pair = Instrument(PAIR, "ETH", "BTC", Status.TRADING, "online", Decimal("0.1"), Decimal("0.1"), "spot")
    warehouse.store_instruments([pair], run_id="r", version_at=from_ms(NOW_MS))
    hear(tickers, frame_of(lastPr="50000"))
    warehouse.store_tickers([tickers._known[BTC]], source="local", run_id="discovery")
    task = asyncio.create_task(tickers.run(Writing(1, "run-1", "local", lambda: NOW_MS), (BTC, PAIR)))
    seen = connect_sync(redis_address)
    await until(lambda: (t := latest_ticker(seen, redis_prefix, PAIR)) and t.usdt_volume_24h == 1e6, what="the volume")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    tickers._stored.clear()
    assert [replace(one, at=from_ms(0)).usdt_volume_24h for one in tickers._fresh()] == [1e6, 20.0]


async def test_a_ticker_nobody_carries_any_more_vanishes(tickers):
    """
    What the lost connection told is not shown again; the next ticker is, even one a little older.
    """
    hear(tickers, frame_of())
    tickers.lost([Subscription(BTC, Channel.TICKER)])
    assert (tickers.published()["heard"], tickers._fresh()) == (0, [])
    hear(tickers, frame_of(ts=str(NOW_MS - 5)))
    assert tickers.published()["heard"] == 1


def test_a_ticker_of_another_time_is_kept_to_be_looked_at_once_a_minute(tickers):
    """Where all frames are that make no sense."""
    kept: list[tuple[str, str]] = []
    tickers._writing = Writing(1, "run-1", "local", lambda: NOW_MS, set_aside=lambda *told: kept.append(told))
    for _ in range(50):
        hear(tickers, frame_of(ts=str(NOW_MS + 10**9)))
    assert tickers.published()["set_aside"] == 50
    ((problem, shown),) = kept
    assert "a ticker of spot:BTCUSDT dated" in problem
    assert "Ticker(" in shown
