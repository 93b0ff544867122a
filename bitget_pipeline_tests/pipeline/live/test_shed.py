"""What a live run gives up when there is no room, and what the ledger says of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bitget_pipeline.exchange.contract import BookFrame, Channel, TickerFrame
from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.pipeline.live.intake import Intake
from bitget_pipeline.pipeline.live.shed import Pressure, Shedder, Shedding, ShedRules, by_importance, writes_little
from bitget_pipeline.pipeline.live.state import LiveState
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.spill import Spill
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import until
from ..live_runner import Where, plan_for
from .test_run import SYMBOLS, Tickers, live

RULES = ShedRules(shed_every=2.0, readmit_after=15.0)
ROOM = Pressure(disk_free=0.5, spill=0.0, memory=0.0)
FULL_DISK = replace(ROOM, disk_free=0.08)


@dataclass
class Books(Tickers):
    name: str = "books"
    channels: tuple[Channel, ...] = (Channel.BOOKS,)
    frames: tuple[type, ...] = (BookFrame,)

    def frame(self, frame: object) -> None:
        assert isinstance(frame, BookFrame)
        self.seen.append(frame.symbol)


@dataclass
class Bars(Tickers):
    name: str = "bars"
    channels: tuple[Channel, ...] = (Channel.CANDLE_1M,)


def test_books_go_before_tickers_and_candles_last() -> None:
    """
    The order of giving up does not depend on the order in which the companions were named.
    """
    assert by_importance([Bars(), Tickers(), Books()]) == ["books", "tickers", "bars"]


@pytest.mark.parametrize("pressure", [FULL_DISK, replace(ROOM, spill=0.9), replace(ROOM, memory=0.9)])
def test_one_after_the_other_goes_while_it_lasts_and_comes_back_in_reverse(pressure: Pressure) -> None:
    """
    A disk nearly full, a spill or a memory near its bound: a step every two seconds, and back when there was room for a
    while.
    """
    shedding = Shedding(["books", "tickers"], rules=RULES, now=0.0)
    assert shedding.look(ROOM, now=0.0) is None
    assert shedding.look(pressure, now=1.0) == ("shed", "books")
    assert shedding.look(pressure, now=2.0) is None
    assert shedding.look(pressure, now=3.0) == ("shed", "tickers")
    assert shedding.look(pressure, now=9.0) is None
    assert shedding.look(ROOM, now=20.0) is None
    assert shedding.look(ROOM, now=24.0) == ("readmit", "tickers")
    assert shedding.look(ROOM, now=30.0) is None
    assert shedding.look(ROOM, now=39.0) == ("readmit", "books")
    assert shedding.shed == []


def test_a_little_room_is_not_room_enough() -> None:
    """
    Between the two lines nothing changes, so that channels do not flap.
    """
    shedding = Shedding(["books"], rules=RULES, now=0.0)
    shedding.look(FULL_DISK, now=0.0)
    assert shedding.look(replace(ROOM, disk_free=0.11), now=100.0) is None
    assert shedding.look(replace(ROOM, spill=0.5), now=200.0) is None
    assert shedding.look(ROOM, now=214.0) is None
    assert shedding.look(ROOM, now=215.0) == ("readmit", "books")


def test_the_witness_is_not_given_up_for_a_disk_but_for_what_it_can_help() -> None:
    """
    The exchange's own bars write next to nothing: a full disk would stay full without them, and losses unseen. Memory is
    another matter.
    """
    assert writes_little([Bars(), Tickers(), Books()]) == ["bars"]
    shedding = Shedding(["books", "tickers", "bars"], rules=RULES, now=0.0, light=["bars"])
    assert [shedding.look(FULL_DISK, now=now) for now in (0.0, 2.0, 4.0, 60.0)] == [
        ("shed", "books"),
        ("shed", "tickers"),
        None,
        None,
    ]
    assert shedding.look(replace(FULL_DISK, memory=0.9), now=61.0) == ("shed", "bars")


async def test_the_disks_of_stores_on_this_machine_are_looked_at_too(
    warehouse: Warehouse, versions: Versions, tmp_path: Path
) -> None:
    """
    There is room where trades would be spilled, and none where the embedded ClickHouse writes: it counts all the same. A
    folder that is not here is another machine's.
    """
    told: list[float] = []
    free = {tmp_path / "warehouse": 0.05, tmp_path / "redis": 0.5}
    for folder in free:
        folder.mkdir()
    state = LiveState(SYMBOLS)
    shedder = Shedder(
        Intake(state),
        [Books()],
        SYMBOLS,
        state,
        Spill(tmp_path / "spill"),
        warehouse,
        versions,
        run_id="run-1",
        clock=lambda: 0,
        disks=(*free, tmp_path / "elsewhere"),
        free=lambda folder: free.get(folder, 0.9),
        rest=lambda _: told.append(state.disk_free),
    )
    looking = asyncio.create_task(shedder.run(every=0.01, tell_every=60.0))
    await until(lambda: told, what="a look")
    looking.cancel()
    assert told[0] == 0.05
    assert list(state.shed) == ["books"]


async def test_a_disk_nearly_full_stops_the_books_and_says_so(
    local_exchange: LocalExchange, redis_address: RedisAddress, redis_prefix: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    """
    Less of the disk is free than the rule wants: the books stop, tickers after them, trades never; what is published and
    the ledger say so.
    """
    where = Where(
        local_exchange.rest_url,
        local_exchange.ws_url,
        redis_address.port,
        redis_prefix,
        warehouse.address.port,
        warehouse.address.database,
        tuple(map(str, SYMBOLS)),
        "run-1",
        spill=str(tmp_path),
    )
    plan = replace(plan_for(where), shed_rules=ShedRules(disk_free=1.1, disk_free_again=1.2, shed_every=1.5))
    books, tickers = Books(), Tickers(frames=(TickerFrame,))
    async with live(where, local_exchange, plan, companions=(tickers, books)) as run:
        await until(lambda: (p := run.overview.published()) and "books" in p.overall["shed"], what="books to be shed")
        assert "disk is nearly full" in run.overview.published().overall["shed"]["books"]
        told = len(books.seen)
        await until(lambda: "tickers" in run.overview.published().overall["shed"], what="tickers to be shed")
        assert len(books.seen) == told
        stored = run.stored()
        await until(lambda: run.stored() > stored + 20, what="trades all the while")
        await run.end()
    found = warehouse.coverage("books", symbol=SYMBOLS[0])
    assert [one.state for one in found] == [CoverageState.UNAVAILABLE]
    assert "disk is nearly full" in found[0].reason
    assert found[0].interval.end_ms - found[0].interval.start_ms > 1000
    assert warehouse.coverage("tickers", symbol=SYMBOLS[0])


async def test_everything_else_is_given_up_before_a_trade_is(
    local_exchange: LocalExchange, redis_address: RedisAddress, redis_prefix: str, warehouse: Warehouse
) -> None:
    """
    Memory is full and nothing takes the trades: all companions are shed at once, then trades are dropped, and repaired.
    """
    where = Where(
        local_exchange.rest_url,
        local_exchange.ws_url,
        redis_address.port,
        redis_prefix,
        warehouse.address.port,
        warehouse.address.database,
        tuple(map(str, SYMBOLS)),
        "run-1",
        capacity=3,
    )
    plan = replace(plan_for(where), most_waiting_trades=50, flush_within=2.0, shed_rules=ShedRules(memory=2.0))
    books, tickers = Books(), Tickers(frames=(TickerFrame,))
    async with live(where, local_exchange, plan, companions=(tickers, books)) as run:
        await until(
            lambda: (p := run.overview.published()) and list(p.overall["shed"]) == ["books", "tickers"],
            what="both to be shed",
        )
        run.task.cancel()
