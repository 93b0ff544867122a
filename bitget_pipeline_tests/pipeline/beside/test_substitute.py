"""Another venue stands in while our exchange is dark, over real sockets: labelled, never in the way, and gone without a hole."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bitget_pipeline.local.exchange import LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import SMALL, true_trades, until
from ..failover_runner import Pair, Running, pair_of, running_pair, stand_in_for_itself
from ..live_runner import Where

SYMBOLS = tuple(Symbol(market, name) for market in (Market.SPOT, Market.USDTM) for name in ("BTCUSDT", "ETHUSDT"))
SOURCES = {Market.SPOT: "binance_trade", Market.USDTM: "binance_agg"}
MARKETS = [market.value for market in SOURCES]


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    """One that plays both venues."""
    from dataclasses import replace

    async with running(replace(SMALL, binance=True, trades_per_second=300.0)) as server:
        yield server


@pytest.fixture
def pair(where: Where, warehouse: Warehouse, local_exchange: LocalExchange) -> Pair:
    stand_in_for_itself(warehouse, SYMBOLS)
    return pair_of(where, local_exchange)


async def all_in(run: Running, *states: str, within: float = 25.0) -> None:
    await until(
        lambda: all(run.state(market) in states for market in MARKETS),
        within=within,
        what=f"{states}: {[run.said(market) for market in MARKETS]}",
    )


async def test_the_other_venue_stands_in_and_goes_without_a_hole(
    pair: Pair, local_exchange: LocalExchange, warehouse: Warehouse
) -> None:
    async with running_pair(pair, local_exchange.now_ms) as run:
        await until(lambda: run.stored() > 50, what="the first trades")
        await all_in(run, "ours")
        start = local_exchange.now_ms()
        with local_exchange.faulty("dark"):
            await all_in(run, "substituted")
            await until(
                lambda: all(run.said(m).get("switched_after_seconds") for m in MARKETS), what="their first trades"
            )
            print([run.said(m) for m in MARKETS])
            await until(lambda: all(run.said(m)["feed"]["rows"] > 50 for m in MARKETS), what="their rows")
        await all_in(run, "ours")
        print([run.said(m) for m in MARKETS])
        await until(lambda: all(run.said(m)["repairing"] == 0 for m in MARKETS), what="the repair")
        end = local_exchange.now_ms()
        print(warehouse.query("SELECT kind, market, what, details, closed_at FROM incidents_final"))
        for symbol in SYMBOLS:
            truth = await true_trades(local_exchange, symbol, Interval(start, end - 2000))
            stored = warehouse.trades(symbol, Interval(start, end - 2000), source="local")
            assert sorted(stored) == sorted(truth)
        print(warehouse.query("SELECT market, source, count() FROM trades_final GROUP BY 1,2"))
        print(
            warehouse.query("SELECT market, source, resolution, retired, count() FROM candles_live_final GROUP BY ALL")
        )
        print(warehouse.query("SELECT market, source, resolution, count() FROM candles_unified GROUP BY ALL"))
