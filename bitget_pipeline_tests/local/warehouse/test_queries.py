"""An unmodified clickhouse-connect reads: results, parameters, formats, compression, streams, figures."""

from __future__ import annotations

import datetime as dt

import pytest
from clickhouse_connect.driver.exceptions import StreamFailureError
from clickhouse_connect.driver.external import ExternalData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def test_rows_frames_and_arrow_say_the_same(client):
    """Rows, pandas, arrow, polars and numpy of one query."""
    sql = "SELECT number AS n, toString(number) AS s FROM numbers(5)"

    assert client.query(sql).result_rows == [(n, str(n)) for n in range(5)]
    assert client.query_df(sql)["s"].tolist() == list("01234")
    assert client.query_arrow(sql).column("n").to_pylist() == list(range(5))
    assert client.query_df_arrow(sql, dataframe_library="polars")["s"].to_list() == list("01234")
    assert client.query_np("SELECT number FROM numbers(3)").tolist() == [[0], [1], [2]]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.text(max_size=30), number=st.integers(0, 2**64 - 1), times=st.lists(st.floats(allow_nan=False), max_size=4)
)
def test_parameters_arrive_as_they_were_given(client, text, number, times):
    """Odd strings, numbers above 2**53 and lists, bound by the server and by the client."""
    given_ = {"s": text, "n": number, "l": times}
    if "\x00" not in text:
        by_server = client.query("SELECT {s:String}, {n:UInt64}, {l:Array(Float64)}", parameters=given_)
        assert by_server.result_rows == [(text, number, times)]
    by_client = client.query("SELECT %(s)s, toUInt64(%(n)s)", parameters=given_)

    assert by_client.result_rows == [(text, number)]


def test_twenty_thousand_values_fit_into_one_list(client):
    """In the statement, and as a parameter in a form."""
    wanted = list(range(20_000))
    sql = "SELECT count() FROM numbers(100000) WHERE number IN "

    assert client.query(sql + "%(x)s", parameters={"x": wanted}).result_rows == [(20_000,)]
    assert client.query(sql + "{x:Array(UInt64)}", parameters={"x": wanted}).result_rows == [(20_000,)]


def test_parameters_in_a_form_are_parameters(warehouse):
    """As clickhouse-connect sends them with form_encode_query_params."""
    with warehouse.client(form_encode_query_params=True) as client:
        assert client.query("SELECT {x:String}", parameters={"x": "ü'\n"}).result_rows == [("ü'\n",)]


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_answers_come_in_the_compression_asked_for(warehouse, compress):
    """Short and long, whole and streamed."""
    with warehouse.client(compress=compress) as client:
        assert client.query("SELECT 1").result_rows == [(1,)]
        assert client.query_arrow("SELECT number FROM numbers(300000)").num_rows == 300_000
        with client.query_column_block_stream("SELECT number FROM numbers(600000)") as blocks:
            assert sum(len(block[0]) for block in blocks) == 600_000


def test_a_long_answer_is_streamed(client):
    """Rows, frames and arrow batches of a million rows, without the server holding them."""
    sql = "SELECT number, toString(number) AS s FROM numbers(1000000)"
    with client.query_rows_stream(sql) as rows:
        assert sum(1 for _ in rows) == 1_000_000
    with client.query_arrow_stream(sql) as batches:
        assert sum(batch.num_rows for batch in batches) == 1_000_000
    with client.query_df_stream(sql) as frames:
        assert sum(len(frame) for frame in frames) == 1_000_000


def test_an_error_in_the_middle_of_a_stream_is_an_error(client):
    """The rows before it have gone out; the footer tells, and the client raises instead of ending quietly."""
    sql = (
        "SELECT number, throwIf(number = 900000), repeat('x', 50) FROM numbers(1000000) SETTINGS max_block_size = 1000"
    )
    rows = 0
    with pytest.raises(StreamFailureError) as raised, client.query_rows_stream(sql) as stream:  # noqa: PT012
        for _ in stream:
            rows += 1

    assert rows > 0
    assert raised.value.code == 395


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_an_error_after_much_buffering_is_an_error_in_every_compression(warehouse, compress):
    """More than the server holds back, then a failure: never a short answer that looks whole."""
    sql = "SELECT throwIf(number = 900000), repeat('x', 50) FROM numbers(1000000) SETTINGS max_block_size = 1000"
    with warehouse.client(compress=compress) as client, pytest.raises(StreamFailureError):
        assert client.query(sql).result_rows


def test_formats_that_cannot_be_cut_come_whole(client):
    """JSON, Parquet, CSV with names: one document each, not one for every block."""
    sql = "SELECT number FROM numbers(200000)"

    assert client.raw_query(sql, fmt="JSON").count(b'"meta"') == 1
    assert client.raw_query(sql, fmt="CSVWithNames").count(b"number") == 1
    assert client.raw_query(sql, fmt="Parquet").count(b"PAR1") == 2
    assert client.raw_query(sql, fmt="CSV").count(b"\n") == 200_000


def test_an_empty_answer_is_empty_and_its_columns_can_be_asked_for(client):
    """LIMIT 0 tells the columns."""
    client.command("CREATE TABLE t (a UInt8, b String) ENGINE = MergeTree ORDER BY a")

    assert client.query("SELECT * FROM t").result_rows == []
    assert client.query("SELECT * FROM t LIMIT 0").column_names == ("a", "b")


def test_the_summary_tells_what_was_read_and_written(client):
    """X-ClickHouse-Summary, with the query id."""
    client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    written = client.insert("t", [[n] for n in range(1000)], column_names=["a"])
    read = client.query("SELECT sum(a) FROM t", settings={"query_id": "mine-1"})

    assert written.written_rows == 1000
    assert read.summary["read_rows"] == "1000"
    assert read.query_id == "mine-1"


def test_commands_say_what_they_answer(client, database):
    """A number, a list, a summary where there is nothing to say."""
    client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")

    assert client.command("SELECT 7") == 7
    assert client.command("EXISTS t") == 1
    assert client.command("SHOW TABLES") == "t"
    assert client.command("SELECT currentDatabase()") == database
    assert client.query("DESCRIBE TABLE t").first_row[:2] == ("a", "UInt64")


def test_a_file_can_be_sent_with_a_query(client):
    """External data is a table for one statement."""
    sent = ExternalData(
        file_name="picks.csv", data=b"BTCUSDT,1\nETHUSDT,2\n", fmt="CSV", structure=["s String", "n UInt8"]
    )

    assert client.query("SELECT * FROM picks ORDER BY n", external_data=sent).result_rows == [
        ("BTCUSDT", 1),
        ("ETHUSDT", 2),
    ]
    assert client.command("SELECT count() FROM system.tables WHERE name = 'picks'") == 0


def test_times_are_utc(client):
    """The server's zone is UTC whatever the machine's, and DateTime64 keeps its own."""
    zone, time = client.query("SELECT timezone(), toDateTime64(1700000000.123, 3, 'UTC')").first_row

    assert zone in ("UTC", "Etc/UTC")
    assert time.replace(tzinfo=None) == dt.datetime(2023, 11, 14, 22, 13, 20, 123000)
