"""Second tries of what is collected on demand: launched when the ledger says so, and only what somebody asked for."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.defs.retries import retries, retry_launchers
from bitget_pipeline.market.coverage import CoverageState, Evidence
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.history.rectangles import RANGE_END, RANGE_START
from bitget_pipeline.storage.warehouse import Warehouse

BTC = Symbol(Market.USDTM, "BTCUSDT")
GRID = date(2025, 11, 1)
NOW = datetime.now(UTC)
DAYS = [NOW.date() - timedelta(days=n) for n in range(1, 5)]


@pytest.fixture
def doubted(warehouse: Warehouse) -> Warehouse:
    """Yesterday's mark prices are due, those of the day before not yet; of trades a day is due, and a break of the live run."""
    late, soon = NOW - timedelta(minutes=1), NOW + timedelta(hours=1)

    def hole(stream: str, day: date, retry_at: datetime, attempts: int) -> Evidence:
        within = Interval.of_day(day)
        return Evidence(BTC, stream, within, CoverageState.UNKNOWN, retry_at=retry_at, attempts=attempts)

    holes = [
        hole("mark_candles_1m", DAYS[0], late, 1),
        hole("mark_candles_1m", DAYS[1], soon, 2),
        hole("trades", DAYS[2], late, 1),
        hole("trades", DAYS[3], late, 0),
    ]
    warehouse.store_evidence(holes, version=1, run_id="test")
    return warehouse


def tags(day: date) -> dict[str, str]:
    """A run of one day of BTC."""
    return {RANGE_START: f"{day}|BTCUSDT", RANGE_END: f"{day}|BTCUSDT"}


def test_what_is_due_of_the_days_that_were_asked_for_once_is_tried_again(doubted: Warehouse) -> None:
    """
    Not before its time, and not what the live run repairs itself.
    """
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("usdtm_symbols", ["BTCUSDT"])
        found = {
            stream: [
                one.tags for one in retries(doubted, instance, Market.USDTM, stream=stream, grid_starts=GRID, now=NOW)
            ]
            for stream in ("mark_candles_1m", "index_candles_1m", "trades")
        }
    assert found == {"mark_candles_1m": [tags(DAYS[0])], "index_candles_1m": [], "trades": [tags(DAYS[2])]}


def test_the_sensor_of_a_market_launches_one_run_after_everything_else(
    doubted: Warehouse, pipeline: PipelineResource
) -> None:
    """
    Trades first, then the prices; while a run of the market is on its way, none.
    """
    (launcher,) = retry_launchers([Market.USDTM], grid_starts=GRID)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("usdtm_symbols", ["BTCUSDT"])

        def tick() -> dg.RunRequest:
            told = launcher(dg.build_sensor_context(instance), pipeline=pipeline)
            assert isinstance(told, dg.RunRequest), told
            return told

        asked = tick()
        assert (asked.job_name, {**tags(DAYS[2])}.items() <= asked.tags.items()) == ("usdtm_trades_history", True)
        done = Evidence(BTC, "trades", Interval.of_day(DAYS[2]), CoverageState.COMPLETE, rows=1)
        doubted.store_evidence([done], version=2, run_id="test")
        asked = tick()
        assert (asked.job_name, tags(DAYS[0]).items() <= asked.tags.items()) == ("usdtm_mark_candles", True)
