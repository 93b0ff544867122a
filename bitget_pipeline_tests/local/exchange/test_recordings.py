"""Recorded markets are served as the history of their symbols."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from bitget_pipeline.errors import SettingsInvalid
from bitget_pipeline.local.exchange import ExchangeConfig, running

from .client import Client

FOLDER = Path(__file__).parents[2] / "recordings" / "market"
MINUTE = 60_000


@pytest.fixture
async def replaying(small: ExchangeConfig) -> AsyncIterator[Client]:
    """A client of an exchange with the recordings of the repository."""
    async with running(replace(small, recordings=FOLDER)) as exchange, aiohttp.ClientSession() as session:
        yield Client(exchange, session)


async def test_recorded_bars_are_served_as_they_were(replaying: Client):
    """All 1,000 closed bars of the exchange's own channel, page by page, number for number."""
    with gzip.open(FOLDER / "usdtm_UNIUSDT_1m_20220406_bitget_v1.csv.gz", "rt") as file:
        recorded = [row for row in csv.DictReader(file) if row["closed"] == "1"]
    assert len(recorded) == 1000
    params = {"productType": "USDT-FUTURES", "symbol": "UNIUSDT", "granularity": "1m", "limit": 200}
    end = int(recorded[-1]["open_ts_ms"]) + MINUTE
    rows: list[list[str]] = []
    while len(rows) < 1000:
        page = await replaying.data("/api/v2/mix/market/history-candles", **params, endTime=end)
        rows, end = page + rows, int(page[0][0])
    columns = ("open_ts_ms", "open", "high", "low", "close", "volume_base")
    assert [[float(v) for v in row[:6]] for row in rows] == [[float(r[c]) for c in columns] for r in recorded]


async def test_recorded_trades_make_the_recorded_bars(replaying: Client):
    """Every fully covered minute: [previous close] + trades is the exchange's bar."""
    day = {"market": "usdtm", "symbol": "UNIUSDT"}
    begin = 1_649_290_020_000  # 2022-04-07 00:07 UTC, fully covered
    bars = await replaying.truth("candles", **day, **{"from": begin - MINUTE, "to": begin + MINUTE})
    trades = await replaying.truth("trades", **day, **{"from": begin, "to": begin + MINUTE})
    prices = [float(bars[0]["close"]), *(float(t["price"]) for t in trades)]
    bar = {k: float(v) for k, v in bars[1].items()}
    assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (prices[0], max(prices), min(prices), prices[-1])
    assert bar["base_volume"] == pytest.approx(sum(float(t["size"]) for t in trades))
    assert len({t["trade_id"] for t in trades}) == len(trades)


async def test_minutes_a_source_omits_are_flat(replaying: Client):
    """Coinbase leaves out minutes without trades, Bitget sends them with volume 0."""
    begin = 1_475_819_100_000
    rows = await replaying.data(
        "/api/v2/spot/market/history-candles",
        symbol="BTCUSD",
        granularity="1min",
        endTime=begin + 200 * MINUTE,
        limit=200,
    )
    assert [int(row[0]) for row in rows] == list(range(begin, begin + 200 * MINUTE, MINUTE))
    flat = [(row, before) for before, row in itertools.pairwise(rows) if row[5] == "0"]
    assert flat
    assert all(row[1:5] == [before[4]] * 4 for row, before in flat)


async def test_life_goes_on_after_a_recording(replaying: Client):
    """Where the recording ends the synthetic market continues, opening at the last recorded close."""
    params = {"productType": "USDT-FUTURES", "symbol": "UNIUSDT", "granularity": "1m", "limit": 2}
    rows = await replaying.data("/api/v2/mix/market/history-candles", **params, endTime=1_649_290_140_000)
    assert rows[1][1] == rows[0][4]
    now = await replaying.data("/api/v2/mix/market/candles", **params)
    assert len(now) == 2


@pytest.mark.parametrize("content", ["open_ts_ms,open\n1,2\n", "open_ts_ms,open,high,low,close,volume\n1,x,1,1,1,1\n"])
async def test_a_recording_that_cannot_be_read_stops_the_start(small: ExchangeConfig, tmp_path: Path, content: str):
    """One sentence with the folder's name; so does a folder that is not there."""
    (tmp_path / "spot_BTCUSDT_1m.csv").write_text(content)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SettingsInvalid, match=str(folder)):
            async with running(replace(small, recordings=folder)):
                pass
