"""
The connection to Redis, and whether that server keeps what it is given.

Input: an address; output: clients for stream.py, lease.py, budget.py and the others. Writers use the asynchronous
client; Dagster's sensors and the command line, which only look, use the synchronous one.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from .redis_errors import translated

OLDEST = (6, 2)
"""Redis 6.2 brought XAUTOCLAIM and XTRIM MINID; nothing newer is used."""

LONGEST_BLOCK_MS = 5_000
"""How long a read may wait on the server: below the socket's own time-out."""

_SOCKET_TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is and who we are to it. The paths are of PEM files; the password shows in no text."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: bool = False
    verify: bool = True
    ca_cert: str | None = None
    client_cert: str | None = None
    client_cert_key: str | None = None

    def __str__(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"


def connect(address: RedisAddress) -> redis.asyncio.Redis:
    """A client; it connects with its first command. A command that fails is repeated twice within a second."""
    return redis.asyncio.Redis(**_options(address), retry=AsyncRetry(ExponentialBackoff(cap=0.5, base=0.05), 2))


def connect_sync(address: RedisAddress, *, answer_within: float | None = None) -> redis.Redis:
    """The same for code without an event loop. With `answer_within` (seconds) nothing is repeated: for whoever only looks."""
    if answer_within is None:
        return redis.Redis(**_options(address), retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 2))
    hurried = {"socket_connect_timeout": answer_within, "socket_timeout": answer_within}
    return redis.Redis(**_options(address) | hurried, retry=Retry(NoBackoff(), 0))


async def server_identity(client: redis.asyncio.Redis) -> str:
    """
    A name of the running Redis process: another one means that it was restarted, and may have lost its last second.
    """
    with translated():
        info: dict[str, Any] = await client.info("server")
    return str(info["run_id"])


def findings(client: redis.Redis) -> list[str]:
    """
    What is wrong with the server's settings, one line for a person each; empty when it will keep what it is given.
    """
    with translated():
        info: dict[str, Any] = client.info()
        try:
            policy: Any = next(iter(dict(client.config_get("maxmemory-policy")).values()), "")
        except redis.exceptions.ResponseError:
            policy = info.get("maxmemory_policy", "")  # managed servers hide CONFIG
    return check_settings(info, policy.decode() if isinstance(policy, bytes) else str(policy))


def check_settings(info: Mapping[str, Any], policy: str) -> list[str]:
    """What is wrong, by what INFO says and the policy for a full memory."""
    lines = []
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        lines.append(f"Redis is {version}: install 6.2 or newer")
    if policy != "noeviction":
        lines.append(
            f"maxmemory-policy is {policy or 'unknown'}: a full Redis would drop trades — set it to noeviction"
        )
    if not int(info.get("aof_enabled", 0)):
        lines.append("append-only file is off: a restart would lose what is not written yet — set appendonly yes")
    elif info.get("aof_last_write_status", "ok") != "ok":
        lines.append("the append-only file cannot be written: look at the disk of Redis")
    return lines


def _options(address: RedisAddress) -> dict[str, Any]:
    options: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "username": address.user,
        "password": address.password,
        "db": address.db,
        "protocol": 2,  # one shape of answers on every server version
        "socket_connect_timeout": 5.0,
        "socket_timeout": _SOCKET_TIMEOUT,
        "socket_keepalive": True,
        "health_check_interval": 30,
    }
    if address.tls:
        options |= {
            "ssl": True,
            "ssl_cert_reqs": ssl.CERT_REQUIRED if address.verify else ssl.CERT_NONE,
            "ssl_check_hostname": address.verify,
            "ssl_ca_certs": address.ca_cert,
            "ssl_certfile": address.client_cert,
            "ssl_keyfile": address.client_cert_key,
        }
    return options
