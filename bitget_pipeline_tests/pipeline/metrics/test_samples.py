"""Samples made of facts: names and meanings that are documented, nothing made up, and bounded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from bitget_pipeline.guard.vitals import Status, Vital
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.metrics.names import GROUPS, PREFIX, SPECS, as_markdown
from bitget_pipeline.pipeline.metrics.samples import (
    MOST_SYMBOLS,
    InClickHouse,
    InRedis,
    of_clickhouse,
    of_redis,
)
from bitget_pipeline.storage.budget import EndpointUse
from bitget_pipeline.storage.control import Published
from bitget_pipeline.storage.lease import LeaseState
from bitget_pipeline.storage.overview import Backlog

NOW_MS = 1_800_000_000_000
BTC = Symbol(Market.SPOT, "BTCUSDT")

OVERALL = {
    "run_id": "run-1",
    "generation": "abc",
    "stage": "live",
    "trouble": "",
    "appended": 100,
    "stored": 90,
    "repaired": 3,
    "lag_p50_ms": 500,
    "lag_p99_ms": None,
    "traded_lag_p50_ms": 650,
    "gaps_open": 1,
    "repair_seconds_left": None,
    "stream_capacity": 1000,
    "silences": {"mended": 4, "newest": "spot:BTCUSDT"},
    "shed": {"books15": "the disk is nearly full"},
    "connections": {
        "spot-0": {
            "opened": 2,
            "reconnects": 1,
            "age": 12.5,
            "frames": 77,
            "live": 9,
            "asked": 1,
            "silent": 0,
            "refused": 0,
        },
        "spot-1": {
            "opened": 0,
            "reconnects": 0,
            "age": None,
            "frames": 0,
            "live": 0,
            "asked": 10,
            "silent": 0,
            "refused": 0,
        },
    },
    "order_books": {"stored": 50, "waiting": 2, "dropped": 0, "trouble": ""},
    "reconcile": {"minutes": 10, "matched": 9, "repaired": 1, "unexplained": 0, "waiting": 2},
    "attention": {
        "remediation": {
            "mode": "on",
            "rules": [
                {"rule": "backlog", "open": 1, "acted_last_hour": 2, "action": "widen_flush", "by": "the live run"}
            ],
        }
    },
    "failover": {"spot": {"state": "substituted"}, "coinm": {"state": "none", "reason": "nobody trades it"}},
}
VITALS = [
    Vital("subscription.silence", Status.DEGRADED, subject="spot/BTCUSDT"),
    Vital("subscription.silence", Status.HEALTHY, subject="spot/ETHUSDT"),
    Vital("disk.free", Status.HEALTHY),
]
SAID = {
    "trades": 40,
    "stored_trades": 39,
    "last_data_ms": NOW_MS - 2500,
    "rate": 1.5,
    "pace": 0.8,
    "silent": "",
    "gap": True,
}


def facts(published: Published | None) -> InRedis:
    """What Redis knows, with a lease and some use of the budget."""
    use = [EndpointUse("spot.candles", 1.0, 0.5, 3.0, 120, 2)]
    lease = LeaseState("run-1", 7, NOW_MS, 0.4, 11.6)
    return InRedis(lease, published, Backlog(12, 4, 1.25), use, 0.0, Status.DEGRADED, VITALS)


def samples(families: list[Metric]) -> dict[tuple[str, ...], float]:
    """Values by name and labels, read back from what Prometheus would get."""

    class Told:
        def collect(self) -> list[Metric]:
            return families

    registry = CollectorRegistry()
    registry.register(Told())
    text = generate_latest(registry).decode()
    return {
        (
            name := sample.name.removeprefix(PREFIX),
            *(sample.labels[label] for label in SPECS[name].labels),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_the_run_publishes_is_shown_in_base_units() -> None:
    """
    Milliseconds become seconds, ages are counted to now, states are 1 and 0.
    """
    got = samples(of_redis(facts(Published(0.5, OVERALL, {BTC: SAID})), now_ms=NOW_MS))

    assert got["live_trades_received_total",] == 100
    assert got["live_lag_seconds", "0.5"] == 0.5
    assert got["live_traded_lag_seconds", "0.5"] == 0.65
    assert got["symbol_data_age_seconds", "spot", "BTCUSDT"] == 2.5
    assert got["symbol_gap_open", "spot", "BTCUSDT"] == 1
    assert got["live_silences_mended_total",] == 4
    assert (got["connection_open", "spot-0"], got["connection_open", "spot-1"]) == (1, 0)
    assert got["connection_subscriptions", "spot-0", "live"] == 9
    assert got["budget_requests_refused_total", "spot.candles"] == 2
    assert got["stream_oldest_age_seconds",] == 1.25
    assert got["companion_rows_stored_total", "order_books"] == 50
    assert got["live_reconciled_bars_total", "matched"] == 9
    assert (got["health", "degraded"], got["health", "healthy"]) == (1, 0)
    assert (got["failover_state", "spot", "substituted"], got["failover_state", "spot", "ours"]) == (1, 0)
    assert got["failover_state", "coinm", "none"] == 1
    assert got["live_lease_fence",] == 7
    assert got["remedy_open", "backlog", "the live run"] == 1
    assert got["remedy_actions_last_hour", "backlog", "widen_flush", "the live run"] == 2


def test_the_supervisors_rules_are_told_beside_the_runs_also_without_a_run() -> None:
    """
    Both may have a rule of one name; each has its series.
    """
    its = {"rule": "mute_run", "open": 1, "acted_last_hour": 3, "action": "relaunch", "by": "the supervisor"}
    told = {"rules": [its, its | {"rule": "backlog", "open": 0, "acted_last_hour": 0}]}
    alone = samples(of_redis(replace(facts(None), supervisor=told), now_ms=NOW_MS))
    assert alone["remedy_open", "mute_run", "the supervisor"] == 1
    assert alone["remedy_actions_last_hour", "mute_run", "relaunch", "the supervisor"] == 3
    both = samples(of_redis(replace(facts(Published(0.5, OVERALL, {})), supervisor=told), now_ms=NOW_MS))
    assert [both["remedy_open", "backlog", by] for by in ("the live run", "the supervisor")] == [1, 0]


def test_a_vital_has_the_worst_status_of_its_subjects() -> None:
    """
    One series for each status, however many symbols there are.
    """
    got = samples(of_redis(facts(Published(0.5, OVERALL, {})), now_ms=NOW_MS))

    assert (got["vital", "subscription.silence", "degraded"], got["vital", "subscription.silence", "healthy"]) == (1, 0)
    assert got["vital_subjects", "subscription.silence"] == 1
    assert got["vital", "disk.free", "healthy"] == 1


def test_a_symbol_is_overdue_when_health_says_so_and_not_by_its_pace_alone() -> None:
    """
    As the alert rule for silent symbols takes it; of one that cannot be judged nothing is said.
    """
    eth, sol = Symbol(Market.SPOT, "ETHUSDT"), Symbol(Market.SPOT, "SOLUSDT")
    long_silent = {**SAID, "last_data_ms": NOW_MS - 3_600_000}
    said = Published(0.5, OVERALL, {BTC: SAID, eth: long_silent, sol: long_silent})
    got = samples(of_redis(facts(said), now_ms=NOW_MS))

    assert (got["symbol_overdue", "spot", "BTCUSDT"], got["symbol_overdue", "spot", "ETHUSDT"]) == (1, 0)
    assert ("symbol_overdue", "spot", "SOLUSDT") not in got


def test_what_is_not_known_has_no_sample() -> None:
    """
    No lag of nothing, no age of what never came, and no run at all.
    """
    quiet = {**SAID, "last_data_ms": 0, "pace": 0.0}
    got = samples(of_redis(facts(Published(0.5, OVERALL, {BTC: quiet})), now_ms=NOW_MS))

    assert ("live_lag_seconds", "0.99") not in got
    assert ("live_repair_remaining_seconds",) not in got
    assert ("symbol_data_age_seconds", "spot", "BTCUSDT") not in got
    assert ("symbol_arrivals_per_second", "spot", "BTCUSDT") not in got
    nobody = samples(of_redis(InRedis(None, None, Backlog(0, 0, None), [], 0.0, Status.UNKNOWN), now_ms=NOW_MS))
    assert nobody["live_lease_held",] == 0
    assert nobody["health", "unknown"] == 1
    assert not [key for key in nobody if key[0].startswith(("symbol_", "connection_", "live_trades"))]


def test_no_answer_grows_without_bound() -> None:
    """
    Symbols beyond the bound are left out, and counted.
    """
    many = {Symbol(Market.SPOT, f"S{n:04}USDT"): SAID for n in range(MOST_SYMBOLS + 7)}
    got = samples(of_redis(facts(Published(0.5, OVERALL, many)), now_ms=NOW_MS))

    assert got["series_left_out", "symbols"] == 7
    assert len([key for key in got if key[0] == "symbol_gap_open"]) == MOST_SYMBOLS


def test_what_clickhouse_holds_is_shown() -> None:
    """
    Tables, holes, incidents and the newest scorecard.
    """
    found = InClickHouse(
        tables={"trades": (10, 200, 3)},
        newest_trade_age={"spot": 1.5},
        holes={("spot", "candles_1m", "unknown"): (2, 120.0)},
        incidents={("gap_not_repairable", "degraded"): 1},
        scorecard={"completeness": 0.999},
        scorecard_day=1_790_000_000.0,
    )
    got = samples(of_clickhouse(found))

    assert got["table_bytes", "trades"] == 200
    assert got["holes_seconds", "spot", "candles_1m", "unknown"] == 120
    assert got["incidents_open", "gap_not_repairable", "degraded"] == 1
    assert got["scorecard_value", "completeness"] == 0.999
    assert got["scorecard_day_timestamp_seconds",] == 1_790_000_000


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_name_follows_the_conventions_of_prometheus(name: str) -> None:
    """
    Small letters, base units, and a text.
    """
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert not re.search(r"_(ms|millis|milliseconds|minutes_total_seconds|kb|mib|percent|count)$", name)
    assert SPECS[name].about
    assert SPECS[name].kind.value == ("counter" if name.endswith("_total") else "gauge")


def test_every_metric_is_documented_once() -> None:
    """
    docs/metrics.md is what the code says, and no name stands in two groups.
    """
    assert len(SPECS) == sum(len(group.specs) for group in GROUPS)
    written = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == as_markdown(), "run `bitget-pipeline metrics --markdown > docs/metrics.md`"
