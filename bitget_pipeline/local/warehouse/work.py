"""
One statement at work on the engine: the blocking half of the server, run in the engine's threads.

From `server.py` with an `Asked` and a handle, to answers that `answers.py` sends. Every failure is a `Refusal`.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .asked import Asked
from .engine import Handle, Inserter, Stream, comment_for, named, quoted, runs_under
from .outside import reaches_outside
from .refusals import Refusal, refusal
from .sessions import Loan
from .statements import Insert, first_word, killed_query_id, output_format

# The engine's streaming gives every block as a piece of its own in these formats; pieces of the others (with a header, a
# footer or a schema of their own) do not add up to one answer, and are made whole in memory.
STREAMED = frozenset({"NATIVE", "TABSEPARATED", "TSV", "CSV", "ROWBINARY", "JSONEACHROW"})

# wait_end_of_query asks for no header before the end, so that an error has its own status. Beyond this many bytes the answer
# begins all the same (ClickHouse would go on in a temporary file); an error then comes in the exception footer.
_HELD_BACK = 32 << 20
_FIRST_PIECE = 1 << 20
_FIRST_WAIT = 0.1


@dataclass(frozen=True)
class Figures:
    """What X-ClickHouse-Summary tells."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0
    seconds: float = 0.0

    def header(self) -> str:
        """As ClickHouse spells it: every number is text."""
        return json.dumps(
            {
                "read_rows": str(self.read_rows),
                "read_bytes": str(self.read_bytes),
                "written_rows": str(self.written_rows),
                "written_bytes": str(self.written_bytes),
                "total_rows_to_read": "0",
                "result_rows": str(self.result_rows),
                "result_bytes": str(self.result_bytes),
                "elapsed_ns": str(int(self.seconds * 1e9)),
            },
            separators=(",", ":"),
        )


@dataclass
class Answer:
    """An answer, or with `more` to come its first pieces (see `Work.next`). `format` is "" when nothing is answered."""

    pieces: list[bytes]
    format: str
    figures: Figures
    more: bool = False


class Work:
    """One request's statement on one handle: `select` or `insert`, then `end`."""

    def __init__(self, handle: Handle, asked: Asked, *, loan: Loan | None) -> None:
        """`loan` is that of the session whose handle this is; without a session the handle is ours alone."""
        self._handle = handle
        self._asked = asked
        self._loan = loan
        self._stream: Stream | None = None
        self._inserter: Inserter | None = None
        self.ended = False

    # ------------------------------------------------------------ beginning

    def _prepare(self, sql: bytes, *, insert: bool) -> None:
        """Settings, database and external tables."""
        asked = self._asked
        comment = comment_for(asked.query_id, asked.settings.get("log_comment", ""))
        if self._loan is None:
            self._handle.set(asked.settings | comment)
            if asked.database:
                self._handle.run(b"USE " + named(asked.database), "Null")
        else:
            if first_word(sql) in (b"SET", b"USE"):
                self._loan.put_back()
            else:
                self._loan.take({k: v for k, v in asked.settings.items() if k != "log_comment"}, asked.database)
            self._handle.set(comment)  # not lent: every request brings its own
        if insert:
            # An insert by send_insert takes no parameters of its own, but those of its handle.
            self._handle.set({f"param_{name}": value for name, value in asked.params.items()})
        for table in asked.external:
            self._handle.run(
                b"CREATE TEMPORARY TABLE " + named(table.name) + b" (" + table.structure.encode() + b")", "Null"
            )
            filling = self._handle.insert(b"INSERT INTO " + named(table.name), table.format)
            filling.append(table.data)
            filling.finish()

    def _check(self, sql: bytes) -> str:
        """The class of the one statement that `sql` must be. Raises a refusal."""
        kind, count = self._handle.classify(sql)
        if count > 1:
            raise refusal(62, "Syntax error (Multi-statements are not allowed): send one statement at a time.")
        if count == 0:
            raise self._syntax_error(sql)
        if self._asked.read_only and kind != "READ_ONLY":
            raise refusal(
                164, "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly."
            )
        if (denied := reaches_outside(sql)) is not None:
            raise denied
        return kind

    def _syntax_error(self, sql: bytes) -> Refusal:
        """What the engine says about a text that is no statement, without any risk that it runs a part of it."""
        if not first_word(sql):
            return refusal(62, "Syntax error (query): Empty query.")
        try:
            self._handle.run(b"SELECT formatQuery(" + quoted(sql) + b")", "Null")
        except Refusal as why:
            if why.code == 62:
                return why
        return refusal(62, "Syntax error: the text cannot be read as one statement.")

    # ------------------------------------------------------------ statements

    def select(self, text: bytes) -> Answer:
        """Run any statement that brings no data. Raises a refusal."""
        asked = self._asked
        sql = text
        if (query_id := killed_query_id(text)) is not None:
            sql = b"KILL QUERY WHERE " + runs_under(query_id)
        kind = self._check(sql)
        self._prepare(sql, insert=False)
        if asked.read_only and self._loan is None:
            self._handle.set({"readonly": "2"})  # after our own SET, which readonly forbids for some settings
        format_ = output_format(sql) or asked.default_format
        # SHOW, DESCRIBE, EXISTS, EXPLAIN cannot be streamed by the engine, and need not.
        if kind == "READ_ONLY" and format_.upper() in STREAMED and first_word(sql) in (b"SELECT", b"WITH"):
            self._stream = self._handle.stream(sql, format_, asked.params)
            return self._first_pieces(self._stream, format_)
        answer = self._handle.run(sql, format_, asked.params)
        data: bytes = answer.bytes()
        self.end()
        return Answer([data] if data else [], format_ if data or kind == "READ_ONLY" else "", _figures(answer))

    def _first_pieces(self, stream: Stream, format_: str) -> Answer:
        most = _HELD_BACK if self._asked.wait_for_end else _FIRST_PIECE
        pieces, size, begun = [], 0, time.monotonic()
        while (piece := stream.next()) is not None:
            pieces.append(piece)
            size += len(piece)
            waited = time.monotonic() - begun
            if size >= most or (waited >= _FIRST_WAIT and not self._asked.wait_for_end):
                return Answer(pieces, format_, self._so_far(stream, size, waited), more=True)
        self.end()
        return Answer(pieces, format_, self._so_far(stream, size, time.monotonic() - begun))

    def next(self) -> bytes | None:
        """The next piece of an answer that has a stream, or None at its end. Raises a refusal."""
        assert self._stream is not None
        piece = self._stream.next()
        if piece is None:
            self.end()
        return piece

    @staticmethod
    def _so_far(stream: Stream, size: int, seconds: float) -> Figures:
        return Figures(
            read_rows=stream.rows_read,
            read_bytes=stream.bytes_read,
            result_rows=stream.rows,
            result_bytes=size,
            seconds=seconds,
        )

    def insert(self, insert: Insert, first: bytes) -> None:
        """Begin an insert with the first piece of its data. Raises a refusal."""
        self._check(insert.sql + b" FORMAT " + insert.format.encode())
        self._prepare(insert.sql, insert=True)
        self._inserter = self._handle.insert(insert.sql, insert.format)
        self.append(first)

    def append(self, data: bytes) -> None:
        """The next piece of the data."""
        if data and self._inserter is not None:
            self._inserter.append(data)

    def finish(self, last: bytes) -> Answer:
        """The last piece of the data: make them all durable and visible."""
        self.append(last)
        if self._inserter is None:
            raise refusal(1001, "No insert was begun.")
        answer = self._inserter.finish()
        self.end()
        written = Figures(
            written_rows=answer.rows_written(), written_bytes=answer.bytes_written(), seconds=answer.elapsed()
        )
        return Answer([], "", written)

    # ------------------------------------------------------------ the end

    def end(self) -> None:
        """
        Drop what is unfinished, and put a session back as it was; the second time nothing.

        Called here when all went well, else by the server, which must have killed a statement that still runs.
        """
        if self.ended:
            return
        self.ended = True
        if self._inserter is not None:
            self._inserter.cancel()
        if self._stream is not None:
            self._stream.close()
        if self._loan is None:
            self._handle.close()
        else:
            for table in self._asked.external:
                with suppress(Refusal):  # it was never made
                    self._handle.run(b"DROP TEMPORARY TABLE IF EXISTS " + named(table.name), "Null")


def _figures(answer: Any) -> Figures:
    return Figures(
        read_rows=answer.storage_rows_read(),
        read_bytes=answer.storage_bytes_read(),
        written_rows=answer.rows_written(),
        written_bytes=answer.bytes_written(),
        result_rows=answer.rows_read(),
        result_bytes=answer.size(),
        seconds=answer.elapsed(),
    )
