"""
What a statement is, before the engine sees it: an insert with data or not, its format, whether it reaches outside.

From the text of a request (bytes, since ClickHouse text need not be UTF-8) to `server.py`. Pure.
The lexical rules are those of ClickHouse's Lexer.cpp; the shape of an insert is that of ParserInsertQuery.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""
      (?P<blank>   \s+ | --[^\n]* | \#[!\ ][^\n]* | /\*.*?\*/ )
    | (?P<string>  '(?:[^'\\]|\\.|'')*' | \xe2\x80\x98.*?\xe2\x80\x99 )
    | (?P<quoted>  `(?:[^`\\]|\\.|``)*` | "(?:[^"\\]|\\.|"")*" | \xe2\x80\x9c.*?\xe2\x80\x9d )
    | (?P<heredoc> \$(?P<tag>\w*)\$ .*? \$(?P=tag)\$ )
    | (?P<word>    [A-Za-z_$][A-Za-z0-9_$]* )
    | (?P<number>  [0-9][A-Za-z0-9_.]* )
    | (?P<mark>    . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    """One piece of a statement: its kind, its text (words in upper case), and where it stands."""

    kind: str
    text: bytes
    start: int
    end: int

    @property
    def name(self) -> bytes:
        """The identifier in it, without quotes and in upper case."""
        if self.kind == "quoted":
            return (self.text[3:-3] if self.text.startswith(b"\xe2") else self.text[1:-1]).upper()
        return self.text


def tokens(text: bytes, start: int = 0) -> Iterator[Token]:
    """The tokens of `text`, without blanks and comments."""
    for match in _TOKEN.finditer(text, start):
        kind = match.lastgroup or "mark"
        if kind == "blank":
            continue
        if kind == "tag":
            kind = "heredoc"
        piece = match[0]
        yield Token(kind, piece.upper() if kind == "word" else piece, match.start(), match.end())


# ---------------------------------------------------------------- inserts


@dataclass(frozen=True)
class Insert:
    """An INSERT that brings data: `sql` up to its format, the format's name, and where in the text the data begins."""

    sql: bytes
    format: str
    data_from: int


class NeedMore(Exception):
    """The text given so far ends before it is clear what it is."""


def insert_with_data(text: bytes, *, complete: bool) -> Insert | None:
    """
    The head of an INSERT ... FORMAT or INSERT ... VALUES, or None for any other statement (INSERT ... SELECT included).

    `complete` says that nothing follows `text`; else `NeedMore` is raised where more text could change the answer.
    """
    stream = _Reader(text, complete=complete)
    if not stream.word(b"INSERT"):
        return None
    stream.word(b"INTO")
    stream.word(b"TABLE")
    is_function = stream.word(b"FUNCTION")
    stream.name()
    if is_function:
        stream.parenthesis()
    if stream.ahead().text == b"(" and not stream.parenthesis():
        return None
    while True:
        token = stream.ahead()
        if token.kind == "end":
            return None
        if token.kind == "word" and token.text == b"VALUES":
            stream.next()
            return Insert(text[: token.start], "Values", token.end)
        if token.kind == "word" and token.text == b"FORMAT":
            stream.next()
            named = stream.next()
            if named.kind != "word":
                return None
            spelt = text[named.start : named.end].decode()
            if spelt.upper() == "VALUES":
                return Insert(text[: token.start], "Values", named.end)
            begins = _data_begins(text, named.end)
            if begins == len(text) and not complete:
                raise NeedMore
            return Insert(text[: token.start], spelt, begins)
        if token.kind == "word" and token.text in (b"SELECT", b"WITH", b"FROM", b"WATCH", b"EXPLAIN"):
            return None
        if token.text == b"(":
            stream.parenthesis()
        else:
            stream.next()


def _data_begins(text: bytes, at: int) -> int:
    """Data starts after the first newline that follows the format's name, or after the blanks if there is none."""
    while text[at : at + 1] in (b" ", b"\t", b"\f"):
        at += 1
    if text[at : at + 1] == b"\r":
        at += 1
    if text[at : at + 1] == b"\n":
        at += 1
    return at


_END = Token("end", b"", 0, 0)


class _Reader:
    """Tokens one after another, that knows when the text might go on beyond what is known."""

    def __init__(self, text: bytes, *, complete: bool) -> None:
        self._tokens = tokens(text)
        self._length = len(text)
        self._complete = complete
        self._next: Token | None = None

    def ahead(self) -> Token:
        if self._next is None:
            self._next = next(self._tokens, _END)
            # The last token may be half a word, and the data may begin with blanks that have yet to come.
            unsure = self._next is _END or self._next.end >= self._length - 2
            if unsure and not self._complete:
                raise NeedMore
        return self._next

    def next(self) -> Token:
        token = self.ahead()
        if token is not _END:
            self._next = None
        return token

    def word(self, text: bytes) -> bool:
        """Take this word if it comes next."""
        if self.ahead().kind == "word" and self.ahead().text == text:
            self.next()
            return True
        return False

    def name(self) -> None:
        """Take a table's name, which may have a database before it and be a {parameter:Identifier}."""
        while True:
            if self.next().text == b"{":
                while self.ahead().kind != "end" and self.next().text != b"}":
                    pass
            if self.ahead().text != b".":
                return
            self.next()

    def parenthesis(self) -> bool:
        """Take a whole (...); False if it holds a subquery instead of names."""
        depth, names = 0, True
        while True:
            token = self.next()
            if token.kind == "end":
                return False
            if depth == 1 and token.kind == "word" and token.text in (b"SELECT", b"WITH"):
                names = False
            depth += (token.text == b"(") - (token.text == b")")
            if depth == 0:
                return names


def goes_on_after_semicolon(values: bytes) -> bool:
    """
    Whether something follows the semicolon that ends the data of INSERT ... VALUES.

    The engine would take the data and silently drop what follows; a real server refuses the whole as two statements.
    """
    if b";" not in values:
        return False
    ended = False
    for token in tokens(values):
        if ended and token.text != b";":
            return True
        ended = ended or token.text == b";"
    return False


# ---------------------------------------------------------------- other statements


# A last line that says nothing else can be in no comment and in no string that is closed: no lexing needed.
_LAST_LINE = re.compile(rb"\n[ \t]*FORMAT[ \t]+(\w+)\s*\Z", re.I)
_FORMAT = re.compile(rb"\bFORMAT\b", re.I)


def output_format(text: bytes) -> str | None:
    """The format named by a trailing FORMAT clause, if there is one."""
    own_line = _LAST_LINE.search(text)
    if own_line is not None:
        return own_line[1].decode()
    if _FORMAT.search(text) is None:
        return None
    named: str | None = None
    before: Token | None = None
    for token in tokens(text):
        if before is not None and before.kind == "word" and before.text == b"FORMAT" and token.kind == "word":
            named = text[token.start : token.end].decode()
        elif named is not None and token.text not in (b";", b"SETTINGS"):
            named = None
        if named is not None and token.text == b"SETTINGS":
            return named
        before = token
    return named


def first_word(text: bytes) -> bytes:
    """The first word of a statement, in upper case."""
    return next((token.text for token in tokens(text) if token.text != b"("), b"")


_KILL_BY_QUERY_ID = re.compile(
    rb"\s*KILL\s+QUERY\s+WHERE\s+query_id\s*=\s*('(?:[^'\\]|\\.)*')\s*(?:A?SYNC)?\s*;?\s*", re.I
)


def killed_query_id(text: bytes) -> bytes | None:
    """
    The id, a string literal, in KILL QUERY WHERE query_id = '...', or None for any other statement.

    chDB gives every query an id of its own, so this one has to be said in other words.
    """
    match = _KILL_BY_QUERY_ID.fullmatch(text)
    return match[1] if match else None
