"""
A live run with a failover, for tests: in this process, or as a process of its own that a test can kill.

`python -m bitget_pipeline_tests.pipeline.failover_runner '<json>'` with the fields of Pair; says each stage on stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import msgspec

from bitget_pipeline.exchange.registry import get, substitute
from bitget_pipeline.feed.websocket import SocketAddress
from bitget_pipeline.guard.rate_limit import BudgetRules
from bitget_pipeline.history.client import HttpAddress, Patience, opened_for
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.stand_in import StandIn, Verdict
from bitget_pipeline.pipeline.beside.stand_in_feed import Second
from bitget_pipeline.pipeline.beside.substitute import Failover
from bitget_pipeline.pipeline.live.flush import FlushRules
from bitget_pipeline.pipeline.live.run import LiveStores, run_live
from bitget_pipeline.pipeline.live.stages import Stages
from bitget_pipeline.pipeline.watch.failover import FailoverRules
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect, connect_sync
from bitget_pipeline.storage.stream import TradeStream
from bitget_pipeline.storage.substitution import Substitutions, Wishes
from bitget_pipeline.storage.warehouse import Warehouse

from .live_runner import Where, plan_for, stores_at

QUICK = FailoverRules(
    silent_after=2.5, probe_every=0.4, probes_within=2.5, steady_for=2.0, longest_steady=8.0, stalled_after=10.0
)
"""The proportions of the real rules in a fraction of their time; a machine that stands still for a while is no laptop asleep."""


class Pair(msgspec.Struct, frozen=True):
    """A live run's surroundings, and where each market's substitute is: REST and websocket."""

    where: Where
    substitutes: dict[str, tuple[str, str]]


def pair_of(where: Where, server: LocalExchange) -> Pair:
    """The local exchange as both venues."""
    address = server.binance.address
    return Pair(where, {market: (address.rest_url(market), address.ws_url(market)) for market in ("spot", "usdtm")})


def stand_in_for_itself(warehouse: Warehouse, symbols: tuple[Symbol, ...]) -> None:
    """What discovery would decide: each has the instrument of the same name as its stand-in."""
    decided = [StandIn(one, Verdict.MATCHED, one.name, decided_ms=1) for one in symbols]
    warehouse.store_stand_ins(decided, venue="binance", run_id="map")


@contextlib.asynccontextmanager
async def failover_of(pair: Pair, stores: LiveStores, rules: FailoverRules) -> AsyncIterator[Failover]:
    """The companion, over clients that are open for the length of a block."""
    where = pair.where
    client = connect(RedisAddress("127.0.0.1", where.redis_port))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        seconds = []
        for name, (rest_url, ws_url) in pair.substitutes.items():
            venue = substitute(Market(name))
            assert venue is not None
            budget = Budget(client, where.prefix, f"binance-{name}", rules=BudgetRules())
            patience = Patience(attempts=3, deadline=10.0, first_wait=0.05, longest_wait=0.5)
            http = await stack.enter_async_context(opened_for(venue, HttpAddress(rest_url), budget, patience=patience))
            stream = TradeStream(client, where.prefix, "0", source=venue.source)
            seconds.append(Second(venue, http, SocketAddress(ws_url), stream))
        yield Failover(
            seconds,
            stores,
            Substitutions(client, where.prefix, "0"),
            rules=rules,
            flush_rules=FlushRules(max_wait=0.2, block_ms=100),
            every=0.2,
        )


@dataclass
class Running:
    """A live run with a failover, wherever it runs, as Redis tells of it."""

    overview: Overview
    wishes: Wishes

    @classmethod
    def watching(cls, pair: Pair) -> Running:
        """Whichever run holds the lease."""
        where = pair.where
        client = connect_sync(RedisAddress("127.0.0.1", where.redis_port))
        return cls(Overview(client, where.prefix, "0"), Wishes(client, where.prefix, "0"))

    def run_id(self) -> str:
        published = self.overview.published()
        return "" if published is None else str(published.overall["run_id"])

    def stored(self) -> int:
        published = self.overview.published()
        return 0 if published is None else int(published.overall["stored"])

    def said(self, market: str) -> dict[str, object]:
        """What is published of a market's failover; empty before the first word."""
        published = self.overview.published()
        found = {} if published is None else published.overall.get("failover", {})
        return dict(found.get(market, {}))

    def state(self, market: str) -> object:
        return self.said(market).get("state")


@contextlib.asynccontextmanager
async def running_pair(pair: Pair, clock: Callable[[], int], *, rules: FailoverRules = QUICK) -> AsyncIterator[Running]:
    """A live run for the length of a block; cancelled at its end if it still runs."""
    where = pair.where
    async with stores_at(where) as stores, failover_of(pair, stores, rules) as failover:
        walk = run_live(
            replace(plan_for(where), sockets_within=await failover.sockets_within()),
            stores,
            get("bitget"),
            clock=clock,
            stop=asyncio.Event(),
            stages=Stages(where.run_id, control=stores.control),
            companions=(failover,),
        )
        task = asyncio.create_task(walk)
        try:
            yield Running.watching(pair)
        finally:
            ended = task.done()
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            assert not ended, outcome


async def main(pair: Pair) -> None:
    """Run until killed."""
    async with stores_at(pair.where) as stores, failover_of(pair, stores, QUICK) as failover:
        await run_live(
            replace(plan_for(pair.where), sockets_within=await failover.sockets_within()),
            stores,
            get("bitget"),
            clock=lambda: round(time.time() * 1000) + pair.where.ahead_ms,
            stop=asyncio.Event(),
            rng=random.Random(1),
            stages=Stages(pair.where.run_id, on_stage=lambda stage: print(stage, flush=True), control=stores.control),
            companions=(failover,),
        )


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Pair)))
