"""
Does the exchange answer now, how fast, and what does its clock say? A question every few seconds, whose outcome others hear.

Asks a venue's server time through its HTTP client (history/client.py), with health priority and without repeats; attention.py
judges the answers, and the failover counts the failed ones. One that could not be asked (our own budget has no room, or this
process stood still meanwhile) says nothing of the exchange, and nobody hears of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ...errors import ExchangeBusy, PipelineError, Withheld
from ...guard.rate_limit import Priority
from ...history.allowance import heed_cancellation
from ...history.client import VenueClient

BUDGET_WITHIN = 0.5
"""Seconds for the shared budget to answer; a Redis that hangs must not look like an exchange that does."""
STOOD_STILL = 1.0
"""A time limit that ends a probe this much too late (seconds) was noticed by a process that stood still meanwhile."""


@dataclass(frozen=True, slots=True)
class Probe:
    """
    One question and its outcome. `at` is when it was sent (time.monotonic()), `latency` the seconds until the answer, `skew`
    how many seconds the exchange's clock is ahead of ours; both None without an answer that tells. `problem` is one line.

    A refusal for too many requests is an answer: the exchange is there.
    """

    at: float
    answered: bool
    latency: float | None
    skew: float | None
    problem: str = ""


async def _at_once() -> None:
    """Nobody has to be asked first."""


class Prober:
    """
    Asks every so often and tells each of `listeners`. A probe that takes longer than `within` failed; the next one follows
    at once then, never two at a time.

    `ask` gives the server's time (Unix ms), or raises as history/client.py does. `permit` is awaited before each probe and its
    time counts for nothing; it raises Withheld when there is to be none now, and `withheld` says why while that lasts.
    `clock` is our own time of the day, Unix ms.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[int]],
        *,
        every: float = 3.0,
        within: float = 3.0,
        permit: Callable[[], Awaitable[None]] = _at_once,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.listeners: list[Callable[[Probe], None]] = []
        self.withheld = ""
        self._ask = ask
        self._every = every
        self._within = within
        self._permit = permit
        self._clock = clock

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            began = time.monotonic()
            probe = await self.probe()
            heed_cancellation()
            if probe is not None:
                for listener in self.listeners:
                    listener(probe)
            await asyncio.sleep(max(0.0, began + self._every - time.monotonic()))

    async def probe(self) -> Probe | None:
        """Ask once; None when it could not be asked, and `withheld` says why."""
        try:
            await self._permit()
        except Withheld as error:
            self.withheld = str(error)
            return None
        self.withheld = ""
        at, sent_ms = time.monotonic(), self._clock()
        try:
            async with asyncio.timeout(self._within):
                server_ms = await self._ask()
        except TimeoutError:
            if time.monotonic() - at > self._within + STOOD_STILL:
                self.withheld = "this process stood still"
                return None
            return Probe(at, False, None, None, f"no answer within {self._within:g} s")
        except ExchangeBusy as error:
            return Probe(at, True, time.monotonic() - at, None, str(error))
        except PipelineError as error:
            return Probe(at, False, None, None, str(error))
        latency = time.monotonic() - at
        return Probe(at, True, latency, (server_ms - (sent_ms + self._clock()) / 2) / 1000)


def time_prober(client: VenueClient, *, every: float = 3.0, within: float = 3.0) -> Prober:
    """A prober of the venue that a client asks: its server time, one request in the budget's part for health each time."""
    request = client.exchange.server_time()

    async def permit() -> None:
        try:
            async with asyncio.timeout(BUDGET_WITHIN):
                delay = await client.budget.reserve(request.endpoint, request.per_second, Priority.HEALTH)
        except TimeoutError:
            return  # a probe is a small part of what one process may send while nobody can tell
        if delay > 0:
            raise Withheld("the request budget has no room for a probe", where=request.endpoint, retry_after=delay)

    return Prober(
        lambda: client.fetch_once(request, client.exchange.read_server_time), every=every, within=within, permit=permit
    )
