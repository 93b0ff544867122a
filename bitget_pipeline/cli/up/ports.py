"""
Ports on this machine: which are free, and who has the one we were told to use.

All of them on 127.0.0.1; what is chosen is remembered in run.json by the caller. Between the choice and the moment when a
server listens, a claim keeps a second `up` of the same machine from choosing the same port.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import Self

import psutil

from ...errors import PortTaken

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as our servers do: a closing one is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def require_free(port: int, *, option: str) -> None:
    """Raises PortTaken, naming who has it and the option that chooses another."""
    if not is_free(port):
        raise PortTaken(
            f"port {port} is in use{_by_whom(port)}",
            where=f"{HOST}:{port}",
            remedy=f"stop that program, or choose another port with {option}",
        )


class Claims:
    """
    Ports that this process has chosen, told to others by locked files of the temporary folder.

    The locks end with the process, however it ends. A folder that cannot be used means no claims, not no ports.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"bitget_pipeline-{os.getuid()}"
        self._locks: dict[int, int] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for lock in self._locks.values():
            os.close(lock)
        self._locks.clear()

    def choose(self, preferred: int) -> int:
        """The preferred port if it is free and nobody claims it, else any such port. It is ours from now on."""
        if self._claim(preferred) and is_free(preferred):
            return preferred
        while True:
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                port = int(probe.getsockname()[1])
            if self._claim(port):
                return port

    def require(self, port: int, *, option: str) -> None:
        """Claim a port we were told to use. Raises PortTaken."""
        require_free(port, option=option)
        if not self._claim(port):
            raise PortTaken(
                f"port {port} is claimed by another `bitget-pipeline up`",
                where=f"{HOST}:{port}",
                remedy=f"choose another port with {option}",
            )

    def _claim(self, port: int) -> bool:
        if port in self._locks:
            return False
        try:
            lock = os.open(
                self._folder / f"port-{port}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._locks[port] = lock
        return True


def _by_whom(port: int) -> str:
    """Its name and process, where the system tells us (other users' processes it often hides)."""
    for process in psutil.process_iter(["pid", "name"]):
        try:
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return f" by {process.info['name']} (process {process.info['pid']})"
        except (psutil.Error, OSError):
            continue
    return ""
