"""
Dagster as processes of its own (code server, webserver, daemon), for tests that kill its workers and for benchmarks.

Input: a folder and where the stores are; output: the GraphQL face of the webserver. The processes are those of `up`, with
a module of definitions that the caller names; each is ended by its id, run workers that are left included.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from bitget_pipeline.cli.up import dagster_home, probes
from bitget_pipeline.cli.up.plan import DAGSTER_VARIABLES

from .smoke.dagster import Dagster

READY_WITHIN = 120.0
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Running:
    """A Dagster that answers, and the processes it consists of, by name."""

    url: str
    dagster: Dagster
    processes: Mapping[str, psutil.Process]
    environment: Mapping[str, str]

    def memory_mib(self) -> dict[str, float]:
        """Resident memory by name; run workers are children of the code server and counted together as `workers`."""
        used = {name: process.memory_info().rss / 2**20 for name, process in self.processes.items()}
        workers = 0.0
        for child in self.processes["code-server"].children(recursive=True):
            with contextlib.suppress(psutil.Error):
                workers += child.memory_info().rss / 2**20
        return {name: round(mib) for name, mib in (used | {"workers": workers}).items()}


@contextlib.contextmanager
def dagster_running(home: Path, environment: Mapping[str, str], *, module: str) -> Iterator[Running]:
    """
    Start everything in `home`, whose dagster.yaml is ours, and wait until the page answers.

    `environment` says where the stores are; `module` is a module with the definitions to load.
    """
    code, page = _free_ports(2)
    workspace = dagster_home.prepare(home, code_server_port=code)
    variables = {**os.environ, **environment, **DAGSTER_VARIABLES, "DAGSTER_HOME": str(home / "dagster")}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    dagster_home.make_records(home, variables)
    serving = [sys.executable, "-m", "dagster", "api", "grpc", "-h", HOST, "-p", str(code), "-m", module]
    commands = {
        "code-server": [*serving, "--location-name", dagster_home.LOCATION, "--use-python-environment-entry-point"],
        "webserver": [sys.executable, "-m", "dagster_webserver", "-h", HOST, "-p", str(page), "-w", str(workspace)],
        "daemon": [sys.executable, "-m", "dagster._daemon", "run", "-w", str(workspace)],
    }
    ready: dict[str, Callable[[], bool]] = {
        "code-server": probes.port_accepts(code),
        "webserver": probes.http_answers(page, "/server_info"),
        "daemon": lambda: True,
    }
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, command in commands.items():
            log = stack.enter_context((home / f"{name}.log").open("wb"))
            processes[name] = stack.enter_context(_process(command, variables, log))
            _wait(name, ready[name], processes[name], home / f"{name}.log")
        url = f"http://{HOST}:{page}"
        yield Running(url, Dagster(url), processes, variables)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextlib.contextmanager
def _process(command: list[str], environment: Mapping[str, str], log: IO[bytes]) -> Iterator[psutil.Process]:
    process = subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
    )
    known = psutil.Process(process.pid)
    try:
        yield known
    finally:
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            children = known.children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(name: str, ready: Callable[[], bool], process: psutil.Process, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not ready():
        if time.monotonic() > deadline or process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"{name} did not get ready; its last words: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
