"""What there is of a day before a walk, in one question."""

from __future__ import annotations

from datetime import UTC, date, datetime

from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.storage.warehouse import CoverageState, Evidence, Warehouse

BTC, ETH = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.SPOT, "ETHUSDT")
DAY = Interval.of_day(date(2026, 3, 1))


def test_one_question_answers_as_two_do(warehouse: Warehouse) -> None:
    """
    The statements of the ledger and the bars of the table, of this symbol and day alone; nothing at all of one that is new.
    """
    hole = Interval(DAY.start_ms + 120_000, DAY.start_ms + 180_000)
    retry = datetime(2026, 3, 2, 5, tzinfo=UTC)
    said = [
        Evidence(BTC, "candles_1m", DAY, CoverageState.PARTIAL, rows=2, expected=1440, digest=17),
        Evidence(
            BTC,
            "candles_1m",
            hole,
            CoverageState.UNKNOWN,
            reason="not there",
            retry_at=retry,
            attempts=2,
            missed_since=retry,
        ),
        Evidence(ETH, "candles_1m", DAY, CoverageState.COMPLETE),
        Evidence(BTC, "trades", DAY, CoverageState.COMPLETE),
    ]
    warehouse.store_evidence(said, version=3, run_id="t")
    bars = [Candle(DAY.start_ms + minute * 60_000, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) for minute in (-1, 0, 1, 1440)]
    for source in ("local", "bitget"):
        kept = bars if source == "local" else bars[2:3]
        warehouse.store_candles(BTC, Resolution.M1, kept, version=1, run_id="t", source=source)

    found = warehouse.day_before(BTC, Resolution.M1, "candles_1m", DAY, source="local")
    assert found.standing == warehouse.coverage("candles_1m", symbol=BTC, interval=DAY)
    assert [one.version for one in found.standing] == [3, 3]
    assert found.opens == {DAY.start_ms, DAY.start_ms + 60_000}
    assert sorted(found.opens) == warehouse.candle_opens(BTC, Resolution.M1, DAY, source="local")
    nothing = warehouse.day_before(Symbol(Market.SPOT, "NEWUSDT"), Resolution.M1, "candles_1m", DAY, source="local")
    assert (nothing.standing, nothing.opens) == ([], frozenset())
