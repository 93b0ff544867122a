"""The scorecard of a day whose every fact was written by the test, compared with figures counted here by hand."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.scorecard import Figure
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.pipeline.watch.scorecard import assess, note_budget
from bitget_pipeline.storage.budget import EndpointUse
from bitget_pipeline.storage.warehouse import Warehouse

DAY = date(2026, 3, 14)
START = Interval.of_day(DAY).start_ms
AFTER = START + 2 * 86_400_000
BTC, ETH, PERP = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.SPOT, "ETHUSDT"), Symbol(Market.USDTM, "BTCUSDT")
MINUTE = 60_000


def by_name(figures: Sequence[Figure], market: Market | None = None) -> dict[str, float | None]:
    """The values of a market, or of all."""
    return {one.metric: one.value for one in figures if one.market is market}


def select(warehouse: Warehouse, *symbols: Symbol, at: datetime) -> None:
    """Make these the selection from then on."""
    chosen = [Chosen(symbol, rank, 1e9, Reason.VOLUME) for rank, symbol in enumerate(symbols, start=1)]
    warehouse.store_universe(chosen, selected_at=at, run_id="test")


def put(warehouse: Warehouse, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as they are."""
    names = tuple(rows[0])
    warehouse.insert_columns(table, names, [[row[name] for row in rows] for name in names])


def say(
    warehouse: Warehouse,
    symbol: Symbol,
    stream: str,
    minutes: tuple[float, float],
    state: str,
    *,
    version: int,
    at: float,
    reason: str = "",
    rows: int = 0,
) -> None:
    """A statement of the ledger about minutes of the day, written down at a minute of it."""
    row = {
        "market": symbol.market.value,
        "symbol": symbol.name,
        "stream": stream,
        "interval_start": START + round(minutes[0] * MINUTE),
        "interval_end": START + round(minutes[1] * MINUTE),
        "state": state,
        "rows": rows,
        "expected": 0,
        "digest": 0,
        "reason": reason,
        "version": version,
        "run_id": "test",
        "inserted_at": START + round(at * MINUTE),
    }
    put(warehouse, "coverage_evidence", [row])


@pytest.fixture
def selected(warehouse: Warehouse) -> Warehouse:
    """A warehouse in which three symbols of two markets were selected the day before."""
    select(warehouse, BTC, ETH, PERP, at=datetime(2026, 3, 13, 12, tzinfo=UTC))
    return warehouse


def test_completeness_is_what_is_proven_of_what_can_be_had(selected: Warehouse) -> None:
    """
    BTC: all but 10 minutes, of which 4 are proven empty; ETH: nothing but 100 minutes before its listing; the perpetual: all.
    """
    say(selected, BTC, "candles_1m", (0, 1440), "partial", version=1, at=1500)
    say(selected, BTC, "candles_1m", (100, 104), "verified_empty", version=1, at=1500)
    say(selected, BTC, "candles_1m", (200, 206), "unknown", version=1, at=1500)
    say(selected, ETH, "candles_1m", (0, 100), "unavailable", version=1, at=1500)
    say(selected, PERP, "candles_1m", (0, 1440), "complete", version=1, at=1500)

    figures = assess(selected, DAY, source="local", now_ms=AFTER)
    spot, futures, whole = (by_name(figures, market) for market in (Market.SPOT, Market.USDTM, None))

    assert spot["expected_minutes"] == 1440 + 1340
    assert spot["proven_minutes"] == 1434
    assert spot["empty_minutes"] == 4
    assert spot["open_minutes"] == 6 + 1340
    assert spot["unavailable_minutes"] == whole["unavailable_minutes"] == 100
    assert futures["completeness"] == 1.0
    assert whole["completeness"] == pytest.approx((1434 + 1440) / (2780 + 1440))


def test_a_symbol_counts_if_it_was_selected_at_some_moment_of_the_day(selected: Warehouse) -> None:
    """
    One that was dropped at noon counts, one that came at noon too, one that came the day after does not.
    """
    select(selected, BTC, at=datetime(2026, 3, 14, 12, tzinfo=UTC))
    select(selected, BTC, Symbol(Market.SPOT, "NEWUSDT"), at=datetime(2026, 3, 15, 1, tzinfo=UTC))

    def expected(day: date) -> float | None:
        return by_name(assess(selected, day, source="local", now_ms=AFTER))["expected_minutes"]

    assert expected(DAY) == 3 * 1440
    assert expected(DAY + timedelta(days=1)) == 2 * 1440
    assert expected(DAY - timedelta(days=30)) == 3 * 1440  # before the first selection: those of the first one


def test_holes_and_breaks_are_counted_by_what_became_of_them(selected: Warehouse) -> None:
    """
    History: one filled, one proven empty, one open. Live: one bridged at once, one after a while, one lost, one open.
    """
    say(selected, BTC, "candles_1m", (10, 11), "unknown", version=1, at=1500)
    say(selected, BTC, "candles_1m", (20, 22), "unknown", version=1, at=1500)
    say(selected, PERP, "candles_1m", (30, 33), "unknown", version=1, at=1500)
    say(selected, BTC, "candles_1m", (10, 11), "complete", version=2, at=1600)
    say(selected, BTC, "candles_1m", (20, 22), "verified_empty", version=2, at=1600)
    say(selected, Symbol(Market.SPOT, "GONEUSDT"), "candles_1m", (1, 2), "unknown", version=1, at=1500)

    say(selected, BTC, "trades", (5, 6), "complete", version=3, at=6.5, reason="a break, bridged by trade ids")
    say(selected, BTC, "trades", (50, 60), "unknown", version=4, at=61, reason="a break that is not repaired yet: …")
    say(selected, BTC, "trades", (50, 60), "complete", version=5, at=70, reason="a break, bridged by trade ids")
    say(selected, ETH, "trades", (7, 9), "unknown", version=6, at=9.5)
    say(selected, ETH, "trades", (7, 9), "unavailable", version=7, at=30, reason="older than the 90 days")
    say(selected, PERP, "trades", (7, 9), "unknown", version=8, at=9.1)

    figures = assess(selected, DAY, source="local", now_ms=AFTER)
    spot, whole = by_name(figures, Market.SPOT), by_name(figures)

    assert [whole[f"holes_{what}"] for what in ("found", "repaired", "proven_empty", "lost", "open")] == [3, 1, 1, 0, 1]
    assert [spot[f"holes_{what}"] for what in ("found", "open")] == [2, 0]
    assert [whole[f"hole_detect_seconds_{what}"] for what in ("p50", "max")] == [1478 * 60.0, 1489 * 60.0]
    assert [whole[f"hole_repair_seconds_{what}"] for what in ("p50", "max")] == [1589 * 60.0] * 2  # of the one filled
    assert [whole[f"breaks_{what}"] for what in ("found", "repaired", "lost", "open")] == [4, 2, 1, 1]
    assert [spot[f"breaks_{what}"] for what in ("found", "open")] == [3, 0]
    assert spot["break_detect_seconds_p50"] == 30.0
    assert spot["break_detect_seconds_max"] == 60.0
    assert spot["break_repair_seconds_p50"] == 30.0
    assert spot["break_repair_seconds_max"] == 600.0


def test_latency_and_duplicates_are_those_of_the_days_trades(selected: Warehouse) -> None:
    """
    A thousand trades of known lags; one of them stored twice by its key, one by two keys; others of the next day.
    """
    drawn = random.Random(8)
    lags = [drawn.randrange(1, 5000) for _ in range(1000)]
    rows = [
        {
            "market": "spot",
            "symbol": "BTCUSDT",
            "source": "local",
            "trade_id": 1000 + n,
            "ts": START + n * 1000,
            "price": 1.0,
            "size": 1.0,
            "side": "buy",
            "version": 1,
            "run_id": "test",
            "received_at": START + n * 1000 + 40,
            "inserted_at": START + n * 1000 + 40 + lag,
        }
        for n, lag in enumerate(lags)
    ]
    put(selected, "trades", rows)
    late = {**rows[-1], "ts": START + 86_400_000, "trade_id": 5, "inserted_at": START + 3 * 86_400_000}
    put(selected, "trades", [late])
    put(selected, "trades", [{**rows[7], "market": "usdtm"}, {**rows[7], "market": "usdtm", "ts": START + 90_000_0}])
    put(selected, "trades", [rows[3]])

    figures = assess(selected, DAY, source="local", now_ms=AFTER)
    spot, futures = by_name(figures, Market.SPOT), by_name(figures, Market.USDTM)
    ordered = sorted([*lags, lags[3]])

    assert (spot["trades"], spot["duplicates"]) == (1000, 0)
    assert (futures["trades"], futures["duplicates"]) == (1, 1)
    assert (by_name(figures)["trades"], by_name(figures)["duplicates"]) == (1001, 1)
    assert spot["lag_p50_seconds"] == pytest.approx(ordered[len(ordered) // 2] / 1000, abs=0.02)
    assert spot["lag_p99_seconds"] == pytest.approx(ordered[round(0.99 * len(ordered))] / 1000, abs=0.05)


def test_minutes_that_agree_and_incidents_are_counted(selected: Warehouse) -> None:
    """
    Of ten minutes seven agree at once, two after a repair, one never; three incidents of two kinds, two of them over.
    """
    states = ["matched"] * 7 + ["repaired"] * 2 + ["unexplained"]
    fields = ("open", "high", "low", "close", "base_volume")
    bar = {f"{who}_{name}": 1.0 for who in ("our", "their") for name in fields}
    put(
        selected,
        "reconciliation",
        [
            {
                "market": "spot",
                "symbol": "BTCUSDT",
                "source": "local",
                "minute": START + n * MINUTE,
                "state": state,
                **bar,
                "version": 1,
            }
            for n, state in enumerate(states)
        ],
    )
    begun = [("gap_not_repairable", "degraded", "spot", 10, 70), ("recount_differs", "critical", "", 20, None)]
    begun += [("gap_not_repairable", "degraded", "usdtm", 30, 60)]
    put(
        selected,
        "incidents",
        [
            {
                "incident_id": f"i{n}",
                "opened_at": START + opened * 1000,
                "closed_at": None if closed is None else START + closed * 1000,
                "kind": kind,
                "severity": severity,
                "market": market,
                "symbol": "",
                "what": "it went wrong",
                "details": "{}",
                "version": 1,
            }
            for n, (kind, severity, market, opened, closed) in enumerate(begun)
        ],
    )

    figures = assess(selected, DAY, source="local", now_ms=AFTER)
    spot, futures, whole = (by_name(figures, market) for market in (Market.SPOT, Market.USDTM, None))

    assert (spot["reconciled_minutes"], spot["reconcile_rate"], spot["unexplained_minutes"]) == (10, 0.9, 1)
    assert futures["reconcile_rate"] is None
    assert (whole["incidents"], whole["incidents_critical"]) == (3, 1)
    assert (spot["incidents"], futures["incidents"]) == (1, 1)
    assert (whole["incidents:gap_not_repairable"], whole["incidents:recount_differs"]) == (2, 1)
    assert (whole["incident_seconds_p50"], whole["incident_seconds_max"]) == (30.0, 60.0)


def test_what_was_never_counted_is_not_called_none(warehouse: Warehouse) -> None:
    """
    A day of which nothing is stored: no figure is a made-up 0, and each says why.
    """
    figures = assess(warehouse, DAY, source="local", now_ms=AFTER)
    counted = {one.metric for one in figures if one.value is not None}

    assert counted == {"incidents", "incidents_critical"}
    assert all(one.reason for one in figures if one.value is None)


def test_the_budget_is_counted_from_its_readings(selected: Warehouse) -> None:
    """
    Readings a minute apart over one hour of the day: granted, refused, the busiest minute and the use of what was planned.
    """

    def use(granted: int, refused: int) -> list[EndpointUse]:
        return [
            EndpointUse("spot.candles", 1.0, 1.0, 0.0, granted, refused),
            EndpointUse("mix.candles", 1.0, 0.5, 3.0, granted, 0),
        ]

    for minute in range(61):
        note_budget(
            selected, use(60 * minute, minute // 30), planned=10.0, closed_for=0.0, now_ms=START + minute * MINUTE
        )

    whole = by_name(assess(selected, DAY, source="local", now_ms=AFTER))

    assert (whole["requests"], whole["requests_refused"]) == (7200, 2)
    assert whole["budget_use"] == pytest.approx(7200 / 36_000)
    assert whole["budget_use_peak"] == pytest.approx(120 / 600)
    (pace,) = {row[0] for row in selected.query("SELECT pace FROM budget_readings")}
    assert pace == 0.5


def test_figures_are_kept_and_the_newest_computation_of_a_day_holds(selected: Warehouse) -> None:
    """
    A day computed again replaces what it said before; what cannot be known is empty in the view, and not 0.
    """
    before = [
        Figure("completeness", None, 0.5),
        Figure("incidents:old", None, 1.0),
        Figure("completeness", Market.SPOT, 0.4),
    ]
    after = [
        Figure("completeness", None, 1.0),
        Figure("lag_p99_seconds", None, None, "no trades of the day are stored"),
    ]
    selected.store_scorecard(DAY, before, version=1, run_id="test")
    selected.store_scorecard(DAY, after, version=2, run_id="test")

    assert selected.scorecard(DAY, DAY) == {DAY: after}
    assert selected.scorecard(DAY, DAY, metrics=["lag_p99_seconds"]) == {DAY: after[1:]}
    rows = selected.query("SELECT day, completeness, lag_p99_seconds, trades FROM scorecard_by_day WHERE market = ''")
    assert rows == [(DAY, 1.0, None, None)]
    met = selected.query("SELECT metric, met FROM scorecard_final WHERE version = 2 ORDER BY metric")
    assert met == [("completeness", 1), ("lag_p99_seconds", None)]
