"""
HTTP sessions: an engine handle that outlives the request, with its settings, its database and its temporary tables.

Asked by `server.py` for requests with a session_id. Rules of ClickHouse's HTTP interface: a session is used by one request
at a time, ends some seconds after its last one, and settings in a request's address hold for that request only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from .engine import Engine, Handle, named, quoted
from .refusals import Refusal, refusal


@dataclass
class Session:
    """One open session."""

    session_id: str
    handle: Handle
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
            session = Session(session_id, self._engine.open(), timeout, self._now())
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


class Borrowed:
    """A session's settings and database, changed for one request and put back after it."""

    def __init__(self, handle: Handle, settings: dict[str, str], database: str) -> None:
        """Remember what `settings` and the database are now. Raises a refusal."""
        self._handle = handle
        self._database = _rows(handle, b"SELECT currentDatabase()")[0][0] if database else ""
        names = b", ".join(quoted(name) for name in settings)
        found = b"SELECT name, value, changed FROM system.settings WHERE name IN (" + names + b")"
        self._before = {n: v if changed else None for n, v, changed in (_rows(handle, found) if settings else [])}
        self._drop: list[str] = []

    def will_drop(self, table: str) -> None:
        """A temporary table that must not stay."""
        self._drop.append(table)

    def put_back(self) -> None:
        """Undo it all; what the statement itself has changed by SET or USE stays."""
        back = [
            name.encode() + b" = " + (b"DEFAULT" if value is None else quoted(value))
            for name, value in self._before.items()
        ]
        undo = [b"SET " + b", ".join(back)] if back else []
        undo += [b"USE " + named(self._database)] if self._database else []
        undo += [b"DROP TEMPORARY TABLE IF EXISTS " + named(table) for table in self._drop]
        for statement in undo:
            try:
                self._handle.run(statement, "Null")
            except Refusal:  # the database was dropped meanwhile, or the like: the session goes on without
                continue


def _rows(handle: Handle, sql: bytes) -> list[list[str]]:
    rows: list[list[str]] = json.loads(handle.run(sql, "JSONCompact").bytes())["data"]
    return rows
