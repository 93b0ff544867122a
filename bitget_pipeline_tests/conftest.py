"""
What all tests share: a real ClickHouse (the embedded one) and a real Redis, started once per session, as processes of their own.

Each test gets an empty database, and a fresh key prefix, on them:

- `warehouse`: an open Warehouse with every table and view, all empty (databases.py)
- `warehouse_address`: the WarehouseAddress of that, or of a database that does not exist when a test takes this alone
- `redis_address`: where Redis is
- `redis_client`: an asynchronous client to it
- `redis_prefix`: a key prefix nobody else uses, with the colon at its end
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio

from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.warehouse import Warehouse

from .databases import Databases

LONGEST = (
    "cli/test_up.py",
    "pipeline/beside/test_substitute.py",
    "pipeline/live/test_run.py",
    "pipeline/live/test_repair.py",
    "pipeline/beside/test_reconcile.py",
    "drill/test_drill.py",
    "defs/test_reconfiguration.py",
    "pipeline/history/test_derivatives.py",
    "pipeline/watch/test_rules_at_work.py",
    "cli/test_backfill_runs.py",
    "pipeline/live/test_spilling.py",
    "pipeline/watch/test_remediation.py",
    "pipeline/history/test_ledger_truth.py",
    "test_house.py",
)
"""The files whose tests take longest, the longest first (`--durations=0`): begun last, one of them would run on alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; within a file, and among the others, the order stays."""
    folder = Path(__file__).parent
    turn = {folder / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turn.get(item.path, len(turn)))


@pytest.fixture(scope="session")
def warehouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a ClickHouse that lives as long as the test session."""
    folder = tmp_path_factory.mktemp("clickhouse")
    with _process(
        [sys.executable, "-m", "bitget_pipeline.local.warehouse", "--data", str(folder)], folder
    ) as first_line:
        yield int(json.loads(first_line)["port"])


@pytest.fixture(scope="session")
def databases(warehouse_server: int) -> Databases:
    """The databases of that ClickHouse."""
    return Databases(warehouse_server)


@pytest.fixture
def warehouse_address(request: pytest.FixtureRequest, databases: Databases) -> WarehouseAddress:
    """Where ClickHouse is, with the database of `warehouse`; for a test without that, the name of one that does not exist."""
    return databases.lend() if "warehouse" in request.fixturenames else databases.unmade()


@pytest.fixture
def warehouse(warehouse_address: WarehouseAddress, databases: Databases) -> Iterator[Warehouse]:
    """An open warehouse with every table and view, all empty, in a database that is the test's alone."""
    with Warehouse.open(warehouse_address) as opened:
        yield opened
    databases.take_back(warehouse_address)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisAddress]:
    """A Redis that lives as long as the test session."""
    config = local_redis.with_port(local_redis.RedisConfig(data=tmp_path_factory.mktemp("redis")))
    process = local_redis.start(config, timeout=90)
    try:
        yield RedisAddress(config.host, config.port)
    finally:
        local_redis.stop(process)


@pytest.fixture
def redis_address(redis_server: RedisAddress) -> RedisAddress:
    """Where Redis is."""
    return redis_server


@pytest.fixture
async def redis_client(redis_address: RedisAddress) -> AsyncIterator[redis.asyncio.Redis]:
    """An asynchronous client of Redis."""
    client = connect(redis_address)
    yield client
    await client.aclose()


@pytest.fixture
def redis_prefix() -> str:
    """A key prefix nobody else uses."""
    return f"t{uuid.uuid4().hex[:12]}:"


class _process:
    """A process that says one line when it is ready, and ends on SIGTERM."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._log = (folder.parent / f"{folder.name}.log").open("wb")
        environment = {name: value for name, value in os.environ.items() if name != "CLICKHOUSE_PASSWORD"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, env=environment)

    def __enter__(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line:
            self.__exit__()
            raise RuntimeError(f"it did not start, see {self._log.name}")
        return line

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
