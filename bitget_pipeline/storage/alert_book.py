"""
The book of alerts in Redis: one value that is only changed by whoever read its present state, and whose turn it is to deliver.

Used by pipeline/watch/alerting.py, which knows what stands in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
import redis.exceptions

from .keys import alerts_key
from .redis_errors import translated

TURN_SECONDS = 30
"""A process that dies while it delivers holds up the others for so long."""


class AlertBook:
    """The book and the turn. All methods raise StoreUnavailable and its kin."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis = client
        self._book = alerts_key(prefix, "book")
        self._turn = alerts_key(prefix, "turn")

    def read(self) -> bytes | None:
        """The book as it is, None before there is one."""
        with translated():
            found: Any = self._redis.get(self._book)
        return bytes(found) if found is not None else None

    def change(self, changed: Callable[[bytes | None], bytes]) -> None:
        """
        Replace the book by what `changed` makes of it; called again when another process was faster. Nothing is written
        when nothing changes.
        """

        def attempt(pipeline: redis.client.Pipeline) -> None:
            found = pipeline.get(self._book)
            text = changed(found)  # type: ignore[arg-type]  # redis-py: at once while the key is watched
            pipeline.multi()
            if text != found:
                pipeline.set(self._book, text)

        with translated():
            self._redis.transaction(attempt, self._book)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether it is ours to deliver: one process at a time."""
        lock = self._redis.lock(self._turn, timeout=TURN_SECONDS, blocking=False)
        with translated():
            ours = lock.acquire()
        try:
            yield ours
        finally:
            if ours:
                with translated(), suppress(redis.exceptions.LockError):  # it ran out: somebody else has it now
                    lock.release()
