"""
The chDB engine of this process: one data path, many handles, and a way to kill what runs.

Opened by `server.py` with a `WarehouseConfig`; hands out handles on which statements run in a pool of threads.
Facts it rests on (measured with chdb-core 26.9): a process has one engine; a handle costs about 0.1 ms and carries its own
SET, USE and temporary tables; the interpreter's lock is released while a statement runs; a query id cannot be set, so ours
travels in the log_comment setting; only KILL QUERY from another handle ends a statement that is running.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ... import errors, telemetry
from .config import WarehouseConfig, write_files
from .refusals import Refusal, from_engine

log = telemetry.get_logger(__name__)


def _chdb_connect() -> Any:
    """
    chDB's connect, loaded with UTC as the zone of this process: the engine takes its zone from TZ, once, when it is loaded.

    The private object: the public one wraps every answer, and does not offer classify_query.
    """
    os.environ["TZ"] = "UTC"
    time.tzset()
    import chdb

    return chdb._chdb.connect  # type: ignore[attr-defined]


def quoted(text: str | bytes) -> bytes:
    """A string literal."""
    raw = text.encode() if isinstance(text, str) else text
    return b"'" + raw.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"


def named(text: str) -> bytes:
    """An identifier, in backquotes."""
    return b"`" + text.encode().replace(b"\\", b"\\\\").replace(b"`", b"\\`") + b"`"


def runs_under(query_id: bytes) -> bytes:
    """The condition on system.processes for an id (a string literal) that `comment_for` has put there."""
    comment = b"Settings['log_comment']"
    return b"(" + comment + b" = " + query_id + b" OR startsWith(" + comment + b", " + query_id + b" || ' '))"


def comment_for(query_id: str, comment: str) -> dict[str, str]:
    """The setting that carries a query id, before the comment a client has given itself."""
    return {"log_comment": f"{query_id} {comment}" if comment else query_id}


class FolderLock:
    """
    The claim on a data folder: an advisory lock, which the system takes back when its process ends, however it ends.

    Holder's process id and port stand in the file, so that a second one can say who was first.
    """

    def __init__(self, config: WarehouseConfig) -> None:
        """Raises FolderTaken when another process has it, StoreRefused or DiskFull when it cannot be written."""
        self._config = config
        try:
            config.data.mkdir(parents=True, exist_ok=True)
            # Market data is nobody else's business on a shared machine, and the logs may hold what people asked.
            config.data.chmod(0o700)
            self._file = open(config.lock_path, "a+", encoding="utf-8")  # noqa: SIM115 — held while the server runs
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_files(config)
        except BlockingIOError:
            raise errors.FolderTaken(
                f"the warehouse folder belongs to {self._holder()}",
                where=str(config.data),
                remedy="stop that one first, or choose another folder",
            ) from None
        except OSError as error:
            raise refused_folder(error, where=str(config.data)) from error

    def _holder(self) -> str:
        self._file.seek(0)
        try:
            said = json.loads(self._file.read())
            port = f" on port {said['port']}" if said.get("port") else ""
            return f"process {said['pid']}{port}"
        except (ValueError, KeyError, TypeError):
            return "another process"

    def sign(self, port: int) -> None:
        """Write down who holds the lock and where it listens."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps({"pid": os.getpid(), "port": port}) + "\n")
        self._file.flush()

    def release(self) -> None:
        """Give the folder back; the file stays, empty."""
        self._file.seek(0)
        self._file.truncate()
        self._file.close()


def refused_folder(error: OSError, *, where: str) -> errors.Refused:
    """What a person is told when a folder cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.DiskFull("no room left for the warehouse", where=where, remedy="free some disk space")
    return errors.StoreRefused(
        f"the warehouse folder cannot be written: {error.strerror or error}",
        where=where,
        remedy="check its owner and rights, or choose another folder",
    )


class Engine:
    """The one engine of this process. Its methods block: call them in `pool`, and `kill` in `killers`."""

    def __init__(self, config: WarehouseConfig) -> None:
        """Open the data path. Raises StoreRefused or FolderTaken with the engine's own words when it cannot."""
        self._config = config
        self._connect = _chdb_connect()
        self.pool = ThreadPoolExecutor(config.threads, thread_name_prefix="warehouse")
        # Kills must never wait behind the statements they are to end.
        self.killers = ThreadPoolExecutor(2, thread_name_prefix="warehouse-kill")
        try:
            self._first = self._connect(config.connection_string)
        except RuntimeError as error:
            why = from_engine(error)
            kind = errors.FolderTaken if why.code == 36 else errors.StoreRefused
            raise kind(
                f"the engine cannot open its data: {why.text.splitlines()[0][:300]}",
                where=str(config.engine_path),
                remedy="is another process using this folder, or is the disk full?",
            ) from None
        self.timezone = self._one(b"SELECT timezone()")
        self.version = self._one(b"SELECT version()")

    def _one(self, sql: bytes) -> str:
        text: str = self._first.query(sql, "TSV").bytes().decode().strip()
        return text

    def open(self) -> Handle:
        """A new handle with settings of its own."""
        return Handle(self._connect(self._config.connection_string))

    def kill(self, query_id: str) -> None:
        """End the statements that run under this id; none is no error."""
        handle = self.open()
        try:
            handle.run(b"KILL QUERY WHERE " + runs_under(quoted(query_id)) + b" ASYNC", "Null")
        except Refusal as why:
            log.warning("warehouse.kill_failed", query_id=query_id, error=why.text)
        finally:
            handle.close()

    def close(self) -> None:
        """Close the engine: nothing must be running any more."""
        self.pool.shutdown(wait=True)
        self.killers.shutdown(wait=True)
        self._first.close()


class Handle:
    """One conversation with the engine. It takes one statement at a time; every failure is a `Refusal`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._closed = False

    def classify(self, sql: bytes) -> tuple[str, int]:
        """(READ_ONLY | MUTATING | MUTATING_GLOBAL | CONTROL | UNKNOWN, number of statements; 0 if it does not parse)."""
        try:
            said = self._connection.classify_query(sql)
        except RuntimeError as error:
            raise from_engine(error) from None
        return said["query_class"].name, said["statement_count"]

    def run(self, sql: bytes, output_format: str, params: dict[str, str] | None = None) -> Any:
        """Run one statement to its end; the answer has bytes(), rows_read(), storage_rows_read(), elapsed(), ..."""
        try:
            return self._connection.query(sql, output_format, params=params or {})
        except RuntimeError as error:
            raise from_engine(error) from None

    def stream(self, sql: bytes, output_format: str, params: dict[str, str]) -> Stream:
        """Begin a statement whose answer comes block by block."""
        try:
            return Stream(self._connection, self._connection.send_query(sql, output_format, params=params))
        except RuntimeError as error:
            raise from_engine(error) from None

    def insert(self, sql: bytes, input_format: str) -> Inserter:
        """
        Begin an insert whose data follow piece by piece.

        This is the only way data enters: inside the text of a statement the local parser would split them at a blank line
        and run what comes after as a further statement.
        """
        try:
            return Inserter(self._connection, self._connection.send_insert(sql, input_format))
        except RuntimeError as error:
            raise from_engine(error) from None

    def set(self, settings: dict[str, str]) -> None:
        """Set settings (or param_... values) for all that follows on this handle."""
        if settings:
            pairs = b", ".join(name.encode() + b" = " + quoted(value) for name, value in settings.items())
            self.run(b"SET " + pairs, "Null")

    def close(self) -> None:
        """Give the handle back; what still streams on it ends."""
        if not self._closed:
            self._closed = True
            self._connection.close()


class Stream:
    """The answer to a SELECT, block by block."""

    def __init__(self, connection: Any, answer: Any) -> None:
        self._connection = connection
        self._answer = answer
        self.ended = False
        self.rows = 0
        self.rows_read = 0
        self.bytes_read = 0

    def next(self) -> bytes | None:
        """The next block in the format asked for, or None at the end."""
        try:
            block = self._connection.streaming_fetch_result(self._answer)
        except RuntimeError as error:
            self.ended = True
            raise from_engine(error) from None
        if block is None or block.rows_read() == 0:
            self.ended = True
            return None
        self.rows += block.rows_read()
        self.rows_read += block.storage_rows_read()
        self.bytes_read += block.storage_bytes_read()
        data: bytes = block.bytes()
        return data

    def close(self) -> None:
        """Let go of what was not read. Waits for a `next` that is under way: kill the statement first."""
        if not self.ended:
            self.ended = True
            try:
                self._connection.streaming_cancel_query(self._answer)
            except RuntimeError as error:
                log.debug("warehouse.cancel_failed", error=str(error))


class Inserter:
    """An insert under way: `append` its data, then `finish`; nothing is in the table before, or after a `cancel`."""

    def __init__(self, connection: Any, insert: Any) -> None:
        self._connection = connection
        self._insert = insert
        self.ended = False

    def append(self, data: bytes) -> None:
        """The next piece of the data."""
        try:
            self._connection.insert_append(self._insert, data)
        except RuntimeError as error:
            raise from_engine(error) from None

    def finish(self) -> Any:
        """Make the rows visible and durable; the answer has rows_written(), bytes_written(), elapsed()."""
        self.ended = True
        try:
            return self._connection.insert_done(self._insert)
        except RuntimeError as error:
            raise from_engine(error) from None

    def cancel(self) -> None:
        """Drop the insert."""
        if not self.ended:
            self.ended = True
            try:
                self._connection.insert_cancel(self._insert)
            except RuntimeError as error:
                log.debug("warehouse.cancel_failed", error=str(error))
