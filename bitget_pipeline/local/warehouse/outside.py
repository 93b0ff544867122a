"""
Which statements reach beyond the data folder: files, programs, other machines, the server's own memory.

Every local account and, through a browser, every web page can try to reach a port on 127.0.0.1. What the engine's grants
(`config.py`) do not cover is refused here, by the words of the statement. Pure; asked by `server.py` for every statement.

Measured with chdb-core 26.9: the grants stop the table functions file, url, s3, remote and their kin, the engines File
and URL, tables that are file names, BACKUP and SYSTEM SHUTDOWN. They do not stop the function file('path'), INTO OUTFILE,
FROM INFILE, the table function Python (which reads this process's variables), executable, dictionaries with a file
or a program as source, disks declared in a statement, ATTACH ... FROM, and the settings that name template files.
"""

from __future__ import annotations

import re

from .refusals import Refusal, refusal
from .statements import tokens

_CALLS = frozenset({b"FILE", b"PYTHON", b"EXECUTABLE", b"DISK"})
_SOURCES = frozenset(
    b"FILE EXECUTABLE EXECUTABLE_POOL HTTP LIBRARY MYSQL POSTGRESQL MONGODB ODBC REDIS CASSANDRA YTSAURUS "
    b"YAMLREGEXPTREE".split()
)
_SETTINGS = frozenset(
    {
        "FORMAT_SCHEMA",
        "FORMAT_SCHEMA_SOURCE",
        "FORMAT_TEMPLATE_RESULTSET",
        "FORMAT_TEMPLATE_ROW",
        "FORMAT_AVRO_SCHEMA_REGISTRY_URL",
        "FORMAT_PROTOBUF_SCHEMA",
    }
)
_SETTING_WORDS = frozenset(name.encode() for name in _SETTINGS)


# Most statements hold none of the words and no escaped name, and need no lexing (long IN lists cost milliseconds).
_SUSPECT = re.compile(rb"file|python|executable|disk|source|attach|format_|[`\"\xe2].*\\", re.I | re.S)


def reaches_outside(text: bytes) -> Refusal | None:
    """The refusal of a statement that would leave the data folder, or None."""
    if _SUSPECT.search(text) is None:
        return None
    before = earlier = b""
    attaching = False
    for token in tokens(text):
        named = token.name if token.kind in ("word", "quoted") else token.text
        if token.text == b"(" and (before in _CALLS or b"\\" in before):
            return _denied(before)
        if (before == b"APPLY" and named in _CALLS) or (earlier == b"APPLY" and before == b"(" and named in _CALLS):
            return _denied(named)
        if earlier == b"SOURCE" and before == b"(" and named in _SOURCES:
            return _denied(b"SOURCE " + named)
        if (before == b"INTO" and named == b"OUTFILE") or (before == b"FROM" and named == b"INFILE"):
            return _denied(named)
        if named in _SETTING_WORDS:
            return _denied(named)
        if attaching and before == b"FROM" and token.kind in ("string", "heredoc"):
            return _denied(b"ATTACH FROM")
        attaching = attaching or (before == b"" and named == b"ATTACH")
        earlier, before = before, named
    return None


def setting_reaches_outside(name: str) -> Refusal | None:
    """The same for a setting that arrives in the address of a request."""
    return _denied(name.upper().encode()) if name.upper() in _SETTINGS else None


def _denied(what: bytes) -> Refusal:
    named = what.decode("utf-8", "replace")
    return refusal(497, f"{named} reaches outside the data folder, which the embedded warehouse does not allow.")
