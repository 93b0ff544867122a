"""The asynchronous client: many at a time, and cancellations that leave nothing behind."""

from __future__ import annotations

import asyncio
import uuid

import clickhouse_connect
import pyarrow as pa
import pytest
import pytest_asyncio
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from .running import ENDLESS, until


@pytest_asyncio.fixture
async def client(warehouse, database):
    """An asynchronous client without sessions, as the pipeline uses it."""
    async with await clickhouse_connect.get_async_client(
        host="127.0.0.1",
        port=warehouse.port,
        database=database,
        compress=False,
        autogenerate_session_id=False,
        connector_limit_per_host=60,  # its own bound, 20, would be reached before the server's
    ) as connected:
        yield connected


async def test_readers_and_writers_work_side_by_side(client):
    """Eight writers and eight readers: every acknowledged row is there, and no reader sees half a batch."""
    await client.command(
        "CREATE TABLE t (writer UInt8, batch UInt16, k UInt32) ENGINE = MergeTree ORDER BY (writer, k)"
    )
    stop = asyncio.Event()

    async def write(writer: int) -> None:
        for batch in range(5):
            size = 500
            table = pa.table(
                {
                    "writer": pa.array([writer] * size, pa.uint8()),
                    "batch": pa.array([batch] * size, pa.uint16()),
                    "k": pa.array(range(size), pa.uint32()),
                }
            )
            assert (await client.insert_arrow("t", table)).written_rows == size

    async def read() -> int:
        reads = 0
        while not stop.is_set():
            halves = await client.query("SELECT writer, batch, count() AS c FROM t GROUP BY ALL HAVING c != 500")
            assert halves.result_rows == []
            reads += 1
        return reads

    readers = [asyncio.create_task(read()) for _ in range(8)]
    await asyncio.gather(*(write(writer) for writer in range(8)))
    stop.set()

    assert min(await asyncio.gather(*readers)) > 0
    assert (await client.query("SELECT count(), uniqExact(writer, batch, k) FROM t")).result_rows == [(20_000, 20_000)]


async def test_a_cancelled_query_runs_no_longer(client):
    """The client leaves; the engine stops working."""
    query_id = uuid.uuid4().hex
    task = asyncio.create_task(client.query(ENDLESS, settings={"query_id": query_id}))
    await until(client, query_id, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await until(client, query_id, 0)


async def test_a_stream_that_is_left_early_runs_no_longer(client):
    """A reader of an endless answer goes away after the first rows."""
    query_id = uuid.uuid4().hex
    stream = await client.query_rows_stream("SELECT number FROM system.numbers", settings={"query_id": query_id})
    async with stream:
        async for row in stream:
            assert row == (0,)
            break
        await client.query("SELECT 1")
        await until(client, query_id, 1)
    await client.close_connections()

    await until(client, query_id, 0)


async def test_a_query_is_killed_by_the_id_its_client_gave(client):
    """KILL QUERY WHERE query_id = ..., also where the client has a comment of its own."""
    query_id = uuid.uuid4().hex
    given = {"query_id": query_id, "log_comment": "a report"}
    task = asyncio.create_task(client.query(ENDLESS, settings=given))
    await until(client, query_id, 1)
    await client.command(f"KILL QUERY WHERE query_id = '{query_id}'")

    with pytest.raises((DatabaseError, OperationalError)) as raised:
        await task
    assert raised.value.code == 394


async def test_an_id_that_runs_is_not_given_twice(client):
    """Code 216, as from a real server."""
    query_id = uuid.uuid4().hex
    task = asyncio.create_task(client.query(ENDLESS, settings={"query_id": query_id}))
    await until(client, query_id, 1)
    with pytest.raises(DatabaseError) as raised:
        await client.query("SELECT 1", settings={"query_id": query_id})
    task.cancel()

    assert raised.value.code == 216
    await until(client, query_id, 0)


async def test_an_upload_that_is_cut_off_leaves_no_row(warehouse, client):
    """The connection ends in the middle of a chunked insert."""
    await client.command("CREATE TABLE t (k UInt64) ENGINE = MergeTree ORDER BY k")
    query_id = uuid.uuid4().hex
    database = (await client.query("SELECT currentDatabase()")).first_row[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", warehouse.port)
    path = f"/?database={database}&query_id={query_id}&query=INSERT%20INTO%20t%20FORMAT%20CSV"
    writer.write(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"".join(b"%d\n" % number for number in range(200_000))
    for _ in range(3):
        writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        await writer.drain()
    await until(client, query_id, 1)
    writer.transport.abort()

    await until(client, query_id, 0)
    assert (await client.query("SELECT count() FROM t")).first_row == (0,)
    assert await reader.read() == b""


async def test_forty_endless_queries_leave_room_for_others_and_go_when_they_are_left(client):
    """Pings and short queries are answered meanwhile, and after the cancellation all is quiet."""
    mark = uuid.uuid4().hex
    given = [{"query_id": f"{mark}-{number}"} for number in range(40)]
    tasks = [asyncio.create_task(client.query(ENDLESS, settings=settings)) for settings in given]
    await until(client, mark, 40)
    assert await client.ping()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    await until(client, mark, 0)
