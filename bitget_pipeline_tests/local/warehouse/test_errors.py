"""Errors reach a client with ClickHouse's codes; what must not run does not run."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT * FROM nosuch", 60),
        ("SELEC 1", 62),
        ("SELECT 1 FROM", 62),
        ("SELECT nosuch", 47),
        ("SELECT nosuch(1)", 46),
        ("SELECT * FROM nosuch.t", 81),
        ("USE nosuch", 81),
        ("SELECT 1 SETTINGS nosuch = 1", 115),
        ("SELECT throwIf(1)", 395),
        ("SELECT sleep(3) SETTINGS max_execution_time = 0.2", 159),
        ("SELECT 1 FORMAT Nosuch", 73),
        ("INSERT INTO nosuch VALUES (1)", 60),
    ],
)
def test_a_failure_has_clickhouses_code(client, sql, code):
    """In the exception's code, and in its text."""
    with pytest.raises(DatabaseError) as raised:
        client.command(sql)

    assert raised.value.code == code
    assert f"Code: {code}. DB::Exception: " in str(raised.value)


def test_an_unknown_setting_or_database_in_the_address_is_refused(warehouse, client):
    """Before the statement runs."""
    for extra, code in [({"nosuch": "1"}, 115), ({"database": "nosuch"}, 81), ({"max_threads; DROP": "1"}, 115)]:
        answer = client.http.request(
            "POST", f"http://127.0.0.1:{warehouse.port}/", fields=extra | {"query": "SELECT 1"}
        )
        assert answer.headers["X-ClickHouse-Exception-Code"] == str(code)


@pytest.mark.parametrize("between", [";", "\n\n;\n\n", ";;", "\n\n\n"])
@pytest.mark.parametrize("first", ["SELECT 1", "DROP TABLE IF EXISTS u", "INSERT INTO t SELECT 1"])
def test_two_statements_are_none(client, first, between):
    """A real server refuses them with code 62; neither is run."""
    client.command("CREATE TABLE t (k UInt8) ENGINE = MergeTree ORDER BY k")
    with pytest.raises(DatabaseError) as raised:
        client.command(f"{first}{between}DROP TABLE t")

    assert raised.value.code == 62
    assert client.query("SELECT count() FROM t").result_rows == [(0,)]


def test_a_statement_may_end_with_a_semicolon(client):
    """That makes it no two."""
    assert client.command("SELECT 1;") == 1


def test_an_empty_statement_is_refused(warehouse, client):
    """A body of blanks or of a comment."""
    for body in (b"", b"  \n", b"-- nothing", b"/* nothing */"):
        answer = client.http.request("POST", f"http://127.0.0.1:{warehouse.port}/", body=body)
        assert answer.status == 400
        assert answer.headers["X-ClickHouse-Exception-Code"] == "62"


def test_a_failure_after_a_large_upload_is_an_answer_and_no_reset(client):
    """The body is read to its end first."""
    with pytest.raises(DatabaseError) as raised:
        client.raw_insert("nosuch", ["k"], b"1\n" * 5_000_000, fmt="CSV")

    assert raised.value.code == 60


def test_half_a_compressed_upload_is_refused_and_stores_nothing(client):
    """A gzip body without its end."""
    import gzip

    client.command("CREATE TABLE t (k UInt64) ENGINE = MergeTree ORDER BY k")
    sent = gzip.compress(b"".join(b"%d\n" % n for n in range(200_000)))
    with pytest.raises(DatabaseError, match="ends in the middle"):
        client.raw_insert("t", ["k"], sent[: len(sent) // 2], fmt="CSV", compression="gzip")

    assert client.query("SELECT count() FROM t").result_rows == [(0,)]


def test_clickhouses_own_block_compression_is_refused_in_words(warehouse, client):
    """Not served; the answer says what to use instead."""
    for name in ("compress", "decompress"):
        answer = client.http.request("POST", f"http://127.0.0.1:{warehouse.port}/?{name}=1", body=b"SELECT 1")
        assert answer.status == 501
        assert b"Encoding" in answer.data
