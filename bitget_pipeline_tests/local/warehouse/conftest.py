"""One server for all tests here that do not end it, and a database of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from .running import RunningWarehouse, said_by, start


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWarehouse]:
    """A server without a password, that in all these tests finds nothing to complain of."""
    running = start(tmp_path_factory.mktemp("warehouse") / "data")
    yield running
    assert running.stop() == 0
    assert said_by(running.data) == ""


@pytest.fixture
def database(warehouse: RunningWarehouse) -> Iterator[str]:
    """An empty database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    with warehouse.client() as client:
        client.command(f"CREATE DATABASE {name} ENGINE = Atomic")
    yield name
    with warehouse.client() as client:
        client.command(f"DROP DATABASE {name} SYNC")


@pytest.fixture
def client(warehouse: RunningWarehouse, database: str) -> Iterator[Client]:
    """A client whose database is the test's."""
    with warehouse.client(database=database) as connected:
        yield connected
