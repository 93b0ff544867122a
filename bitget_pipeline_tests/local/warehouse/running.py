"""A warehouse in a process of its own, as a user would start it: an engine belongs to its process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client


@dataclass
class RunningWarehouse:
    """A started server: where it listens, and how to end it well or badly."""

    process: subprocess.Popen[str]
    port: int
    data: Path

    def client(self, **given: Any) -> Client:
        """An unmodified clickhouse-connect client."""
        return clickhouse_connect.get_client(host="127.0.0.1", port=self.port, **given)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


def start(data: Path, *options: str, password: str = "") -> RunningWarehouse:
    """Start a server on a free port and wait until it says that it is ready."""
    process = launch(data, *options, password=password)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.communicate(timeout=60)
        raise AssertionError(f"the warehouse did not start: {said_by(data)}")
    return RunningWarehouse(process, json.loads(line)["port"], data)


def said_by(data: Path) -> str:
    """What a server has written to stderr."""
    return data.with_suffix(".stderr").read_text()


def launch(data: Path, *options: str, password: str = "") -> subprocess.Popen[str]:
    """Start the process without waiting for it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLICKHOUSE_")}
    if password:
        environment["CLICKHOUSE_PASSWORD"] = password
    argv = [
        sys.executable,
        "-m",
        "bitget_pipeline.local.warehouse",
        "--data",
        str(data),
        "--log-level",
        "ERROR",
        *options,
    ]
    with data.with_suffix(".stderr").open("a") as stderr:
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)


# Idle: a test must not eat the machine it shares.
ENDLESS = "SELECT sum(sleepEachRow(0.05)) FROM system.numbers SETTINGS max_block_size = 1, max_threads = 1"
RUNNING = "SELECT count() FROM system.processes WHERE startsWith(Settings['log_comment'], {id:String})"


async def until(client: AsyncClient, query_id: str, count: int) -> None:
    """Wait until so many statements run under an id."""
    deadline = time.monotonic() + 60
    while (await client.query(RUNNING, parameters={"id": query_id})).first_row[0] != count:
        assert time.monotonic() < deadline, f"never saw {count} statements running"
        await asyncio.sleep(0.01)
