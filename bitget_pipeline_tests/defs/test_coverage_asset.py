"""The asset `coverage`: recounts, draws a small picture, and says what is missing most."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from bitget_pipeline.defs.assets import coverage
from bitget_pipeline.defs.heat_map import COLOURS, heat_map
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.coverage_days import DayCoverage
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.storage.digest import candle_digest
from bitget_pipeline.storage.warehouse import CoverageState, Evidence, Warehouse

BTC, ETH = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "ETHUSDT")


def test_a_picture_of_a_year_of_the_largest_selection_is_small() -> None:
    """
    600 symbols and 365 days, in all states: under 50 KB, and a PNG.
    """
    symbols = [Symbol(Market.SPOT, f"S{n}USDT") for n in range(600)]
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]
    found = {
        (symbol, day): DayCoverage(symbol, day, stored=1440 - 7 * (n % 3 == 0), unseen=7 * (n % 3 == 0))
        for n, symbol in enumerate(symbols)
        for day in days
    }
    picture = heat_map(found, symbols=symbols, days=days)

    assert len(picture) < 50_000
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (365 * 2, 600)


def test_days_that_share_a_column_show_the_worst_and_what_is_not_wanted_is_blank() -> None:
    """
    Six years of days are more than a picture is wide: of three that share a column one that is not known counts.
    """
    days = [date(2020, 1, 1) + timedelta(days=n) for n in range(2_100)]
    complete = {(BTC, day): DayCoverage(BTC, day, stored=1440) for day in days}
    unknown = {(ETH, day): one for (_, day), one in complete.items() if day.year > 2020} | {
        (ETH, days[1_000]): DayCoverage(ETH, days[1_000], unseen=1440)
    }
    picture = heat_map(complete | unknown, symbols=(BTC, ETH), days=days)
    assert struct.unpack(">II", picture[16:24]) == (700, 20)
    start = picture.index(b"IDAT")
    length = struct.unpack(">I", picture[start - 4 : start])[0]
    lines = zlib.decompress(picture[start + 4 : start + 4 + length])
    first, second = lines[1:701], lines[701 * 10 + 1 : 701 * 11]
    green, red, white = (list(COLOURS).index(name) for name in ("complete", "unknown", "ground"))
    assert set(first) == {green}
    assert [second.count(colour) for colour in (red, white)] == [1, 366 // 3]
    assert second[1_000 // 3] == red


@pytest.fixture
def yesterday() -> date:
    """The last whole day, when the test begins."""
    return datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture
def given(yesterday: date) -> dict[str, str]:
    """Three days of the grid are wanted, and of one symbol five."""
    return {
        "BITGET_PIPELINE_GRID_START": "2020-01-01",
        "BITGET_PIPELINE_HISTORY_DAYS": "3",
        "BITGET_PIPELINE_HISTORY_TARGETS": f"usdtm:ETHUSDT={yesterday - timedelta(days=4)}",
    }


def test_materializing_recounts_and_draws(warehouse: Warehouse, pipeline: PipelineResource, yesterday: date) -> None:
    """
    A day that lost a bar is corrected; metadata has figures, a picture and what is missing most.
    """
    chosen = [Chosen(symbol, rank, 1e9, Reason.VOLUME) for rank, symbol in enumerate((BTC, ETH), start=1)]
    warehouse.store_universe(chosen, selected_at=datetime.now(UTC), run_id="test")
    whole = Interval.of_day(yesterday)
    bars = [Candle(ms, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) for ms in range(whole.start_ms, whole.end_ms, 60_000)]
    rows, digest = candle_digest(bars)
    warehouse.store_candles(BTC, Resolution.M1, bars[:-1], version=1, run_id="test", source="local")
    said = Evidence(BTC, "candles_1m", whole, CoverageState.COMPLETE, rows=rows, expected=rows, digest=digest)
    warehouse.store_evidence([said], version=1, run_id="test")

    done = dg.materialize(
        [coverage],
        resources={"pipeline": pipeline},
        selection=[coverage],
        run_config={"ops": {"coverage": {"config": {"sampled_days": 0}}}},  # there is no exchange here
    )
    (event,) = done.get_asset_materialization_events()
    metadata = event.materialization.metadata

    assert metadata["symbol-days"].value == 6
    assert metadata["rows lost"].value == 1
    assert metadata["minutes stored"].value == 1439
    assert metadata["complete days fetched again"].value == metadata["requests of the samples"].value == 0
    assert metadata["minutes not known"].value == 5 * 1440 + 1
    picture = str(metadata["picture"].value)
    assert "spot:BTCUSDT" in picture
    (encoded,) = re.findall(r"data:image/png;base64,([^)]+)\)", picture)
    assert base64.b64decode(encoded)[:4] == b"\x89PNG"
    assert metadata["symbol-days of the targets"].value == 2
    assert metadata["symbol-days of the targets settled"].value == 0
    assert "Symbols from usdtm:ETHUSDT (top)" in str(metadata["picture of the targets"].value)
    assert "not asked for yet" in str(metadata["most missing"].value)
