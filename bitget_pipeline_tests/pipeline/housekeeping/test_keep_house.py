"""Redis and the spill folder: what is done with goes, what is not acknowledged elsewhere stays."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.retention import DAY_MS, days_kept
from bitget_pipeline.market.trade import Broke, Follows, Trade, TradeBatch
from bitget_pipeline.pipeline.housekeeping.keep_house import House, keep_house
from bitget_pipeline.pipeline.housekeeping.report import Freed, Report
from bitget_pipeline.storage.keys import latest_key, shelf_key
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.spill import Spill
from bitget_pipeline.storage.stream import TradeStream
from bitget_pipeline.storage.sweep import Sweep
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

BTC = Symbol(Market.SPOT, "BTCUSDT")
NOW = round(time.time() * 1000)


def a_batch(*ids: int) -> TradeBatch:
    """Trades of a moment ago."""
    return TradeBatch(BTC, [Trade(one, NOW - 60_000 + one, 1.0, 2.0, True) for one in ids], NOW)


@pytest.fixture
def house(
    warehouse: Warehouse, versions: Versions, redis_client: redis.asyncio.Redis, redis_prefix: str, tmp_path: Path
) -> House:
    """The stores of a live shard, and its folder of spill files."""
    stream, sweep = TradeStream(redis_client, redis_prefix, "0"), Sweep(redis_client, redis_prefix, "0")
    return House(warehouse, versions, stream, sweep, tmp_path, "local")


@pytest.fixture
async def fence(redis_client: redis.asyncio.Redis, redis_prefix: str) -> int:
    """The fence of a lease."""
    return await Lease(redis_client, redis_prefix, "0").take("run-1", ttl=60)


async def kept(house: House, *, dry: bool = False) -> dict[str, Freed]:
    """One time of housekeeping."""
    report = await keep_house(house, days_kept([]), now_ms=NOW, run_id="house", dry=dry)
    return {one.what: one for one in report.freed}


async def test_consumers_of_ended_runs_go_and_those_that_hold_something_stay(house: House, fence: int) -> None:
    """
    What a dead run read and did not store is still to be claimed: its name stays until that is done.
    """
    ids = await house.stream.append([a_batch(1), a_batch(2), a_batch(3)], fence=fence)
    await house.stream.read("holds", max_rows=1, block_ms=0)
    await house.stream.read("ended", max_rows=10, block_ms=0)
    await house.stream.acknowledge(ids[1:], fence=fence)

    assert await house.sweep.ended_consumers(dry=False) == 0  # it asked a moment ago
    assert await house.sweep.ended_consumers(dry=True, idle_ms=0) == 1
    assert await house.sweep.ended_consumers(dry=False, idle_ms=0) == 1
    assert [entry.id for entry in await house.stream.claim("next", idle_ms=0)] == ids[:1]
    assert await house.sweep.ended_consumers(dry=False, idle_ms=0) == 1  # "holds", now that it holds nothing


async def test_entries_that_are_not_stored_are_not_trimmed(house: House, fence: int) -> None:
    """
    Of three entries the two that were acknowledged go; the third waits, read or not.
    """
    ids = await house.stream.append([a_batch(1), a_batch(2), a_batch(3)], fence=fence)
    await house.stream.read("me", max_rows=2, block_ms=0)
    await house.stream.acknowledge(ids[:2], fence=fence)
    assert (await kept(house, dry=True))["stream entries that are stored"].items == 0
    assert (await kept(house))["stream entries that are stored"].items == 2
    assert await house.stream.length() == 1


async def test_what_was_to_vanish_gets_its_end_back(
    house: House, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    A newest book and a page without an end; whatever else lies under the prefix is left as it is.
    """
    keys = [
        latest_key(redis_prefix, "book", str(BTC)),
        shelf_key(redis_prefix, "x"),
        shelf_key(f"{redis_prefix}refresh:", "y"),
    ]
    for key in (*keys, f"{redis_prefix}versions"):
        await redis_client.set(key, "1")
    assert (await kept(house, dry=True))["keys without an end"].items == 3
    assert [await redis_client.ttl(key) for key in keys] == [-1] * 3

    assert (await kept(house))["keys without an end"].items == 3
    assert all([0 < await redis_client.ttl(key) <= 3_600 for key in keys])
    assert await redis_client.ttl(f"{redis_prefix}versions") == -1
    assert (await kept(house))["keys without an end"].items == 0


def spilled(house: House, *items: TradeBatch | Broke, old: bool = True) -> Path:
    """A file of a run that died a day ago, or just now."""
    spill = Spill(house.spills / "live-0")
    spill.own(len(spill.files()) + 1)
    spill.append(list(items), follows=lambda: Follows({}, frozenset()))
    spill.close()
    file = spill.files()[-1]
    if old:
        os.utime(file, (time.time() - 2 * 86_400,) * 2)
    return file


async def test_spill_file_goes_only_when_all_of_it_is_stored(house: House, fence: int) -> None:
    """
    Stored and bridged: it goes. Not drained, not stored, a break that is open, cut off, or young: it stays, and is said.
    """
    await house.stream.append([a_batch(1, 2, 3, 4)], fence=fence)
    house.warehouse.store_trades([a_batch(1, 2, 3)], source="local", run_id="run-1")
    stored, young = spilled(house, a_batch(1, 2)), spilled(house, a_batch(3), old=False)
    not_stored, not_drained = spilled(house, a_batch(3, 4)), spilled(house, a_batch(5))
    broken = spilled(house, Broke((Symbol(Market.SPOT, "NOBODY"),)))
    torn = spilled(house, a_batch(1))
    with torn.open("r+b") as file:
        file.truncate(torn.stat().st_size - 1)
    os.utime(torn, (time.time() - 2 * 86_400,) * 2)

    would = (await kept(house, dry=True))["spill files"]
    assert (would.items, would.kept, stored.exists()) == (1, 4, True)
    done = (await kept(house))["spill files"]
    assert (done.items, done.kept, done.problem) == (1, 4, "")
    assert done.bytes > 0
    assert not stored.exists()
    assert all(file.exists() for file in (young, not_stored, not_drained, broken, torn))
    for reason in ("cannot be read", "is not repaired", "is not drained", "are not stored"):
        assert reason in done.why


async def test_spill_file_stays_while_a_gap_before_its_end_is_open(house: House, fence: int) -> None:
    """
    All its trades are stored, but a break before them is not repaired yet.
    """
    await house.stream.append([a_batch(1)], fence=fence)
    await house.stream.append([a_batch(9)], fence=fence, gaps=[(BTC, 1, 9)])
    house.warehouse.store_trades([a_batch(1, 9)], source="local", run_id="run-1")
    file = spilled(house, a_batch(9))
    assert (await kept(house))["spill files"].kept == 1
    assert await house.stream.close_gap(BTC, 9, fence=fence)
    assert (await kept(house))["spill files"].items == 1
    assert not file.exists()


async def test_without_redis_the_tables_are_kept_in_order_all_the_same(house: House, redis_prefix: str) -> None:
    """
    What could not be done is said in words, and the rest is done.
    """
    with socket.socket() as nobody:  # who keeps the port, and does not listen
        nobody.bind(("127.0.0.1", 0))
        away = connect(RedisAddress("127.0.0.1", nobody.getsockname()[1]))
        without = replace(house, stream=TradeStream(away, redis_prefix, "0"), sweep=Sweep(away, redis_prefix, "0"))
        report: Report = await keep_house(without, days_kept([]), now_ms=NOW + 30 * DAY_MS, run_id="house", dry=False)
        await away.aclose()
    assert len(report.problems) == 4
    assert all("redis" in problem.lower() for problem in report.problems)
    assert not any(one.problem for one in report.freed if one.what in days_kept([]))
