"""Start, stop, start again, be killed: what was acknowledged is there, and who is in the way is named."""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
from pathlib import Path

import clickhouse_connect
import pyarrow as pa
import pytest

from bitget_pipeline import errors
from bitget_pipeline.local.warehouse import WarehouseConfig, serve

from .running import launch, said_by, start

SLEEPY = "SELECT sum(sleepEachRow(0.05)) FROM numbers({rows:UInt64}) SETTINGS max_block_size = 1, max_threads = 1"


def refused(data: Path, *options: str) -> tuple[int, str]:
    """Exit code and last words of a server that does not start."""
    process = launch(data, *options)
    out, _ = process.communicate(timeout=100)
    assert out == ""
    return process.returncode, said_by(data)


def test_data_are_there_after_a_restart_and_ports_may_differ(tmp_path):
    """Databases, tables and rows, after a stop by SIGTERM and one by SIGINT."""
    for number, how in enumerate([signal.SIGTERM, signal.SIGINT]):
        running = start(tmp_path / "data")
        with running.client() as client:
            client.command("CREATE DATABASE IF NOT EXISTS trading ENGINE = Atomic")
            client.command("CREATE TABLE IF NOT EXISTS trading.t (k UInt8) ENGINE = MergeTree ORDER BY k")
            client.command(f"INSERT INTO trading.t VALUES ({number})")
            rows = client.query("SELECT k FROM trading.t ORDER BY k").result_rows
        assert running.stop(how) == 0
        assert said_by(running.data) == ""

    assert rows == [(0,), (1,)]


def test_a_second_server_on_the_folder_is_told_who_has_it(tmp_path):
    """One line with the process and its port; the first one is not disturbed. And a taken port is a taken port."""
    running = start(tmp_path / "data")
    try:
        code, said = refused(tmp_path / "data")
        assert code == errors.FolderTaken.exit_code
        assert f"belongs to process {running.process.pid} on port {running.port}" in said
        assert len(said.splitlines()) == 1

        code, said = refused(tmp_path / "other", "--port", str(running.port))
        assert code == errors.PortTaken.exit_code
        assert "port is taken" in said
        assert len(said.splitlines()) == 1
        with running.client() as client:
            assert client.command("SELECT 1") == 1
    finally:
        assert running.stop() == 0


async def test_what_cannot_be_served_is_refused_in_one_line(tmp_path):
    """A folder that is a file; an address others can reach."""
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StoreRefused, match="cannot be written"):
        await serve(WarehouseConfig(tmp_path / "file" / "data"))
    with pytest.raises(errors.SettingsInvalid, match="this machine only"):
        await serve(WarehouseConfig(tmp_path / "data", host="0.0.0.0"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(errors.PortTaken):
            await serve(WarehouseConfig(tmp_path / "data", port=other.getsockname()[1]))


def test_a_stop_lets_running_statements_finish(tmp_path):
    """A query of some tenths of a second gets its answer although SIGTERM came in its middle."""
    running = start(tmp_path / "data")
    with running.client() as client, running.client() as watch:
        got: list[object] = []
        thread = threading.Thread(target=lambda: got.append(client.query(SLEEPY, parameters={"rows": 20}).result_rows))
        thread.start()
        deadline = time.monotonic() + 20
        busy = "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow%' AND query NOT LIKE '%processes%'"
        while watch.command(busy) != 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running.stop() == 0
        thread.join()

    assert got == [[(0,)]]


@pytest.mark.timeout(400)
def test_what_was_acknowledged_survives_kill_minus_nine(tmp_path):
    """Four writers, killed at three random moments: every acknowledged batch is there whole, no other is there in part."""
    chance = random.Random(7)
    acknowledged: set[tuple[int, int]] = set()
    tried: dict[tuple[int, int], int] = {}
    port = 0
    for life in range(3):
        running = start(tmp_path / "data", "--port", str(port))
        port = running.port  # the same port at once, too
        with running.client() as client:
            client.command("CREATE DATABASE IF NOT EXISTS trading ENGINE = Atomic")
            client.command(
                "CREATE TABLE IF NOT EXISTS trading.t (writer UInt32, batch UInt32, k UInt32) ENGINE = MergeTree ORDER BY k"
            )

        def write(writer: int, port: int, sizes: random.Random) -> None:
            try:
                with clickhouse_connect.get_client(host="127.0.0.1", port=port, query_retries=0) as client:
                    for batch in range(100_000):
                        size = sizes.choice([1, 100, 5_000])
                        tried[writer, batch] = size
                        columns = {"writer": [writer] * size, "batch": [batch] * size, "k": range(size)}
                        table = pa.table({name: pa.array(values, pa.uint32()) for name, values in columns.items()})
                        client.insert_arrow("trading.t", table)
                        acknowledged.add((writer, batch))
            except Exception:  # the server was killed
                return

        writers = [
            threading.Thread(target=write, args=(10 * life + number, port, random.Random(f"{life} {number}")))
            for number in range(4)
        ]
        for thread in writers:
            thread.start()
        enough = len(acknowledged) + chance.randint(20, 40)
        deadline = time.monotonic() + 60
        while len(acknowledged) < enough and time.monotonic() < deadline:
            time.sleep(0.005)
        running.stop(signal.SIGKILL)
        for thread in writers:
            thread.join()

    running = start(tmp_path / "data", "--port", str(port))
    try:
        with running.client() as client:
            stored = {
                (writer, batch): (count, distinct)
                for writer, batch, count, distinct in client.query(
                    "SELECT writer, batch, count(), uniqExact(k) FROM trading.t GROUP BY ALL"
                ).result_rows
            }
    finally:
        running.stop()

    assert len(acknowledged) >= 60
    assert acknowledged <= stored.keys()
    assert all(stored[key] == (tried[key], tried[key]) for key in stored)
