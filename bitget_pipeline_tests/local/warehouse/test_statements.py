"""What a statement is told apart by: inserts and where their data begin, formats, kills."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.local.warehouse.statements import (
    NeedMore,
    first_word,
    goes_on_after_semicolon,
    insert_with_data,
    killed_query_id,
    output_format,
)


@pytest.mark.parametrize(
    ("text", "sql", "format_", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2", b"INSERT INTO t ", "CSV", b"1,2"),
        (b"INSERT INTO t (a, b) FORMAT Native\n\x00\n\n", b"INSERT INTO t (a, b) ", "Native", b"\x00\n\n"),
        (b"INSERT INTO t VALUES (1), ('FORMAT x')", b"INSERT INTO t ", "Values", b" (1), ('FORMAT x')"),
        (b"insert into db.t (`values`) values(1)", b"insert into db.t (`values`) ", "Values", b"(1)"),
        (b"INSERT INTO values VALUES (1)", b"INSERT INTO values ", "Values", b" (1)"),
        (b"INSERT INTO TABLE format FORMAT TSV 1", b"INSERT INTO TABLE format ", "TSV", b"1"),
        (b"INSERT INTO t SETTINGS a = 'FORMAT' FORMAT CSV \r\n1", b"INSERT INTO t SETTINGS a = 'FORMAT' ", "CSV", b"1"),
        (b"/* FORMAT */ INSERT INTO t -- VALUES\n (a) FORMAT CSV\n", b"/* FORMAT */ INSERT INTO t -- VALUES\n (a) ", "CSV", b""),
        (b"INSERT INTO {t:Identifier} VALUES ({x:String})", b"INSERT INTO {t:Identifier} ", "Values", b" ({x:String})"),
        (b"INSERT INTO \"a\".`b c` FORMAT Values (1)", b"INSERT INTO \"a\".`b c` ", "Values", b" (1)"),
        (b"INSERT INTO FUNCTION null('a Int8') FORMAT CSV\n1", b"INSERT INTO FUNCTION null('a Int8') ", "CSV", b"1"),
    ],
)  # fmt: skip
def test_an_insert_with_data_is_taken_apart(text, sql, format_, data):
    """The statement, its format, and its data, which the statement's text never contains."""
    insert = insert_with_data(text, complete=True)

    assert insert is not None
    assert (insert.sql, insert.format, text[insert.data_from :]) == (sql, format_, data)


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 1 FORMAT CSV",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t (a) WITH 1 AS x SELECT x",
        b"INSERT INTO t (SELECT 1)",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        b"CREATE TABLE t (a Int8) -- INSERT INTO t VALUES (1)",
        b"INSERT INTO t",
        b"INSERT",
        b"",
    ],
)
def test_other_statements_bring_no_data(text):
    """A SELECT, an INSERT ... SELECT, half a statement."""
    assert insert_with_data(text, complete=True) is None


@given(data=st.binary(max_size=40), cut=st.integers(0, 60), columns=st.sampled_from([b"", b' (a, `b)`, "c")']))
def test_a_beginning_never_gives_another_answer_than_the_whole(data, cut, columns):
    """However the network cuts a request, its insert is the same, or more text is asked for."""
    whole = b"INSERT INTO db.t" + columns + b" FORMAT RowBinary\n" + data
    known = insert_with_data(whole, complete=True)
    try:
        begun = insert_with_data(whole[:cut], complete=False)
    except NeedMore:
        return

    assert begun == known


@pytest.mark.parametrize(
    ("text", "format_"),
    [
        (b"SELECT 1", None),
        (b"SELECT 1\n FORMAT Native", "Native"),
        (b"SELECT 1 format JSONEachRow;", "JSONEachRow"),
        (b"SELECT 1 FORMAT CSV SETTINGS max_threads = 1", "CSV"),
        (b"SELECT 'x FORMAT CSV'", None),
        (b"SELECT 1 -- FORMAT CSV", None),
        (b"SELECT 1 FORMAT CSV -- and so on", "CSV"),
        (b"SELECT format AS x FROM t", None),
    ],
)
def test_the_answers_format_is_the_one_the_statement_names(text, format_):
    """Only a clause counts, not a comment or a string."""
    assert output_format(text) == format_


def test_the_first_word_is_behind_comments_and_parentheses():
    """As the parser sees it."""
    assert first_word(b" /* x */ -- y\n ((select 1))") == b"SELECT"
    assert first_word(b" -- nothing") == b""


def test_a_kill_by_query_id_is_recognised():
    """Only where it says nothing else."""
    assert killed_query_id(b"KILL QUERY WHERE query_id='a\\'b' SYNC") == b"'a\\'b'"
    assert killed_query_id(b"KILL QUERY WHERE query_id='a' OR 1") is None


def test_nothing_may_follow_the_end_of_values():
    """A semicolon in a string ends nothing; another one after the first is no statement."""
    assert goes_on_after_semicolon(b" (1, 'a'); DROP TABLE t")
    assert not goes_on_after_semicolon(b" (1, ';\n\nDROP TABLE t'); ; -- so far")
