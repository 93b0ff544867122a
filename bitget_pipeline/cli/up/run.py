"""
The life of an instance, from the folder's lock to the last process's end.

Input: the options of `bitget-pipeline up`; output: its exit code. What happens in which order is all here.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from ...errors import PipelineError, StoreUnavailable
from ...local.redis import find_redis_server
from ...settings import Boot, keep, load_boot, load_operational, remember_acceptance
from .. import output
from ..facts import Gatherer
from . import folder, leftovers, plan, ports, runs, stores
from .leftovers import Session
from .supervisor import Happened, Supervisor
from .view import Json, Lines, Panels, Shown, Watcher
from .watchdog import Watchdog

TICK = 0.1  # seconds between two looks at the programs


@dataclass(frozen=True, slots=True)
class Options:
    """What `up` was asked for."""

    home: Path | None
    demo: bool
    port: int
    headless: bool
    seed: int | None
    seconds: float | None
    as_json: bool


def run(options: Options) -> int:
    """Start everything, watch it until told to stop, stop everything. Returns the exit code."""
    environ = output.environment_for(home=options.home, demo=options.demo)
    boot = load_boot(environ)
    operational = load_operational(boot, environ)
    folder.check_stamp(boot.home, boot.exchange)
    if folder.owner(boot.home) is None:
        _require_what_it_needs(boot, options)
    began = time.monotonic()
    with folder.taken(boot.home, boot.exchange), _told_to_stop() as told, ports.Claims() as claims:
        remember_acceptance(boot.home, boot.credentials)  # it was asked for above, or is one of the local exchange
        operational = load_operational(boot, environ)
        keep(boot, operational)
        left = leftovers.end_recorded(boot.home)
        mark = uuid.uuid4().hex
        planned = plan.make_plan(
            boot, operational, claims, environ=environ, dagster_port=options.port, mark=mark, seed=options.seed
        )
        with Watcher(Gatherer(boot, operational, environ)) as watcher:
            view = _view(options, watcher)
            with _supervised(boot, planned, mark) as (supervisor, keep_watchdog):
                view.opened(home=boot.home, addresses=planned.addresses)
                closing = "stopped in order"
                try:
                    if left:
                        view.happened(_left_over(left))
                    _watch(supervisor, view, watcher, keep_watchdog, told, began=began, seconds=options.seconds)
                except PipelineError:
                    closing = "stopped, because it could not start"
                    raise
                finally:
                    if not options.as_json and told():
                        view.closed("stopping: run workers write what they hold, then the stores close ...")
                    page = planned.addresses["dagster"]
                    killed = supervisor.stop(lambda: runs.cancel(page["host"], page["port"]))
                    if killed:
                        closing += f"; had to be killed: {', '.join(killed)}"
                    view.closed(f"{closing}; the data lies in {boot.home}")
    return 0


def _require_what_it_needs(boot: Boot, options: Options) -> None:
    """Raise what a person has to mend first, before anything is written: a port, a missing server, the exchange."""
    if not (boot.home / folder.LOCK).exists():  # else a killed `up` may have left who has the port; it is ended first
        ports.require_free(options.port, option="--port")
    stores.require_answers(boot)
    if boot.embedded_redis:
        find_redis_server()
    if boot.exchange == "bitget" or boot.bitget_rest_url is not None:  # else we start it ourselves
        from ..reach import require_exchange

        require_exchange(boot)


def _watch(
    supervisor: Supervisor,
    view: Shown,
    watcher: Watcher,
    keep_watchdog: Callable[[], None],
    told: Callable[[], bool],
    *,
    began: float,
    seconds: float | None,
) -> None:
    running = False
    while not told():
        now = time.monotonic()
        for event in supervisor.tick(now=now):
            view.happened(event)
        if supervisor.ready and not running:
            running = True
            view.ready(seconds=now - began)
            watcher.begin()
        if seconds is not None and now - began > seconds:
            return
        keep_watchdog()
        view.refresh(supervisor.states())
        time.sleep(TICK)


@contextmanager
def _supervised(boot: Boot, planned: plan.Plan, mark: str) -> Iterator[tuple[Supervisor, Callable[[], None]]]:
    """
    A supervisor whose sessions stand in run.json, and a watchdog in case that we are killed; with what to call now and
    then so that there always is one.
    """
    content: dict[str, Any] = {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "exchange": boot.exchange,
        "started_at": datetime.now(UTC).isoformat(),
        "mark": mark,
        "addresses": planned.addresses,
        "ports": planned.ports,
        "sessions": [],
    }
    folder.write_run(boot.home, content)
    watchdog = Watchdog(boot.home)

    def record(sessions: list[Session]) -> None:
        content["sessions"] = [session.as_json() for session in sessions]
        folder.write_run(boot.home, content)

    def keep_watchdog() -> None:
        nonlocal watchdog
        if not watchdog.alive:
            watchdog.release()
            watchdog = Watchdog(boot.home)
            content["watchdog"] = watchdog.as_json()
            folder.write_run(boot.home, content)

    try:
        content["watchdog"] = watchdog.as_json()
        folder.write_run(boot.home, content)
        supervisor = Supervisor(boot.home / "logs", mark, record)
        supervisor.add(planned.programs, planned.steps)
        yield supervisor, keep_watchdog
    finally:
        folder.write_run(boot.home, {"ports": planned.ports})
        watchdog.dismiss()


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """
    Whether a signal asked us to stop. Handled signals are also reset in children, so that they obey even when we were
    started in the background of a script, with SIGINT ignored.
    """
    told: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: told.append(number)) for number in numbers}
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _view(options: Options, watcher: Watcher) -> Shown:
    console = output.console()
    if options.as_json:
        return Json(Console(highlight=False, soft_wrap=True), watcher)
    if options.headless or not console.is_terminal:
        return Lines(console, watcher)
    return Panels(console, watcher)


def _left_over(names: list[str]) -> Happened:
    return Happened("cleaned", "instance", f"ended what a killed `up` had left: {', '.join(names)}")


def stop_running(home: Path, *, within: float = 60.0) -> tuple[bool, list[str]]:
    """
    Stop the instance of a folder and wait. Returns whether an `up` ran, and what a killed one had left.

    Raises StoreUnavailable when it does not stop in time.
    """
    pid = folder.owner(home)
    if pid:
        try:
            psutil.Process(pid).terminate()
        except psutil.Error:
            pid = None
    deadline = time.monotonic() + within
    while folder.owner(home) is not None:
        if time.monotonic() > deadline:
            raise StoreUnavailable(
                f"the instance (process {pid}) did not stop within {within:.0f} s", where=str(home), remedy="try again"
            )
        time.sleep(0.05)
    return bool(pid), leftovers.end_recorded(home)
