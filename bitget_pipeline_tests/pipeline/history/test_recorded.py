"""
Recorded markets: real bars, served by the local exchange and backfilled, come out as they were recorded.

The recordings of the repository are always tried; a file of your own (named as in local/exchange/recordings.py) with
`BITGET_PIPELINE_RECORDING=/path/to/usdtm_BTCUSDT_1m.csv.gz pytest -k recorded_bar`.
"""

from __future__ import annotations

import csv
import gzip
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bitget_pipeline.history.client import HttpAddress, Patience, opened
from bitget_pipeline.local.exchange import running
from bitget_pipeline.local.exchange.recordings import load
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history.backfill import backfill_candles
from bitget_pipeline.pipeline.history.derive import derive_candles
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.budget import Budget

from ..conftest import SMALL
from .conftest import at_noon

SHIPPED = Path(__file__).parents[2] / "recordings" / "market"
FILES = [*sorted(SHIPPED.glob("*_1m_*")), *map(Path, filter(None, [os.environ.get("BITGET_PIPELINE_RECORDING")]))]


def recorded_bars(path):
    """Open time, prices and base volume of the closed bars, as the file has them."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("closed", "1") != "0"]
    stamp = "open_ts_ms" if "open_ts_ms" in rows[0] else "timestamp_ms"
    volume = "volume_base" if "volume_base" in rows[0] else "volume"
    names = ("open", "high", "low", "close", volume)
    return {int(row[stamp]): tuple(float(row[name]) for name in names) for row in rows}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.split(".")[0])
async def test_every_recorded_bar_is_stored_as_it_was(
    path, exchange, warehouse, versions, redis_client, redis_prefix, tmp_path
):
    """
    All bars of the file, equal in open, high, low, close and base volume; and the hours made of them span the same prices.
    """
    (tmp_path / path.name).write_bytes(path.read_bytes())
    ((name, recording),) = load(tmp_path).recordings.items()
    symbol = Symbol.parse(name)
    true = recorded_bars(path)
    budget, patience = Budget(redis_client, redis_prefix, "test"), Patience(attempts=12, first_wait=0.05)
    async with (
        running(replace(SMALL, recordings=tmp_path)) as server,
        opened(exchange, HttpAddress(server.rest_url), budget, patience=patience) as client,
    ):
        place = {"run_id": "r", "now_ms": at_noon(server).now_ms}
        await discover(client, exchange, warehouse, versions, markets=(symbol.market,), **place)
        first, last = from_ms(min(true)).date(), from_ms(max(true)).date()
        keys = [(symbol, first + timedelta(days=n)) for n in range((last - first).days + 1)]
        report = await backfill_candles(client, exchange, warehouse, versions, keys, source="local", **place)
    assert not report.failed

    within = Interval(min(true), max(true) + Resolution.M1.ms)
    stored = {bar.open_ms: bar[1:6] for bar in warehouse.candles(symbol, Resolution.M1, within, source="local")}
    assert [ms for ms in true if ms not in stored] == []
    assert {ms: stored[ms] for ms in true} == true
    assert recording.first_minute * 60_000 == min(true)

    await derive_candles(warehouse, versions, keys, source="local", run_id="r")
    hours = warehouse.candles(symbol, Resolution.H1, within, source="local")
    assert hours
    for hour in hours:
        minutes = [stored[ms] for ms in range(hour.open_ms, hour.open_ms + 3_600_000, 60_000) if ms in stored]
        if len(minutes) == 60:
            opened_at, closed_at = minutes[0][0], minutes[-1][3]
            highest, lowest = max(bar[1] for bar in minutes), min(bar[2] for bar in minutes)
            assert hour[1:5] == (opened_at, highest, lowest, closed_at)
            assert hour.base_volume == pytest.approx(sum(bar[4] for bar in minutes), rel=1e-9)
