"""The command as a user runs it: processes of their own, waited for by condition and ended by their id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bitget_pipeline.cli.up import leftovers

COMMAND = [str(Path(sys.executable).with_name("bitget-pipeline"))]


def wait_until(condition: Callable[[], Any], what: str, *, within: float = 60.0) -> Any:
    """The first true answer. Fails after `within` seconds, saying what did not happen."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {within:.0f} s: {what}")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(
    *arguments: object, environ: dict[str, str] | None = None, within: float = 180.0
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=within,
        env={**os.environ, **(environ or {})},
        check=False,
    )


LITTLE = {
    "BITGET_PIPELINE_SYMBOLS_PER_MARKET": "5",
    "BITGET_PIPELINE_HISTORY_DAYS": "2",
    "BITGET_PIPELINE_HISTORY_TARGETS": "none",
}
"""Settings of an instance that is soon done with its history: two of them with a month of sixty symbols keep any machine busy."""


@dataclass
class Demo:
    """`bitget-pipeline up --demo` in a folder, of few symbols and days."""

    home: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.home.with_name(f"{self.home.name}.up.log")

    def start(self) -> None:
        """Start it, without waiting."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "up", "--demo", "--json", "--home", str(self.home), "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **LITTLE},
            )

    def events(self) -> list[dict[str, Any]]:
        """What it said since it was started first."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def wait_running(self, times: int = 1) -> None:
        """Wait until everything runs (for the so-manieth time)."""

        def running() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")[-2000:]
            return sum(event["event"] == "running" for event in self.events()) >= times

        wait_until(running, f"{self.home.name} runs", within=240)

    def run_file(self) -> dict[str, Any]:
        """run.json."""
        content: dict[str, Any] = json.loads((self.home / "run.json").read_text(encoding="utf-8"))
        return content

    def processes(self) -> set[int]:
        """Every living process of the instance but `up` and its watchdog."""
        run = self.run_file()
        return set(leftovers.members(leftovers.recorded_sessions(run), run["mark"]))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop and wait. Returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(180)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


def all_gone(pids: set[int]) -> bool:
    """Whether none of these processes lives (a zombie does not)."""
    return not any(psutil.pid_exists(pid) and _lives(pid) for pid in pids)


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
