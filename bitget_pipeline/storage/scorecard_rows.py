"""
The scorecard in ClickHouse: the facts that a day's figures are made of, and the figures themselves.

Part of the warehouse (warehouse.py); asked and told by pipeline/watch/scorecard.py. Every question is about one interval and
answered by market, with a line for all of them (market None).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from ..market.coverage import CoverageState
from ..market.instrument import Market, Symbol
from ..market.interval import Interval
from ..market.scorecard import Figure, Reading, Statement, metric_of
from .connection import Connection

_WITHIN = (
    "{column} >= fromUnixTimestamp64Milli({{start:Int64}}, 'UTC') "
    "AND {column} < fromUnixTimestamp64Milli({{end:Int64}}, 'UTC')"
)
_SPILL = "SETTINGS max_bytes_before_external_group_by = 500000000"


@dataclass(frozen=True, slots=True)
class TradesOfDay:
    """Distinct trades, those a reader sees once too often, and quantiles of the time from arrival to row, in seconds."""

    trades: int
    repeated: int
    lag_p50: float | None
    lag_p99: float | None


@dataclass(frozen=True, slots=True)
class ReconciledOfDay:
    """Minutes compared with the exchange's own bars, those that agree, and those that never will."""

    minutes: int
    agreeing: int
    unexplained: int


@dataclass(frozen=True, slots=True)
class IncidentOfDay:
    """An incident that began within the interval; `seconds` is how long it lasted, None while it does."""

    market: Market | None
    kind: str
    severity: str
    seconds: float | None


def _place(value: str) -> Market | None:
    return Market(value) if value else None


def _span(interval: Interval) -> dict[str, Any]:
    return {"start": interval.start_ms, "end": interval.end_ms}


class ScorecardRows(Connection):
    """What a day's figures are made of, and the figures."""

    def selected_within(self, interval: Interval) -> list[Symbol]:
        """Every symbol of the selections that held at some moment of the interval; of the first one, if it came later."""
        rows = self.query(
            "SELECT DISTINCT market, symbol FROM universe_final WHERE selected_at < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "AND selected_at >= (SELECT maxIf(selected_at, selected_at <= fromUnixTimestamp64Milli({start:Int64}, 'UTC')) "
            "FROM universe) OR (SELECT min(selected_at) FROM universe) >= fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
            "AND selected_at = (SELECT min(selected_at) FROM universe) ORDER BY market, symbol",
            _span(interval),
        )
        return [Symbol(Market(market), name) for market, name in rows]

    def statements(self, stream: str, interval: Interval) -> list[Statement]:
        """Everything the ledger ever said of a stream about stretches that touch the interval, by version."""
        rows = self.query(
            "SELECT market, symbol, toUnixTimestamp64Milli(interval_start), toUnixTimestamp64Milli(interval_end), state, reason, "
            "version, toUnixTimestamp64Milli(inserted_at) FROM coverage_evidence WHERE stream = {stream:String} "
            "AND interval_end > fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            "AND interval_start < fromUnixTimestamp64Milli({end:Int64}, 'UTC') ORDER BY version",
            {"stream": stream, **_span(interval)},
        )
        return [
            Statement(
                Symbol(Market(row[0]), row[1]), Interval(row[2], row[3]), CoverageState(row[4]), row[5], row[6], row[7]
            )
            for row in rows
        ]

    def trades_of(self, interval: Interval) -> dict[Market | None, TradesOfDay]:
        """The trades of the interval by market; empty where there are none at all."""
        counted = self.query(
            "SELECT market, sum(times), sum(times - 1) FROM (SELECT market, count() AS times FROM trades_final "
            f"WHERE {_WITHIN.format(column='ts')} GROUP BY market, symbol, source, trade_id) "
            f"GROUP BY market WITH ROLLUP {_SPILL}",
            _span(interval),
        )
        # Weighted by distinct milliseconds: exact, and small however many trades there are.
        waited = self.query(
            "SELECT market, quantilesExactWeighted(0.5, 0.99)("
            "greatest(0, toUnixTimestamp64Milli(inserted_at) - toUnixTimestamp64Milli(received_at)), 1) "
            f"FROM trades WHERE {_WITHIN.format(column='ts')} GROUP BY market WITH ROLLUP",
            _span(interval),
        )
        lags = {market: (half / 1000, most / 1000) for market, (half, most) in waited}
        return {
            _place(market): TradesOfDay(int(seen - again), int(again), *lags.get(market, (None, None)))
            for market, seen, again in counted
            if seen
        }

    def reconciled_of(self, interval: Interval, *, source: str) -> dict[Market | None, ReconciledOfDay]:
        """Minutes of ours beside the exchange's own, by market; empty where none was compared."""
        rows = self.query(
            "SELECT market, count(), countIf(state IN ('matched', 'repaired')), countIf(state = 'unexplained') "
            f"FROM reconciliation_final WHERE {_WITHIN.format(column='minute')} AND source = {{source:String}} "
            "GROUP BY market WITH ROLLUP",
            {"source": source, **_span(interval)},
        )
        return {_place(row[0]): ReconciledOfDay(*map(int, row[1:])) for row in rows if row[1]}

    def incidents_of(self, interval: Interval) -> list[IncidentOfDay]:
        """The incidents that began within the interval, oldest first."""
        rows = self.query(
            "SELECT market, kind, severity, toUnixTimestamp64Milli(closed_at) - toUnixTimestamp64Milli(opened_at) "
            f"FROM incidents_final WHERE {_WITHIN.format(column='opened_at')} ORDER BY opened_at, incident_id",
            _span(interval),
        )
        return [
            IncidentOfDay(_place(market), kind, severity, None if ms is None else max(0, ms) / 1000)
            for market, kind, severity, ms in rows
        ]

    # ---------------------------------------------------------------- the budget's counters

    def store_budget_reading(self, reading: Reading, *, pace: float, closed_for: float) -> None:
        """Write down what the budget's counters show."""
        row = {
            "at": reading.at_ms,
            "granted": reading.granted,
            "refused": reading.refused,
            "planned": reading.planned,
            "pace": pace,
            "closed_for": closed_for,
        }
        self.insert_columns("budget_readings", tuple(row), [[value] for value in row.values()])

    def budget_readings(self, interval: Interval) -> list[Reading]:
        """The readings within the interval, oldest first."""
        rows = self.query(
            "SELECT toUnixTimestamp64Milli(at), granted, refused, planned FROM budget_readings "
            f"WHERE {_WITHIN.format(column='at')} ORDER BY at",
            _span(interval),
        )
        return [Reading(*row) for row in rows]

    # ---------------------------------------------------------------- the figures

    def store_scorecard(self, day: date, figures: Sequence[Figure], *, version: int, run_id: str) -> int:
        """Write down the figures of a UTC day; those of a greater version replace."""
        at = Interval.of_day(day).start_ms
        rows = []
        for one in figures:
            metric = metric_of(one.metric)
            met = metric.met(one.value)
            rows.append(
                (
                    at,
                    one.metric,
                    str(one.market or ""),
                    "",
                    one.value,
                    metric.unit,
                    metric.target,
                    None if met is None else int(met),
                    one.reason,
                    version,
                    run_id,
                )
            )
        return self.insert_columns("scorecard", _COLUMNS, [list(column) for column in zip(*rows, strict=True)])

    def scorecard(self, first: date, last: date, *, metrics: Collection[str] = ()) -> dict[date, list[Figure]]:
        """
        The figures of the UTC days from the first to the last, of these metrics or all, as they were written down last.

        Of each day what its newest computation said: an incident kind that is gone since is not among them.
        """
        rows = self.query(
            "SELECT toUnixTimestamp64Milli(at), metric, market, value, reason FROM scorecard_final AS s "
            "INNER JOIN (SELECT at, max(version) AS newest FROM scorecard GROUP BY at) AS n "
            "ON s.at = n.at AND s.version = n.newest "
            f"WHERE {_WITHIN.format(column='s.at')} "
            "AND s.symbol = '' AND (empty({metrics:Array(String)}) OR has({metrics:Array(String)}, metric)) "
            "ORDER BY s.at, metric, market",
            {
                "start": Interval.of_day(first).start_ms,
                "end": Interval.of_day(last).end_ms,
                "metrics": list(metrics),
            },
        )
        found: dict[date, list[Figure]] = {}
        for ms, metric, market, value, reason in rows:
            day = datetime.fromtimestamp(ms / 1000, tz=UTC).date()
            found.setdefault(day, []).append(Figure(metric, _place(market), value, reason))
        return found


_COLUMNS = (
    "at",
    "metric",
    "market",
    "symbol",
    "value",
    "unit",
    "target",
    "met",
    "reason",
    "version",
    "run_id",
)
