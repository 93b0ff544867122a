"""
One who is asked in a thread of its own, so that one that hangs holds up nobody, not even the end of the process.

Threads that nobody waits for any more are daemons: an executor of the standard library would be joined at exit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Protocol

from ..errors import PipelineError


@dataclass(frozen=True, slots=True)
class Told:
    """
    What a source said: fields of cli/facts.py, fields of pipeline/watch/health.py's facts `behind` the verdict, and what it could
    not say and why.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    behind: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """Somebody to ask; `ask` blocks, and raises PipelineError."""

    def ask(self) -> Told:
        """What it knows now."""

    def close(self) -> None:
        """Give its connection back."""


class NoAnswerYet(PipelineError):
    """Asked, and still owing the answer."""


class Asked:
    """
    A source, and the question it was asked last. One that fails only after `within` seconds did not refuse, it hung: its failure
    is no answer, also when whoever waits looks so late that it came meanwhile.
    """

    def __init__(self, source: Source, *, within: float = math.inf) -> None:
        self._source = source
        self._within = within
        self._answer: Future[Told] | None = None

    def begin(self) -> Future[Told]:
        """Ask, unless an answer is owed. A late answer counts as none: nobody knows of when it is."""
        if self._answer is None or self._answer.done():
            self._answer = in_a_thread(self._ask)
        return self._answer

    def told(self) -> Told:
        """The answer. Raises NoAnswerYet, and what the source raised."""
        if self._answer is None or not self._answer.done():
            raise NoAnswerYet("no answer yet")
        return self._answer.result()

    def close(self) -> None:
        """Give the connection back, unless it is being waited for: then its own limits end it."""
        if self._answer is None or self._answer.done():
            self._source.close()

    def _ask(self) -> Told:
        began = time.monotonic()
        try:
            return self._source.ask()
        except BaseException as error:
            self._source.close()
            if isinstance(error, PipelineError) and time.monotonic() - began > self._within:
                raise NoAnswerYet(f"no answer in time: {error}") from error
            raise


def in_a_thread(ask: Callable[[], Told]) -> Future[Told]:
    """What it answers, from a thread that keeps nobody from ending."""
    answer: Future[Told] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, name="asked", daemon=True).start()
    return answer
