"""
ClickHouse's errors, as ours.

Used by connection.py around every call, so that nothing above it knows clickhouse-connect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3.exceptions
from clickhouse_connect.driver import exceptions as driver

from ..errors import CredentialsRefused, DiskFull, PipelineError, StoreRefused, StoreUnavailable

# Numbers from ClickHouse's ErrorCodes.cpp.
CREDENTIALS = {
    192: "unknown user",
    193: "wrong password",
    194: "a password is required",
    497: "the user lacks the rights for this",
    516: "authentication failed",
}
NO_ROOM = {243: "not enough space", 1001: "a file could not be written"}
PASSING = {
    36: "the engine could not start on its data",
    159: "the query ran out of time",
    164: "the server is read-only for now",
    173: "memory could not be allocated",
    202: "too many queries at once",
    203: "no free connection to another node",
    209: "a socket timed out",
    210: "a network error inside the cluster",
    225: "no Keeper",
    236: "the query was aborted",
    241: "the memory limit was reached",
    242: "a replicated table is read-only for now",
    252: "too many parts: inserts outrun merges",
    279: "all connections to other nodes failed",
    285: "too few live replicas",
    286: "an unfinished quorum insert is in the way",
    289: "the replica lags behind",
    319: "the outcome of an insert is not known",
    394: "the query was cancelled",
    425: "a system call failed",
    999: "Keeper failed",
}
MISSING = {
    60: "a table is missing",
    81: "the database is missing",
    16: "a column is missing",
    47: "a column is missing",
}

_FULL = re.compile(r"No space left on device|NOT_ENOUGH_SPACE|Cannot reserve .* not enough space", re.IGNORECASE)
_NOISE = re.compile(r"^.*?DB::Exception:\s*|^:?HTTPDriver for \S+ (received|returned) [^\n]*?\n\s*", re.DOTALL)

_BURIED = re.compile(r"""Max retries exceeded with url: .*\(Caused by \w+\(["'](?:\w+\(.*?\): )?(.*?)["']\)\)""")
"""urllib3 wraps the reason in three objects' names and a query id."""


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise what goes wrong inside as ours. `where` names the server for people, without credentials."""
    try:
        yield
    except PipelineError:
        raise
    except driver.Error as error:
        raise as_ours(error, where) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _unreachable(where) from error


def as_ours(error: driver.Error, where: str) -> PipelineError:
    """The error of our tree that says what the caller does next."""
    text, code = str(error), error.code
    if _FULL.search(text) or code in NO_ROOM:
        return DiskFull(
            "ClickHouse has no room left", where=where, remedy="free space on its disk, then run this again"
        )
    if code in CREDENTIALS:
        return CredentialsRefused(
            f"ClickHouse refuses the user: {CREDENTIALS[code]}",
            where=where,
            remedy="check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD, and the rights of that user",
        )
    if code in PASSING:
        return StoreUnavailable(
            f"ClickHouse cannot answer now: {PASSING[code]}", where=where, remedy="it is tried again"
        )
    if code in MISSING:
        return StoreRefused(
            f"ClickHouse: {MISSING[code]}: {_short(text)}",
            where=where,
            remedy="apply the migrations: materialize `tables`",
        )
    if code is None and isinstance(error, driver.OperationalError | driver.InterfaceError):
        return _unreachable(where, _short(text))
    return StoreRefused(
        f"ClickHouse refuses: {_short(text)}",
        where=where,
        remedy="`bitget-pipeline doctor` checks server, schema and settings",
    )


def _unreachable(where: str, why: str = "") -> StoreUnavailable:
    return StoreUnavailable(
        "ClickHouse cannot be reached" + (f": {why}" if why else ""),
        where=where,
        remedy="start it (`bitget-pipeline up`), or check CLICKHOUSE_HOST and CLICKHOUSE_PORT",
    )


def _short(text: str) -> str:
    line = " ".join(_NOISE.sub("", text, count=1).split())
    buried = _BURIED.search(line)
    line = buried[1] if buried else line
    return line if len(line) <= 240 else f"{line[:237]}..."
