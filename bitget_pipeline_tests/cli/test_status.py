"""`bitget-pipeline status`: everybody is asked side by side, who hangs is named and unknown, and it costs no heavy import."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import redis.asyncio

from bitget_pipeline.cli import status as status_module
from bitget_pipeline.cli.asked import Asked, NoAnswerYet, Told, in_a_thread
from bitget_pipeline.cli.facts import WITHIN, Facts, Gatherer
from bitget_pipeline.cli.main import main
from bitget_pipeline.cli.up.view import rows
from bitget_pipeline.errors import StoreUnavailable
from bitget_pipeline.guard.rate_limit import Priority
from bitget_pipeline.guard.vitals import Status, Vital
from bitget_pipeline.market.coverage import CoverageState, Evidence
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.pipeline.watch.health import Health, record_health
from bitget_pipeline.settings import load_boot, load_operational
from bitget_pipeline.storage.breaker_board import BreakerBoard
from bitget_pipeline.storage.budget import Budget
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.warehouse import Warehouse

from .running import free_port, wait_until

BTC = Symbol(Market.SPOT, "BTCUSDT")
Gathered = Callable[..., Facts]


@pytest.fixture
def hanging() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        for one in taken:
            one.close()
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def environ(warehouse: Warehouse, redis_address: RedisAddress, redis_prefix: str, tmp_path: Path) -> dict[str, str]:
    """The environment of an instance with the test's stores and one selected symbol."""
    warehouse.store_universe(
        [Chosen(BTC, 1, 1e9, Reason.VOLUME)], selected_at=datetime(2026, 1, 1, tzinfo=UTC), run_id="t"
    )
    return {
        "BITGET_PIPELINE_EXCHANGE": "local",
        "BITGET_PIPELINE_HOME": str(tmp_path / "home"),
        "CLICKHOUSE_HOST": warehouse.address.host,
        "CLICKHOUSE_PORT": str(warehouse.address.port),
        "CLICKHOUSE_DATABASE": warehouse.address.database,
        "REDIS_HOST": redis_address.host,
        "REDIS_PORT": str(redis_address.port),
        "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
    }


@pytest.fixture
def gathered(environ: dict[str, str]) -> Gathered:
    """What is found out of that instance, with some of its settings changed."""

    def gathered(*, within: float = 60.0, **changed: str) -> Facts:
        changed_environ = environ | changed
        boot = load_boot(changed_environ)
        gatherer = Gatherer(boot, load_operational(boot, changed_environ), changed_environ, within=within)
        try:
            return gatherer.gather()
        finally:
            gatherer.close()

    return gathered


@pytest.fixture
def gathered_beside(gathered: Gathered) -> Callable[..., Facts]:
    """What is found out while one store hangs; again, as long as the machine stood still and another was late too."""

    def gathered_beside(store: str, port: int) -> Facts:
        def alone_late() -> Facts | None:
            facts = gathered(within=5.0, **{f"{store.upper()}_HOST": "127.0.0.1", f"{store.upper()}_PORT": str(port)})
            return facts if facts.late == [store] else None

        return cast(Facts, wait_until(alone_late, f"{store} alone is late"))

    return gathered_beside


def vitals_of(facts: Facts) -> dict[str, Mapping[str, Any]]:
    """By name."""
    return {one["name"]: one for one in facts.vitals}


def test_history_is_counted_as_far_as_it_is_wanted(gathered: Gathered, warehouse: Warehouse) -> None:
    """
    Yesterday of the selected symbol counts; a day from before the wanted time, and a symbol that is not selected, do not.
    """
    today, eth = datetime.now(UTC).date(), Symbol(Market.SPOT, "ETHUSDT")
    known = [(BTC, today - timedelta(days=1)), (BTC, today - timedelta(days=900)), (eth, today - timedelta(days=1))]
    warehouse.store_evidence(
        [Evidence(symbol, "candles_1m", Interval.of_day(day), CoverageState.COMPLETE) for symbol, day in known],
        version=1,
        run_id="t",
    )
    facts = gathered(BITGET_PIPELINE_HISTORY_DAYS="2")
    assert (facts.candle_days, facts.candle_days_wanted) == (1, 2)


def test_a_redis_that_hangs_is_named_and_hides_nothing_of_clickhouse(gathered_beside: Gathered, hanging: int) -> None:
    """
    It takes the connection and never answers: what it knows is unknown, neither none nor a reason to call it critical.
    """
    facts = gathered_beside("redis", hanging)
    assert facts.unreachable["redis"] == "unknown: no answer within 5 s"
    assert facts.selected == {"spot": 1}
    assert vitals_of(facts)["redis.answers"]["status"] == "unknown"
    assert vitals_of(facts)["live.lease"]["status"] == "unknown"
    assert vitals_of(facts)["clickhouse.answers"]["status"] == "healthy"
    told = dict(rows(facts, None))
    assert (told["lease"], told["sockets"], told["selected"]) == ("unknown", "unknown", "spot 1")
    assert told["redis"] == "unknown: no answer within 5 s"


def test_a_clickhouse_that_hangs_is_named_and_hides_nothing_of_redis(gathered_beside: Gathered, hanging: int) -> None:
    """
    The lease is looked at all the same; nobody holds it, and that is critical.
    """
    facts = gathered_beside("clickhouse", hanging)
    assert (facts.instruments, facts.candle_days_wanted, facts.backlog) == (None, None, 0)
    assert vitals_of(facts)["clickhouse.answers"]["status"] == "unknown"
    assert vitals_of(facts)["live.lease"]["status"] == "critical"
    told = dict(rows(facts, None))
    assert (told["candles"], told["lag"], told["lease"]) == (
        "unknown",
        "the newest trade is unknown",
        "nobody holds it",
    )


def test_stores_that_hang_are_not_waited_for_and_keep_no_process_from_ending(
    gathered: Gathered, hanging: int, environ: dict[str, str]
) -> None:
    """
    Both have one short while together, and their clients have limits of their own. Dagster, which needs a moment too, may be
    late beside them.
    """
    facts = gathered(within=0.1, CLICKHOUSE_PORT=str(hanging), REDIS_PORT=str(hanging))
    assert {"clickhouse", "redis"} <= set(facts.late)
    assert facts.health == "unknown"
    assert WITHIN <= 2.0

    command = [sys.executable, "-m", "bitget_pipeline.cli.main", "status", "--json"]
    hung = environ | {"CLICKHOUSE_PORT": str(hanging), "REDIS_PORT": str(hanging)}
    answer = subprocess.run(command, env=hung, capture_output=True, text=True, timeout=100, check=False)
    assert {"clickhouse", "redis"} <= set(json.loads(answer.stdout)["facts"]["late"]), answer.stderr


def test_a_thread_that_waits_for_an_answer_keeps_no_process_from_ending() -> None:
    """
    It is a daemon.
    """
    before, free = set(threading.enumerate()), threading.Event()

    def held_up() -> Told:
        free.wait()
        return Told()

    answer = in_a_thread(held_up)
    (thread,) = [one for one in threading.enumerate() if one.name == "asked" and one not in before]
    assert thread.daemon
    free.set()
    assert answer.result(60) == Told()


def test_a_failure_after_the_time_is_no_refusal() -> None:
    """
    Whoever waits may look late, when the machine stood still: a time-out that came meanwhile tells no more than silence. What
    fails in time is told.
    """

    class Fails:
        def ask(self) -> Told:
            time.sleep(0.01)
            raise StoreUnavailable("it did not answer")

        def close(self) -> None:
            return

    for within, said in ((0.0, NoAnswerYet), (60.0, StoreUnavailable)):
        asked = Asked(Fails(), within=within)
        asked.begin().exception(60)
        with pytest.raises(said):
            asked.told()


def test_a_store_that_refuses_is_a_fact_and_not_unknown(gathered: Gathered) -> None:
    """
    Nobody listens there: that store is down, which is critical, and not late.
    """
    facts = gathered(REDIS_PORT=str(free_port()))
    assert facts.late == []
    assert "redis" in facts.unreachable
    assert vitals_of(facts)["redis.answers"]["status"] == "critical"
    assert facts.health == "critical"


def test_who_still_owes_an_answer_is_not_asked_again() -> None:
    """
    One question at a time; its connection is given back after a failure, and not from under a question.
    """
    asked, closed, free = [], [], threading.Event()

    class Slow:
        def ask(self) -> Told:
            asked.append(1)
            free.wait(60)
            raise StoreUnavailable("it broke")

        def close(self) -> None:
            closed.append(1)

    slow = Asked(Slow())
    first = slow.begin()
    assert slow.begin() is first
    with pytest.raises(NoAnswerYet):
        slow.told()
    slow.close()
    assert closed == []
    free.set()
    assert isinstance(first.exception(60), StoreUnavailable)
    assert (asked, closed) == ([1], [1])
    with pytest.raises(StoreUnavailable):
        slow.told()


def test_daemons_and_runs_of_dagster_are_told_as_the_sensor_saw_them(warehouse: Warehouse, gathered: Gathered) -> None:
    """
    From the last rows of the table `health`, with their age; before anybody judged they are unknown.
    """
    assert vitals_of(gathered())["dagster.daemon"]["status"] == "unknown"

    now_ms = round(time.time() * 1000)
    stuck = Vital("dagster.runs", Status.DEGRADED, "run 1234 has been queued for 70 minutes", 1.0, 0.0)
    alive = Vital("dagster.daemon", Status.HEALTHY, "3 daemons of Dagster are alive", 12.0, 60.0)
    before = Vital("dagster.runs", Status.HEALTHY, "no run is stuck", 0.0, 0.0)
    record_health(warehouse, Health(Status.HEALTHY, [], vitals=[alive, before]), now_ms=now_ms - 60_000)
    record_health(warehouse, Health(Status.DEGRADED, [], vitals=[alive, stuck]), now_ms=now_ms)
    facts = gathered()
    found = vitals_of(facts)
    assert (found["dagster.daemon"]["status"], found["dagster.daemon"]["value"]) == ("healthy", 12.0)
    assert found["dagster.runs"]["status"] == "degraded"
    assert found["dagster.runs"]["reason"].startswith("run 1234 has been queued for 70 minutes (seen ")
    assert any(reason.startswith("run 1234 has been queued") for reason in facts.health_reasons)


async def test_the_use_of_the_budget_and_what_rests_is_told_by_endpoint_and_process(
    gathered: Gathered, redis_client: redis.asyncio.Redis, redis_prefix: str
) -> None:
    """
    Of the egress address of the settings: what was granted and refused, and which worker gives which endpoints a rest.
    """
    budget = Budget(redis_client, redis_prefix, "tokyo-1")
    assert await budget.reserve("spot.tickers", 20, Priority.DISCOVERY) == 0.0
    await budget.penalise("spot.tickers", 20, 300.0)
    await BreakerBoard(redis_client, redis_prefix, "tokyo-1", who="host:17").rests("mix", 300.0)
    facts = (await asyncio.to_thread(gathered, BITGET_PIPELINE_EGRESS="tokyo-1")).as_json()

    (use,) = facts["budget"]
    assert (use["endpoint"], use["granted"], use["penalties"], use["pace"]) == ("spot.tickers", 1, 1, 0.5)
    assert 200 < use["closed_for"] <= 300
    (rests,) = facts["breakers"]
    assert (rests["family"], rests["who"]) == ("mix", "host:17")
    (vital,) = [one for one in facts["vitals"] if one["name"] == "budget.breaker"]
    assert (vital["status"], vital["reason"]) == ("degraded", "failed repeatedly and rest: mix")
    elsewhere = await asyncio.to_thread(gathered)
    assert (elsewhere.budget, elsewhere.breakers) == ([], [])


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (Facts(0.0, health="healthy", unreachable={"dagster": "it does not run"}), 0),
        (Facts(0.0, health="unknown"), 0),
        (Facts(0.0, health="unknown", late=["redis"], unreachable={"redis": "unknown"}), 75),
        (Facts(0.0, health="degraded", late=["dagster"], unreachable={"dagster": "unknown"}), 75),
        (Facts(0.0, health="critical", late=["redis"], unreachable={"redis": "unknown"}), 1),
    ],
)
def test_the_exit_code_tells_ill_from_unseen(
    facts: Facts, code: int, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    0 it runs, 1 critical, 75 somebody did not answer: what hangs is never taken for well.
    """
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    told = {"running": True, "pid": 1, "facts": facts.as_json()}
    monkeypatch.setattr(status_module, "collect", lambda *_, **__: told)
    with pytest.raises(SystemExit) as ended:
        main(["status", "--json"])
    assert int(ended.value.code or 0) == code


def test_looking_costs_no_heavy_import() -> None:
    """
    Neither Dagster nor numpy, pyarrow or pandas is loaded by what `status` does: they would be most of its cost.
    """
    code = (
        "import sys, bitget_pipeline.cli.main, bitget_pipeline.cli.status, bitget_pipeline.cli.sources;"
        "print([one for one in ('dagster', 'numpy', 'pyarrow', 'pandas', 'httpx', 'websockets') if one in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
