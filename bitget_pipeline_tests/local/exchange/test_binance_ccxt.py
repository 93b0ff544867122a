"""Fidelity of the Binance side, judged by somebody else's client: unmodified ccxt and ccxt.pro, but for their addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ccxt.async_support
import ccxt.pro
import pytest

from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running

MARKETS = ("BTC/USDT", "BTC/USDT:USDT")
TYPES = {"fetchMarkets": {"types": ["spot", "linear"]}}


@pytest.fixture
async def strict() -> AsyncIterator[LocalExchange]:
    """A small exchange that plays Binance and enforces its limits: ccxt keeps them by itself."""
    config = ExchangeConfig(spot_instruments=60, usdtm_instruments=60, usdcm=6, active_per_market=8, binance=True)
    async with running(config) as exchange:
        yield exchange


def _pointed(client: Any, exchange: LocalExchange) -> Any:
    address = exchange.binance.address
    api = client.urls["api"]
    for name, url in api.items():
        if name == "ws":
            spot = f"{address.ws_url('spot')}/stream"  # it knows spot by the word "stream" in the address
            api["ws"] = {
                "spot": spot,
                "linear": address.ws_url("usdtm").replace("/market", ""),
            }  # it adds the class itself
        elif isinstance(url, str):
            market = "usdtm" if name.startswith("fapi") else "spot"
            api[name] = address.rest_url(market) + "/" + url.split("/", 3)[3]
    return client


@pytest.fixture
async def ccxt_rest(strict: LocalExchange) -> AsyncIterator[Any]:
    """ccxt's asynchronous REST client."""
    client = _pointed(ccxt.async_support.binance({"options": TYPES, "timeout": 60_000}), strict)
    yield client
    await client.close()


@pytest.fixture
async def ccxt_pro(strict: LocalExchange) -> AsyncIterator[Any]:
    """ccxt's socket client. On futures it asks for joined trades, the only ones that are documented."""
    names = {"watchTrades": {"name": "aggTrade"}, "watchTradesForSymbols": {"name": "aggTrade"}}
    client = _pointed(ccxt.pro.binance({"options": TYPES | names, "timeout": 60_000}), strict)
    yield client
    await client.close()


async def test_ccxt_reads_everything_over_http(ccxt_rest: Any, strict: LocalExchange):
    """Markets, time, tickers, bars and pages of trades."""
    markets = await ccxt_rest.load_markets()
    assert {"BTC/USDT", "BTC/USDT:USDT", "BTC/USDC:USDC", "1000PEPE/USDT:USDT"} <= markets.keys()
    precision = markets["BTC/USDT"]["precision"]
    assert (precision["amount"], precision["price"]) == (1e-6, 0.01)
    assert markets["BTC/USDT:USDT"]["swap"] is True
    before = strict.now_ms()
    assert before <= await ccxt_rest.fetch_time() <= strict.now_ms()
    tickers = await ccxt_rest.fetch_tickers(["BTC/USDT", "ETH/USDT"])
    assert tickers["BTC/USDT"]["last"] > tickers["ETH/USDT"]["last"] > 0
    for symbol in MARKETS:
        since = (strict.now_ms() - 3_600_000) // 60_000 * 60_000
        bars = await ccxt_rest.fetch_ohlcv(symbol, "1m", since=since, limit=30)
        assert [bar[0] for bar in bars] == [since + n * 60_000 for n in range(30)]
        trades = await ccxt_rest.fetch_trades(symbol, since=since, limit=100)
        assert len(trades) == 100
        assert {trade["side"] for trade in trades} == {"buy", "sell"}
        after = await ccxt_rest.fetch_trades(symbol, limit=5, params={"fromId": int(trades[-1]["id"]) + 1})
        assert int(after[0]["id"]) == int(trades[-1]["id"]) + 1


async def test_ccxt_knows_our_errors(ccxt_rest: Any, strict: LocalExchange):
    """An unknown symbol, too many requests, a page that is no JSON, a blocked region: each is ccxt's own exception."""
    with strict.binance.faulty("rate_limit_storm"), pytest.raises(ccxt.DDoSProtection):
        await ccxt_rest.fetch_time()
    with strict.binance.faulty("html_502"), pytest.raises(ccxt.NetworkError):
        await ccxt_rest.fetch_time()
    with strict.binance.faulty("region_block"), pytest.raises(ccxt.ExchangeNotAvailable):
        await ccxt_rest.fetch_time()
    with pytest.raises(ccxt.BadSymbol):
        await ccxt_rest.public_get_klines({"symbol": "NOPEUSDT", "interval": "1m"})


@pytest.mark.parametrize("symbol", MARKETS)
async def test_ccxt_pro_watches(ccxt_pro: Any, symbol: str):
    """Trades and bars over one socket."""
    seen: dict[str, Any] = {}
    while len(seen) < 10:
        seen |= {trade["id"]: trade for trade in await ccxt_pro.watch_trades(symbol)}
    assert all(trade["price"] > 0 and trade["amount"] > 0 for trade in seen.values())
    assert (await ccxt_pro.watch_ohlcv(symbol))[-1][4] > 0
