"""The short part of the drills: some faults of every run of the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .drills import DRILLS
from .report import played, table

SEED = int(os.environ.get("DRILL_SEED", "5"))
SHORT = ("one subscription silent", "both stores killed")


@pytest.mark.timeout(1200)  # at work for a minute; the machine may have much else to do
async def test_named_faults_are_noticed_and_lose_nothing(tmp_path: Path) -> None:
    """
    One subscription of a healthy socket falls silent, both stores are killed at once: each is noticed, everything is as before
    by itself, and every trade is stored once.
    """
    drills = [drill for drill in DRILLS if drill.name in SHORT]
    outcomes = await played(tmp_path / "scene", drills, seed=SEED, candles=False)
    assert len(outcomes) == len(SHORT)
    assert all(one.kept for one in outcomes), table(outcomes)
    assert all(one.compared.trades > 0 for one in outcomes), table(outcomes)
