"""The recount: what reads complete but is not is found, corrected and fetched again."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
import redis.asyncio

from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.coverage import CoverageState, Evidence
from bitget_pipeline.market.coverage_days import day_of
from bitget_pipeline.market.derivatives import PriceKind
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms, to_ms
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.pipeline.history.derive import derive_candles
from bitget_pipeline.pipeline.history.recount import Recount, recount
from bitget_pipeline.storage.digest import candle_digest
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

BTC, ETH = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "ETHUSDT")
DAY = date(2026, 10, 4)
WHOLE = Interval.of_day(DAY)
NOW_MS = to_ms(datetime(2026, 10, 5, 12, tzinfo=UTC))
MINUTE = Resolution.M1.ms


def bars(price: float = 1.0) -> list[Candle]:
    """A whole day."""
    return [Candle(ms, price, price, price, price, 1.0, price) for ms in range(WHOLE.start_ms, WHOLE.end_ms, MINUTE)]


@pytest.fixture
def versions(redis_client: redis.asyncio.Redis, redis_prefix: str) -> Versions:
    """A counter above what these tests store by hand."""
    return Versions(redis_client, redis_prefix, floor=lambda: 100)


@pytest.fixture
def claimed(warehouse: Warehouse) -> Warehouse:
    """Two symbols, whose days are stored and accounted for."""
    for symbol in (BTC, ETH):
        warehouse.store_candles(symbol, Resolution.M1, bars(), version=1, run_id="one", source="local")
        rows, digest = candle_digest(bars())
        said = Evidence(
            symbol,
            "candles_1m",
            WHOLE,
            CoverageState.COMPLETE,
            rows=rows,
            expected=rows,
            digest=digest,
            reason="stored",
        )
        warehouse.store_evidence([said], version=1, run_id="one")
    return warehouse


async def counted(warehouse: Warehouse, versions: Versions) -> Recount:
    return await recount(warehouse, versions, source="local", run_id="two", now_ms=lambda: NOW_MS)


async def test_a_ledger_that_is_right_stays_as_it_is(claimed: Warehouse, versions: Versions) -> None:
    """
    Nothing is wrong, nothing is written.
    """
    found = await counted(claimed, versions)

    assert (found.statements, found.wrong, found.behind) == (2, [], 0)
    assert claimed.query("SELECT count() FROM coverage_evidence")[0][0] == 2


async def test_lost_bars_do_not_read_complete(claimed: Warehouse, versions: Versions) -> None:
    """
    Rows are gone behind our back: the ledger lists them, due at once, and says so in an incident.
    """
    gone = bars()[300:310]
    claimed.store_candles(BTC, Resolution.M1, gone, version=2, run_id="vandal", source="local", deleted=True)

    found = await counted(claimed, versions)
    assert ([one.symbol for one in found.wrong], found.lost) == ([BTC], 10)

    day = day_of(BTC, DAY, claimed.coverage("candles_1m", symbol=BTC), now_ms=NOW_MS)
    assert (day.state, day.stored, day.open, day.due) == (CoverageState.PARTIAL, 1430, 10, True)
    assert claimed.query("SELECT kind, severity FROM incidents_final") == [("recount_differs", "critical")]
    assert not (await counted(claimed, versions)).wrong


async def test_bars_changed_behind_our_back_are_doubted(claimed: Warehouse, versions: Versions) -> None:
    """
    As many bars, but others: the stretch is fetched again.
    """
    claimed.store_candles(ETH, Resolution.M1, bars(2.0)[:1], version=2, run_id="vandal", source="local")

    found = await counted(claimed, versions)
    assert ([one.symbol for one in found.wrong], found.lost) == ([ETH], 0)
    assert day_of(ETH, DAY, claimed.coverage("candles_1m", symbol=ETH), now_ms=NOW_MS).due


async def test_bars_stored_by_a_run_that_was_killed_are_accounted_for(warehouse: Warehouse, versions: Versions) -> None:
    """
    More is there than the ledger says: that is no loss, and the statement is brought up to date.
    """
    half = Interval(WHOLE.start_ms, WHOLE.start_ms + 10 * MINUTE)
    warehouse.store_candles(BTC, Resolution.M1, bars()[:10], version=1, run_id="one", source="local")
    claim = Evidence(BTC, "candles_1m", half, CoverageState.PARTIAL, rows=4, expected=10, reason="interrupted")
    warehouse.store_evidence([claim], version=1, run_id="one")

    found = await counted(warehouse, versions)
    assert (found.wrong, found.behind) == ([], 1)
    (now,) = warehouse.coverage("candles_1m", symbol=BTC)
    assert (now.state, now.rows) == (CoverageState.COMPLETE, 10)


async def test_the_longer_bars_that_are_lost_are_made_again(claimed: Warehouse, versions: Versions) -> None:
    """
    They need nobody but their minutes: found, told, and there again.
    """
    await derive_candles(claimed, versions, [(BTC, DAY)], source="local", run_id="one")
    claimed.command("ALTER TABLE candles DELETE WHERE resolution = '1h' SETTINGS mutations_sync = 2")
    found = await counted(claimed, versions)
    assert ([(one.symbol, one.stream) for one in found.wrong], found.lost) == ([(BTC, "candles_derived")], 24)
    assert len(claimed.candles(BTC, Resolution.H1, WHOLE)) == 24
    assert not (await counted(claimed, versions)).wrong


async def test_prices_and_trades_that_are_lost_do_not_read_complete(warehouse: Warehouse, versions: Versions) -> None:
    """
    A whole day of trades is due at once, the live run's hour waits for a person; minutes of a price are listed and due.
    """
    place = {"run_id": "one", "source": "local"}
    warehouse.store_price_candles(ETH, PriceKind.MARK, Resolution.M1, bars()[:-5], version=1, **place)
    trades = [Trade(n, WHOLE.start_ms + n * 1000, 1.0, 1.0, True) for n in range(10)]
    warehouse.store_trades([TradeBatch(BTC, trades, NOW_MS), TradeBatch(ETH, trades, NOW_MS)], **place)
    hour = Interval(WHOLE.start_ms, WHOLE.start_ms + 60 * MINUTE)
    claims = [
        Evidence(ETH, "mark_candles_1m", WHOLE, CoverageState.COMPLETE, rows=1440, expected=1440),
        Evidence(BTC, "trades", WHOLE, CoverageState.COMPLETE, rows=12, reason="walked"),
        Evidence(ETH, "trades", hour, CoverageState.COMPLETE, rows=11, reason="agreed"),
        Evidence(
            Symbol(Market.SPOT, "ETHUSDT"), "trades", hour, CoverageState.COMPLETE, rows=0, reason="nothing traded"
        ),
    ]
    warehouse.store_evidence(claims, version=1, run_id="one")

    found = await counted(warehouse, versions)
    assert ({(one.symbol, one.stream) for one in found.wrong}, found.lost) == (
        {(ETH, "mark_candles_1m"), (BTC, "trades"), (ETH, "trades")},
        5 + 2 + 1,
    )
    day = day_of(ETH, DAY, warehouse.coverage("mark_candles_1m", symbol=ETH), now_ms=NOW_MS)
    assert (day.stored, day.open, day.due) == (1435, 5, True)
    (of_day,) = warehouse.coverage("trades", symbol=BTC)
    assert (of_day.state, of_day.rows, of_day.retry_at) == (CoverageState.UNKNOWN, 10, from_ms(NOW_MS))
    (of_hour,) = warehouse.coverage("trades", symbol=ETH)
    assert (of_hour.state, of_hour.retry_at, "on demand" in of_hour.reason) == (CoverageState.UNKNOWN, None, True)
    assert not (await counted(warehouse, versions)).wrong
