"""
Who asks Redis and ClickHouse when Prometheus scrapes, and never waits for one that hangs.

Input: ways to ask, given by cli/metrics.py; output: a collector for prometheus_client. Each source is asked in a thread of its
own, and not again before it has answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass

from prometheus_client.core import Metric

from ...errors import PipelineError
from ...telemetry import get_logger
from .samples import Families

log = get_logger(__name__)

ANSWERS_WITHIN = 1.0
"""Seconds that a scrape waits for a source."""


@dataclass(frozen=True, slots=True)
class Source:
    """Somebody to ask: `ask` blocks and raises PipelineError; an answer holds for `fresh_for` seconds."""

    name: str
    ask: Callable[[], Sequence[Metric]]
    fresh_for: float = 0.0


class _Asked:
    """A source and its newest answer."""

    def __init__(self, source: Source, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._wall = wall
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=source.name)
        self._running: Future[Sequence[Metric]] | None = None
        self._answer: Sequence[Metric] = ()
        self._answered_at = float("-inf")
        self.up = False
        self.last_success: float | None = None  # Unix seconds
        self.took: float | None = None

    def begin(self) -> None:
        """Ask, unless it is being asked, or its answer still holds."""
        if self._running is not None and self._running.done():
            self._running = None  # it came after the last scrape had gone: nobody knows how old it is
        if self._running is None and not self._holds:
            self._running = self._pool.submit(self._ask)

    def end(self, *, deadline: float) -> Sequence[Metric]:
        """Its answer; none when it is away. `deadline` is of the clock that was given."""
        if self._running is None:
            return self._answer
        try:
            self._answer = self._running.result(timeout=max(0.0, deadline - self._clock()))
        except NotYet:
            self._lost("it does not answer in time")
            return ()
        except PipelineError as error:
            self._running = None
            self._lost(str(error))
            return ()
        self._running = None
        if not self.up:
            log.info("metrics.source_answers", source=self._source.name)
        self.up, self._answered_at, self.last_success = True, self._clock(), self._wall()
        return self._answer

    @property
    def _holds(self) -> bool:
        return self.up and self._clock() - self._answered_at < self._source.fresh_for

    def _ask(self) -> Sequence[Metric]:
        began = self._clock()
        answer = self._source.ask()
        self.took = self._clock() - began
        return answer

    def _lost(self, problem: str) -> None:
        if self.up or self.last_success is None:
            log.warning("metrics.source_away", source=self._source.name, problem=problem)
        self.up = False

    @property
    def name(self) -> str:
        """What it is called."""
        return self._source.name

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Collector:
    """
    What prometheus_client's registry asks for at every scrape. Scrapes may come from several threads; they wait for each other.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        within: float = ANSWERS_WITHIN,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._asked = [_Asked(source, clock, wall) for source in sources]
        self._within = within
        self._clock = clock
        self._lock = threading.Lock()

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering shall not ask anybody."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Ask everybody at once, and answer within the time with what came."""
        with self._lock:
            deadline = self._clock() + self._within
            for one in self._asked:
                one.begin()
            found = [metric for one in self._asked for metric in one.end(deadline=deadline)]
            families = Families()
            for one in self._asked:
                families.put("source_up", one.up, one.name)
                families.put("source_last_success_timestamp_seconds", one.last_success, one.name)
                families.put("source_answer_seconds", one.took, one.name)
        yield from families.all()
        yield from found

    def close(self) -> None:
        """Ask nobody any more."""
        for one in self._asked:
            one.close()
