"""Each thing that is watched has its line, its figure and its reason; what cannot be evaluated is unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bitget_pipeline.guard.breaker import Breaker
from bitget_pipeline.guard.vitals import Line, Status, Vital, as_plain, from_plain
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.watch.clocks import Clocks
from bitget_pipeline.pipeline.watch.flow import Flow
from bitget_pipeline.pipeline.watch.health_rules import HealthRules
from bitget_pipeline.pipeline.watch.of_the_exchange import exchange_vitals
from bitget_pipeline.pipeline.watch.of_the_run import flow_vitals, run_vitals, symbol_vitals, together
from bitget_pipeline.pipeline.watch.of_the_stores import (
    answers,
    backlog_vitals,
    budget_vitals,
    disk_vital,
    redis_vitals,
    warehouse_vitals,
)
from bitget_pipeline.pipeline.watch.probe import Probe
from bitget_pipeline.storage.breaker_board import Resting
from bitget_pipeline.storage.budget import EndpointUse
from bitget_pipeline.storage.overview import Backlog
from bitget_pipeline.storage.redis_state import RedisState
from bitget_pipeline.storage.warehouse_state import WarehouseState

RULES = HealthRules()
BTC = Symbol(Market.SPOT, "BTCUSDT")
REDIS = RedisState(used=10, bound=100, policy="noeviction", append_only=True, written=True)
CLICKHOUSE = WarehouseState(12, "trades 20261121", 80, 1_000, 1, 3.0, 0, 0.0, "", 0.5, "default")


def by_name(vitals: list[Vital]) -> dict[str, Vital]:
    return {one.name: one for one in vitals}


def probes(*answered: bool, latency: float = 0.05, skew: float = 0.0) -> list[Probe]:
    return [
        Probe(100.0 + 3 * n, ok, latency if ok else None, skew if ok else None, "" if ok else "cut off")
        for n, ok in enumerate(answered)
    ]


def seen(found: list[Probe], withheld: str = "") -> dict[str, Vital]:
    return by_name(exchange_vitals(found, now=120.0, withheld=withheld, rules=RULES))


def test_a_line_is_crossed_upwards_or_downwards():
    """
    Where the critical line is the lower one, less is worse; the limit is the line that was crossed.
    """
    assert Line(5.0, 60.0).judge(4.0) == (Status.HEALTHY, 5.0)
    assert Line(5.0, 60.0).judge(6.0) == (Status.DEGRADED, 5.0)
    assert Line(5.0, 60.0).judge(61.0) == (Status.CRITICAL, 60.0)
    assert [Line(0.7, 0.5).judge(value)[0] for value in (0.7, 0.6, 0.4)] == [
        Status.HEALTHY,
        Status.DEGRADED,
        Status.CRITICAL,
    ]


def test_a_vital_that_is_published_comes_back_as_it_was():
    """
    Through JSON and back, empty fields left out; a status of another version is unknown.
    """
    vital = Vital("subscription.silence", Status.DEGRADED, "silent", 31.5, 30.0, "spot/BTCUSDT")
    assert from_plain(as_plain(vital)) == vital
    assert as_plain(Vital("errors", Status.HEALTHY)) == {"name": "errors", "status": "healthy", "reason": ""}
    assert from_plain({"name": "errors", "status": "splendid"}).status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("answered", "status"),
    [
        ((True, True, True), Status.HEALTHY),
        ((True, True, False), Status.DEGRADED),
        ((True, False, False), Status.CRITICAL),
        ((False, True, False), Status.CRITICAL),
        ((False, False, True, True, True), Status.HEALTHY),
    ],
)
def test_two_of_three_probes_that_fail_mean_that_the_exchange_does_not_answer(answered, status):
    """
    One alone may be chance.
    """
    assert seen(probes(*answered))["exchange.rest"].status is status


def test_an_exchange_that_was_not_asked_is_unknown():
    """
    Before the first probe, and while our own budget allows none: with the reason.
    """
    assert {one.status for one in seen([]).values()} == {Status.UNKNOWN}
    assert "no room" in seen([], "the budget has no room")["exchange.rest"].reason


def test_latency_and_clock_are_held_against_their_lines():
    """
    A slow exchange degrades; a clock that is wrong by two minutes is critical, and it is said in which direction.
    """
    assert seen(probes(True, latency=1.4))["exchange.latency"].status is Status.DEGRADED
    wrong = seen(probes(True, skew=120.0))["exchange.clock"]
    assert wrong.status is Status.CRITICAL
    assert "120.0 s behind the exchange's" in wrong.reason
    assert seen(probes(True, skew=0.02))["exchange.clock"].status is Status.HEALTHY


def test_a_slow_answer_does_not_make_the_clock_wrong():
    """
    The quickest answer of a minute is believed: what is slow may have been slow in one direction.
    """
    found = [*probes(True, skew=0.1), Probe(110.0, True, 20.0, 9.0, "")]
    assert seen(found)["exchange.clock"].status is Status.HEALTHY


@pytest.mark.parametrize(
    ("changed", "name", "status", "words"),
    [
        ({"used": 80}, "redis.memory", Status.DEGRADED, "80% of its memory"),
        ({"used": 95}, "redis.memory", Status.CRITICAL, "95%"),
        ({"bound": None}, "redis.memory", Status.UNKNOWN, "does not say"),
        ({"append_only": False}, "redis.persistence", Status.DEGRADED, "append-only"),
        ({"written": False}, "redis.persistence", Status.CRITICAL, "look at its disk"),
        ({"policy": "allkeys-lru"}, "redis.policy", Status.CRITICAL, "allkeys-lru"),
        ({"policy": ""}, "redis.policy", Status.UNKNOWN, "does not say"),
    ],
)
def test_redis_is_judged_by_memory_persistence_and_policy(changed, name, status, words):
    """
    Each with its own verdict; the others stay as they are.
    """
    found = by_name(redis_vitals(replace(REDIS, **changed), rules=RULES))
    assert found[name].status is status
    assert words in found[name].reason
    assert {one.status for other, one in found.items() if other != name} == {Status.HEALTHY}


@pytest.mark.parametrize(
    ("changed", "name", "status", "words"),
    [
        ({"parts": 400}, "clickhouse.parts", Status.DEGRADED, "400 parts in a partition of trades 20261121"),
        ({"parts": 1_100}, "clickhouse.parts", Status.CRITICAL, "1,000 slow inserts down"),
        ({"longest_merge": 700.0}, "clickhouse.merges", Status.DEGRADED, "700 s"),
        ({"mutations": 1, "oldest_mutation": 700.0}, "clickhouse.mutations", Status.DEGRADED, "700 s"),
        ({"mutations": 1, "mutation_failed": "no such column"}, "clickhouse.mutations", Status.DEGRADED, "no such"),
        ({"disk_free": 0.1}, "clickhouse.disk", Status.DEGRADED, "10%"),
        ({"disk_free": None}, "clickhouse.disk", Status.UNKNOWN, "does not say"),
    ],
)
def test_clickhouse_is_judged_by_parts_merges_mutations_and_disk(changed, name, status, words):
    """
    The line for parts is ClickHouse's own: where it begins to slow inserts down.
    """
    found = by_name(warehouse_vitals(replace(CLICKHOUSE, **changed), rules=RULES))
    assert found[name].status is status
    assert words in found[name].reason
    assert {one.status for other, one in found.items() if other != name} == {Status.HEALTHY}


def test_stores_that_do_not_tell_are_unknown_and_one_that_owes_an_answer_is_ill():
    """
    Nothing is taken for granted while a store is silent.
    """
    unknown = [*redis_vitals(None, rules=RULES), *warehouse_vitals(None, rules=RULES), disk_vital(None, rules=RULES)]
    unknown += backlog_vitals(None, capacity=10, unflushed_for=None, rules=RULES)
    assert {one.status for one in unknown} == {Status.UNKNOWN}
    assert answers("redis.answers", "Redis", problem="", owed_for=6.0, rules=RULES).status is Status.DEGRADED
    assert answers("redis.answers", "Redis", problem="refused", owed_for=0.0, rules=RULES).status is Status.CRITICAL


def test_a_stream_that_fills_up_and_a_flusher_that_does_not_get_on_are_told():
    """
    How long trades wait, how full the stream is, and for how long nothing was stored.
    """
    found = by_name(backlog_vitals(Backlog(600, 40, 20.0), capacity=1_000, unflushed_for=70.0, rules=RULES))
    assert [found[name].status for name in ("stream.backlog", "stream.bound", "flush.progress")] == [
        Status.DEGRADED,
        Status.DEGRADED,
        Status.CRITICAL,
    ]
    assert "60% full (600 of 1,000 entries)" in found["stream.bound"].reason


def test_the_budget_tells_of_429s_and_closures_and_the_breakers_of_what_rests():
    """
    A closure of some seconds degrades, a long one is critical; an endpoint that rests is named.
    """

    def budget(**changed: Any) -> Vital:
        return budget_vitals(replace(REDIS, **changed), share_used=0.4, breakers={})[0]

    assert budget().status is Status.HEALTHY
    assert "40%" in budget().reason
    slow = [EndpointUse("spot.fills", 1.0, 0.5, 0.0, 10, 1)]
    assert "spot.fills to 50%" in budget(budget=slow).reason
    assert budget(closed_for=4.0).status is Status.DEGRADED
    assert budget(closed_for=290.0).status is Status.CRITICAL
    tripped = Breaker(trip_after=1)
    tripped.failed(now=0.0)
    resting = budget_vitals(REDIS, share_used=None, breakers={"public": tripped})[1]
    assert (resting.status, resting.value) == (Status.DEGRADED, 1.0)
    assert "public" in resting.reason
    backfill = replace(REDIS, breakers=[Resting("spot", "host:17", 4.0)])
    together = budget_vitals(backfill, share_used=None, breakers={"public": tripped})[1]
    assert together.reason == "failed repeatedly and rest: public, spot"
    assert budget_vitals(backfill, share_used=None, breakers=None)[1].value == 1.0
    assert budget_vitals(None, share_used=None, breakers=None)[1].status is Status.UNKNOWN


def words(**more: Any) -> dict[str, Any]:
    socket = {"age": 20.0, "opened": 1, "live": 9, "frames": 1_000, "reconnects": 0, "last_reason": ""}
    lags = {"lag_p50_ms": 400, "lag_p99_ms": 900, "traded_lag_p50_ms": 450, "traded_lag_p99_ms": 1_000}
    return {"uptime": 600.0, "connections": {"socket-0": socket}} | lags | more


def test_a_run_tells_of_its_lags_and_its_connections():
    """
    Trades that take long, and a connection that is not open, with why it ended.
    """
    assert {one.status for one in run_vitals(words(), rules=RULES)} == {Status.HEALTHY}
    late = by_name(run_vitals(words(lag_p99_ms=8_000), rules=RULES))["lag.p99"]
    assert (late.status, late.value) == (Status.DEGRADED, 8.0)
    since_made = by_name(run_vitals(words(traded_lag_p50_ms=40_000), rules=RULES))["lag.traded_p50"]
    assert (since_made.status, since_made.value) == (Status.CRITICAL, 40.0)
    assert since_made.reason == "half of all trades are in the table 40.0 s after they were made"
    closed = {"age": None, "opened": 2, "last_reason": "no pong within 15 s"}
    both = words(connections={"socket-0": closed, "socket-1": words()["connections"]["socket-0"]})
    ill = [one for one in run_vitals(both, rules=RULES) if one.status is not Status.HEALTHY]
    assert [(one.subject, one.status, one.reason) for one in ill] == [
        ("socket-0", Status.DEGRADED, "socket-0 is not open: no pong within 15 s")
    ]
    alone = run_vitals(words(connections={"socket-0": closed}), rules=RULES)
    assert Status.CRITICAL in {one.status for one in alone}


def test_planned_renewals_are_counted_apart_and_one_that_is_overdue_is_told():
    """
    A connection lives a day at most: one that was not replaced half an hour before that will be cut.
    """
    one = words()["connections"]["socket-0"] | {"renewed": 4}
    well = by_name(run_vitals(words(connections={"a": one, "b": one}), rules=RULES))["connection.renewed"]
    assert (well.status, well.value) == (Status.HEALTHY, 8.0)
    overdue = by_name(run_vitals(words(connections={"a": one, "b": one | {"age": 86_000.0}}), rules=RULES))
    assert overdue["connection.renewed"].status is Status.DEGRADED
    assert overdue["connection.renewed"].reason.startswith("b is 23.9 h old")


def test_what_a_run_cannot_know_is_unknown_also_when_it_has_just_begun():
    """
    Nothing was stored, no socket has opened, no frame came, no pace is known: none of that is well, and none of it ill.
    """
    lag = dict.fromkeys(("lag_p50_ms", "lag_p99_ms", "traded_lag_p50_ms", "traded_lag_p99_ms"))
    opening = {"age": None, "opened": 0, "last_reason": ""}
    young = run_vitals(words(uptime=5.0, connections={"socket-0": opening}, **lag), rules=RULES)
    assert {one.status for one in young} == {Status.UNKNOWN}
    assert "the run has just begun" in by_name(young)["lag.p99"].reason
    assert by_name(run_vitals(words(**lag), rules=RULES))["lag.p99"].status is Status.UNKNOWN
    assert by_name(run_vitals(words(connections={}), rules=RULES))["connection.open"].status is Status.UNKNOWN
    flowing_nowhere = by_name(flow_vitals(Flow(), rules=RULES))
    assert [flowing_nowhere[name].status for name in ("throughput", "errors")] == [Status.UNKNOWN] * 2


def test_a_minute_without_a_trade_is_well_when_nothing_waits():
    """
    Few quiet symbols have such minutes every day; that a feed brings nothing is told by its silence. Where trades were stored and
    the exchange's clock is not known, how old they were stays unknown.
    """
    lag = dict.fromkeys(("lag_p50_ms", "lag_p99_ms", "traded_lag_p50_ms", "traded_lag_p99_ms"))
    quiet = by_name(run_vitals(words(quiet_for=75.0, **lag), rules=RULES))
    for name in ("lag.p50", "lag.p99", "lag.traded_p50", "lag.traded_p99"):
        assert (quiet[name].status, quiet[name].value) == (Status.HEALTHY, None)
    assert quiet["lag.p99"].reason == "no trade came in the last minute, and none waits: none is late"
    for more in (
        {"quiet_for": 20.0},
        {"quiet_for": 75.0, "spill_bytes": 2**20},
        {"quiet_for": 75.0, "trouble": "no room"},
    ):
        found = by_name(run_vitals(words(**lag, **more), rules=RULES))
        assert [found[name].status for name in ("lag.p99", "lag.traded_p99")] == [Status.UNKNOWN] * 2
    no_clock = by_name(run_vitals(words(traded_lag_p50_ms=None, traded_lag_p99_ms=None), rules=RULES))
    assert (no_clock["lag.p99"].status, no_clock["lag.traded_p99"].status) == (Status.HEALTHY, Status.UNKNOWN)


def symbols(*silent_for: float | None, within: float = 30.0, unheard_for: float = 1.0) -> list[Vital]:
    said = {
        Symbol(Market.SPOT, f"S{n}USDT"): {"silent_for": silent, "unheard_for": unheard_for, "within": within}
        for n, silent in enumerate(silent_for)
    }
    return symbol_vitals(said, rules=RULES)


def test_each_symbol_is_held_against_its_own_pace_and_all_together_mean_more():
    """
    Beyond its own time degraded, four times that critical; nobody at all is critical as a whole.
    """
    found = symbols(10.0, 40.0, 200.0, None)
    assert [one.status for one in found] == [Status.HEALTHY, Status.DEGRADED, Status.CRITICAL, Status.UNKNOWN]
    assert (found[1].subject, found[1].value, found[1].limit) == ("spot/S1USDT", 40.0, 30.0)
    assert together(found).status is Status.HEALTHY
    assert together(symbols(40.0, 50.0)).status is Status.CRITICAL


@pytest.mark.parametrize(
    ("silent_for", "status", "said"),
    [
        ((1.0, 2.0, None), Status.HEALTHY, "2 of 3 symbols deliver at their own rate, 1 not known"),
        ((1.0, None, None), Status.UNKNOWN, "1 of 3 symbols deliver at their own rate, 2 not known"),
        ((None, None), Status.UNKNOWN, "0 of 2 symbols deliver at their own rate, 2 not known"),
        ((40.0, 50.0, None), Status.CRITICAL, "no symbol at all delivers as it should, 1 not known"),
        ((1.0, 50.0), Status.HEALTHY, "1 of 2 symbols deliver at their own rate"),
    ],
)
def test_a_symbol_that_nobody_knows_about_is_none_that_delivers(silent_for, status, said):
    """
    Right after a start into darkness nothing is known; when all that is known is ill, nothing is well.
    """
    whole = together(symbols(*silent_for))
    assert (whole.status, whole.reason) == (status, said)


def test_a_symbol_of_which_nothing_ever_came_is_unknown_until_its_own_time_is_over():
    """
    It counts from when it was subscribed to: within its time nothing is known, beyond it is ill.
    """
    assert symbols(None, unheard_for=29.0)[0].status is Status.UNKNOWN
    (late,) = symbols(None, unheard_for=31.0)
    assert (late.status, late.value) == (Status.DEGRADED, 31.0)
    assert "nothing came for 31 s" in late.reason
    assert symbols(None, unheard_for=121.0)[0].status is Status.CRITICAL


def test_a_quiet_symbol_whose_subscription_was_answered_is_known_and_well():
    """
    Its pace is not known, and the exchange showed its last trades within the time it is doubted in.
    """
    said = {"silent_for": 100.0, "within": 252.0, "pace": 0.0}
    (quiet,) = symbol_vitals({BTC: said}, rules=RULES)
    assert (quiet.status, quiet.reason) == (Status.HEALTHY, "delivers; its rate is still being learned")
    assert together([quiet]).status is Status.HEALTHY
    (deaf,) = symbol_vitals({BTC: said | {"silent_for": 260.0}}, rules=RULES)
    assert deaf.status is Status.DEGRADED


def flowing(*, share: float, wrong: int = 0, broken: int = 0) -> Flow:
    """Ten minutes in which `share` arrives of one arrival a second of ten symbols."""
    flow, names = Flow(over=300.0), [Symbol(Market.SPOT, f"S{n}USDT") for n in range(10)]
    for second in range(600):
        said = {name: {"arrivals": int(second * share), "pace": 1.0} for name in names}
        socket = {"frames": second * 10, "reconnects": broken * second // 600}
        flow.look({"connections": {"a": socket}, "set_aside": wrong * second // 600}, said, now=float(second))
    return flow


@pytest.mark.parametrize(
    ("share", "status"),
    [(1.0, Status.HEALTHY), (0.72, Status.HEALTHY), (0.65, Status.DEGRADED), (0.4, Status.CRITICAL)],
)
def test_throughput_is_held_against_what_the_paces_let_expect(share, status):
    """
    Below 70 % degraded, below 50 % critical: the original's lines.
    """
    found = by_name(flow_vitals(flowing(share=share), rules=RULES))
    assert found["throughput"].status is status
    assert found["throughput"].value == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("wrong", "status"), [(300, Status.HEALTHY), (900, Status.DEGRADED), (1_800, Status.CRITICAL)])
def test_errors_are_the_share_of_frames_that_make_no_sense(wrong, status):
    """
    Above 10 % degraded, above 25 % critical.
    """
    assert by_name(flow_vitals(flowing(share=1.0, wrong=wrong), rules=RULES))["errors"].status is status


def test_connections_that_break_often_are_told_and_too_little_is_not_counted():
    """
    Five breaks in five minutes are flapping; of a few quiet symbols no share can be told, only whether anything came.
    """
    found = by_name(flow_vitals(flowing(share=1.0, broken=10), rules=RULES))
    assert found["connection.reconnects"].status is Status.DEGRADED
    for every, status in ((60, Status.HEALTHY), (1_000, Status.UNKNOWN)):
        quiet = Flow()
        for second in range(300):
            quiet.look(words(), {BTC: {"arrivals": second // every, "pace": 1 / 60}}, now=float(second))
        told = by_name(flow_vitals(quiet, rules=RULES))["throughput"]
        assert (told.status, "too few to tell" in told.reason) == (status, True)


def test_a_symbol_that_joins_brings_no_arrivals_of_the_past():
    """
    Its count begins when it is seen first; one that begins to count anew takes nothing away.
    """
    flow = Flow()
    flow.look({}, {}, now=0.0)
    flow.look({}, {BTC: {"arrivals": 5_000, "pace": 1.0}}, now=1.0)
    flow.look({}, {BTC: {"arrivals": 5_001, "pace": 1.0}}, now=2.0)
    flow.look({}, {BTC: {"arrivals": 3, "pace": 1.0}}, now=3.0)
    assert flow.arrived() == pytest.approx((1.0, 2.0))


def test_clocks_tell_a_jump_a_sleep_and_a_process_that_stood_still():
    """
    Eight hours of sleep stop the steady clock and not the wall's; a kept process sees both go on; both begin anew.
    """
    clocks = Clocks(jump=2.0, told_for=600.0)
    assert not clocks.look(now=0.0, wall_ms=0)
    assert not clocks.look(now=1.0, wall_ms=1_010)
    assert clocks.vital(now=1.0).status is Status.HEALTHY
    assert clocks.look(now=2.0, wall_ms=8 * 3_600_000)
    assert "8.0 hours ahead, or the machine slept" in clocks.vital(now=2.0).reason
    assert clocks.look(now=62.0, wall_ms=8 * 3_600_000 + 60_000)
    assert "stood still for 60 s" in clocks.vital(now=62.0).reason
    assert clocks.look(now=70.0, wall_ms=16 * 3_600_000 + 68_000)
    assert "8.0 hours ahead" in clocks.vital(now=70.0).reason  # although it stood still for eight seconds besides


def test_a_clock_that_is_set_back_is_told_and_forgotten_after_a_while():
    """
    Health says so for ten minutes and is well again then; nothing has to begin anew for it.
    """
    clocks = Clocks(jump=2.0, told_for=600.0)
    clocks.look(now=0.0, wall_ms=3_600_000)
    assert not clocks.look(now=1.0, wall_ms=0)
    assert "set back by 60 minutes" in clocks.vital(now=1.0).reason
    assert clocks.vital(now=1.0).status is Status.DEGRADED
    assert clocks.vital(now=602.0).status is Status.HEALTHY
