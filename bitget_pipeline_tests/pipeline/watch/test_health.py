"""Health is data arriving, per symbol against its own rate; what cannot be evaluated is unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bitget_pipeline.guard.vitals import Status, Vital, as_plain
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.watch.health import Facts, judge, record_health
from bitget_pipeline.storage.control import Published
from bitget_pipeline.storage.lease import LeaseState
from bitget_pipeline.storage.overview import Backlog
from bitget_pipeline.storage.redis_state import RedisState
from bitget_pipeline.storage.warehouse_state import WarehouseState

from .test_attention import NAMES

NOW = 1_800_000_000_000
REDIS = RedisState(used=10, bound=100, policy="noeviction", append_only=True, written=True)
CLICKHOUSE = WarehouseState(12, "trades 20261121", 80, 1_000, 1, 3.0, 0, 0.0, "", 0.5, "default")
SOCKET = {"age": 20.0, "opened": 1, "live": 2, "frames": 1_000, "reconnects": 0, "last_reason": ""}
BUSY, QUIET = Symbol(Market.SPOT, "BUSYUSDT"), Symbol(Market.SPOT, "QUIETUSDT")


def said(*, age: float, within: float = 30.0, **more: Any) -> dict[str, Any]:
    return {"silent_for": age, "within": within, "rate": 1.0, "trades": 100, "stored_trades": 100} | more


def facts(**symbols: dict[str, Any]) -> Facts:
    published = Published(
        0.5,
        {
            "uptime": 3600.0,
            "lag_p50_ms": 400,
            "lag_p99_ms": 800,
            "connections": {"socket-0": SOCKET},
            "traded_lag_p50_ms": 450,
            "traded_lag_p99_ms": 900,
        },
        {Symbol(Market.SPOT, name): one for name, one in symbols.items()},
    )
    lease = LeaseState("run-1", 7, NOW, 1.0, 14.0)
    return Facts(lease, published, Backlog(10, 3, 0.4), redis=REDIS, warehouse=CLICKHOUSE)


def test_symbols_that_deliver_at_their_own_rate_are_healthy():
    """
    Two minutes of silence are nothing for a symbol that trades once in ten minutes.
    """
    health = judge(facts(BUSYUSDT=said(age=1), QUIETUSDT=said(age=120, within=8000.0)), now_ms=NOW)
    assert health.status is Status.HEALTHY, health.reasons


def test_two_minutes_of_silence_are_a_symptom_for_a_busy_symbol():
    """
    The same silence, another rate, another verdict.
    """
    health = judge(facts(BUSYUSDT=said(age=120), QUIETUSDT=said(age=120, within=8000.0)), now_ms=NOW)
    assert health.status in (Status.DEGRADED, Status.CRITICAL)
    assert "BUSYUSDT" in health.reasons[0]
    assert {one.symbol: one.status for one in health.symbols}[QUIET] is Status.HEALTHY


@pytest.mark.parametrize(
    ("changed", "expected", "words"),
    [
        ({"lease": None}, Status.CRITICAL, "no live run holds the lease"),
        ({"published": None}, Status.UNKNOWN, "published anything"),
        ({"warehouse": None}, Status.UNKNOWN, "ClickHouse parts is not known"),
        ({"redis_error": "cannot be reached"}, Status.CRITICAL, "Redis"),
        ({"warehouse_error": "cannot be reached"}, Status.CRITICAL, "ClickHouse"),
        ({"backlog": Backlog(9000, 800, 60.0)}, Status.DEGRADED, "wait in Redis for 60 s"),
        ({"backlog": Backlog(9000, 800, 600.0)}, Status.CRITICAL, "wait in Redis for 600 s"),
    ],
)
def test_each_trouble_is_named(changed, expected, words):
    """
    The verdict comes with its reason.
    """
    health = judge(replace(facts(BUSYUSDT=said(age=1)), **changed), now_ms=NOW)
    assert health.status is expected
    assert any(words in reason for reason in health.reasons)


def test_what_is_not_known_is_unknown():
    """
    A symbol that never delivered, without a rate, is not healthy and not ill: unknown.
    """
    health = judge(facts(NEWUSDT={"silent_for": None, "within": None}), now_ms=NOW)
    assert health.status is Status.UNKNOWN


def test_a_gap_under_repair_and_a_silent_subscription_are_told():
    """
    What the live run knows of a symbol's trouble is passed on.
    """
    health = judge(
        facts(
            AUSDT=said(age=1, gap=True),
            BUSDT=said(age=1, silent="acknowledged, no data"),
            CUSDT=said(age=1),
        ),
        now_ms=NOW,
    )
    assert health.status is Status.DEGRADED
    assert any("gap" in reason for reason in health.reasons)
    assert any("acknowledged, no data" in reason for reason in health.reasons)


def test_trades_on_disk_and_channels_given_up_are_told():
    """
    What the live run could not put where it belongs, and what it stopped collecting, is said with its reason.
    """
    seen = facts(BUSYUSDT=said(age=1))
    seen.published.overall.update({"spill_bytes": 3 * 2**20, "shed": {"books": "the disk is nearly full (8% free)"}})
    health = judge(seen, now_ms=NOW)
    assert health.status is Status.DEGRADED
    assert any("3.0 MiB" in reason for reason in health.reasons)
    assert "books are not collected: the disk is nearly full (8% free)" in health.reasons


def test_a_companion_of_the_live_run_in_trouble_is_told():
    """
    Order books that cannot be stored degrade health, with what the companion says and how much waits.
    """
    found = facts(BUSYUSDT=said(age=1))
    assert found.published is not None
    found.published.overall["order_books"] = {"stored": 5, "waiting": 7, "trouble": "ClickHouse cannot be reached"}
    health = judge(found, now_ms=NOW)
    assert health.status is Status.DEGRADED
    assert health.reasons == ["order books: ClickHouse cannot be reached, 7 rows wait"]


def test_a_stream_that_fills_up_is_told_before_it_overflows():
    """
    Half of what Redis may hold is used: said, with how much.
    """
    seen = facts(BUSYUSDT=said(age=1))
    seen.published.overall["stream_capacity"] = 1_000
    assert judge(replace(seen, backlog=Backlog(499, 3, 0.4)), now_ms=NOW).status is Status.HEALTHY
    health = judge(replace(seen, backlog=Backlog(830, 3, 0.4)), now_ms=NOW)
    assert health.status is Status.DEGRADED
    assert "the stream in Redis is 83% full (830 of 1,000 entries)" in health.reasons


def watched(**changed: Any) -> Facts:
    """A run that publishes what it saw."""
    found = facts(BUSYUSDT=said(age=1))
    assert found.published is not None
    vitals = [Vital("exchange.rest", Status.HEALTHY, "it answers"), Vital("redis.memory", Status.HEALTHY, "enough")]
    found.published.overall["vitals"] = [as_plain(one) for one in vitals]
    return replace(found, **changed)


def test_what_the_live_run_saw_is_passed_on():
    """
    The exchange's answers, which only the run asks for, with the run's own words.
    """
    found = watched()
    assert judge(found, now_ms=NOW).status is Status.HEALTHY
    dark = Vital("exchange.rest", Status.CRITICAL, "the exchange does not answer over HTTP")
    found.published.overall["vitals"] = [as_plain(dark)]
    health = judge(found, now_ms=NOW)
    assert (health.status, health.reasons) == (Status.CRITICAL, ["the exchange does not answer over HTTP"])


def test_of_what_both_saw_the_worse_counts():
    """
    The run finds Redis full, or the sensor does: either way it is told, once.
    """
    full = watched(redis=replace(REDIS, used=95))
    assert [one.status for one in judge(full, now_ms=NOW).vitals if one.name == "redis.memory"] == [Status.CRITICAL]
    blind = watched(redis=replace(REDIS, bound=None))
    assert judge(blind, now_ms=NOW).status is Status.HEALTHY


@pytest.mark.parametrize("name", sorted({*NAMES, "connection.open"}))
def test_without_a_live_run_nothing_that_it_tells_is_left_out(name):
    """
    What only it can see is unknown then, in so many words; the stores and what they hold are seen from outside.
    """
    alone = judge(replace(facts(BUSYUSDT=said(age=1)), lease=None, published=None), now_ms=NOW)
    (vital,) = [one for one in alone.vitals if one.name == name]
    seen_from_outside = name.startswith(("redis.", "clickhouse.", "budget.")) or name == "stream.backlog"
    assert vital.status is (Status.HEALTHY if seen_from_outside else Status.UNKNOWN)


@pytest.mark.parametrize("market", list(Market))
def test_without_a_live_run_nobody_knows_how_the_failover_stands(market):
    """
    It says unknown of every market rather than nothing.
    """
    alone = judge(replace(facts(BUSYUSDT=said(age=1)), lease=None, published=None), now_ms=NOW)
    assert [one.status for one in alone.vitals if one.name == f"failover.{market}"] == [Status.UNKNOWN]


def test_words_that_are_old_are_not_believed():
    """
    A run that said nothing for a minute: critical, and what only it could see is unknown, whatever it said then.
    """
    found = watched()
    health = judge(replace(found, published=replace(found.published, age=60.0)), now_ms=NOW)
    assert health.status is Status.CRITICAL
    assert health.symbols == []
    assert {one.status for one in health.vitals if one.name == "exchange.rest"} == {Status.UNKNOWN}
    assert health.reasons[0] == "the live run has said nothing for 60 s"
    assert "exchange.latency" in health.reasons[1]


def test_a_symbol_goes_on_being_silent_after_it_was_told_of():
    """
    What was said seconds ago is judged at this moment.
    """
    found = facts(BUSYUSDT=said(age=28.0))
    late = replace(found, published=replace(found.published, age=5.0))
    assert judge(found, now_ms=NOW).symbols[0].status is Status.HEALTHY
    assert judge(late, now_ms=NOW).symbols[0].age == 33.0
    assert judge(late, now_ms=NOW).symbols[0].status is Status.DEGRADED


def test_what_dagster_says_counts_too():
    """
    A daemon that stands still degrades the whole, although all data arrives.
    """
    stands = Vital("dagster.daemon", Status.DEGRADED, "the sensor daemon says nothing")
    assert judge(watched(beside=(stands,)), now_ms=NOW).reasons == ["the sensor daemon says nothing"]


def test_everything_that_is_watched_becomes_a_row(warehouse):
    """
    The whole, each symbol, each vital with its figure and its line.
    """
    found = facts(BUSYUSDT=said(age=31.0))
    found.published.overall["connections"] = {"socket-0": {"age": None, "opened": 1, "last_reason": "cut"}}
    record_health(warehouse, judge(found, now_ms=NOW), now_ms=NOW)
    rows = {
        row[:3]: row[3:] for row in warehouse.query("SELECT market, symbol, stream, status, value, line FROM health")
    }
    assert rows["", "", ""] == ("critical", None, None)
    assert rows["spot", "BUSYUSDT", "trades"] == ("degraded", 31.5, 30.0)
    assert rows["", "", "redis.memory"] == ("healthy", 0.1, 0.75)
    assert rows["", "socket-0", "connection.open"][0] == "degraded"
