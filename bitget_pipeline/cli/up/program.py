"""
One program that `up` runs: how it is started, when it is ready, and how it is started again.

Made by plan.py, run by supervisor.py. Its output goes to `<home>/logs/<name>.log`, one file a start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from .leftovers import Session

KEPT_LOGS = 5
LONGEST_LOG = 20 * 1024 * 1024  # bytes
FIRST_DELAY = 1.0
MOST_DELAY = 30.0
CALM_AFTER = 60.0  # seconds after which earlier deaths are forgotten


class State(StrEnum):
    """Where a program is in its life."""

    WAITING = "waiting"  # for what it needs, or for its turn after a death
    STARTING = "starting"
    READY = "ready"


@dataclass(frozen=True)
class Program:
    """
    What to run. `ready` is asked until it says yes, within `ready_within` seconds; `needs` names what must be ready first.

    `own_log` is where it writes instead of on stderr. `phase` is the phase of the ordered stop it ends in (see leftovers.PHASES).
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: Callable[[], bool]
    phase: str
    needs: frozenset[str] = frozenset()
    ready_within: float = 120.0
    own_log: Path | None = None


class Child:
    """A program and its present process."""

    def __init__(self, program: Program, logs: Path) -> None:
        self.program = program
        self.state = State.WAITING
        self.deaths = 0
        self.started = 0.0  # monotonic seconds of the last start
        self.not_before = 0.0
        self.was_ready = False
        self._log = logs / f"{program.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process, None while it has none."""
        return self._process.pid if self._process else None

    def start(self, *, now: float) -> Session:
        """Start it in a session of its own, with a fresh log. Raises OSError when the program cannot be run."""
        rotate(self._log)
        with open(self._log, "ab") as log:  # appending: what is cut off while it runs leaves no hole
            self._process = subprocess.Popen(
                list(self.program.command),
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.state, self.started = State.STARTING, now
        try:
            created = psutil.Process(self._process.pid).create_time()
        except psutil.Error:  # it is gone already; poll() will say so
            created = 0.0
        return Session(pid=self._process.pid, created=created, phase=self.program.phase, name=self.program.name)

    def ended(self) -> str | None:
        """How the process ended, in words, or None while it runs. Reaps it."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            return None
        return f"ended with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"

    def schedule_restart(self, *, now: float) -> float:
        """Note a death; returns the seconds until it is started again (1, 2, 4 ... 30; a calm minute forgets)."""
        self.deaths = 1 if now - self.started > CALM_AFTER else self.deaths + 1
        delay = restart_delay(self.deaths)
        self.state, self.not_before, self._process = State.WAITING, now + delay, None
        return delay

    def reap(self) -> None:
        """Take note of the end of the process, if it ended."""
        if self._process is not None:
            self._process.poll()

    def cut_log(self) -> None:
        """Put a log that has grown too long aside, while the program goes on writing."""
        cut(self._log)

    def last_words(self) -> str:
        """The last line of its log that says something, cut to a readable length."""
        own = self.program.own_log
        return last_line(self._log) or (last_line(own) if own else "")


def restart_delay(deaths: int) -> float:
    """Seconds to wait before the next start after so many deaths in a row."""
    return min(MOST_DELAY, FIRST_DELAY * 2.0 ** (deaths - 1)) if deaths else 0.0


def last_line(path: Path, *, most: int = 300) -> str:
    """The last line of a log that says something; "" when there is none."""
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 16_384))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:most] if said else ""


def cut(path: Path, *, most: int = LONGEST_LOG) -> None:
    """Move what a log holds to name.1.log when it is longer than `most` bytes; lines written meanwhile may be lost."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > most:
            _shift(path)
            shutil.copyfile(path, path.with_suffix(".1.log"))
            os.truncate(path, 0)


def rotate(path: Path) -> None:
    """Make way for a new log, keeping the last few as name.1.log, name.2.log ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _shift(path)
    if path.exists():
        os.replace(path, path.with_suffix(".1.log"))


def _shift(path: Path) -> None:
    for number in range(KEPT_LOGS - 1, 1, -1):
        newer = path.with_suffix(f".{number - 1}.log")
        if newer.exists():
            os.replace(newer, path.with_suffix(f".{number}.log"))
