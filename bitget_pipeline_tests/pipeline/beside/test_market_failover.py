"""One market's failover on its own: which markets are looked after, by whose silence, and what outlives a run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bitget_pipeline.local.exchange import LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.beside.substitute import Failover
from bitget_pipeline.pipeline.live.companion import Writing
from bitget_pipeline.pipeline.live.plan import LiveStores
from bitget_pipeline.pipeline.live.state import LiveState
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.substitution import Substitutions
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import SMALL, until
from ..failover_runner import QUICK, Pair, failover_of, pair_of
from ..live_runner import Where, stores_at

SPOT, USDTM = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "BTCUSDT")
COINM = Symbol(Market.COINM, "BTCUSD")
QUIET = tuple(Symbol(Market.SPOT, name) for name in ("AUSDT", "BUSDT", "CUSDT"))


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    """One that plays both venues, quick to make."""
    async with running(replace(SMALL, spot_instruments=8, usdtm_instruments=8, binance=True)) as server:
        yield server


@pytest.fixture
def pair(where: Where, local_exchange: LocalExchange) -> Pair:
    return pair_of(where, local_exchange)


@contextlib.asynccontextmanager
async def watching(pair: Pair, symbols: Sequence[Symbol], *, state: LiveState | None = None) -> AsyncIterator[Failover]:
    """The companion beside a live run that hears nothing."""
    async with stores_at(pair.where) as stores, failover_of(pair, stores, QUICK) as failover:
        task = asyncio.create_task(failover.run(_writing(stores, state or LiveState(symbols)), symbols))
        try:
            yield failover
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _writing(stores: LiveStores, state: LiveState) -> Writing:
    return Writing(1, "run-1", "local", lambda: time.time_ns() // 1_000_000, state=state)


def said(failover: Failover, market: str) -> dict[str, Any]:
    return dict(failover.published().get(market, {}))


async def test_a_market_that_joins_a_running_run_is_looked_after_too(pair: Pair, local_exchange: LocalExchange) -> None:
    """
    Its own probes, its own verdict; one that nobody stands in for says so as soon as it is collected.
    """
    async with watching(pair, [SPOT]) as failover:
        await until(lambda: said(failover, "spot").get("state") == "ours", what="the first")
        assert set(failover.published()) == {"spot"}
        failover.selected([SPOT, USDTM, COINM])
        await until(lambda: said(failover, "usdtm").get("substitute_answers"), what="the other venue's answer")
        assert said(failover, "coinm") == {"state": "none", "reason": "nobody stands in for it"}
        with local_exchange.faulty("dark"):
            await until(lambda: said(failover, "usdtm")["probes_failing"] >= 2, what="probes of ours")


async def test_symbols_that_are_all_quiet_make_no_failover(pair: Pair, local_exchange: LocalExchange) -> None:
    """
    Their silence is nothing unusual: only what is heard often makes a major, and until then it is said that there is none.
    """
    state = LiveState(QUIET)
    async with watching(pair, QUIET, state=state) as failover:
        await until(lambda: said(failover, "spot").get("substitute_answers"), what="probes")
        with local_exchange.faulty("dark"):
            await until(lambda: said(failover, "spot")["probes_failing"] >= 2, what="probes that fail")
            assert "silence would tell" in said(failover, "spot")["reason"]
            assert said(failover, "spot") | {"state": "ours", "majors": 0, "silent_seconds": 0.0} == said(
                failover, "spot"
            )
            for symbol in QUIET:
                for second in range(20):
                    state.of(symbol).paced.heard(now=float(second))
            await until(lambda: said(failover, "spot")["majors"] == 3, what="majors")
            await until(lambda: said(failover, "spot")["nobody"], what="the darkness that is seen now")


async def test_a_darkness_without_a_substitute_outlives_the_run_that_saw_it(
    pair: Pair, local_exchange: LocalExchange, warehouse: Warehouse
) -> None:
    """
    The run that follows goes on with the one incident, does not take its own start for light, and ends it when it is over.
    """

    def incidents() -> list[tuple[str, bool]]:
        return [
            (name, bool(over))
            for name, over in warehouse.query(
                "SELECT incident_id, closed_at IS NOT NULL FROM incidents_final WHERE kind = 'failover_nobody'"
            )
        ]

    async def kept() -> Any:
        client = connect(RedisAddress("127.0.0.1", pair.where.redis_port))
        found = (await Substitutions(client, pair.where.prefix, "0").load()).get(Market.SPOT)
        await client.aclose()
        return found.nobody if found else None

    with contextlib.ExitStack() as dark:
        dark.enter_context(local_exchange.faulty("dark"))
        dark.enter_context(local_exchange.binance.faulty("dark"))
        async with watching(pair, [SPOT]):
            await until(lambda: len(incidents()) == 1, what="the incident")
            await until(kept, what="what the next run goes on with")
        ((name, over),) = incidents()
        assert not over
        assert (await kept()).incident_id == name
        async with watching(pair, [SPOT]) as failover:
            await until(lambda: said(failover, "spot").get("nobody"), what="what the run before said")
            await until(
                lambda: (
                    said(failover, "spot")["probes_failing"] >= 2 and said(failover, "spot")["silent_seconds"] > 4.0
                ),
                what="the darkness that it sees itself",
            )
            assert said(failover, "spot")["nobody"]
        assert incidents() == [(name, False)]
    async with watching(pair, [SPOT]) as failover:
        await until(lambda: incidents() == [(name, True)], what="its end")
        await until(lambda: not said(failover, "spot")["nobody"], what="its last word")

        async def forgotten() -> bool:
            return await kept() is None

        await until(forgotten, what="Redis")
