"""
HTTP sessions: an engine handle that outlives the request, with its settings, its database and its temporary tables.

Asked by `server.py` for requests with a session_id. Rules of ClickHouse's HTTP interface: a session is used by one request
at a time, ends some seconds after its last one, and settings in a request's address hold for that request only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .engine import Engine, Handle, named, quoted
from .refusals import Refusal, refusal


@dataclass
class Session:
    """One open session."""

    session_id: str
    handle: Handle
    loan: Loan
    timeout: float
    last_used: float
    busy: bool = False


class Sessions:
    """All open sessions. Belongs to the event loop; only `Engine.open` (0.1 ms) is called from it."""

    def __init__(self, engine: Engine, *, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._most = most
        self._now = now
        self._open: dict[str, Session] = {}

    def take(self, session_id: str, *, timeout: float, must_exist: bool) -> Session:
        """The session of this name, opened if need be. Raises a refusal: 372 not found, 373 in use, 202 too many."""
        self.expire()
        session = self._open.get(session_id)
        if session is None:
            if must_exist:
                raise refusal(372, f"Session {session_id!r} not found.")
            if len(self._open) >= self._most:
                self._drop_one()
            handle = self._engine.open()
            session = Session(session_id, handle, Loan(handle), timeout, self._now())
            self._open[session_id] = session
        elif session.busy:
            raise refusal(373, f"Session {session_id!r} is locked by a concurrent client.")
        session.busy, session.timeout = True, timeout
        return session

    def give_back(self, session: Session, *, end: bool = False) -> None:
        """The request is over; `end` closes the session as well."""
        session.busy, session.last_used = False, self._now()
        if end:
            self._close(session)

    def expire(self) -> None:
        """Close what was idle for longer than its timeout."""
        now = self._now()
        for session in [s for s in self._open.values() if not s.busy and now - s.last_used > s.timeout]:
            self._close(session)

    def close(self) -> None:
        """Close all of them."""
        for session in list(self._open.values()):
            self._close(session)

    def _drop_one(self) -> None:
        idle = [s for s in self._open.values() if not s.busy]
        if not idle:
            raise refusal(202, f"Too many sessions in use at a time: {self._most}.")
        self._close(min(idle, key=lambda s: s.last_used))

    def _close(self, session: Session) -> None:
        self._open.pop(session.session_id, None)
        session.handle.close()


class Loan:
    """
    What a session has of its last request's address: settings and database, put back before a request that has others.

    Put back late, because clients send the same ones with every request, and asking what was there costs milliseconds.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._settings: dict[str, str] = {}
        self._database = ""
        self._undo: list[bytes] = []

    def take(self, settings: dict[str, str], database: str) -> None:
        """Let these hold, and no others. Raises a refusal."""
        if settings == self._settings and database == self._database:
            return
        self.put_back()
        if database:
            was = _rows(self._handle, b"SELECT currentDatabase()")[0][0]
            self._handle.run(b"USE " + named(database), "Null")
            self._undo.append(b"USE " + named(was))
        if settings:
            names = b", ".join(quoted(name) for name in settings)
            found = b"SELECT name, value, changed FROM system.settings WHERE name IN (" + names + b")"
            back = [
                name.encode() + b" = " + (quoted(value) if changed else b"DEFAULT")
                for name, value, changed in _rows(self._handle, found)
            ]
            self._undo += [b"SET " + b", ".join(back)] if back else []
            self._handle.set(settings)
        self._settings, self._database = settings, database

    def put_back(self) -> None:
        """Undo it: before SET and USE, which are meant for the session itself."""
        undo, self._undo = self._undo, []
        self._settings, self._database = {}, ""
        for statement in undo:
            # The database may have been dropped meanwhile; the session goes on without.
            with suppress(Refusal):
                self._handle.run(statement, "Null")


def _rows(handle: Handle, sql: bytes) -> list[list[str]]:
    rows: list[list[str]] = json.loads(handle.run(sql, "JSONCompact").bytes())["data"]
    return rows
