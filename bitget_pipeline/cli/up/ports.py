"""
Ports on this machine: which are free, and who has the one we were told to use.

All of them on 127.0.0.1; what is chosen is remembered in run.json by the caller.
"""

from __future__ import annotations

import socket

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


def accepts(port: int) -> bool:
    """Whether somebody listens there now."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def require_free(port: int, *, option: str) -> None:
    """Raises PortTaken, naming who has it and the option that chooses another."""
    if not is_free(port):
        raise PortTaken(
            f"port {port} is in use{_by_whom(port)}",
            where=f"{HOST}:{port}",
            remedy=f"stop that program, or choose another port with {option}",
        )


def choose(preferred: int, *, avoiding: set[int]) -> int:
    """The preferred port if it is free, else any that is."""
    if preferred not in avoiding and is_free(preferred):
        return preferred
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in avoiding:
            return port


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
