"""
The sockets of an HTTP client, so that whatever waits on them can be ended from another thread.

Used by connection.py when it is closed: a thread that waits for a server which hangs would keep its process alive as long
as the answer may take.
"""

from __future__ import annotations

import socket
import threading
import weakref
from typing import Any

from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager


class Wires:
    """All sockets that a manager opens from now on; those it has open are given up."""

    def __init__(self, manager: PoolManager) -> None:
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_cut = False
        manager.clear()
        manager.pool_classes_by_scheme = {
            "http": self._watched(HTTPConnectionPool),
            "https": self._watched(HTTPSConnectionPool),
        }

    def cut(self) -> None:
        """End everything that is asked, and let nothing be asked any more."""
        with self._lock:
            self._is_cut = True
            wires = list(self._open)
        for wire in wires:
            try:
                socket.socket.shutdown(wire, socket.SHUT_RDWR)  # of the socket itself: TLS would wait for its reader
            except OSError:
                continue  # it has ended by itself

    def _watched(self, pool: type[Any]) -> type[Any]:
        """The same kind of pool, whose connections are known here."""
        wires, connection = self, pool.ConnectionCls

        def connect(one: Any) -> None:
            wires._refuse()
            connection.connect(one)
            wires._add(one.sock)

        watched = type(connection.__name__, (connection,), {"connect": connect})
        return type(pool.__name__, (pool,), {"ConnectionCls": watched})

    def _add(self, wire: socket.socket) -> None:
        with self._lock:
            self._open.add(wire)
        self._refuse()

    def _refuse(self) -> None:
        if self._is_cut:
            raise ConnectionAbortedError("this connection has been closed")
