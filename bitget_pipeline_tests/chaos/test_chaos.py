"""The short part of the kill suite: a few rounds of every run of the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .rounds import play
from .scene import scene

ROUNDS = 6
SEED = int(os.environ.get("CHAOS_SEED", "3"))


@pytest.mark.timeout(240)
async def test_whatever_is_killed_nothing_is_lost_and_nothing_counted_twice(tmp_path: Path) -> None:
    """
    Worker, Redis, ClickHouse, sockets and the whole host fail at seeded moments: every trade is stored once, every candle
    is made of all its trades, and each break is in the ledger with its repair.
    """
    async with scene(tmp_path / "scene") as made:
        report = await play(made, rounds=ROUNDS, seed=SEED)
    assert report.agrees, report.table()
    assert report.rounds == ROUNDS
