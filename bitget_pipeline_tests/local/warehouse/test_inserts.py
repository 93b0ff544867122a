"""An unmodified clickhouse-connect writes: every path, every type, and data that look like statements."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import random
from decimal import Decimal

import lz4.frame
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

UTC = dt.timezone.utc  # noqa: UP017 — spelt as clickhouse-connect gives it back
COLUMNS = ["id", "ts", "symbol", "side", "price", "exact", "levels", "note"]


@pytest.fixture
def trades(client):
    """A table of every type the pipeline uses."""
    client.command(
        "CREATE TABLE trades (id UInt64, ts DateTime64(3, 'UTC'), symbol LowCardinality(String), "
        "side Enum8('buy' = 1, 'sell' = 2), price Float64, exact Decimal(38, 18), levels Array(Float64), "
        "note Nullable(String)) ENGINE = MergeTree ORDER BY id"
    )
    return "trades"


def row(number: int) -> list[object]:
    """A row with values that are easily spoilt on the way."""
    chance = random.Random(number)
    return [
        2**63 + number,
        dt.datetime(2024, 1, 1, tzinfo=UTC) + dt.timedelta(milliseconds=number),
        chance.choice(["BTCUSDT", "币安USDT", "a\n\nDROP TABLE trades"]),
        chance.choice(["buy", "sell"]),
        chance.random() * 10 ** chance.randint(-12, 12),
        Decimal(chance.randint(0, 10**30)) / 10**18,
        [chance.random() for _ in range(chance.randint(0, 15))],
        chance.choice([None, "", "it's \\ \t\n\n; SELECT 1"]),
    ]


def test_rows_and_columns_come_back_as_they_were(client, trades):
    """All types, rows and columns, exactly."""
    rows = [row(number) for number in range(2000)]
    client.insert(trades, rows[:1000], column_names=COLUMNS)
    client.insert(
        trades, [list(column) for column in zip(*rows[1000:], strict=True)], column_names=COLUMNS, column_oriented=True
    )

    got = client.query("SELECT * FROM trades ORDER BY id", column_formats={"symbol": "string"}).result_rows
    assert [[*r[:1], r[1].replace(tzinfo=UTC), *r[2:]] for r in got] == rows


def test_frames_and_arrow_tables_are_inserted(client):
    """pandas, arrow and polars."""
    client.command(
        "CREATE TABLE t (k UInt64, ts DateTime64(3, 'UTC'), p Float64, s String) ENGINE = MergeTree ORDER BY k"
    )
    table = pa.table(
        {
            "k": pa.array([1, 2**64 - 1], pa.uint64()),
            "ts": pa.array([1_700_000_000_123, 0], pa.timestamp("ms", tz="UTC")),
            "p": [0.1, 1e300],
            "s": ["a", "b"],
        }
    )
    client.insert_arrow("t", table)
    client.insert_df_arrow("t", pl.from_arrow(table))
    client.insert_df(
        "t",
        pd.DataFrame(
            {"k": [1], "ts": pd.to_datetime([1_700_000_000_123], unit="ms", utc=True), "p": [0.1], "s": ["a"]}
        ),
    )

    got = client.query("SELECT k, toUnixTimestamp64Milli(ts), p, s, count() FROM t GROUP BY ALL ORDER BY k").result_rows
    assert got == [(1, 1_700_000_000_123, 0.1, "a", 3), (2**64 - 1, 0, 1e300, "b", 2)]


def test_a_million_rows_in_one_insert(client):
    """Streamed through in constant memory, and all there."""
    client.command("CREATE TABLE t (k UInt64, p Float64) ENGINE = MergeTree ORDER BY k")
    keys = np.arange(1_000_000, dtype="uint64")

    assert client.insert_arrow("t", pa.table({"k": keys, "p": keys * 0.5})).written_rows == 1_000_000
    assert client.query("SELECT count(), uniqExact(k), sum(p) FROM t").result_rows == [
        (1_000_000, 1_000_000, 249_999_750_000.0)
    ]


COMPRESS = {"gzip": gzip.compress, "lz4": lz4.frame.compress, "zstd": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("encoding", [None, *COMPRESS])
@pytest.mark.parametrize("format_", ["CSV", "JSONEachRow", "Parquet"])
def test_raw_data_are_inserted_in_their_format(client, format_, encoding):
    """CSV, JSON lines and Parquet, plain and compressed, larger than a piece from the network."""
    client.command("CREATE TABLE t (k UInt64, s String) ENGINE = MergeTree ORDER BY k")
    table = pa.table({"k": pa.array(range(20_000), pa.uint64()), "s": [f"row {n}" for n in range(20_000)]})
    if format_ == "Parquet":
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        data = buffer.getvalue()
    elif format_ == "CSV":
        data = "".join(f'{n},"row {n}"\n' for n in range(20_000)).encode()
    else:
        data = "\n\n".join(f'{{"k":{n},"s":"row {n}"}}' for n in range(20_000)).encode()
    sent = COMPRESS[encoding](data) if encoding else data

    client.raw_insert("t", ["k", "s"], sent, fmt=format_, compression=encoding)
    assert client.query("SELECT count(), sum(k), any(s LIKE 'row %') FROM t").result_rows == [
        (20_000, 199_990_000, True)
    ]


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_inserts_are_read_in_every_compression(warehouse, database, compress):
    """clickhouse-connect compresses block by block."""
    with warehouse.client(compress=compress, database=database) as client:
        client.command("CREATE TABLE t (k UInt64, s String) ENGINE = MergeTree ORDER BY k")
        client.insert("t", [[n, "x" * (n % 50)] for n in range(50_000)], column_names=["k", "s"])

        assert client.query("SELECT count(), sum(length(s)) FROM t").result_rows == [(50_000, 1_225_000)]


def test_data_from_a_generator_are_streamed(client):
    """A body of unknown length."""
    client.command("CREATE TABLE t (k UInt64) ENGINE = MergeTree ORDER BY k")
    pieces = (b"".join(b"%d\n" % n for n in range(at, at + 1000)) for at in range(0, 100_000, 1000))

    assert client.raw_insert("t", ["k"], pieces, fmt="CSV").written_rows == 100_000


def test_values_in_a_statement_are_data_and_never_statements(client):
    """Text with blank lines and semicolons, in VALUES, with and without parameters."""
    client.command("CREATE TABLE t (k UInt64, s String) ENGINE = MergeTree ORDER BY k")
    evil = "a\n\nDROP TABLE t\n\n; DROP TABLE t;"
    client.command(f"INSERT INTO t VALUES (1, '{evil}'),\n\n(2, 'b')")
    client.command("INSERT INTO t VALUES ({k:UInt64}, {s:String})", parameters={"k": 3, "s": evil})

    assert client.query("SELECT * FROM t ORDER BY k").result_rows == [(1, evil), (2, "b"), (3, evil)]


@pytest.mark.parametrize(
    "data",
    [
        b"1,a\n\nDROP TABLE t\n",
        b"1,a\n\n\nDROP TABLE t;",
        b"1,a\n;\n\nDROP TABLE t",
        b"1,a\n\nINSERT INTO t VALUES (9,'x')\n",
    ],
)
def test_a_statement_hidden_in_data_is_not_run(client, data):
    """A CSV body that goes on as SQL after a blank line: refused as CSV, and nothing of it is done."""
    client.command("CREATE TABLE t (k UInt64, s String) ENGINE = MergeTree ORDER BY k")
    with pytest.raises(Exception, match="Code: "):
        client.raw_insert("t", ["k", "s"], data, fmt="CSV")
    with pytest.raises(Exception, match="Code: "):
        client.command("INSERT INTO t VALUES (1, 'a'); DROP TABLE t")

    assert client.query("SELECT count() FROM t").result_rows == [(0,)]


def test_binary_data_with_blank_lines_in_them_are_only_data(client):
    """Hundreds of rows of the numbers whose bytes are newlines."""
    client.command("CREATE TABLE t (k UInt64, s String) ENGINE = MergeTree ORDER BY k")
    newlines = int.from_bytes(b"\n" * 8, "little")
    client.insert("t", [[newlines, "\n\nDROP TABLE t;\n\n"]] * 3000, column_names=["k", "s"])

    assert client.query("SELECT count(), uniqExact(k, s) FROM t").result_rows == [(3000, 1)]


def test_an_insert_that_fails_leaves_nothing(client):
    """One bad row in the last piece of many."""
    client.command("CREATE TABLE t (k UInt64) ENGINE = MergeTree ORDER BY k")
    data = b"".join(b"%d\n" % n for n in range(300_000)) + b"nonsense\n"
    with pytest.raises(Exception, match="Code: "):
        client.raw_insert("t", ["k"], data, fmt="CSV")

    assert client.query("SELECT count() FROM t").result_rows == [(0,)]


def test_an_insert_from_a_query_is_one_statement(client):
    """INSERT ... SELECT brings no data."""
    client.command("CREATE TABLE t (k UInt64) ENGINE = MergeTree ORDER BY k")
    client.command("INSERT INTO t SELECT number FROM numbers(100)")

    assert client.query("SELECT count() FROM t").result_rows == [(100,)]
