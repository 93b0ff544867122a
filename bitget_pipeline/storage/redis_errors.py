"""
Redis's errors, as ours.

Used around every call to Redis, so that nothing above storage/ knows redis-py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import redis.exceptions

from ..errors import CredentialsRefused, DiskFull, StoreRefused, StoreUnavailable

_FULL = {"OOM", "MISCONF"}  # MISCONF: it stopped writing because its disk refuses
_PASSING = {"LOADING", "READONLY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "NOREPLICAS", "UNBLOCKED"}
_CREDENTIALS = {"NOAUTH", "WRONGPASS", "NOPERM"}


@contextmanager
def translated(where: str = "redis") -> Iterator[None]:
    """Raise what goes wrong inside as ours. `where` names the server for people, without credentials."""
    try:
        yield
    except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise CredentialsRefused(
            f"Redis refuses the user: {_short(error)}", where=where, remedy="check REDIS_USER and REDIS_PASSWORD"
        ) from error
    except redis.exceptions.OutOfMemoryError as error:
        raise _full(where) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise StoreUnavailable(
            f"Redis cannot be reached: {_short(error)}",
            where=where,
            remedy="start it (`bitget-pipeline up`), or check REDIS_HOST and REDIS_PORT",
        ) from error
    except redis.exceptions.RedisError as error:
        word = _word(str(error))
        if word in _FULL:
            raise _full(where) from error
        if word in _PASSING:
            raise StoreUnavailable(f"Redis cannot answer now: {_short(error)}", where=where) from error
        if word in _CREDENTIALS:
            raise CredentialsRefused(
                "Redis refuses the user", where=where, remedy="check REDIS_USER and REDIS_PASSWORD"
            ) from error
        raise StoreRefused(
            f"Redis refuses: {_short(error)}", where=where, remedy="`bitget-pipeline doctor` checks its settings"
        ) from error


def _word(text: str) -> str:
    """The word Redis's errors begin with; Redis 6.2 puts a sentence before it when a script met the error."""
    found = re.search(r"(?:^|: -)([A-Z]{3,})\b", text)
    return found[1] if found else ""


def _full(where: str) -> DiskFull:
    return DiskFull(
        "Redis has no room left", where=where, remedy="give it more memory (maxmemory) or disk, then run this again"
    )


def _short(error: BaseException) -> str:
    line = " ".join(str(error).split())
    return line if len(line) <= 160 else f"{line[:157]}..."
