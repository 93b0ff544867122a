"""
Log events and counters, by name.

`log.warning("feed.reconnecting", reason=reason)` writes one line; `count("trades.stored", 12)` adds to a process-wide
counter that health and tests read back with `counters()`.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Hashable
from typing import Any

import structlog

_counters: Counter[str] = Counter()


def get_logger(name: str) -> Any:
    """A logger whose events are names with fields."""
    return structlog.stdlib.get_logger(name)


def configure(*, level: str = "INFO", json: bool = False) -> None:
    """Send log events to stderr, as lines for people or as JSON; call once per process, at its start."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.PositionalArgumentsFormatter(), renderer],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=level, force=True)


class Seldom:
    """
    Tells when something that happens over and over should be said: at once, and then every `every` seconds with how often
    it happened meanwhile. Of more than `most` different things the oldest are forgotten.
    """

    def __init__(self, *, every: float = 60.0, most: int = 256) -> None:
        self._every = every
        self._most = most
        self._said: dict[Hashable, tuple[float, int]] = {}  # when it was said last, and how often it happened since

    def happened(self, what: Hashable, *, now: float) -> int:
        """How often it happened since it was said last, this time included; 0: it need not be said now."""
        said_at, times = self._said.get(what, (now - self._every, 0))
        if now - said_at < self._every:
            self._said[what] = (said_at, times + 1)
            return 0
        self._said.pop(what, None)
        if len(self._said) >= self._most:
            del self._said[next(iter(self._said))]
        self._said[what] = (now, 0)
        return times + 1


def count(name: str, by: int = 1) -> None:
    """Add to a counter of this process."""
    _counters[name] += by


def counters() -> dict[str, int]:
    """All counters of this process, by name."""
    return dict(_counters)
