"""Rows that wait for ClickHouse: bounded, dropped from the oldest end, counted, and written when it is back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from bitget_pipeline.errors import DiskFull, StoreRefused, StoreUnavailable
from bitget_pipeline.pipeline.beside.waiting import Waiting

from ..conftest import until


class Table:
    """Where rows end up; `error` is raised instead while it is set."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def store(self, rows: Sequence[int]) -> int:
        assert self.open.wait(60)
        if self.error is not None:
            raise self.error
        self.rows += rows
        return len(rows)


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def waiting_for(table: Table, *, most: int = 100, most_at_once: int = 10, clock: Clock | None = None) -> Waiting[int]:
    return Waiting(
        "rows",
        table.store,
        most=most,
        most_at_once=most_at_once,
        pause=lambda failures: 0.01,
        steady=clock or Clock(),
    )


@pytest.mark.parametrize("error", [StoreUnavailable("it is away"), DiskFull("no room")])
async def test_what_waits_for_a_store_that_is_away_is_bounded_and_then_written(error: Exception) -> None:
    """
    The newest rows stay, the oldest are dropped and counted; once the store is back everything that waits is written, and
    it is known how long ago that was.
    """
    table = Table()
    table.error = error
    clock = Clock()
    waiting = waiting_for(table, clock=clock)
    task = asyncio.create_task(waiting.run(every=0.01))
    for start in range(0, 250, 25):
        waiting.add(range(start, start + 25))
        await asyncio.sleep(0.005)
    await until(lambda: waiting.trouble, what="the trouble to be known")
    assert waiting.published() == {
        "stored": 0,
        "stored_ago": None,
        "waiting": 100,
        "dropped": 150,
        "trouble": str(error),
    }
    table.error = None
    await until(lambda: not len(waiting), what="all written")
    assert table.rows == list(range(150, 250))
    assert waiting.published() == {"stored": 100, "stored_ago": 0.0, "waiting": 0, "dropped": 150, "trouble": ""}
    clock.now = 90.0
    assert waiting.published()["stored_ago"] == 90.0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_rows_dropped_while_they_are_being_written_are_not_written_twice_nor_others_lost() -> None:
    """
    The bound is reached in the middle of an insert: nothing but the oldest is dropped.
    """
    table = Table()
    table.open.clear()
    waiting = waiting_for(table, most=20)
    waiting.add(range(20))
    writing = asyncio.create_task(waiting.drain())
    await asyncio.sleep(0.02)
    waiting.add(range(20, 25))
    table.open.set()
    await writing
    assert table.rows == list(range(25))
    assert waiting.dropped == 5  # they were on their way when their place was taken


async def test_what_waiting_cannot_help_is_raised() -> None:
    """
    A store that refuses for good ends the companion, and with it the live run.
    """
    table = Table()
    table.error = StoreRefused("no such table")
    waiting = waiting_for(table)
    waiting.add([1])
    with pytest.raises(StoreRefused):
        await waiting.run(every=0.001)
