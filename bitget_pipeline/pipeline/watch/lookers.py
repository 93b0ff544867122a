"""
One that asks a store again and again how it stands, one question at a time, so that a store that hangs holds up nobody else.

attention.py has one for each store, and judges the newest answer and how long one has been owed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ...errors import PipelineError
from ...history.allowance import heed_cancellation

Answer = TypeVar("Answer")


class Looker(Generic[Answer]):
    """Asks one store every so often, one question at a time; keeps the newest answer, and since when one is owed."""

    def __init__(self, ask: Callable[[], Awaitable[Answer]], *, every: float) -> None:
        self._ask = ask
        self._every = every
        self._asked_at: float | None = None
        self.answer: Answer | None = None
        self.answered_at: float | None = None
        self.problem = ""

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            self._asked_at = time.monotonic()
            try:
                self.answer = await self._ask()
                self.answered_at, self.problem = time.monotonic(), ""
            except PipelineError as error:
                self.answer, self.problem = None, str(error)
            finally:
                self._asked_at = None
            heed_cancellation()
            await asyncio.sleep(self._every)

    def owed_for(self, *, now: float) -> float:
        """For how long an answer has been waited for; 0.0 between questions."""
        return 0.0 if self._asked_at is None else now - self._asked_at

    def recent(self, *, now: float, within: float) -> Answer | None:
        """The newest answer, unless it is older than that."""
        return self.answer if self.answered_at is not None and now - self.answered_at <= within else None
