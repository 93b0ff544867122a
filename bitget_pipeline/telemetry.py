"""
Log events and counters, by name.

`log.warning("feed.reconnecting", reason=reason)` writes one line; `count("trades.stored", 12)` adds to a process-wide
counter that health and tests read back with `counters()`.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
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


def count(name: str, by: int = 1) -> None:
    """Add to a counter of this process."""
    _counters[name] += by


def counters() -> dict[str, int]:
    """All counters of this process, by name."""
    return dict(_counters)
