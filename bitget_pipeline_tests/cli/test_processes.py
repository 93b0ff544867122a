"""Programs under supervision, with real processes: ready, dead, stubborn, orphaned."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from bitget_pipeline.cli.checks import State, second_installation
from bitget_pipeline.cli.up import leftovers, probes
from bitget_pipeline.cli.up.leftovers import MARK, Session
from bitget_pipeline.cli.up.ports import Claims, require_free
from bitget_pipeline.cli.up.program import Program, cut, last_line, restart_delay, rotate
from bitget_pipeline.cli.up.supervisor import StartFailed, Step, Supervisor, wait_until_ready
from bitget_pipeline.errors import PortTaken, WrongExchange
from bitget_pipeline.local.redis import RedisConfig
from bitget_pipeline.local.redis import command as redis_command
from bitget_pipeline.settings import load_boot, load_operational

from .running import all_gone, free_port, wait_until

QUICK = (("dagster", 0.5), ("code", 0.5), ("store", 0.5))


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    """An empty supervisor whose processes are marked."""
    return Supervisor(tmp_path / "logs", uuid.uuid4().hex, record=lambda sessions: None)


def python(
    supervisor: Supervisor, code: str, *, name: str = "helper", phase: str = "store", **options: object
) -> Program:
    """A program that runs a line of Python; ready at once unless told otherwise."""
    given: dict[str, object] = {"ready": lambda: True, **options}
    return Program(
        name=name,
        command=[sys.executable, "-c", code],
        environment={MARK: supervisor.mark},
        phase=phase,
        **given,  # type: ignore[arg-type]
    )


def redis(supervisor: Supervisor, data: Path) -> Program:
    """A real redis-server."""
    port = free_port()
    return Program(
        name="redis",
        command=redis_command(RedisConfig(data=data, port=port)),
        environment={MARK: supervisor.mark},
        ready=probes.redis_answers(port),
        phase="store",
    )


def test_programs_start_when_what_they_need_is_ready(supervisor: Supervisor, tmp_path: Path) -> None:
    """
    A step waits for its store, a program for the step.
    """
    order: list[str] = []
    late = python(supervisor, "import time; time.sleep(60)", name="late", needs=frozenset({"tables"}))
    supervisor.add(
        [late, redis(supervisor, tmp_path)], [Step("tables", lambda: order.append("tables"), frozenset({"redis"}))]
    )
    try:
        happened = wait_until_ready(supervisor, within=60)
    finally:
        supervisor.stop()

    told = [(event.kind, event.name) for event in happened]
    assert told.index(("ready", "redis")) < told.index(("done", "tables")) < told.index(("started", "late"))
    assert order == ["tables"]


def test_a_dead_program_is_started_again_and_its_last_words_are_told(supervisor: Supervisor, tmp_path: Path) -> None:
    """
    The second process answers where the first one did.
    """
    supervisor.add([redis(supervisor, tmp_path)])
    try:
        wait_until_ready(supervisor, within=60)
        first = supervisor.children["redis"].pid
        assert first is not None
        psutil.Process(first).kill()
        died = wait_until(lambda: supervisor.tick(now=time.monotonic()), "the death is noticed")
        happened = wait_until_ready(supervisor, within=60)
    finally:
        supervisor.stop()

    assert died[0].kind == "died"
    assert died[0].text.startswith("redis was killed by SIGKILL")
    assert died[0].text.endswith("starts again in 1 s")
    assert [event.kind for event in happened] == ["started", "ready"]
    assert len(supervisor.sessions) == 2


def test_a_program_that_cannot_start_says_why(supervisor: Supervisor) -> None:
    """
    The last line of its log is the reason; the log is named.
    """
    supervisor.add([python(supervisor, "raise SystemExit('the disk is on fire')", ready=lambda: False)])
    with pytest.raises(
        StartFailed, match=r"helper cannot start, it ended with code 1: the disk is on fire — see .*helper\.log"
    ):
        wait_until_ready(supervisor, within=60)
    supervisor.stop()


def test_a_program_that_stays_silent_is_given_up(supervisor: Supervisor) -> None:
    """
    A start does not hang for ever.
    """
    supervisor.add([python(supervisor, "import time; time.sleep(60)", ready=lambda: False, ready_within=0.3)])
    with pytest.raises(StartFailed, match="was not ready within 0 s: it said nothing"):
        wait_until_ready(supervisor, within=60)
    supervisor.stop()
    assert all_gone({session.pid for session in supervisor.sessions})


def test_a_failed_step_stops_the_start_with_its_own_error(supervisor: Supervisor) -> None:
    """
    The database of the other exchange is refused in the words of the one who found it.
    """

    def refuse() -> None:
        raise WrongExchange("the database holds data of bitget")

    supervisor.add([], [Step("tables", refuse, frozenset())])
    with pytest.raises(WrongExchange, match="holds data of bitget"):
        wait_until_ready(supervisor, within=60)
    supervisor.stop()


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


def test_a_stubborn_program_is_killed_after_its_time(supervisor: Supervisor, tmp_path: Path) -> None:
    """
    Whoever ignores SIGTERM is named and killed; nothing is left.
    """
    log = tmp_path / "logs" / "helper.log"
    supervisor.add([python(supervisor, STUBBORN, ready=lambda: "ready" in last_line(log))])
    wait_until_ready(supervisor, within=60)
    pids = {session.pid for session in supervisor.sessions}
    killed = leftovers.end(supervisor.sessions, supervisor.mark, reap=supervisor.reap, phases=QUICK)
    supervisor.stop()

    assert killed
    assert all_gone(pids)


def test_a_process_that_was_told_is_left_in_peace_for_half_its_time(supervisor: Supervisor, tmp_path: Path) -> None:
    """
    A run worker that Dagster interrupted writes what it holds; a signal would interrupt it a second time.
    """
    supervisor.add([redis(supervisor, tmp_path)])
    wait_until_ready(supervisor, within=60)
    pid = supervisor.children["redis"].pid
    assert pid is not None
    began = time.monotonic()
    killed = leftovers.end(
        supervisor.sessions, supervisor.mark, reap=supervisor.reap, phases=[("store", 10.0)], told={pid}
    )
    took = time.monotonic() - began
    supervisor.stop()

    assert killed == []  # so the signal came before its time was over
    assert took >= 5.0


SLOW = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit())); "
    "print('ready', flush=True); time.sleep(60)"
)


def test_a_time_for_which_the_machine_stood_still_is_nobodys(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The clock went on, and who was told to end could not: it has its time afterwards.
    """

    class Clock:
        lost = 0.0

        def monotonic(self) -> float:
            return time.monotonic() + self.lost

        def sleep(self, seconds: float) -> None:
            time.sleep(seconds)
            self.lost = 300.0

    log = tmp_path / "logs" / "helper.log"
    supervisor.add([python(supervisor, SLOW, ready=lambda: "ready" in last_line(log))])
    wait_until_ready(supervisor, within=60)
    pids = {session.pid for session in supervisor.sessions}
    monkeypatch.setattr(leftovers, "time", Clock())
    killed = leftovers.end(supervisor.sessions, supervisor.mark, reap=supervisor.reap, phases=[("store", 60.0)])
    supervisor.stop()

    assert killed == []
    assert all_gone(pids)


PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session={new})\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(60)\n"
)


@pytest.mark.parametrize("new", [False, True], ids=["in its session", "in a session of its own"])
def test_grandchildren_end_too_even_when_their_parent_was_killed(
    supervisor: Supervisor, tmp_path: Path, new: bool
) -> None:
    """
    Run workers outlive a killed code server; they are found by session, or by the mark they inherited.
    """
    log = tmp_path / "logs" / "code-server.log"
    program = python(
        supervisor, PARENT.format(new=new), name="code-server", phase="code", ready=lambda: last_line(log).isdigit()
    )
    supervisor.add([program])
    wait_until_ready(supervisor, within=60)
    parent, grandchild = supervisor.sessions[0].pid, int(last_line(log))
    psutil.Process(parent).kill()
    wait_until(lambda: all_gone({parent}), "the parent is dead")
    assert not all_gone({grandchild})

    leftovers.end(supervisor.sessions, supervisor.mark, reap=supervisor.reap, phases=QUICK)
    supervisor.stop()
    assert all_gone({grandchild})


def test_a_process_id_that_came_back_is_not_ours() -> None:
    """
    A recorded process counts only with its start time.
    """
    me = psutil.Process()
    assert leftovers.is_alive(me.pid, me.create_time())
    assert not leftovers.is_alive(me.pid, me.create_time() - 100)
    session = Session(pid=psutil.Process(me.pid).pid, created=me.create_time() + 1e6, phase="store", name="redis")
    assert me.pid not in leftovers.members([session], mark="")


def test_damaged_records_are_passed_over() -> None:
    """
    A run.json that was written by somebody else ends nothing.
    """
    assert leftovers.recorded_sessions({"sessions": [{"pid": "x"}, {}, {"pid": 1, "created": 2, "phase": "p"}]}) == []


def test_restarts_slow_down() -> None:
    """
    One second, doubled with each death in a row, at most half a minute.
    """
    assert [restart_delay(deaths) for deaths in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_logs_of_former_starts_are_kept_for_a_while(tmp_path: Path) -> None:
    """
    The newest five stay, in order.
    """
    log = tmp_path / "redis.log"
    for start in range(8):
        rotate(log)
        log.write_text(f"start {start}\n", encoding="utf-8")

    kept = [log, *(tmp_path / f"redis.{number}.log" for number in range(1, 5))]
    assert [last_line(path) for path in kept] == [f"start {start}" for start in (7, 6, 5, 4, 3)]
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_two_that_choose_at_once_choose_different_ports() -> None:
    """
    A claim holds from the choice until the chooser's end.
    """
    port = free_port()
    with Claims() as first, Claims() as second:
        assert first.choose(port) == port
        assert second.choose(port) != port
        with pytest.raises(PortTaken, match="claimed by another"):
            second.require(port, option="--port")
    with Claims() as third:
        assert third.choose(port) == port


def test_an_occupied_port_is_refused_with_its_owner() -> None:
    """
    Who has it, and which option chooses another.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} is in use by .* \(process \d+\) .* with --port"):
            require_free(port, option="--port")


def test_a_log_that_grows_too_long_is_cut_while_it_is_written(tmp_path: Path) -> None:
    """
    What was written is put aside; the writer goes on at the beginning.
    """
    log = tmp_path / "daemon.log"
    with open(log, "ab", buffering=0) as writer:
        writer.write(b"long ago\n" * 10)
        cut(log, most=50)
        writer.write(b"now\n")

    assert log.read_text(encoding="utf-8") == "now\n"
    assert last_line(tmp_path / "daemon.1.log") == "long ago"


def test_another_installation_with_a_budget_of_its_own_is_found(tmp_path: Path) -> None:
    """
    Two that ask the real exchange from one address and share no Redis would break its limits together.
    """
    boot = load_boot({"BITGET_PIPELINE_HOME": str(tmp_path / "mine"), "REDIS_HOST": "127.0.0.1", "REDIS_PORT": "7001"})
    other = {"BITGET_PIPELINE_HOME": str(tmp_path / "other"), "BITGET_PIPELINE_EXCHANGE": "bitget", MARK: "test"}
    named = []
    for port in ("7002", "7001"):
        process = subprocess.Popen(
            [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"],
            env={**other, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": port},
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            process.stdout.readline()
            found = next(second_installation(boot, load_operational(boot, {})))
            named.append(found.state is State.PROBLEM and str(tmp_path / "other") in found.said)
        finally:
            process.kill()
            process.communicate()

    assert named == [True, False]
