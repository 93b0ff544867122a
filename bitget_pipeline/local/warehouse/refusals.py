"""
What the server answers when it cannot do what was asked, in ClickHouse's words.

Raised anywhere in this package, made into an HTTP answer by `answers.py`. Codes and names are those of ClickHouse's
ErrorCodes.cpp, statuses those of its HTTP interface (exceptionCodeToHTTPStatus.cpp).
"""

from __future__ import annotations

import re

NAMES = {
    36: "BAD_ARGUMENTS",
    48: "NOT_IMPLEMENTED",
    60: "UNKNOWN_TABLE",
    62: "SYNTAX_ERROR",
    73: "UNKNOWN_FORMAT",
    115: "UNKNOWN_SETTING",
    117: "INCORRECT_DATA",
    164: "READONLY",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    210: "NETWORK_ERROR",
    216: "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
    372: "SESSION_NOT_FOUND",
    373: "SESSION_IS_LOCKED",
    394: "QUERY_WAS_CANCELLED",
    497: "ACCESS_DENIED",
    516: "AUTHENTICATION_FAILED",
    1001: "STD_EXCEPTION",
}

STATUSES = {
    **dict.fromkeys((192, 193, 497, 516), 403),
    194: 401,
    **dict.fromkeys(
        (6, 26, 27, 36, 38, 41, 43, 44, 51, 53, 62, 69, 72, 117, 130, 131, 158, 164, 171, 307, 321, 372, 457), 400
    ),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115), 404),
    48: 501,
    159: 408,
    **dict.fromkeys((202, 209), 503),
}


class Refusal(Exception):
    """A statement that failed, with ClickHouse's error code and the whole text a client is shown."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(text)

    @property
    def status(self) -> int:
        """The HTTP status ClickHouse answers with."""
        return STATUSES.get(self.code, 500)


def refusal(code: int, what: str) -> Refusal:
    """A refusal of this server, spelt as ClickHouse spells its own."""
    return Refusal(code, f"Code: {code}. DB::Exception: {what} ({NAMES[code]})")


_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")


def from_engine(error: Exception) -> Refusal:
    """The refusal in an error of the engine, whose text begins with the code; 1001 where there is none."""
    text = str(error)
    if "grant READ ON FILE" in text:
        # chDB's own database takes an unknown table for a file's name, and a user without files for a trespasser
        # (the functions that read files are refused before, in outside.py).
        return refusal(60, "Unknown table, or one in another database than the current one.")
    match = _CODE.search(text)
    if match is None:
        return refusal(1001, text or type(error).__name__)
    return Refusal(int(match[1]), text[match.start() :].strip())
