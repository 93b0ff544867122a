"""
Finding every process of an instance, and ending them in order.

Input: the sessions that `up` wrote into run.json, and the mark it put into its children's environment; used when `up`
stops, by the watchdog when `up` was killed, and by the next `up` or `down` when both were.

A child leads a session of its own, so what it starts (run workers, their `tail` helpers) is found by session even after
the child is gone; the mark finds what opened yet another session. A recorded process counts only with its start time,
because process ids come back.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from . import folder

MARK = "BITGET_PIPELINE_INSTANCE"
"""Environment variable of every child; its value is new at each `up`."""

SYSTEM_VARIABLES = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV", "PYTHONPATH"})
"""All that stores, local exchange and watchdog get of our environment: they have no use for anybody's API key."""

START_TIME_TOLERANCE = 1.0  # seconds; psutil derives start times from clock ticks since boot

PHASES: tuple[tuple[str, float], ...] = (("launcher", 12.0), ("dagster", 12.0), ("code", 10.0), ("store", 15.0))
"""What is stopped after what, and for how many seconds it may take before it is killed."""

MOST_OF_A_LOOK = 1.0
"""Seconds by which one look brings a process nearer to being killed: while the whole machine stood still, nobody could end."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session one of our children leads or led: `pid` is the child's, `created` its start time, `phase` when it ends."""

    pid: int
    created: float
    phase: str
    name: str

    def as_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {"pid": self.pid, "created": self.created, "phase": self.phase, "name": self.name}


def recorded_sessions(run: dict[str, Any]) -> list[Session]:
    """The sessions of run.json, without entries that make no sense."""
    sessions = []
    for entry in run.get("sessions", []):
        try:
            sessions.append(
                Session(int(entry["pid"]), float(entry["created"]), str(entry["phase"]), str(entry["name"]))
            )
        except (KeyError, TypeError, ValueError):
            continue
    return sessions


def is_alive(pid: int, created: float) -> bool:
    """Whether exactly this process still runs."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < START_TIME_TOLERANCE and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def members(sessions: Iterable[Session], mark: str) -> dict[int, tuple[psutil.Process, Session | None]]:
    """Every living process of these sessions, or with this mark; by process id, with its session if it is one of ours."""
    by_id = {session.pid: session for session in sessions}
    found: dict[int, tuple[psutil.Process, Session | None]] = {}
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            session = by_id.get(_session_of(process.pid))
            if session is not None and process.create_time() < session.created - START_TIME_TOLERANCE:
                session = None  # the session's number was used again
            marked = session is None and bool(mark) and process.environ().get(MARK) == mark
            if (session is not None or marked) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = (process, session)
        except (psutil.Error, OSError):
            continue
    return found


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:  # not told about other sessions' processes, or it is gone
        return -1


def end(
    sessions: Sequence[Session],
    mark: str,
    *,
    reap: Callable[[], None] = lambda: None,
    phases: Sequence[tuple[str, float]] = PHASES,
    told: Collection[int] = (),
) -> list[str]:
    """
    End every process of an instance: what launches runs, then Dagster's page with the run workers, then the code server,
    then stores and exchange.

    Each gets SIGTERM and its phase's time, then SIGKILL. Those in `told` know already: a signal would disturb them while
    they write what they hold, so it comes at half-time only. `reap` is called while waiting, for children of the caller. Of
    a time for which the machine stood still little counts.
    Returns the names of those that had to be killed.
    """
    killed: list[str] = []
    for phase, patience in phases:
        signalled: set[int] = set()
        waited, looked = 0.0, time.monotonic()
        while left := _of_phase(phase, members(sessions, mark)):
            for process in left:
                if waited > patience:
                    killed.append(_signalled(process, signal.SIGKILL))
                elif process.pid not in signalled and (process.pid not in told or waited > patience / 2):
                    _signalled(process, signal.SIGTERM)
                    signalled.add(process.pid)
            time.sleep(0.05)
            reap()
            now = time.monotonic()
            waited, looked = waited + min(now - looked, MOST_OF_A_LOOK), now
            if waited > patience + 5.0:  # not even SIGKILL helps: it hangs in the kernel
                break
    return sorted(set(killed))


def run_workers(sessions: Sequence[Session], mark: str) -> set[int]:
    """The processes that execute Dagster's runs, and their helpers."""
    own = {session.pid for session in sessions}
    return {process.pid for process in _of_phase("dagster", members(sessions, mark)) if process.pid not in own}


def end_recorded(home: Path) -> list[str]:
    """End what run.json still names. The caller knows that no `up` runs. Returns the names of what was running."""
    run = folder.read_run(home)
    sessions, mark = recorded_sessions(run), str(run.get("mark", ""))
    watchdog = run.get("watchdog") or {}
    if watchdog and is_alive(int(watchdog["pid"]), float(watchdog["created"])) and watchdog["pid"] != os.getpid():
        _signalled(psutil.Process(int(watchdog["pid"])), signal.SIGKILL)  # we do its work
    running = members(sessions, mark)
    if running:
        end(sessions, mark)
    if "addresses" in run:
        folder.write_run(home, {"ports": run.get("ports", {})})
    return sorted({session.name if session else "run worker" for _, session in running.values()})


def _of_phase(phase: str, living: dict[int, tuple[psutil.Process, Session | None]]) -> list[psutil.Process]:
    """
    The processes that this phase ends.

    Of the code server's session only the run workers belong to the first phase: they write what they hold, through a
    code server and stores that still live.
    """
    return [
        process
        for pid, (process, session) in living.items()
        if (session is None and phase == "dagster")
        or (session is not None and session.phase == phase)
        or (session is not None and session.phase == "code" and phase == "dagster" and pid != session.pid)
        if not (phase == "dagster" and _is_tracker(process))
    ]


def _is_tracker(process: psutil.Process) -> bool:
    """Whether it is Python's own helper of the code server, which ignores SIGTERM and ends with the code server."""
    try:
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _signalled(process: psutil.Process, number: signal.Signals) -> str:
    try:
        name = process.name()
        process.send_signal(number)
    except psutil.Error:
        return ""
    return f"{name} ({process.pid})"
