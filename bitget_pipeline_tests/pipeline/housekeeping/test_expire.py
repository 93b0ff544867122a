"""What is older than its days goes, partition by partition; the ledger knows it, and nobody fetches it again."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.coverage import CoverageState, Evidence
from bitget_pipeline.market.coverage_days import by_day
from bitget_pipeline.market.derivatives import PriceKind
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, to_ms
from bitget_pipeline.market.retention import DAY_MS, KEPT, STAYS, Retention, days_kept
from bitget_pipeline.market.scorecard import Reading
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.history.plan import unsettled
from bitget_pipeline.pipeline.history.recount import recount
from bitget_pipeline.pipeline.housekeeping.expire import expire_tables
from bitget_pipeline.pipeline.housekeeping.report import Freed
from bitget_pipeline.storage.tables import BY_NAME as TABLE
from bitget_pipeline.storage.tables import TABLES
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

BTC, ETH = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "ETHUSDT")
NOON = to_ms(datetime(2026, 11, 20, 12, tzinfo=UTC))
TEN_DAYS = [Retention("trades", 10)]


def trade_days_ago(warehouse: Warehouse, days: float, symbol: Symbol = BTC, *, trades: int = 3) -> int:
    """Store some trades of that day; when they were."""
    at = NOON - round(days * DAY_MS)
    batch = TradeBatch(symbol, [Trade(at * 1000 + n, at + n, 100.0, 1.0, True) for n in range(trades)], at)
    warehouse.store_trades([batch], source="local", run_id="run-1")
    return at


async def kept(
    warehouse: Warehouse, versions: Versions, said: list[Retention], *, dry: bool = False
) -> dict[str, Freed]:
    """One time of housekeeping in the tables."""
    found = await expire_tables(warehouse, versions, days_kept(said), now_ms=NOON, run_id="house", dry=dry)
    return {one.what: one for one in found}


def count(warehouse: Warehouse, table: str) -> int:
    """Rows of a table."""
    return int(warehouse.query(f"SELECT count() FROM {table}")[0][0])


async def test_days_that_are_over_go_and_the_ledger_knows(warehouse: Warehouse, versions: Versions) -> None:
    """
    Whole days older than ten days are dropped, each symbol's told as expired; the younger ones stay.
    """
    for days in (0, 5, 10.4, 12, 40):
        trade_days_ago(warehouse, days)
    old = trade_days_ago(warehouse, 40, ETH)
    done = (await kept(warehouse, versions, TEN_DAYS))["trades"]

    assert (done.items, done.rows, done.told, done.problem) == (2, 9, 3, "")
    assert done.bytes > 0
    assert count(warehouse, "trades") == 9
    assert {one.state for one in warehouse.coverage("trades", symbol=BTC)} == {CoverageState.EXPIRED}
    (told,) = warehouse.coverage("trades", symbol=ETH)
    assert (told.state, told.interval) == (
        CoverageState.EXPIRED,
        Interval(old - NOON % DAY_MS, old - NOON % DAY_MS + DAY_MS),
    )
    assert "kept for 10 days: 3 rows deleted" in told.reason

    again = await kept(warehouse, versions, TEN_DAYS)
    assert all(one.idle for one in again.values())


async def test_a_dry_run_says_the_same_and_touches_nothing(warehouse: Warehouse, versions: Versions) -> None:
    """
    Partitions, rows and bytes are those of the real run; nothing is told, nothing deleted.
    """
    trade_days_ago(warehouse, 12)
    would = (await kept(warehouse, versions, TEN_DAYS, dry=True))["trades"]
    assert (would.items, would.rows, would.told) == (1, 3, 0)
    assert count(warehouse, "trades") == 3
    assert warehouse.coverage("trades") == []

    done = (await kept(warehouse, versions, TEN_DAYS))["trades"]
    assert (done.items, done.rows, done.bytes) == (would.items, would.rows, would.bytes)


def test_every_table_has_its_days_or_a_reason_to_stay() -> None:
    """
    Nothing grows for ever because nobody thought of it; what may be bounded has partitions that can go, and a time.
    """
    bounded = {one.table for one in KEPT}
    assert bounded.isdisjoint(STAYS)
    assert bounded | set(STAYS) == {table.name for table in TABLES}
    for one in KEPT:
        assert one.column in TABLE[one.table].partition_by, one.name


async def test_readings_of_the_budget_expire_and_prices_are_told_by_their_kind(
    warehouse: Warehouse, versions: Versions
) -> None:
    """
    The ledger knows nothing of readings; of mark and index prices it knows each as a stream of its own.
    """
    for days in (3, 500):
        reading = Reading(NOON - days * DAY_MS, 10, 0, 18.0)
        warehouse.store_budget_reading(reading, pace=1.0, closed_for=0.0)
    bars = [Candle(NOON - 500 * DAY_MS, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0)]
    warehouse.store_price_candles(ETH, PriceKind.MARK, Resolution.M1, bars, source="local", version=1, run_id="run-1")
    done = await kept(warehouse, versions, [Retention("price_candles", 100)])
    assert (done["budget_readings"].rows, done["budget_readings"].told) == (1, 0)
    assert (done["price_candles"].rows, done["price_candles"].told) == (1, 2)
    for stream in ("mark_candles_1m", "index_candles_1m"):
        assert {one.state for one in warehouse.coverage(stream, symbol=ETH)} == {CoverageState.EXPIRED}


async def test_by_default_nothing_but_books_seconds_and_readings_expires(
    warehouse: Warehouse, versions: Versions
) -> None:
    """
    Trades of years ago stay, as does what else is kept for ever.
    """
    days = {"order_books": 7, "candles_1s": 30, "health": 90, "budget_readings": 400}
    assert {one.name: one.days for one in KEPT if one.days} == days
    trade_days_ago(warehouse, 3_000)
    assert all(one.idle for one in (await kept(warehouse, versions, [])).values())
    assert count(warehouse, "trades") == 3


async def test_what_was_told_and_not_dropped_goes_the_next_time(warehouse: Warehouse, versions: Versions) -> None:
    """
    Killed between the two, or a late trade of an expired day: the rows go, and the ledger still says expired.
    """
    at = trade_days_ago(warehouse, 12)
    day = Interval(at - at % DAY_MS, at - at % DAY_MS + DAY_MS)
    warehouse.store_evidence(
        [Evidence(BTC, "trades", day, CoverageState.EXPIRED)], version=await versions.next(), run_id="killed"
    )
    await kept(warehouse, versions, TEN_DAYS)
    assert count(warehouse, "trades") == 0
    trade_days_ago(warehouse, 12, trades=1)
    done = (await kept(warehouse, versions, TEN_DAYS))["trades"]
    assert (done.items, done.rows) == (1, 1)
    assert [one.state for one in warehouse.coverage("trades", symbol=BTC)] == [CoverageState.EXPIRED]


async def test_expired_candles_are_settled_for_launchers_and_for_the_recount(
    warehouse: Warehouse, versions: Versions
) -> None:
    """
    A year of minutes goes: its days want nothing more, month by month, and the recount does not miss a bar.
    """
    days = [date(2024, month, 15) for month in (1, 7, 12)]
    evidence = []
    for day in days:
        opens = Interval.of_day(day).start_ms
        bars = [Candle(opens + n * 60_000, 1.0, 2.0, 0.5, 1.5, 10.0, 15.0) for n in range(1_440)]
        warehouse.store_candles(BTC, Resolution.M1, bars, version=await versions.next(), source="local", run_id="run-1")
        rows, digest = warehouse.candle_digest(BTC, Resolution.M1, Interval.of_day(day), source="local")
        evidence.append(
            Evidence(
                BTC,
                "candles_1m",
                Interval.of_day(day),
                CoverageState.COMPLETE,
                rows=rows,
                expected=1_440,
                digest=digest,
            )
        )
    warehouse.store_evidence(evidence, version=await versions.next(), run_id="run-1")

    done = (await kept(warehouse, versions, [Retention("candles", 400)]))["candles"]
    assert (done.items, done.rows, done.told) == (1, 3 * 1_440, 3 * 2)
    standing = warehouse.coverage("candles_1m", symbol=BTC)
    assert {one.state for one in standing} == {CoverageState.EXPIRED}
    assert unsettled(warehouse, [(BTC, day) for day in days]) == []
    found = by_day(standing, symbols=[BTC], days=days, now_ms=NOON)
    assert [(one.open, one.due) for one in found.values()] == [(0, False)] * 3
    recounted = await recount(warehouse, versions, source="local", run_id="r", now_ms=lambda: NOON)
    assert (recounted.lost, recounted.wrong) == (0, [])


async def test_the_age_that_clickhouse_watches_follows_the_setting(warehouse: Warehouse, versions: Versions) -> None:
    """
    Bars of a second are removed by ClickHouse itself: after the days that are said, or never; books only by us.
    """
    assert warehouse.own_age("candles_live") == 30
    for days in (3, 3, 0, 12):
        await kept(warehouse, versions, [Retention("candles_1s", days)])
        assert warehouse.own_age("candles_live") == days

    warehouse.set_own_age("order_books", "ts", 7)  # as the schema had it at first
    assert warehouse.own_age("order_books") == 7
    await kept(warehouse, versions, [])
    assert warehouse.own_age("order_books") == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trades", "is not NAME=DAYS"),
        ("trades=-1", "is not NAME=DAYS"),
        ("trades=1.5", "is not NAME=DAYS"),
        ("trade=1", "'trade' is not among order_books, candles_1s"),
        ("trades=99999999", "longer than 36,500 days; 0 keeps it for ever"),
    ],
)
def test_a_retention_that_makes_no_sense_is_refused(text: str, problem: str) -> None:
    """
    The message says what was written and what could be.
    """
    with pytest.raises(ValueError, match=problem):
        Retention.parse(text)
