"""Health is data arriving, per symbol against its own rate; what cannot be evaluated is unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bitget_pipeline.guard.vitals import Status
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.watch.health import Facts, judge
from bitget_pipeline.storage.control import Published
from bitget_pipeline.storage.lease import LeaseState
from bitget_pipeline.storage.overview import Backlog

NOW = 1_800_000_000_000
BUSY, QUIET = Symbol(Market.SPOT, "BUSYUSDT"), Symbol(Market.SPOT, "QUIETUSDT")


def said(*, age: float, rate: float, **more: Any) -> dict[str, Any]:
    return {
        "last_data_ms": NOW - round(age * 1000),
        "rate": rate,
        "pace": rate,
        "trades": 100,
        "stored_trades": 100,
    } | more


def facts(**symbols: dict[str, Any]) -> Facts:
    published = Published(
        0.5, {"uptime": 3600.0, "lag_p99_ms": 800}, {Symbol(Market.SPOT, name): one for name, one in symbols.items()}
    )
    return Facts(LeaseState("run-1", 7, NOW, 1.0, 14.0), published, Backlog(10, 3, 0.4))


def test_symbols_that_deliver_at_their_own_rate_are_healthy():
    """
    Two minutes of silence are nothing for a symbol that trades once in ten minutes.
    """
    health = judge(facts(BUSYUSDT=said(age=1, rate=5.0), QUIETUSDT=said(age=120, rate=1 / 600)), now_ms=NOW)
    assert health.status is Status.HEALTHY, health.reasons


def test_two_minutes_of_silence_are_a_symptom_for_a_busy_symbol():
    """
    The same silence, another rate, another verdict.
    """
    health = judge(facts(BUSYUSDT=said(age=120, rate=5.0), QUIETUSDT=said(age=120, rate=1 / 600)), now_ms=NOW)
    assert health.status in (Status.DEGRADED, Status.CRITICAL)
    assert "BUSYUSDT" in health.reasons[0]
    assert {one.symbol: one.status for one in health.symbols}[QUIET] is Status.HEALTHY


@pytest.mark.parametrize(
    ("changed", "expected", "words"),
    [
        ({"lease": None}, Status.CRITICAL, "no live run holds the lease"),
        ({"published": None}, Status.UNKNOWN, "published anything"),
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
    health = judge(replace(facts(BUSYUSDT=said(age=1, rate=5.0)), **changed), now_ms=NOW)
    assert health.status is expected
    assert any(words in reason for reason in health.reasons)


def test_what_is_not_known_is_unknown():
    """
    A symbol that never delivered, without a rate, is not healthy and not ill: unknown.
    """
    health = judge(facts(NEWUSDT={"last_data_ms": 0, "rate": 0.0}), now_ms=NOW)
    assert health.status is Status.UNKNOWN


def test_a_gap_under_repair_and_a_silent_subscription_are_told():
    """
    What the live run knows of a symbol's trouble is passed on.
    """
    health = judge(
        facts(
            AUSDT=said(age=1, rate=1.0, gap=True),
            BUSDT=said(age=1, rate=1.0, silent="acknowledged, no data"),
            CUSDT=said(age=1, rate=1.0),
        ),
        now_ms=NOW,
    )
    assert health.status is Status.DEGRADED
    assert "gap" in health.reasons[0]
    assert "acknowledged, no data" in health.reasons[0]


def test_trades_on_disk_and_channels_given_up_are_told():
    """
    What the live run could not put where it belongs, and what it stopped collecting, is said with its reason.
    """
    seen = facts(BUSYUSDT=said(age=1, rate=5.0))
    seen.published.overall.update({"spill_bytes": 3 * 2**20, "shed": {"books": "the disk is nearly full (8% free)"}})
    health = judge(seen, now_ms=NOW)
    assert health.status is Status.DEGRADED
    assert any("3.0 MiB" in reason for reason in health.reasons)
    assert "books are not collected: the disk is nearly full (8% free)" in health.reasons


def test_a_companion_of_the_live_run_in_trouble_is_told():
    """
    Order books that cannot be stored degrade health, with what the companion says and how much waits.
    """
    found = facts(BUSYUSDT=said(age=1, rate=5.0))
    assert found.published is not None
    found.published.overall["order_books"] = {"stored": 5, "waiting": 7, "trouble": "ClickHouse cannot be reached"}
    health = judge(found, now_ms=NOW)
    assert health.status is Status.DEGRADED
    assert health.reasons == ["order books: ClickHouse cannot be reached, 7 rows wait"]


def test_a_stream_that_fills_up_is_told_before_it_overflows():
    """
    Half of what Redis may hold is used: said, with how much.
    """
    seen = facts(BUSYUSDT=said(age=1, rate=5.0))
    seen.published.overall["stream_capacity"] = 1_000
    assert judge(replace(seen, backlog=Backlog(499, 3, 0.4)), now_ms=NOW).status is Status.HEALTHY
    health = judge(replace(seen, backlog=Backlog(830, 3, 0.4)), now_ms=NOW)
    assert health.status is Status.DEGRADED
    assert "the stream in Redis is 83% full (830 of 1,000 entries)" in health.reasons
