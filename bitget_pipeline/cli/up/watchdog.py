"""
Ends an instance whose `up` was killed.

Started by `up` with the reading end of a pipe that only `up` holds open: the end of the pipe is the end of `up`, however
it came, on Linux and macOS alike. `up` writes one byte before it stops in order; without it everything that run.json
names is ended here. (A parent-death signal would reach the children but not their run workers.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from . import leftovers


class Watchdog:
    """The watchdog as `up` sees it."""

    def __init__(self, home: Path) -> None:
        reading, self._writing = os.pipe()
        environment = {name: value for name, value in os.environ.items() if name in leftovers.SYSTEM_VARIABLES}
        log = home / "logs" / "watchdog.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(home), str(reading)],
                pass_fds=[reading],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        os.close(reading)

    def as_json(self) -> dict[str, float]:
        """As it stands in run.json."""
        try:
            created = psutil.Process(self._process.pid).create_time()
        except psutil.Error:
            created = 0.0
        return {"pid": self._process.pid, "created": created}

    @property
    def alive(self) -> bool:
        """Whether it still watches."""
        return self._process.poll() is None

    def dismiss(self) -> None:
        """Tell it that all ended in order, and wait for it."""
        with contextlib.suppress(OSError):  # it is gone itself
            os.write(self._writing, b"x")
        self.release()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def release(self) -> None:
        """Close our end of the pipe."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1


def watch(home: Path, reading: int) -> None:
    """Wait for the end of `up`, then end what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(reading, 1):
        return
    ended = leftovers.end_recorded(home)
    print(f"`up` was killed; ended: {', '.join(ended) or 'nothing was left'}", flush=True)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), int(sys.argv[2]))
