"""
Real sessions: candles built from recorded trades are the bars that the exchange pushed in the same minutes.

No pair of trades and bars of V2 was at hand; the sessions are of V1, whose trades have no ids (they are numbered here), and
the seconds are Coinbase's. Whole files of your own: see CONTRIBUTING.md.
"""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import pytest

from bitget_pipeline.market.agreement import as_served, differences
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.rollup import rollup
from bitget_pipeline.market.trade import Trade

from ..recordings import BITGET
from ..recordings.first_generation import sessions

MARKET = BITGET.parent / "market"
SESSIONS = [
    BITGET / "v1_session_GOGUSDT_UNIUSDT.jsonl.gz",
    *map(Path, filter(None, [os.environ.get("BITGET_PIPELINE_V1_RECORDING")])),
]
SECONDS = [
    MARKET / "spot_BTCUSD_1s_20161007_coinbase_excerpt.csv",
    *map(Path, filter(None, [os.environ.get("BITGET_PIPELINE_SECONDS")])),
]
EXACT = 1e-12
"""A size step below every volume's last digit."""


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.name.split(".")[0])
def test_every_covered_minute_of_a_session_is_the_exchanges(path: Path) -> None:
    """
    Open (the previous close), high, low, close and volume of each closed minute of which all trades were recorded, minutes
    without trades included; each instrument has one at least.
    """
    found = sessions(path)
    assert len(found) >= 2
    for name, session in found.items():
        ours = {bar.open_ms: bar for bar in rollup(session.trades, Resolution.M1)}
        assert session.covered, name
        for theirs in session.covered:
            before = session.bars[theirs.open_ms - Resolution.M1.ms].close
            mine = as_served(ours.get(theirs.open_ms), theirs, previous_close=before)
            assert differences(mine, theirs, size_step=EXACT) == (), (name, mine, theirs)


@pytest.mark.parametrize("path", SECONDS, ids=lambda path: path.name.split(".")[0])
def test_recorded_session_of_seconds_makes_its_minutes(path: Path) -> None:
    """
    Coinbase's bars of a second, each read as the trades at its four prices, make its bars of a minute: the same minutes,
    open, high, low and close exactly, the volume but for the rounding of a float.
    """
    seconds, minutes = bars_in(path), bars_in(path.with_name(path.name.replace("_1s_", "_1m_")))
    trades = [
        Trade(ms * 10 + place, ms + place, price, volume if place == 0 else 0.0, True)
        for ms, (opened, high, low, close, volume) in seconds.items()
        for place, price in enumerate((opened, high, low, close))
    ]
    made = rollup(trades, Resolution.M1)
    assert len(made) > 100
    assert {bar.open_ms: tuple(bar[1:5]) for bar in made} == {ms: bar[:4] for ms, bar in minutes.items()}
    for bar in made:
        assert bar.base_volume == pytest.approx(minutes[bar.open_ms][4], rel=1e-12)


def bars_in(path: Path) -> dict[int, tuple[float, ...]]:
    """Open time, prices and volume of each bar, as the file has them."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = list(csv.DictReader(file))
    stamp = "open_ts_ms" if "open_ts_ms" in rows[0] else "ms_since_utc_midnight"
    return {
        int(row[stamp]): tuple(float(row[name]) for name in ("open", "high", "low", "close", "volume")) for row in rows
    }
