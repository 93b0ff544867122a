"""The look from outside comes to its end in time, whatever hangs, and says what hung."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bitget_pipeline.errors import StoreRefused
from bitget_pipeline.guard.vitals import Status, Vital
from bitget_pipeline.pipeline.watch.health import Health, record_health
from bitget_pipeline.pipeline.watch.looking import Looking
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync
from bitget_pipeline.storage.warehouse import Warehouse

from ..conftest import until

NOW = 1_800_000_000_000


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

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        for one in taken:
            one.close()
        server.shutdown(socket.SHUT_RDWR)


def recorded(warehouse: Warehouse, seen: Health, now_ms: int) -> None:
    record_health(warehouse, seen, now_ms=now_ms)


def looking(
    warehouse: WarehouseAddress,
    redis: RedisAddress,
    prefix: str,
    *,
    within: float = 60.0,
    patience: float = 60.0,
    recorded_within: float = 60.0,
) -> Looking:
    """One whose stores may take `patience` seconds, so that a look which waited for them would take that long."""
    return Looking(
        lambda: Warehouse.open(warehouse, answer_within=patience),
        lambda: Overview(connect_sync(redis, answer_within=patience), prefix, "0"),
        recorded,
        within=within,
        recorded_within=recorded_within,
    )


def by_name(seen: Health) -> dict[str, Vital]:
    return {one.name: one for one in seen.vitals}


def test_what_is_seen_is_stored_and_the_connections_are_kept(warehouse, redis_address, redis_prefix):
    """
    Both stores answer, no live run is there: critical, and the table has it; the next look asks over the same connection.
    """
    looks = looking(warehouse.address, redis_address, redis_prefix)
    for number in (1, 2):
        seen = looks.look(now_ms=NOW)
        assert seen.status is Status.CRITICAL
        assert seen.reasons[0] == "no live run holds the lease: nothing is being collected"
        assert by_name(seen)["clickhouse.parts"].status is Status.HEALTHY
        assert by_name(seen)["redis.memory"].status is Status.HEALTHY
        assert warehouse.query("SELECT count() FROM health WHERE stream = ''") == [(number,)]
    looks.close()


def test_stores_that_hang_are_not_waited_for(hanging, redis_prefix):
    """
    Both would take a minute: the look ends before, says that they owe an answer, and does not ask them a second time meanwhile.
    """
    nowhere = WarehouseAddress("127.0.0.1", hanging, database="t")
    looks = looking(nowhere, RedisAddress("127.0.0.1", hanging), redis_prefix, within=0.2, patience=5.0)
    for _ in range(2):
        seen = looks.look(now_ms=NOW)
        found = by_name(seen)
        assert (found["redis.answers"].status, found["clickhouse.answers"].status) == (Status.CRITICAL, Status.CRITICAL)
        assert found["live.run"].status is Status.UNKNOWN
        assert found["exchange.rest"].status is Status.UNKNOWN
    looks.close()


async def test_one_store_that_hangs_hides_nothing_of_the_other(warehouse, hanging, redis_prefix):
    """
    Redis does not answer; ClickHouse is judged and gets the rows all the same.
    """
    looks = looking(warehouse.address, RedisAddress("127.0.0.1", hanging), redis_prefix, within=1.0)

    def told() -> dict[str, str]:
        seen = by_name(looks.look(now_ms=NOW))
        assert seen["redis.answers"].status is Status.CRITICAL
        if seen["clickhouse.parts"].status is not Status.HEALTHY:  # late this time: every look waits for Redis in vain
            return {}
        return dict(warehouse.query("SELECT stream, status FROM health WHERE market = ''"))

    await until(told, what="a look that ClickHouse answered")
    rows = dict(warehouse.query("SELECT stream, status FROM health WHERE market = ''"))
    assert (rows["redis.answers"], rows["redis.memory"]) == ("critical", "unknown")
    looks.close()


def test_a_table_that_refuses_does_not_keep_anybody_from_seeing(warehouse, redis_address, redis_prefix):
    """
    What could not be stored is still told.
    """

    def refuse(*_: object) -> None:
        raise StoreRefused("the table is another one")

    looks = Looking(
        lambda: Warehouse.open(warehouse.address),
        lambda: Overview(connect_sync(redis_address), redis_prefix, "0"),
        refuse,
        within=60.0,
        recorded_within=60.0,
    )
    assert looks.look(now_ms=NOW).status is Status.CRITICAL
    looks.close()


def test_what_somebody_else_judged_is_part_of_the_look(warehouse, redis_address, redis_prefix):
    """
    Dagster's own vitals come in, and count.
    """
    looks = looking(warehouse.address, redis_address, redis_prefix)
    stuck = Vital("dagster.runs", Status.DEGRADED, "a run is stuck")
    seen = looks.look(now_ms=NOW, beside=lambda: [stuck])
    assert stuck in seen.vitals
    assert "a run is stuck" in seen.reasons
    looks.close()


async def test_who_judges_beside_is_not_waited_for_either(hanging, redis_prefix):
    """
    Dagster's records hang: the look ends in its time, what they would say is unknown, and they are not asked a second time
    meanwhile. People are told within the limits too.
    """
    open_again, asked, told = threading.Event(), [], []

    def records() -> list[Vital]:
        asked.append(1)
        open_again.wait(100.0)
        return [Vital("dagster.runs", Status.HEALTHY, "no run is stuck")]

    def tell(seen: Health) -> None:
        told.append(seen)
        open_again.wait(100.0)

    nowhere = WarehouseAddress("127.0.0.1", hanging, database="t")
    looks = looking(nowhere, RedisAddress("127.0.0.1", hanging), redis_prefix, within=0.2, recorded_within=0.1)
    began = time.monotonic()
    for _ in range(2):
        seen = looks.look(now_ms=NOW, beside=records, named=("dagster.daemon", "dagster.runs"), tell=tell)
        for name in ("dagster.daemon", "dagster.runs"):
            assert by_name(seen)[name].status is Status.UNKNOWN
            assert "no answer within 0.2 s" in by_name(seen)[name].reason or "still owe" in by_name(seen)[name].reason
    assert time.monotonic() - began < 50.0  # any of them would take longer
    await until(lambda: len(told) == 2, what="the second to be told")
    assert len(asked) == 1
    open_again.set()
    looks.close()


def test_records_that_refuse_are_no_verdict(warehouse, redis_address, redis_prefix):
    """
    What is wrong with them is said; everything else is judged.
    """

    def locked() -> list[Vital]:
        raise RuntimeError("database is locked")

    looks = looking(warehouse.address, redis_address, redis_prefix)
    seen = looks.look(now_ms=NOW, beside=locked, named=("dagster.runs",))
    assert by_name(seen)["dagster.runs"].reason == "dagster.runs is not known: database is locked"
    assert by_name(seen)["redis.memory"].status is Status.HEALTHY
    looks.close()
