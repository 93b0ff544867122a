"""
A look from outside that ends in time, whatever hangs: for the sensor, which has to be done within two seconds.

Each store, and whoever judges something beside, is asked in a thread of its own, and stores keep their connection between looks;
what does not answer in time is said to owe an answer, and nobody waits for it. Judged by health.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any, TypeVar

from ...errors import PipelineError
from ...guard.vitals import Vital, unknown
from ...storage.overview import Overview
from ...storage.warehouse import Warehouse
from ...storage.warehouse_state import warehouse_state
from ...telemetry import get_logger
from .health import Facts, Health, ask_redis, judge
from .health_rules import HealthRules

log = get_logger(__name__)

Answer = TypeVar("Answer")

WITHIN = 1.2
"""Seconds for all who are asked together, and beside that for the table and people to be told: `RECORDED_WITHIN`."""
RECORDED_WITHIN = 0.6
OTHERS = "the others"


class Looking:
    """
    Looks once a minute, and gives what was seen to `record` with an open warehouse, if that answered. `open_warehouse` and
    `open_overview` connect, with time limits of their own, so that a thread that was not waited for comes to its end.
    """

    def __init__(
        self,
        open_warehouse: Callable[[], Warehouse],
        open_overview: Callable[[], Overview],
        record: Callable[[Warehouse, Health, int], None],
        *,
        within: float = WITHIN,
        recorded_within: float = RECORDED_WITHIN,
    ) -> None:
        self._open_warehouse = open_warehouse
        self._open_overview = open_overview
        self._record_in = record
        self._within = within
        self._recorded_within = recorded_within
        self._threads = ThreadPoolExecutor(max_workers=10, thread_name_prefix="health")
        self._warehouse: Warehouse | None = None
        self._overview: Overview | None = None
        self._one_at_a_time = {"Redis": Lock(), "ClickHouse": Lock(), OTHERS: Lock()}

    def look(
        self,
        *,
        now_ms: int,
        rules: HealthRules | None = None,
        beside: Callable[[], Iterable[Vital]] = tuple,
        named: Sequence[str] = (),
        tell: Callable[[Health], None] | None = None,
    ) -> Health:
        """
        Ask everybody and judge; never raises for a store that is down, and takes no longer than the limits. `beside` judges what
        else there is, in vitals of the names `named`, which are unknown when it is late; `tell` is given what was seen.
        """
        asked = {
            "redis_error": self._threads.submit(self._alone, "Redis", self._ask_redis),
            "warehouse_error": self._threads.submit(self._alone, "ClickHouse", self._ask_warehouse),
        }
        others = self._threads.submit(self._alone, OTHERS, lambda: tuple(beside()))
        deadline = time.monotonic() + self._within
        wait(asked.values(), timeout=self._within)
        wait([others], timeout=max(0.0, deadline - time.monotonic()))
        found: dict[str, Any] = {}
        for field, answer in asked.items():
            found |= self._told(field, answer)
        seen = judge(Facts(**found, beside=self._judged_beside(others, named)), now_ms=now_ms, rules=rules)
        telling = [] if tell is None else [self._threads.submit(tell, seen)]
        if not found.get("warehouse_error"):
            telling.append(self._threads.submit(self._record, seen, now_ms))
        wait(telling, timeout=self._recorded_within)
        for one in telling:
            self._heed(one)
        return seen

    def close(self) -> None:
        """Give the connections back; threads that still wait for an answer end by their own limits."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._warehouse is not None:
            self._warehouse.close()

    def _judged_beside(self, answer: Future[tuple[Vital, ...]], named: Sequence[str]) -> tuple[Vital, ...]:
        """What somebody else judged; their records may lie in a database that hangs or refuses, which is no verdict."""
        if not answer.done():
            why = f"no answer within {self._within:g} s"
        elif (error := answer.exception()) is None:
            return answer.result()
        else:
            why = str(error) or type(error).__name__
            log.warning("health.not_judged", names=list(named), problem=why)
        return tuple(unknown(name, f"{name} is not known: {why}") for name in named)

    def _heed(self, recording: Future[None]) -> None:
        """A table that refuses, or people who cannot be told, are no reason to see nothing, but one to say so."""
        error = recording.exception() if recording.done() else None
        if isinstance(error, PipelineError):
            log.warning("health.not_recorded", problem=str(error))
        elif error is not None:
            raise error

    def _told(self, field: str, answer: Future[dict[str, Any]]) -> dict[str, Any]:
        if not answer.done():
            return {field: f"no answer within {self._within:g} s"}
        try:
            return answer.result()
        except PipelineError as error:
            return {field: str(error)}

    def _alone(self, store: str, ask: Callable[[], Answer]) -> Answer:
        """A store that still owes an answer is not asked again."""
        lock = self._one_at_a_time[store]
        if not lock.acquire(timeout=self._within):
            raise _StillOwing(f"{store} still owe{'' if store == OTHERS else 's'} the answer of the last look")
        try:
            return ask()
        finally:
            lock.release()

    def _ask_redis(self) -> dict[str, Any]:
        if self._overview is None:
            self._overview = self._open_overview()
        return ask_redis(self._overview)

    def _ask_warehouse(self) -> dict[str, Any]:
        try:
            if self._warehouse is None:
                self._warehouse = self._open_warehouse()
            return {"warehouse": warehouse_state(self._warehouse)}
        except PipelineError:
            self._forget_warehouse()
            raise

    def _record(self, seen: Health, now_ms: int) -> None:
        if self._warehouse is not None:
            self._record_in(self._warehouse, seen, now_ms)

    def _forget_warehouse(self) -> None:
        if self._warehouse is not None:
            self._warehouse.close()
            self._warehouse = None


class _StillOwing(PipelineError):
    """Asked before, and not answered yet."""
