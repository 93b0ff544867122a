"""Statements that reach beyond the data folder are refused; the market's are not."""

from __future__ import annotations

import pytest

from bitget_pipeline.local.warehouse.outside import reaches_outside, setting_reaches_outside

REACHING = [
    b"SELECT file('/etc/passwd')",
    b"SELECT FILE/**/ ('/etc/passwd')",
    b"SELECT `file`('/etc/passwd')",
    b"SELECT \"fi\\x6ce\"('/etc/passwd')",
    b"SELECT \xe2\x80\x9cfile\xe2\x80\x9d('/etc/passwd')",
    b"SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
    b"SELECT * APPLY file FROM (SELECT '/etc/passwd')",
    b"CREATE FUNCTION innocent AS (x) -> file(x)",
    b"SELECT * FROM Python(secret)",
    b"SELECT * FROM executable('x.sh', CSV, 'a Int8')",
    b"SELECT 1 INTO OUTFILE '/tmp/x'",
    b"SELECT 1 INTO /* */ outfile '/tmp/x'",
    b"INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV",
    b"CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(FILE(path '/etc/passwd' format 'CSV')) LAYOUT(FLAT())",
    b"CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE ( HTTP(url 'http://x')) LAYOUT(FLAT())",
    b"CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '/etc/')",
    b"ATTACH TABLE t FROM '/etc/' (a Int8) ENGINE = MergeTree ORDER BY a",
    b"SELECT 1 FORMAT Template SETTINGS format_template_resultset = '/etc/passwd'",
]
HARMLESS = [
    b"SELECT 'file(1)', `source` FROM candles -- file(",
    b"SELECT file, disk FROM t WHERE source IN ('bitget') ORDER BY (market, source)",
    b"INSERT INTO candles (market, symbol, source) FORMAT Native",
    b"ATTACH TABLE trading.t",
    b"ALTER TABLE t ATTACH PARTITION '2024-01-01' FROM u",
    b"SELECT formatDateTime(ts, '%F') FROM t FORMAT CSV",
    b"CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(CLICKHOUSE(TABLE 't')) LAYOUT(FLAT())",
]


@pytest.mark.parametrize("text", REACHING)
def test_what_reaches_outside_is_refused(text):
    """Files, programs, the process's own variables; however it is spelt."""
    why = reaches_outside(text)

    assert why is not None
    assert why.code == 497


@pytest.mark.parametrize("text", HARMLESS)
def test_the_same_words_elsewhere_are_nobodys_business(text):
    """As columns, in strings, in comments."""
    assert reaches_outside(text) is None


def test_a_setting_in_the_address_is_held_to_the_same():
    """Template files are named by settings."""
    assert setting_reaches_outside("format_template_row") is not None
    assert setting_reaches_outside("max_threads") is None
