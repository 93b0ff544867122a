"""Sessions: temporary tables, settings and the database that stay, and end."""

from __future__ import annotations

import asyncio
import uuid

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from bitget_pipeline.local.warehouse.refusals import Refusal
from bitget_pipeline.local.warehouse.sessions import Sessions

from .running import ENDLESS, until


def test_a_temporary_table_is_seen_in_its_session_only(warehouse):
    """Made, filled and read by one client; unknown to another."""
    with warehouse.client() as one, warehouse.client() as other:
        one.command("CREATE TEMPORARY TABLE mine (a UInt8)")
        one.insert("mine", [[1], [2]], column_names=["a"])

        assert one.query("SELECT sum(a) FROM mine").result_rows == [(3,)]
        with pytest.raises(DatabaseError) as raised:
            other.query("SELECT * FROM mine")
        assert raised.value.code == 60


def test_what_a_session_sets_stays_and_what_a_request_sets_does_not(warehouse):
    """SET is for the session, a request's settings for the request."""
    ask = "SELECT getSetting('max_block_size')"
    with warehouse.client() as client:
        first = client.query(ask).first_row[0]
        client.command("SET max_block_size = 111")

        assert client.query(ask).first_row == (111,)
        assert client.query(ask, settings={"max_block_size": 222}).first_row == (222,)
        assert client.query(ask, settings={"max_block_size": 222}).first_row == (222,)
        assert client.query(ask).first_row == (111,)
        client.query(ask, settings={"max_block_size": 333})
        client.command("SET max_block_size = 444")
        assert client.query(ask).first_row == (444,)
        client.command("SET max_block_size = DEFAULT")
        assert client.query(ask).first_row == (first,)


def test_the_database_of_a_session_is_the_one_it_uses(warehouse, database):
    """USE stays; a request's own database does not."""
    with warehouse.client() as client:
        client.command(f"USE {database}")
        assert client.command("SELECT currentDatabase()") == database
        assert client.command("SELECT currentDatabase()", settings={"database": "system"}) == "system"
        assert client.command("SELECT currentDatabase()") == database


def test_without_a_session_nothing_stays(warehouse):
    """Every request has a handle of its own."""
    with warehouse.client(autogenerate_session_id=False) as client:
        client.command("SET max_block_size = 111")

        assert client.query("SELECT getSetting('max_block_size')").first_row[0] != 111


def test_a_session_must_exist_if_the_client_says_so(warehouse):
    """session_check = 1."""
    with warehouse.client(autogenerate_session_id=False) as client, pytest.raises(DatabaseError) as raised:
        client.query("SELECT 1", settings={"session_id": uuid.uuid4().hex, "session_check": 1})

    assert raised.value.code == 372


async def test_a_session_serves_one_request_at_a_time(warehouse):
    """A second one is refused with code 373 while the first one runs."""
    session = uuid.uuid4().hex
    given = {"host": "127.0.0.1", "port": warehouse.port, "autogenerate_session_id": False}
    async with (
        await clickhouse_connect.get_async_client(**given) as one,
        await clickhouse_connect.get_async_client(**given) as other,
    ):
        slow = asyncio.create_task(one.query(ENDLESS, settings={"session_id": session, "query_id": session}))
        await until(other, session, 1)
        with pytest.raises(DatabaseError) as raised:
            await other.query("SELECT 1", settings={"session_id": session})
        await other.command(f"KILL QUERY WHERE query_id = '{session}'")
        with pytest.raises(DatabaseError) as killed:
            await slow

    assert raised.value.code == 373
    assert killed.value.code == 394


class FakeHandle:
    """Says only whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """Opens handles and remembers them."""

    def __init__(self) -> None:
        self.opened: list[FakeHandle] = []

    def open(self) -> FakeHandle:
        self.opened.append(FakeHandle())
        return self.opened[-1]


def test_an_idle_session_ends_after_its_timeout():
    """And not while it is used."""
    engine, clock = FakeEngine(), [0.0]
    sessions = Sessions(engine, most=10, now=lambda: clock[0])
    session = sessions.take("a", timeout=60, must_exist=False)
    clock[0] = 100
    sessions.expire()
    assert not engine.opened[0].closed

    sessions.give_back(session)
    clock[0] = 159
    sessions.expire()
    assert not engine.opened[0].closed
    clock[0] = 161
    sessions.expire()
    assert engine.opened[0].closed
    with pytest.raises(Refusal):
        sessions.take("a", timeout=60, must_exist=True)


def test_too_many_sessions_cost_the_longest_idle_one():
    """And where all are in use the new one is refused."""
    engine, clock = FakeEngine(), [0.0]
    sessions = Sessions(engine, most=2, now=lambda: clock[0])
    for name in ("a", "b"):
        clock[0] += 1
        sessions.give_back(sessions.take(name, timeout=60, must_exist=False))
    sessions.take("c", timeout=60, must_exist=False)
    assert [handle.closed for handle in engine.opened] == [True, False, False]

    sessions.take("b", timeout=60, must_exist=True)
    with pytest.raises(Refusal, match="Too many sessions"):
        sessions.take("d", timeout=60, must_exist=False)
