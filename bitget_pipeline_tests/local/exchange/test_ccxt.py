"""Fidelity, judged by somebody else's client: unmodified ccxt and ccxt.pro, but for their base addresses."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import ccxt.async_support
import ccxt.pro
import pytest

from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running

MARKETS = ("BTC/USDT", "BTC/USDT:USDT")
DAY = 86_400_000


@pytest.fixture
async def strict() -> AsyncIterator[LocalExchange]:
    """A small exchange that enforces its limits: ccxt keeps them by itself."""
    async with running(ExchangeConfig(spot_instruments=60, usdtm_instruments=60, usdcm=6, active_per_market=8)) as x:
        yield x


def _pointed(client: Any, exchange: LocalExchange) -> Any:
    api = client.urls["api"]
    for name, address in api.items():
        if name == "ws":
            api["ws"] = dict.fromkeys(address, exchange.ws_url)
        elif isinstance(address, str):
            api[name] = exchange.rest_url
    return client


@pytest.fixture
async def ccxt_rest(strict: LocalExchange) -> AsyncIterator[Any]:
    """ccxt's asynchronous REST client."""
    client = _pointed(ccxt.async_support.bitget({"timeout": 60_000}), strict)
    yield client
    await client.close()


@pytest.fixture
async def ccxt_pro(strict: LocalExchange) -> AsyncIterator[Any]:
    """ccxt's socket client."""
    client = _pointed(ccxt.pro.bitget({"timeout": 60_000}), strict)
    yield client
    await client.close()


async def test_ccxt_loads_markets_and_tickers(ccxt_rest: Any, strict: LocalExchange):
    """Spot, linear, inverse and delivery; non-ASCII; margin flags; precisions."""
    markets = await ccxt_rest.load_markets()
    assert {"BTC/USDT", "BTC/USDT:USDT", "BTC/USD:BTC", "BTC/USDC:USDC", "牛来/USDT:USDT"} <= markets.keys()
    assert any(market["future"] for market in markets.values())
    assert markets["BTC/USDT"]["margin"] is True
    assert markets["BTC/USDT"]["precision"] == {"amount": 1e-6, "price": 0.01}
    assert ccxt_rest.currencies["BTC"]["active"] is True
    before = strict.now_ms()
    assert before <= await ccxt_rest.fetch_time() <= strict.now_ms()
    spot = await ccxt_rest.fetch_tickers()
    swaps = await ccxt_rest.fetch_tickers(params={"type": "swap"})
    assert len(spot) == 60
    assert len(swaps) == 60
    assert swaps["BTC/USDT:USDT"]["quoteVolume"] > 1e6


@pytest.mark.parametrize("symbol", MARKETS)
async def test_ccxt_pages_candles(ccxt_rest: Any, symbol: str):
    """Recent and beyond retention: contiguous, opened at the previous close, the same from both endpoints."""
    now = ccxt_rest.milliseconds()
    old = await ccxt_rest.fetch_ohlcv(symbol, "1m", since=now - 40 * DAY, limit=500, params={"paginate": True})
    assert len(old) >= 500
    assert all(b[0] - a[0] == 60_000 and b[1] == a[4] for a, b in itertools.pairwise(old))
    since = (now - 3_600_000) // 60_000 * 60_000
    recent = await ccxt_rest.fetch_ohlcv(symbol, "1m", since=since, limit=30)
    again = await ccxt_rest.fetch_ohlcv(symbol, "1m", since=since, limit=30, params={"useHistoryEndpoint": True})
    assert len(recent) == 30
    assert recent[0][0] == since
    assert recent == again
    assert len(await ccxt_rest.fetch_ohlcv(symbol, "1h", since=now - 100 * DAY, limit=50)) == 50


@pytest.mark.parametrize("symbol", MARKETS)
async def test_ccxt_pages_trades(ccxt_rest: Any, symbol: str):
    """By cursor: no trade twice, sides known, newest within a second."""
    now = ccxt_rest.milliseconds()
    trades = await ccxt_rest.fetch_trades(symbol, since=now - 600_000, limit=200, params={"paginate": True})
    ids = [trade["id"] for trade in trades]
    assert len(ids) == len(set(ids)) > 100
    assert {trade["side"] for trade in trades} == {"buy", "sell"}
    book = await ccxt_rest.fetch_order_book(symbol)
    assert book["bids"][0][0] < book["asks"][0][0]


async def test_ccxt_reads_funding_and_open_interest(ccxt_rest: Any):
    """The futures' extras."""
    rate = await ccxt_rest.fetch_funding_rate("BTC/USDT:USDT")
    history = await ccxt_rest.fetch_funding_rate_history("BTC/USDT:USDT")
    interest = await ccxt_rest.fetch_open_interest("BTC/USDT:USDT")
    assert rate["interval"] == "8h"
    assert history[0]["fundingRate"] is not None
    assert interest["openInterestAmount"] > 0


async def test_ccxt_knows_our_errors(ccxt_rest: Any, strict: LocalExchange):
    """An unknown symbol, too many requests, a page that is no JSON: each becomes ccxt's own exception."""
    await ccxt_rest.load_markets()
    with strict.faulty("rate_limit_storm"), pytest.raises(ccxt.DDoSProtection):
        await ccxt_rest.fetch_time()
    with strict.faulty("html_502"), pytest.raises(ccxt.NetworkError):
        await ccxt_rest.fetch_time()
    with pytest.raises(ccxt.ExchangeError, match="40034"):
        await ccxt_rest.publicMixGetV2MixMarketFills({"symbol": "NOPEUSDT", "productType": "USDT-FUTURES"})


@pytest.mark.parametrize("symbol", MARKETS)
async def test_ccxt_pro_watches(ccxt_pro: Any, symbol: str):
    """Trades, candles, tickers and order books over one socket."""
    seen: dict[str, Any] = {}
    for _ in range(3):
        seen |= {trade["id"]: trade for trade in await ccxt_pro.watch_trades(symbol)}
    assert len(seen) > 30
    assert all(trade["price"] > 0 and trade["amount"] > 0 for trade in seen.values())
    candles = await ccxt_pro.watch_ohlcv(symbol)
    assert len(candles) > 100
    assert (await ccxt_pro.watch_ticker(symbol))["last"] > 0
    for _ in range(4):
        book = await ccxt_pro.watch_order_book(symbol)
        assert book["bids"][0][0] < book["asks"][0][0]


async def test_ccxt_pro_accepts_the_checksum_when_it_is_sent():
    """The documented CRC32 over the original strings, verified by ccxt on every update."""
    config = ExchangeConfig(
        spot_instruments=20, usdtm_instruments=20, usdcm=4, active_per_market=4, book_checksum=True, book_seconds=0.05
    )
    async with running(config) as exchange:
        client = _pointed(ccxt.pro.bitget({"timeout": 60_000}), exchange)
        try:
            for _ in range(10):
                book = await client.watch_order_book("BTC/USDT")
            assert len(book["bids"]) >= 200
        finally:
            await client.close()
