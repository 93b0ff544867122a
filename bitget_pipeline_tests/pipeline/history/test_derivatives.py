"""Funding, open interest, mark and index prices: what is stored is what the exchange says, asked for no more than needed."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import aiohttp
import pytest

from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.derivatives import FundingRate, PriceKind
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.backfill import KeyState, backfill_candles
from bitget_pipeline.pipeline.history.funding import collect_funding
from bitget_pipeline.pipeline.history.open_interest import snapshot_open_interest
from bitget_pipeline.pipeline.history.price_candles import backfill_prices
from bitget_pipeline.pipeline.universe.discover import discover, refresh_tickers
from bitget_pipeline.storage.warehouse import CoverageState

from ..conftest import true_candles

PRODUCTS = {Market.COINM: "COIN-FUTURES", Market.USDCM: "USDC-FUTURES"}
BTC, ETH = Symbol(Market.USDTM, "BTCUSDT"), Symbol(Market.USDTM, "ETHUSDT")
COIN = Symbol(Market.COINM, "BTCUSD")
HOUR, DAY = 3_600_000, 86_400_000
PLACE = {"source": "local", "run_id": "r"}


async def asked(server, path, **params):
    """What the exchange itself answers, read by nobody's reader."""
    url = f"{server.rest_url}/api/v2/mix/market/{path}"
    async with aiohttp.ClientSession() as session, session.get(url, params=params) as answer:
        return (await answer.json())["data"]


def requests_of(server, word):
    return sum(number for path, number in server.counters()["requests"].items() if word in path)


@pytest.fixture
def collect(client, exchange, warehouse, versions, clock):
    async def run(*symbols, days):
        since = clock() - days * DAY
        return await collect_funding(
            client, exchange, warehouse, versions, symbols, since_ms=since, now_ms=clock, **PLACE
        )

    return run


async def test_funding_of_a_hundred_days_is_every_settlement(local_exchange, warehouse, collect, clock):
    """
    Four pages of two symbols, no settlement missing or doubled; the ledger has a statement for each month.
    """
    report = await collect(BTC, ETH, days=100)
    assert (report.failed, report.requests) == ({}, 8)
    for symbol in (BTC, ETH):
        rows = []
        for page in range(1, 5):
            rows += await asked(
                local_exchange,
                "history-fund-rate",
                symbol=symbol.name,
                productType="USDT-FUTURES",
                pageSize=100,
                pageNo=page,
            )
        true = sorted(FundingRate(int(row["fundingTime"]), float(row["fundingRate"])) for row in rows)
        stored = warehouse.funding(symbol, source="local")
        assert stored == [rate for rate in true if rate.settled_ms >= stored[0].settled_ms]
        assert len(stored) == report.new[symbol] in (300, 301)
        evidence = warehouse.coverage("funding_rates", symbol=symbol)
        assert sum(one.rows for one in evidence) == len(stored)
        assert {one.state for one in evidence} == {CoverageState.COMPLETE}


async def test_a_second_look_at_funding_is_one_page(local_exchange, warehouse, collect):
    """
    Where the newest page meets what is stored, nothing older is asked for, and nothing is written.
    """
    await collect(BTC, days=100)
    before = requests_of(local_exchange, "history-fund-rate")
    evidence = warehouse.query("SELECT count() FROM coverage_evidence")
    again = await collect(BTC, days=100)

    assert (again.rows, requests_of(local_exchange, "history-fund-rate") - before) == (0, 1)
    assert warehouse.query("SELECT count() FROM coverage_evidence") == evidence


async def test_a_wish_for_older_funding_is_fulfilled(warehouse, collect):
    """
    More days than before: the walk goes on behind what is stored.
    """
    first = await collect(BTC, days=10)
    second = await collect(BTC, days=60)

    assert first.rows in (30, 31)
    stored = warehouse.funding(BTC, source="local")
    assert len(stored) == first.rows + second.rows
    assert {later.settled_ms - earlier.settled_ms for earlier, later in pairwise(stored)} == {8 * HOUR}


async def test_a_symbol_that_fails_costs_the_others_nothing(warehouse, collect):
    """
    An unknown contract and a spot pair are named; the good one is stored.
    """
    nope, spot = Symbol(Market.USDTM, "NOPEUSDT"), Symbol(Market.SPOT, "BTCUSDT")
    report = await collect(nope, spot, BTC, days=10)

    assert set(report.failed) == {nope, spot}
    assert "funding" in report.failed[spot]
    assert warehouse.funding(BTC, source="local")


async def test_open_interest_is_what_the_exchange_says_and_worth_what_tickers_say(
    local_exchange, client, exchange, warehouse, versions
):
    """
    Base units as served, USDT at the last price; without a ticker there is no worth, and a failure is named.
    """
    markets = (Market.USDTM,)
    await refresh_tickers(client, exchange, warehouse, markets=markets, source="local", run_id="r")
    nope = Symbol(Market.USDTM, "NOPEUSDT")
    report = await snapshot_open_interest(client, exchange, warehouse, versions, [BTC, COIN, nope], **PLACE)

    assert set(report.failed) == {nope}
    last = {ticker.symbol: ticker.last for ticker in warehouse.tickers(Market.USDTM)}
    products = {BTC: "USDT-FUTURES", COIN: "COIN-FUTURES"}
    for symbol, product in products.items():
        said = await asked(local_exchange, "open-interest", symbol=symbol.name, productType=product)
        ((at, base, usdt),) = warehouse.open_interest(symbol, source="local")
        assert base == float(said["openInterestList"][0]["size"])
        assert 0 <= int(said["ts"]) - at < 60_000
        assert usdt == (base * last[BTC] if symbol is BTC else None)


@pytest.mark.parametrize("kind", list(PriceKind))
async def test_a_day_of_mark_and_index_prices_is_complete_and_asked_for_once(
    local_exchange, client, exchange, warehouse, versions, clock, kind
):
    """
    Every minute as the exchange serves it, in a table where no traded bar lies; a second run asks for nothing.
    """
    day = from_ms(clock()).date() - timedelta(days=1)
    within = Interval.of_day(day)

    async def run(**how):
        found = await backfill_prices(
            client, exchange, warehouse, versions, [(BTC, day)], kind=kind, now_ms=clock, **PLACE, **how
        )
        return found.keys[BTC, day]

    first = await run()
    assert (first.state, first.rows, first.holes, first.error) == (KeyState.COMPLETE, 1440, (), "")
    stored = warehouse.price_candles(BTC, kind, Resolution.M1, within, source="local")
    true = []
    for end in range(within.end_ms, within.start_ms, -200 * 60_000):
        true += await asked(
            local_exchange,
            f"history-{kind.value}-candles",
            symbol="BTCUSDT",
            productType="USDT-FUTURES",
            granularity="1m",
            endTime=end,
            limit=200,
        )
    bars = {int(row[0]): tuple(map(float, row[1:5])) for row in true}
    assert {bar.open_ms: bar[1:5] for bar in stored} == {ms: bar for ms, bar in bars.items() if ms in within}
    assert warehouse.query("SELECT count() FROM candles") == [(0,)]

    assert (await run()).requests == 0
    assert (await run(refresh=True)).requests == first.requests
    assert warehouse.price_candles(BTC, kind, Resolution.M1, within, source="local") == stored
    (evidence,) = warehouse.coverage(f"{kind.value}_candles_1m", symbol=BTC)
    assert (evidence.state, evidence.rows) == (CoverageState.COMPLETE, 1440)
    other = next(one for one in PriceKind if one is not kind)
    assert warehouse.price_candles(BTC, other, Resolution.M1, within, source="local") == []


@pytest.mark.parametrize("market", [Market.COINM, Market.USDCM])
async def test_the_markets_of_the_credentialed_tier_have_all_of_it(
    local_exchange, client, exchange, warehouse, versions, clock, market
):
    """
    Coin-margined and USDC contracts: funding, open interest and its worth, mark and index prices, traded minutes, each what
    the exchange says of that market and of no other.
    """
    markets = (market,)
    found = await discover(client, exchange, warehouse, versions, markets=markets, run_id="r", now_ms=clock)
    assert not found.failed
    await refresh_tickers(client, exchange, warehouse, markets=markets, source="local", run_id="r")
    last = {ticker.symbol: ticker.last for ticker in warehouse.tickers(market)}
    symbol = next(
        one.symbol for one in warehouse.instruments(market) if one.kind == "perpetual" and last.get(one.symbol)
    )
    place = {"symbol": symbol.name, "productType": PRODUCTS[market]}

    report = await collect_funding(
        client, exchange, warehouse, versions, [symbol], since_ms=clock() - 30 * DAY, now_ms=clock, **PLACE
    )
    assert (report.failed, report.new[symbol] in (90, 91)) == ({}, True)
    rows = await asked(local_exchange, "history-fund-rate", **place, pageSize=100, pageNo=1)
    true = sorted(FundingRate(int(row["fundingTime"]), float(row["fundingRate"])) for row in rows)
    stored = warehouse.funding(symbol, source="local")
    assert stored == [rate for rate in true if rate.settled_ms >= stored[0].settled_ms]

    held = await snapshot_open_interest(client, exchange, warehouse, versions, [symbol], **PLACE)
    assert held.failed == {}
    ((_, base, usdt),) = warehouse.open_interest(symbol, source="local")
    said = await asked(local_exchange, "open-interest", **place)
    assert (base, usdt) == (float(said["openInterestList"][0]["size"]), base * last[symbol])

    day = from_ms(clock()).date() - timedelta(days=1)
    within = Interval.of_day(day)
    for kind in PriceKind:
        prices = await backfill_prices(
            client, exchange, warehouse, versions, [(symbol, day)], kind=kind, now_ms=clock, **PLACE
        )
        assert (prices.keys[symbol, day].state, prices.keys[symbol, day].error) == (KeyState.COMPLETE, "")
        word = f"history-{kind.value}-candles"
        page = await asked(local_exchange, word, **place, granularity="1m", endTime=within.end_ms, limit=200)
        bars = warehouse.price_candles(symbol, kind, Resolution.M1, within, source="local")
        assert [bar[:5] for bar in bars[-200:]] == [(int(row[0]), *map(float, row[1:5])) for row in page]

    traded = await backfill_candles(client, exchange, warehouse, versions, [(symbol, day)], now_ms=clock, **PLACE)
    assert traded.keys[symbol, day].state is KeyState.COMPLETE
    assert warehouse.candles(symbol, Resolution.M1, within) == await true_candles(local_exchange, symbol, within)
