"""`exchange` and `warehouse` as commands: they say where they listen, serve, and end on SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from .running import COMMAND, command


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A server command, and the line it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CLICKHOUSE_")}
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=environ)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()


def test_the_exchange_serves_its_time() -> None:
    """
    Its address is printed once it listens.
    """
    with serving("exchange", "--json", "--spot-instruments", 5, "--usdtm-instruments", 5) as (_, said):
        with urlopen(f"{said['rest_url']}/api/v2/public/time", timeout=60) as answer:
            assert json.load(answer)["code"] == "00000"
        assert said["ws_url"].endswith("/v2/ws/public")


def test_the_warehouse_serves_queries_and_names_its_owner_to_a_second_one(tmp_path: Path) -> None:
    """
    One process owns a data folder; the next is told in one line.
    """
    with serving("warehouse", "--json", "--data", tmp_path / "data", "--port", 0) as (_, said):
        with urlopen(f"http://127.0.0.1:{said['port']}/?query=SELECT%206*7", timeout=60) as answer:
            assert answer.read() == b"42\n"
        second = command("warehouse", "--data", tmp_path / "data", "--port", 0)

    assert second.returncode == 78
    assert second.stderr.count("\n") == 1
    assert str(tmp_path / "data") in second.stderr
