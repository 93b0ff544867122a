"""
On which machine and as which process a live run works, and whether that process is gone.

Told by the run with everything else it publishes (news.py), and asked by the supervisor (defs/live_supervisor.py): seen from
the same machine, a process that is gone says so at once, while its lease would have to run out first.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")


def here() -> dict[str, Any]:
    """The machine and the number of this process."""
    return {"machine": machine(), "pid": os.getpid()}


def is_gone(told: Mapping[str, Any] | None) -> bool:
    """
    Whether the process that told this (`here`) has ended for certain. Of another machine, or another container on this one,
    nobody here can say; nor of a number that has another process by now, or one of another user.
    """
    if not told or told.get("machine") != machine():
        return False
    pid = int(told["pid"])
    try:
        os.kill(pid, 0)  # asks the kernel alone: /proc may hide what others run
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return True
    except (PermissionError, psutil.Error):
        return False


@cache
def machine() -> str:
    """A name that two processes share only if each can see the other: of this start of the machine, and of the container."""
    try:
        return f"{BOOT_ID.read_text(encoding='ascii').strip()} {NAMESPACE.readlink()}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} since {psutil.boot_time():.0f}"
