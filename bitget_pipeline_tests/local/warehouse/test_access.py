"""Who may speak to the server, and how far it lets anyone reach."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from .running import RunningWarehouse, start
from .test_outside import REACHING


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWarehouse]:
    """A server with a user and a password."""
    running = start(tmp_path_factory.mktemp("guarded") / "data", "--user", "trader", password="s3cret ü")
    yield running
    running.stop()


def asked(
    port: int, path: str = "/", *, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> http.client.HTTPResponse:
    """One plain HTTP request; the answer with its body in `text`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        return answer
    finally:
        connection.close()


def test_the_right_password_is_let_in_and_a_wrong_one_is_not(guarded):
    """With ClickHouse's code 516, by every way to say it."""
    with clickhouse_connect.get_client(
        host="127.0.0.1", port=guarded.port, username="trader", password="s3cret ü"
    ) as client:
        assert client.command("SELECT 1") == 1
    for user, password in [("trader", ""), ("trader", "wrong"), ("default", "s3cret ü"), ("default", "")]:
        with pytest.raises(DatabaseError) as raised:
            clickhouse_connect.get_client(host="127.0.0.1", port=guarded.port, username=user, password=password)
        assert raised.value.code == 516


def test_credentials_are_read_from_headers_and_from_the_address(guarded):
    """As ClickHouse does; a bearer token is refused."""
    ask = "/?query=SELECT%201"
    right = {"X-ClickHouse-User": "trader", "X-ClickHouse-Key": "s3cret ü".encode().decode("latin-1")}
    assert asked(guarded.port, f"{ask}&user=trader&password=s3cret%20%C3%BC").status == 200
    assert asked(guarded.port, ask, headers=right).status == 200
    for headers in ({"X-ClickHouse-User": "trader"}, {"Authorization": "Bearer x"}, {"Authorization": "Basic !"}, {}):
        answer = asked(guarded.port, ask, headers=headers)
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")


def test_a_refused_password_is_in_no_answer(guarded):
    """An error tells the user's name at most."""
    answer = asked(guarded.port, "/?query=SELECT%201&user=trader&password=hunter2")

    assert "hunter2" not in answer.text
    assert "s3cret" not in answer.text


def test_signs_of_life_need_no_password(guarded):
    """/ping, / and /replicas_status, GET and HEAD; nothing is told there."""
    for path in ("/ping", "/", "/replicas_status"):
        assert asked(guarded.port, path).text == "Ok.\n"
        assert asked(guarded.port, path, method="HEAD").status == 200


def test_an_unknown_path_is_not_found(guarded):
    """No other door."""
    assert asked(guarded.port, "/play").status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8123"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_web_pages_of_others_are_refused(warehouse, headers):
    """A name that points here (DNS rebinding), another origin, a request made for another site's page."""
    for path in ("/?query=SELECT%201", "/ping"):
        answer = asked(warehouse.port, path, headers=headers)
        assert answer.status == 403
    assert asked(warehouse.port, method="POST", body=b"SELECT 1", headers=headers).status == 403


def test_this_machine_by_any_of_its_names_is_welcome(warehouse):
    """localhost, 127.x, ::1, with or without a port; and a page of the server's own origin."""
    for host in ("localhost", "localhost:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8123"):
        assert asked(warehouse.port, "/?query=SELECT%201", headers={"Host": host}).text == "1\n"
    own = {"Host": f"localhost:{warehouse.port}", "Origin": f"http://localhost:{warehouse.port}"}
    assert asked(warehouse.port, "/?query=SELECT%201", headers=own).text == "1\n"


def test_get_only_reads(warehouse, client):
    """What a link or an image of a page can do must change nothing."""
    client.command("CREATE TABLE t (k UInt8) ENGINE = MergeTree ORDER BY k")
    database = client.database
    for session in ("", "&session_id=get-only-reads"):
        for sql in ("DROP%20TABLE%20t", "INSERT%20INTO%20t%20VALUES%20(1)", "INSERT%20INTO%20t%20SELECT%201"):
            answer = asked(warehouse.port, f"/?database={database}{session}&query={sql}")
            assert answer.headers["X-ClickHouse-Exception-Code"] == "164"
        assert asked(warehouse.port, f"/?database={database}{session}&query=SELECT%20count()%20FROM%20t").text == "0\n"


@pytest.mark.parametrize(
    "text",
    [
        *REACHING,
        b"SELECT * FROM file('/etc/passwd', LineAsString)",
        b"SELECT * FROM default.`/etc/passwd`",
        b"SELECT * FROM '/etc/passwd'",
        b"SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
        b"SELECT * FROM s3('http://127.0.0.1:1/x', LineAsString)",
        b"SELECT * FROM remote('127.0.0.1', system.one)",
        b"SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        b"SELECT * FROM sqlite('/etc/x', 't')",
        b"SELECT * FROM fileCluster('default', '/etc/passwd', LineAsString)",
        b"INSERT INTO FUNCTION file('/tmp/x.csv') SELECT 1",
        b"INSERT INTO FUNCTION url('http://127.0.0.1:1/', CSV) VALUES (1)",
        b"CREATE TABLE reached (a String) ENGINE = File(LineAsString, '/etc/passwd')",
        b"CREATE TABLE reached (a String) ENGINE = URL('http://127.0.0.1:1/', CSV)",
        b"CREATE TABLE reached (a String) ENGINE = Executable('x.sh', CSV)",
        b"CREATE DATABASE reached ENGINE = Filesystem('/etc')",
        b"CREATE DATABASE reached ENGINE = SQLite('/etc/x')",
        b"CREATE DATABASE reached ENGINE = Overlay('default')",
        b"BACKUP DATABASE system TO File('/tmp/reached')",
        b"CREATE NAMED COLLECTION reached AS a = 1",
        b"SYSTEM SHUTDOWN",
        b"SYSTEM KILL",
        b"CREATE USER reached",
        b"GRANT ALL ON *.* TO default",
    ],
)
def test_nobody_reaches_beyond_the_data_folder(client, warehouse, text):
    """Files, addresses, programs, the server itself: refused by the engine's grants or by the words. And the server lives."""
    with pytest.raises(DatabaseError) as raised:
        client.raw_query(text.decode())

    assert raised.value.code is not None
    assert "root:" not in str(raised.value)
    assert client.command("SELECT 1") == 1
