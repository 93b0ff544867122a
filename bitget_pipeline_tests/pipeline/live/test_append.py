"""The order of trades and breaks on their way into the stream decides what is a gap."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
import redis.asyncio

from bitget_pipeline.errors import StoreUnavailable
from bitget_pipeline.exchange.contract import Channel, Subscription, TradesFrame
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import AtRest, Broke, Trade, TradeBatch
from bitget_pipeline.pipeline.live import append
from bitget_pipeline.pipeline.live.append import Appender
from bitget_pipeline.pipeline.live.continuity import Continuity, Gap
from bitget_pipeline.pipeline.live.door import Door
from bitget_pipeline.pipeline.live.intake import Intake
from bitget_pipeline.pipeline.live.state import LiveState
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.spill import Spill
from bitget_pipeline.storage.stream import TradeStream

BTC = Symbol(Market.SPOT, "BTCUSDT")
ETH = Symbol(Market.SPOT, "ETHUSDT")


def a_batch(*ids: int, symbol: Symbol = BTC, snapshot: bool = False) -> TradeBatch:
    return TradeBatch(symbol, [Trade(i, i, 1.0, 1.0, True) for i in ids], 5, snapshot)


class Bench:
    """An appender over the real Redis, and what it found."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, spill: Spill | None = None) -> None:
        self.client = client
        self.stream = TradeStream(client, prefix, "0", capacity=10)
        self.lease = Lease(client, prefix, "0")
        self.spill = spill
        self.gaps: list[Gap] = []
        self.fence = 0
        self.identity = "one"
        self.stored: dict[Symbol, int] = {}  # through which id ClickHouse holds a symbol

    async def start(self, owner: str = "run") -> None:
        """A new run: it knows what the anchors say and no more."""
        self.fence = await self.lease.take(owner, 60)
        await self.stream.trust()
        anchors = await self.stream.anchors()
        self.state = LiveState([BTC, ETH])
        self.intake = Intake(self.state)
        self.appender = Appender(
            self.intake,
            self.stream,
            Continuity([BTC, ETH], newest={symbol: anchor.highest_id for symbol, anchor in anchors.items()}),
            Door(),
            self.state,
            fence=self.fence,
            store_identity=self._identity,
            on_gap=self.gaps.append,
            at_rest=self._at_rest,
            spill=self.spill,
            pause=lambda failures: 0.0,
        )
        await self.appender.check_store()

    async def _at_rest(self, symbols: Collection[Symbol]) -> Mapping[Symbol, AtRest]:
        return {symbol: AtRest(self.stored[symbol]) for symbol in symbols if symbol in self.stored}

    async def _identity(self) -> str:
        return self.identity

    async def bring(self, *items: TradeBatch | Broke) -> None:
        """These arrive, and are appended."""
        for item in items:
            if isinstance(item, Broke):
                self.intake.items.append(item)
            else:
                self.intake.frame(TradesFrame(item))
        await self.appender.drain()

    async def ids(self) -> list[int]:
        """What is in the stream, in order."""
        return [trade.trade_id for entry in await self.stream.read("me", 1000, None) for trade in entry.batch.trades]


@pytest.fixture
async def bench(
    redis_client: redis.asyncio.Redis, redis_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setattr(append, "LAST_APPEND_WITHIN", 60.0)  # nobody hurries: a slow call is none that failed
    bench = Bench(redis_client, redis_prefix, Spill(tmp_path))
    await bench.start()
    return bench


async def test_a_break_is_judged_by_what_comes_after_it(bench: Bench) -> None:
    """
    Trades, a break and the next trades reach the same call: those before it prove nothing about it.
    """
    await bench.bring(a_batch(1, 2, snapshot=True))
    await bench.bring(a_batch(3), Broke((BTC,)), a_batch(8, 9, snapshot=True), a_batch(10))

    assert bench.gaps == [Gap(BTC, 3, 8)]
    assert (await bench.stream.anchors())[BTC].gap is not None
    assert await bench.ids() == [1, 2, 3, 8, 9, 10]


async def test_a_break_that_the_snapshot_bridges_is_no_gap(bench: Bench) -> None:
    """
    The snapshot after the break holds the last trade before it.
    """
    await bench.bring(a_batch(1, 2, snapshot=True))
    await bench.bring(a_batch(3), Broke((BTC,)), a_batch(2, 3, 4, snapshot=True), a_batch(5))

    assert bench.gaps == []
    assert await bench.ids() == [1, 2, 3, 4, 5]


async def test_a_snapshot_stays_apart_from_what_follows_on_it(bench: Bench) -> None:
    """
    All of it reaches the same call: the lags of the trades that came live are not measured from those of the snapshot.
    """
    await bench.bring(a_batch(1, 2, snapshot=True), a_batch(3), a_batch(100, symbol=ETH, snapshot=True), a_batch(4, 5))

    entries = [entry.batch for entry in await bench.stream.read("me", 1000, None)]
    found = {(batch.symbol, batch.snapshot): [trade.trade_id for trade in batch.trades] for batch in entries}
    assert found == {(BTC, True): [1, 2], (BTC, False): [3, 4, 5], (ETH, True): [100]}
    assert bench.gaps == []


async def test_what_a_predecessor_spilled_follows_on_what_it_appended(bench: Bench) -> None:
    """
    The successor knows from the spill itself that nothing is missing before it; and that after it something may be.
    """
    await bench.bring(a_batch(1, 2, snapshot=True), a_batch(100, symbol=ETH, snapshot=True))
    for number in range(8):
        await bench.stream.append([a_batch(number + 1000, symbol=Symbol(Market.SPOT, "SOLUSDT"))], fence=bench.fence)
    with pytest.raises(Exception, match="bound"):
        await bench.bring(a_batch(3), a_batch(101, symbol=ETH), a_batch(4))
    assert bench.state.spilled == 3
    await bench.client.delete(f"{bench.stream._stream}")

    assert await bench.lease.break_("run")
    await bench.start("successor")
    await bench.bring(a_batch(4, 5, snapshot=True), a_batch(110, symbol=ETH, snapshot=True))

    assert bench.gaps == [Gap(ETH, 101, 110)]
    assert set(await bench.ids()) == {3, 4, 5, 101, 110}
    assert bench.spill is not None
    assert bench.spill.files() == []


async def test_a_redis_that_lost_its_last_second_is_noticed_before_the_next_append(
    bench: Bench, redis_client: redis.asyncio.Redis
) -> None:
    """
    A restart forgets the scripts: the append is refused, the anchors are read anew, and what they lack is a gap.
    """
    await bench.bring(a_batch(1, 2, snapshot=True))
    highest = {symbol: anchor.highest_id for symbol, anchor in (await bench.stream.anchors()).items()}
    await bench.bring(a_batch(3))
    await redis_client.hset(bench.stream._anchors, str(BTC), f"{highest[BTC]:020d}|")
    await redis_client.script_flush()

    with pytest.raises(StoreUnavailable, match="restarted"):
        await bench.bring(a_batch(4))
    with pytest.raises(StoreUnavailable, match="restarted"):
        await bench.stream.append([a_batch(1)], fence=bench.fence)
    await bench.bring(a_batch(5))

    assert bench.gaps == [Gap(BTC, 2, 4)]


async def test_a_redis_that_knows_a_symbol_no_more_leaves_a_gap_from_what_is_stored(
    bench: Bench, redis_client: redis.asyncio.Redis
) -> None:
    """
    Its anchor is gone with the entries of it: what follows does not begin a new symbol, it follows on ClickHouse's.
    """
    await bench.bring(a_batch(1, 2, snapshot=True), a_batch(3))
    bench.stored = {BTC: 1}
    await redis_client.hdel(bench.stream._anchors, str(BTC))
    await redis_client.script_flush()

    with pytest.raises(StoreUnavailable, match="restarted"):
        await bench.bring(a_batch(4))
    await bench.bring(a_batch(5))

    assert bench.gaps == [Gap(BTC, 1, 4)]


async def test_a_symbol_that_joins_follows_on_what_is_stored_of_it(bench: Bench) -> None:
    """
    It was collected before, and Redis does not know it: what was traded meanwhile is a gap.
    """
    joins = Symbol(Market.SPOT, "SOLUSDT")
    bench.stored = {joins: 3}
    bench.intake.lost([Subscription(joins, Channel.TRADE)])
    await bench.bring(a_batch(8, 9, symbol=joins, snapshot=True), a_batch(10, symbol=joins))

    assert bench.gaps == [Gap(joins, 3, 8)]
