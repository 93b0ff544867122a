"""Funding, open interest, mark and index prices: what is stored is what the exchange says, asked for no more than needed."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import aiohttp
import pytest

from bitget_pipeline.history.client import HttpAddress, Patience, opened
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.derivatives import FundingRate, OpenInterest, PriceKind
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.backfill import KeyState, backfill_candles
from bitget_pipeline.pipeline.history.funding import collect_funding
from bitget_pipeline.pipeline.history.open_interest import snapshot_open_interest
from bitget_pipeline.pipeline.history.price_candles import backfill_prices
from bitget_pipeline.pipeline.history.recount import recount
from bitget_pipeline.pipeline.universe.discover import discover, refresh_tickers
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.warehouse import CoverageState, Warehouse

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
async def client(local_exchange, exchange, redis_client, redis_prefix):
    """A client that asks three times and then gives up."""
    patience = Patience(attempts=3, deadline=60.0, first_wait=0.05, longest_wait=0.1)
    budget = Budget(redis_client, redis_prefix, "test")
    async with opened(exchange, HttpAddress(local_exchange.rest_url), budget, patience=patience) as client:
        yield client


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
    local_exchange, client, exchange, warehouse, versions, clock
):
    """
    Base units as served, USDT at the last price; without a ticker there is no worth, and a failure is named.
    """
    markets = (Market.USDTM,)
    await refresh_tickers(client, exchange, warehouse, markets=markets, source="local", run_id="r")
    nope = Symbol(Market.USDTM, "NOPEUSDT")
    report = await snapshot_open_interest(
        client, exchange, warehouse, versions, [BTC, COIN, nope], now_ms=clock, **PLACE
    )

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


@pytest.fixture
def mark_prices(client, exchange, warehouse, versions, clock):
    """A backfill of mark prices, half an hour later each time."""
    later = 0

    async def run(*keys):
        nonlocal later
        ahead, later = later, later + HOUR // 2
        return await backfill_prices(
            client, exchange, warehouse, versions, keys, kind=PriceKind.MARK, now_ms=lambda: clock() + ahead, **PLACE
        )

    return run


async def test_minutes_of_a_price_that_do_not_come_are_listed_with_their_next_try(
    local_exchange, warehouse, mark_prices, clock, monkeypatch
):
    """
    Bars that are hidden or make no sense, in one version with the day that lacks them; each vain try puts the next one
    further off, and when they come the day is complete. A run that dies while it says so has said nothing.
    """
    day = from_ms(clock()).date() - timedelta(days=1)
    start = Interval.of_day(day).start_ms
    hidden, spoilt = start + 77 * 60_000, start + 900 * 60_000
    local_exchange.fault("missing_bar", str(BTC), open_ms=hidden)
    local_exchange.fault("malformed_bar", str(BTC), open_ms=spoilt)

    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "store_evidence", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("killed")))
        assert (await mark_prices((BTC, day), (ETH, day))).failed
    assert warehouse.coverage("mark_candles_1m") == []
    tries = []
    for attempt in (1, 2):
        key = (await mark_prices((BTC, day))).keys[BTC, day]
        assert (key.state, key.rows, key.in_vain, key.seconds > 0) == (KeyState.PARTIAL, 1438, False, True)
        whole, *holes = sorted(
            warehouse.coverage("mark_candles_1m", symbol=BTC), key=lambda one: one.rows, reverse=True
        )
        assert [one.interval.start_ms for one in holes] == [hidden, spoilt]
        assert {(one.state, one.attempts, one.version) for one in holes} == {
            (CoverageState.UNKNOWN, attempt, whole.version)
        }
        tries.append(holes[0].retry_at)
    assert tries[1] - tries[0] > timedelta(minutes=55)
    local_exchange.clear("missing_bar")
    local_exchange.clear("malformed_bar")
    await mark_prices((BTC, day))
    (said,) = warehouse.coverage("mark_candles_1m", symbol=BTC)
    assert (said.state, said.rows) == (CoverageState.COMPLETE, 1440)


async def test_prices_of_a_day_before_the_listing_cost_nothing_and_a_region_block_is_listed(
    local_exchange, client, exchange, warehouse, versions, mark_prices, clock
):
    """
    Before the listing nothing is asked; an answer that is none, or empty, leaves the day unknown, with the reason.
    """
    await discover(client, exchange, warehouse, versions, markets=(Market.USDTM,), run_id="r", now_ms=clock)
    young = max(
        (one for one in warehouse.instruments(Market.USDTM) if one.listed_at), key=lambda one: one.listed_at
    )  # fmt: skip
    early = young.listed_at.date() - timedelta(days=2)
    key = (await mark_prices((young.symbol, early))).keys[young.symbol, early]
    assert (key.state, key.requests, key.in_vain) == (KeyState.BEFORE_LISTING, 0, False)
    (said,) = warehouse.coverage("mark_candles_1m", symbol=young.symbol)
    assert (said.state, said.reason) == (CoverageState.VERIFIED_EMPTY, "before listing")

    day = from_ms(clock()).date() - timedelta(days=1)
    for lever, words in (("empty_string", ""), ("region_block", "region")):
        with local_exchange.faulty(lever, "/history-mark-candles"):
            key = (await mark_prices((BTC, day))).keys[BTC, day]
        assert (key.rows, key.in_vain, words in key.error) == (0, True, True)
        (said,) = warehouse.coverage("mark_candles_1m", symbol=BTC)
        assert (said.state, words in said.reason, said.retry_at is not None) == (CoverageState.UNKNOWN, True, True)


async def test_snapshots_of_open_interest_that_were_missed_are_in_the_ledger(
    local_exchange, client, exchange, warehouse, versions, clock
):
    """
    A quarter of an hour whose answer failed, and those in which nobody asked: each listed once, as gone for good.
    """
    quarter = 900_000
    now = clock()
    noon = now - now % DAY + DAY // 2

    async def snapshot(at):
        return await snapshot_open_interest(
            client, exchange, warehouse, versions, [BTC, ETH], now_ms=lambda: at, **PLACE
        )

    held = OpenInterest(noon - 30_000, 1.0)
    warehouse.store_open_interest([(BTC, held, None), (ETH, held, None)], version=1, run_id="r", source="local")
    with local_exchange.faulty("error_code", "/open-interest", code="40017"):
        failed = await snapshot(noon + quarter)
    assert set(failed.failed) == {BTC, ETH}
    for symbol in (BTC, ETH):
        (said,) = warehouse.coverage("open_interest", symbol=symbol)
        assert (said.state, said.interval) == (CoverageState.UNAVAILABLE, Interval(noon + quarter, noon + 2 * quarter))
        assert "40017" in said.reason

    await snapshot(noon + quarter + 60_000)  # asked for once more, in time
    (said,) = warehouse.coverage("open_interest", symbol=BTC)
    assert said.state is CoverageState.COMPLETE
    again = OpenInterest(noon + quarter, 1.0)
    warehouse.store_open_interest([(BTC, again, None)], version=1, run_id="r", source="local")
    for _ in range(2):
        await snapshot(noon + 4 * quarter)
    missed = [one for one in warehouse.coverage("open_interest", symbol=BTC) if one.state is CoverageState.UNAVAILABLE]
    assert [one.interval for one in missed] == [Interval(noon + 2 * quarter, noon + 4 * quarter)]


async def test_settlements_that_the_recount_misses_are_fetched_again(warehouse, versions, collect, clock):
    """
    Lost in the middle, where the newest page meets what is stored: the next walk goes on through it.
    """
    await collect(BTC, days=20)
    stored = warehouse.funding(BTC, source="local")
    gone = stored[len(stored) // 2].settled_ms
    warehouse.command(
        "ALTER TABLE funding_rates DELETE WHERE toUnixTimestamp64Milli(settled_at) = {ms:Int64} "
        "SETTINGS mutations_sync = 2",
        {"ms": gone},
    )
    assert len(warehouse.funding(BTC, source="local")) == len(stored) - 1
    found = await recount(warehouse, versions, now_ms=clock, **PLACE)
    assert ([one.stream for one in found.wrong], found.lost) == (["funding_rates"], 1)
    assert CoverageState.UNKNOWN in {one.state for one in warehouse.coverage("funding_rates", symbol=BTC)}

    assert (await collect(BTC, days=20)).rows == 1
    assert warehouse.funding(BTC, source="local") == stored
    assert {one.state for one in warehouse.coverage("funding_rates", symbol=BTC)} == {CoverageState.COMPLETE}
    assert not (await recount(warehouse, versions, now_ms=clock, **PLACE)).wrong


@pytest.mark.parametrize("lever", ["bad_json", "region_block"])
async def test_funding_that_cannot_be_read_is_named_and_stores_nothing(local_exchange, warehouse, collect, lever):
    """
    A page that is cut off, or a region block.
    """
    with local_exchange.faulty(lever, "/history-fund-rate"):
        report = await collect(BTC, days=10)
    assert (set(report.failed), report.rows) == ({BTC}, 0)
    assert warehouse.coverage("funding_rates") == []


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

    held = await snapshot_open_interest(client, exchange, warehouse, versions, [symbol], now_ms=clock, **PLACE)
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
