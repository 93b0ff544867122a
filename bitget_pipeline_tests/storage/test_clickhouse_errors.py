"""ClickHouse's errors as ours: each says what the caller does next."""

from __future__ import annotations

import pytest
import urllib3.exceptions
from clickhouse_connect.driver import exceptions as driver

from bitget_pipeline.errors import CredentialsRefused, DiskFull, PipelineError, StoreRefused, StoreUnavailable
from bitget_pipeline.storage.clickhouse_errors import as_ours, translated


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (516, "Code: 516. DB::Exception: default: Authentication failed", CredentialsRefused),
        (243, "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space", DiskFull),
        (1001, "std::exception. Cannot write: No space left on device", DiskFull),
        (75, "Code: 75. DB::Exception: Cannot write to file, errno: 28, No space left on device", DiskFull),
        (241, "Code: 241. DB::Exception: Memory limit (total) exceeded", StoreUnavailable),
        (252, "Code: 252. DB::Exception: Too many parts", StoreUnavailable),
        (159, "Code: 159. DB::Exception: Timeout exceeded", StoreUnavailable),
        (60, "Code: 60. DB::Exception: Unknown table", StoreRefused),
        (62, "Code: 62. DB::Exception: Syntax error", StoreRefused),
    ],
)
def test_a_code_has_its_verdict(code: int, text: str, expected: type[PipelineError]) -> None:
    """
    Wait and repeat, or stop and tell.
    """
    error = as_ours(driver.DatabaseError(text, code=code), "http://127.0.0.1:1/trading")

    assert type(error) is expected
    assert error.remedy
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "error",
    [
        driver.OperationalError("Error executing HTTP request"),
        urllib3.exceptions.ProtocolError("Connection aborted"),
        ConnectionResetError(104, "reset"),
        TimeoutError(),
    ],
)
def test_a_connection_that_breaks_is_unavailable(error: Exception) -> None:
    """
    Whichever layer notices it first.
    """
    with pytest.raises(StoreUnavailable), translated("http://127.0.0.1:1/trading"):
        raise error


def test_a_long_message_becomes_one_short_line() -> None:
    """
    Statements in messages do not flood the log.
    """
    error = as_ours(driver.DatabaseError("Code: 62. DB::Exception: " + "SELECT\n" * 500, code=62), "here")

    assert len(str(error)) < 500
    assert "\n" not in str(error)
