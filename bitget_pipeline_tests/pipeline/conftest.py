"""
What the tests of the walks share: a local exchange, and a client that asks it within a rate budget.

The stores are real (bitget_pipeline_tests/conftest.py), the exchange is the local one over real sockets; nothing is mocked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp
import msgspec
import pytest
import redis.asyncio

from bitget_pipeline.exchange.contract import Exchange
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.history.client import HistoryClient, HttpAddress, Patience, opened
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.trade import Trade
from bitget_pipeline.pipeline.live import paces
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

from .live_runner import Where

SMALL = ExchangeConfig(
    spot_instruments=40, usdtm_instruments=20, coinm=2, usdcm=2, active_per_market=8, trades_per_second=200.0
)
"""A market that is quick to make, yet has busy, quiet and silent symbols."""

SYMBOLS = tuple(
    Symbol(market, name) for market in (Market.SPOT, Market.USDTM) for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT")
)
"""What a live run collects here, unless the tests of a file have `SYMBOLS` of their own."""


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    """A running local exchange of its own."""
    async with running(SMALL) as server:
        yield server


@pytest.fixture
def exchange() -> Exchange:
    """What speaks the exchange's protocol on our side."""
    return get("bitget")


@pytest.fixture
async def client(
    local_exchange: LocalExchange, exchange: Exchange, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> AsyncIterator[HistoryClient]:
    """A client to the local exchange, with little patience and the real budget."""
    budget = Budget(redis_client, redis_prefix, "test")
    patience = Patience(attempts=12, deadline=60.0, first_wait=0.05, longest_wait=0.5)
    async with opened(exchange, HttpAddress(local_exchange.rest_url), budget, patience=patience) as client:
        yield client


@pytest.fixture
def versions(redis_client: redis.asyncio.Redis, redis_prefix: str) -> Versions:
    """The counter of versions."""
    return Versions(redis_client, redis_prefix, floor=lambda: 0)


@pytest.fixture
def clock(local_exchange: LocalExchange) -> Callable[[], int]:
    """Market time."""
    return local_exchange.now_ms


async def _lines(server: LocalExchange, path: str, **params: object) -> list[dict[str, object]]:
    query = {name: str(value) for name, value in params.items()}
    async with aiohttp.ClientSession() as session, session.get(f"{server.rest_url}{path}", params=query) as answer:
        assert answer.status == 200, await answer.text()
        return [msgspec.json.decode(line) for line in (await answer.read()).splitlines()]


async def true_candles(
    server: LocalExchange, symbol: Symbol, within: Interval, resolution: Resolution = Resolution.M1
) -> list[Candle]:
    """What the exchange's bars were, whatever it served."""
    rows = await _lines(
        server,
        "/admin/truth/candles",
        market=symbol.market.value,
        symbol=symbol.name,
        resolution=resolution.value,
        **{"from": within.start_ms, "to": within.end_ms},
    )
    return [_candle(row) for row in rows]


async def true_trades(server: LocalExchange, symbol: Symbol, within: Interval) -> list[Trade]:
    """What was traded, whatever the exchange sent."""
    rows = await _lines(
        server,
        "/admin/truth/trades",
        market=symbol.market.value,
        symbol=symbol.name,
        **{"from": within.start_ms, "to": within.end_ms},
    )
    return [_trade(row) for row in rows]


def _candle(row: dict[str, object]) -> Candle:
    names = ("open", "high", "low", "close", "base_volume", "quote_volume")
    return Candle(int(str(row["open_ms"])), *(float(str(row[name])) for name in names))


def _trade(row: dict[str, object]) -> Trade:
    price, size = float(str(row["price"])), float(str(row["size"]))
    return Trade(int(str(row["trade_id"])), int(str(row["ts_ms"])), price, size, row["side"] == "buy")


async def until(true: Callable[[], object], *, within: float = 60.0, what: str = "") -> None:
    """Wait for a condition, long enough for a machine with much else to do."""
    deadline = time.monotonic() + within
    while True:
        answer = true()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline, f"waited {within} s in vain{f' for {what}' if what else ''}"
        await asyncio.sleep(0.05)


async def all_written(overview: Overview, *, within: float = 60.0) -> None:
    """
    Wait until what is in the stream by now is in ClickHouse. More comes all the while, so there may always be something pending.
    """
    asked = time.monotonic()

    def true() -> bool:
        passed = time.monotonic() - asked
        age = overview.backlog().oldest_age
        return age is None or age < passed

    await until(true, within=within, what="stored rows")


async def all_stored(
    warehouse: Warehouse, server: LocalExchange, within: Interval, symbols: Sequence[Symbol] = SYMBOLS
) -> None:
    """
    Wait until as many trades are in ClickHouse as were made: after a machine stood still they are on their way for longer.
    """

    async def true() -> bool:
        for symbol in symbols:
            made = await true_trades(server, symbol, within)
            if len(warehouse.trades(symbol, within, source="local")) < len(made):
                return False
        return True

    await until(true, what="every trade to be stored")


@pytest.fixture
def asked_patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live run waits for the paces that were learned before, however slow this machine is: the test is about them."""
    monkeypatch.setattr(paces, "ASKED_WITHIN", 60.0)


@pytest.fixture
def where(
    request: pytest.FixtureRequest,
    local_exchange: LocalExchange,
    redis_address: RedisAddress,
    redis_prefix: str,
    warehouse: Warehouse,
) -> Where:
    """Where a live run finds everything, and what it collects: the `SYMBOLS` of the test's file, else those above."""
    address = warehouse.address
    symbols = tuple(str(symbol) for symbol in getattr(request.module, "SYMBOLS", SYMBOLS))
    stores = (redis_address.port, redis_prefix, address.port, address.database)
    return Where(local_exchange.rest_url, local_exchange.ws_url, *stores, symbols, "run-1")
