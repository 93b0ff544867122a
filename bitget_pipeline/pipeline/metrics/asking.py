"""
The questions behind a scrape: Redis in one go, ClickHouse in a few cheap queries.

Input: clients of both stores; output: metric families made by samples.py. Every method raises StoreUnavailable and its kin.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import redis
from prometheus_client.core import Metric

from ...storage.overview import Overview
from ...storage.warehouse import Warehouse
from ..watch.health import Facts, ask_redis, judge
from .samples import InClickHouse, InRedis, of_clickhouse, of_redis

LEDGER_EVERY = 60.0
"""Seconds for which the fold of the ledger holds: of a year of 600 symbols it is the dearest question."""

SUPERVISED_WITHIN = 60.0
"""Seconds for which the supervisor's words hold: it looks every few seconds."""

_TABLES = (
    "SELECT table, sum(rows), sum(bytes_on_disk), count() FROM system.parts "
    "WHERE active AND database = currentDatabase() GROUP BY table"
)
_NEWEST = (
    "SELECT market, (toUnixTimestamp64Milli(now64(3)) - toUnixTimestamp64Milli(max(ts))) / 1000 FROM trades "
    "WHERE ts > now64(3, 'UTC') - INTERVAL 1 HOUR GROUP BY market"
)
_HOLES = (
    "SELECT market, stream, state, count(), "
    "sum(toUnixTimestamp64Milli(interval_end) - toUnixTimestamp64Milli(interval_start)) / 1000 "
    "FROM coverage WHERE state NOT IN ('complete', 'partial') GROUP BY market, stream, state"
)
_INCIDENTS = "SELECT kind, severity, count() FROM incidents_final WHERE closed_at IS NULL GROUP BY kind, severity"
_SCORECARD = (
    "SELECT metric, value, toUnixTimestamp64Milli(at) / 1000 FROM scorecard_final WHERE market = '' AND symbol = '' "
    "AND value IS NOT NULL AND NOT startsWith(metric, 'incidents:') AND at = (SELECT max(at) FROM scorecard)"
)


def redis_families(client: redis.Redis, prefix: str, shard: str, *, egress: str = "default") -> Sequence[Metric]:
    """What the live run published, the lease, what waits, the request budget; and the verdict on it."""
    overview = Overview(client, prefix, shard, egress=egress)
    facts, supervisor = Facts(**ask_redis(overview)), overview.supervisor()
    now_ms = time.time_ns() // 1_000_000
    told = supervisor.said if supervisor is not None and supervisor.age <= SUPERVISED_WITHIN else {}
    return of_redis(InRedis.of(facts, judge(facts, now_ms=now_ms), told), now_ms=now_ms)


class WarehouseQuestions:
    """Asked again and again, over one connection that is opened anew after a failure."""

    def __init__(self, opened: Callable[[], Warehouse], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._opened = opened
        self._clock = clock
        self._warehouse: Warehouse | None = None
        self._holes: dict[tuple[str, str, str], tuple[int, float]] = {}
        self._folded_at = float("-inf")

    def families(self) -> Sequence[Metric]:
        """What ClickHouse holds now."""
        if self._warehouse is None:
            self._warehouse = self._opened()
        try:
            return of_clickhouse(self._ask(self._warehouse))
        except BaseException:
            self.close()
            raise

    def _ask(self, warehouse: Warehouse) -> InClickHouse:
        query = warehouse.query
        if self._clock() - self._folded_at >= LEDGER_EVERY:
            found = query(_HOLES)
            self._holes = {(market, stream, state): (int(n), float(s)) for market, stream, state, n, s in found}
            self._folded_at = self._clock()
        scorecard = query(_SCORECARD)
        return InClickHouse(
            tables={table: (int(rows), int(size), int(parts)) for table, rows, size, parts in query(_TABLES)},
            newest_trade_age={market: max(0.0, float(age)) for market, age in query(_NEWEST)},
            holes=self._holes,
            incidents={(kind, severity): int(count) for kind, severity, count in query(_INCIDENTS)},
            scorecard={metric: float(value) for metric, value, _ in scorecard},
            scorecard_day=max((float(at) for _, _, at in scorecard), default=None),
        )

    def close(self) -> None:
        """Give the connection back."""
        if self._warehouse is not None:
            self._warehouse.close()
            self._warehouse = None
