"""
Whether a server of ours is ready: one question with a short time-out, answered yes or no.

Given to the programs of plan.py; asked again and again while they start, so they never raise.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from .ports import HOST

WITHIN = 0.5
"""Seconds; the loop that asks must stay awake for signals and for the other programs."""


def http_answers(port: int, path: str, *, host: str = HOST) -> Callable[[], bool]:
    """Whether a GET is answered with 200; `0.0.0.0` is asked on this machine."""
    host = HOST if host in ("0.0.0.0", "::", "") else host

    def ready() -> bool:
        connection = HTTPConnection(host, port, timeout=WITHIN)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    return ready


def redis_answers(port: int) -> Callable[[], bool]:
    """Whether Redis answers PING: with PONG, or by asking for its password. While it loads its file it says LOADING."""

    def ready() -> bool:
        try:
            with socket.create_connection((HOST, port), timeout=WITHIN) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    return ready


def port_accepts(port: int) -> Callable[[], bool]:
    """Whether a connection is accepted."""

    def ready() -> bool:
        with socket.socket() as probe:
            probe.settimeout(WITHIN)
            return probe.connect_ex((HOST, port)) == 0

    return ready
