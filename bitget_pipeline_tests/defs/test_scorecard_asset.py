"""The asset `scorecard`: a partition a day, figures that plot, a picture; and the schedule that asks for yesterday."""

from __future__ import annotations

import base64
import re
import struct
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from math import isnan

import dagster as dg

from bitget_pipeline.defs.assets import scorecard_asset
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.defs.schedules import daily_scorecard
from bitget_pipeline.defs.scorecard_picture import picture, values
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.scorecard import Figure
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.storage.warehouse import CoverageState, Evidence, Warehouse

BTC = Symbol(Market.SPOT, "BTCUSDT")
DAY = datetime.now(UTC).date() - timedelta(days=1)


def test_materializing_a_day_stores_its_figures_and_draws_them(
    warehouse: Warehouse, pipeline: PipelineResource
) -> None:
    """
    Figures that are known plot, those that are not say why in the table, and the row can be read from the view.
    """
    warehouse.store_universe([Chosen(BTC, 1, 1e9, Reason.VOLUME)], selected_at=datetime.now(UTC), run_id="test")
    whole = Interval.of_day(DAY)
    half = Interval(whole.start_ms, whole.start_ms + 720 * 60_000)
    warehouse.store_evidence(
        [Evidence(BTC, "candles_1m", half, CoverageState.COMPLETE, rows=720)], version=1, run_id="t"
    )

    done = dg.materialize(
        [scorecard_asset(grid_starts=date(2020, 1, 1))],
        resources={"pipeline": pipeline},
        partition_key=DAY.isoformat(),
    )
    (event,) = done.get_asset_materialization_events()
    metadata = event.materialization.metadata

    assert event.partition == DAY.isoformat()
    assert metadata["completeness, %"].value == 50.0
    assert metadata["open minutes"].value == 720
    assert "lag p99 seconds" not in metadata
    assert "no trades of the day are stored" in str(metadata["every figure"].value)
    (encoded,) = re.findall(r"data:image/png;base64,([^)]+)\)", str(metadata["last thirty days"].value))
    assert struct.unpack(">II", base64.b64decode(encoded)[16:24]) == (880, 660)
    assert warehouse.query("SELECT market, completeness, trades FROM scorecard_by_day ORDER BY market") == [
        ("", 0.5, None),
        ("spot", 0.5, None),
    ]


def test_the_schedule_asks_for_the_day_before() -> None:
    """
    At ten to three, when the night's top-up and recount are done.
    """
    tick = datetime(2026, 3, 1, 2, 50, tzinfo=UTC)
    request = daily_scorecard(dg.build_schedule_context(scheduled_execution_time=tick))

    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-02-28"


def test_a_day_that_was_not_computed_is_empty_in_the_picture() -> None:
    """
    It is not drawn as 0, and no day at all is a picture too.
    """
    found = {DAY: [Figure("completeness", None, 0.25), Figure("completeness", Market.SPOT, 0.9)]}
    before, that_day = values(found, [DAY - timedelta(days=1), DAY], "completeness")

    assert isnan(before)
    assert that_day == 0.25
    assert picture({}, last=DAY)[:8] == b"\x89PNG\r\n\x1a\n"


def test_loading_the_definitions_does_not_load_what_draws() -> None:
    """
    matplotlib takes longer than all definitions together, and most processes draw nothing.
    """
    code = "import sys, bitget_pipeline.defs as defs; defs.build(); print('matplotlib' in sys.modules)"
    environment = {"BITGET_PIPELINE_EXCHANGE": "local", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)

    assert said.stdout.strip() == "False", said.stderr
