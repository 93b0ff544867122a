"""`up`, `down`, `reset`, `status` and `doctor` with everything real: two demos side by side, killed and stopped."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from .running import Demo, all_gone, command, free_port, wait_until

pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("up")]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, Demo]]:
    """Two instances side by side, both running."""
    folder = tmp_path_factory.mktemp("homes")
    both = Demo(folder / "one"), Demo(folder / "two")
    try:
        for demo in both:
            demo.start()
        for demo in both:
            demo.wait_running()
        yield both
    finally:
        for demo in both:
            demo.stop()


def run_states(demo: Demo, job: str, *, since: float) -> list[str]:
    """
    The states of a job's runs in Dagster's records, oldest first: of those that began since then. One that was killed with an
    earlier `up` may be called started for a while.
    """
    asked = "SELECT status FROM runs WHERE pipeline_name = ? AND start_time > ? ORDER BY id"
    with closing(sqlite3.connect(demo.home / "dagster" / "history" / "runs.db", timeout=60)) as records:
        rows = records.execute(asked, (job, since)).fetchall()
    return [str(row[0]) for row in rows]


def test_two_instances_run_side_by_side(demos: tuple[Demo, Demo]) -> None:
    """
    Each has its own folder, ports and pages, and neither port is the other's.
    """
    ports = []
    for demo in demos:
        run = demo.run_file()
        ports += list(run["ports"].values())
        with urlopen(run["addresses"]["dagster"]["url"] + "/server_info", timeout=60) as page:
            assert page.status == 200
        with urlopen(f"http://127.0.0.1:{run['ports']['warehouse']}/ping", timeout=60) as page:
            assert page.read() == b"Ok.\n"

    assert len(set(ports)) == len(ports) == 16


def test_a_start_is_quiet(demos: tuple[Demo, Demo]) -> None:
    """
    No server complains while the others are still starting: no warning and no stack trace in any log.
    """
    for demo in demos:
        for log in (demo.home / "logs").glob("*.log"):
            said = log.read_text(encoding="utf-8")
            assert not [word for word in ("WARNING", "Stack Trace", "Traceback") if word in said], said


def test_every_child_is_in_a_session_of_its_own_with_bare_secrets(demos: tuple[Demo, Demo]) -> None:
    """
    Stores and the local exchange see nobody's keys: their environment is the system's and our mark.
    """
    run = demos[0].run_file()
    sessions = {session["name"]: session["pid"] for session in run["sessions"]}

    assert set(sessions) == {
        "exchange",
        "redis",
        "warehouse",
        "code-server",
        "dagster-webserver",
        "dagster-daemon",
        "metrics",
    }
    assert not [name for name in psutil.Process(sessions["exchange"]).environ() if "KEY" in name or "REDIS" in name]


def test_a_second_up_on_the_same_folder_is_refused(demos: tuple[Demo, Demo]) -> None:
    """
    The one that runs is named, and how to stop it; nothing of it changes.
    """
    demo = demos[0]
    before = demo.run_file()
    second = command("up", "--demo", "--headless", "--home", demo.home, "--port", free_port())

    assert demo.process is not None
    assert second.returncode == 78
    assert second.stderr.strip() == (
        f"another `bitget-pipeline up` runs in this folder (process {demo.process.pid}) ({demo.home}) — stop it with "
        "`bitget-pipeline down`, or choose another folder with --home"
    )
    assert demo.run_file() == before


def test_a_folder_of_the_other_exchange_is_refused(demos: tuple[Demo, Demo]) -> None:
    """
    A demo's folder never takes real data.
    """
    demo = demos[0]
    real = command("up", "--headless", "--home", demo.home)

    assert real.returncode == 78
    assert real.stderr.strip() == (
        f"the folder holds data of the exchange 'local', not 'bitget' ({demo.home}) — choose another folder with --home, "
        "or use --demo"
    )


def test_an_occupied_port_is_named_with_the_option_that_chooses_another(
    demos: tuple[Demo, Demo], tmp_path: Path
) -> None:
    """
    The Dagster page's port is never moved silently.
    """
    taken = demos[0].port
    refused = command("up", "--demo", "--headless", "--home", tmp_path / "three", "--port", taken)

    assert refused.returncode == 78
    assert refused.stderr.startswith(f"port {taken} is in use")
    assert refused.stderr.strip().endswith("stop that program, or choose another port with --port")


def test_status_tells_addresses_processes_and_figures(demos: tuple[Demo, Demo]) -> None:
    """
    For programs as JSON, for people as lines; both say where the data lies.
    """
    demo = demos[0]
    answer = command("status", "--demo", "--json", "--within", 60, "--home", demo.home)
    status = json.loads(answer.stdout)

    assert answer.returncode in (0, 1), answer.stderr  # 1: health is critical, which a minute-old instance may be
    assert status["running"]
    assert status["addresses"] == demo.run_file()["addresses"]
    assert all(process["alive"] for process in status["processes"].values())
    assert status["facts"]["unreachable"] == {}
    assert str(demo.home) in command("status", "--demo", "--home", demo.home).stdout


def test_doctor_finds_no_problem_in_a_running_demo(demos: tuple[Demo, Demo]) -> None:
    """
    Exchange, clock, Redis, ClickHouse and its schema are looked at and found in order. Who cannot answer because the machine
    stands still is rightly called a problem, and looked at again.
    """

    def found() -> dict[str, str] | None:
        findings = json.loads(command("doctor", "--demo", "--json", "--home", demos[0].home).stdout)["findings"]
        problems = [one for one in findings if one["state"] == "problem" and one["name"] != "disk"]
        print(problems)  # what the last look found, should there be no end to it
        return None if problems else {one["name"]: one["state"] for one in findings}

    states = wait_until(found, "doctor finds no problem")
    assert {states[name] for name in ("exchange", "clock", "redis", "clickhouse", "schema", "instance")} == {"fine"}


def test_a_backfill_runs_in_dagster_and_costs_nothing_the_second_time(demos: tuple[Demo, Demo]) -> None:
    """
    Its runs show in Dagster's pages; the same command again has nothing to do.
    """
    days = [(datetime.now(UTC) - timedelta(days=back)).date().isoformat() for back in (200, 199)]
    home, symbol = ("--home", demos[0].home), ("--market", "spot", "--symbols", "ADAUSDT")
    asked = ("backfill", *symbol, "--from", days[0], "--to", days[1], "--json", *home)
    wait_until(lambda: command(*asked, "--dry-run").returncode == 0, "the instruments are discovered", within=180)
    first, second = (json.loads(command(*asked, within=400).stdout) for _ in range(2))

    assert (first["status"], first["to_fetch"]) == ("complete", 2)
    (backfill,) = first["backfills"]
    assert [backfill[what] for what in ("runs", "targeted", "materialized", "failed")] == [1, 2, 2, 0]
    assert (second["status"], second["to_fetch"], second["requests"]) == ("complete", 0, 0)


def test_reset_is_refused_while_it_runs(demos: tuple[Demo, Demo]) -> None:
    """
    Data under a running pipeline is never removed.
    """
    answer = command("reset", "--demo", "--yes", "--home", demos[0].home)

    assert answer.returncode == 78
    assert "the instance runs" in answer.stderr
    assert (demos[0].home / "warehouse").is_dir()


def test_a_store_that_dies_is_started_again(demos: tuple[Demo, Demo]) -> None:
    """
    Redis is killed: `up` says so, and it answers at the same port a moment later.
    """
    demo = demos[1]
    pid = next(session["pid"] for session in demo.run_file()["sessions"] if session["name"] == "redis")
    psutil.Process(pid).kill()

    died = wait_until(lambda: [event for event in demo.events() if event["event"] == "died"], "the death is told")
    assert died[0]["text"].startswith("redis was killed by SIGKILL")
    wait_until(
        lambda: sum(event["event"] == "ready" and event["name"] == "redis" for event in demo.events()) == 2,
        "redis is ready again",
    )


def test_after_a_killed_up_nothing_is_left_and_the_next_one_starts_cleanly(demos: tuple[Demo, Demo]) -> None:
    """
    kill -9 of `up`: the watchdog ends every process; the next `up` takes the same ports.
    """
    demo = demos[0]
    assert demo.process is not None
    before, left = demo.run_file(), demo.processes()
    assert left
    demo.process.kill()
    demo.process.wait()

    wait_until(lambda: all_gone(left), "every process is gone", within=120)
    wait_until(lambda: all_gone({before["watchdog"]["pid"]}), "the watchdog is gone")
    assert "addresses" not in demo.run_file()
    demo.start()
    demo.wait_running(times=2)
    assert demo.run_file()["ports"] == before["ports"]


def test_a_killed_up_and_watchdog_are_cleaned_up_by_the_next_up(demos: tuple[Demo, Demo]) -> None:
    """
    Even when nobody was left to end the children, the next start ends them first, and says so.
    """
    demo = demos[0]
    assert demo.process is not None
    run, left = demo.run_file(), demo.processes()
    psutil.Process(demo.process.pid).suspend()  # else it might start another watchdog before it is killed itself
    psutil.Process(run["watchdog"]["pid"]).kill()
    demo.process.kill()
    demo.process.wait()
    assert not all_gone(left)

    demo.start()
    demo.wait_running(times=3)
    assert all_gone(left)
    assert [event for event in demo.events() if event["event"] == "cleaned"]


def test_ctrl_c_leaves_no_process_behind(demos: tuple[Demo, Demo]) -> None:
    """
    Run workers, their helpers, servers and the watchdog are gone when `up` is; the runs are cancelled, not failed.
    """
    demo = demos[0]
    started = datetime.fromisoformat(demo.run_file()["started_at"]).timestamp()
    wait_until(lambda: run_states(demo, "live", since=started)[-1:] == ["STARTED"], "a live run is at work", within=180)
    left = demo.processes() | {demo.run_file()["watchdog"]["pid"]}

    assert demo.stop(signal.SIGINT) == 0
    assert run_states(demo, "live", since=started)[-1] == "CANCELED"
    assert all_gone(left)
    assert "stopped in order" in demo.events()[-1]["text"]
    assert "killed" not in demo.events()[-1]["text"]
    assert "addresses" not in demo.run_file()


def test_down_stops_what_runs_and_reset_removes_it(demos: tuple[Demo, Demo]) -> None:
    """
    From another terminal: `down` waits until everything is gone, `reset` then removes the folder.
    """
    demo = demos[1]
    left = demo.processes()
    down = command("down", "--demo", "--json", "--home", demo.home)

    assert json.loads(down.stdout) == {"home": str(demo.home), "stopped": True, "left_over": []}
    assert all_gone(left)
    assert demo.process is not None
    assert demo.process.wait(60) == 0
    reset = command("reset", "--demo", "--yes", "--json", "--home", demo.home)
    assert "warehouse" in json.loads(reset.stdout)["removed"]
    assert not demo.home.exists()
