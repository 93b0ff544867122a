"""
The HTTP that asks the exchange: within the shared rate budget, with bounded retries, through the operator's proxy.

Requests come from an exchange's adapter, answers go back into its readers; pipeline/ calls `fetch` with both. What
cannot be helped by repeating (a wrong parameter, a blocked region) is raised at once; the rest after bounded patience.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Protocol, TypeVar

import aiohttp
import stamina
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError
from yarl import URL

from ..errors import (
    ExchangeBusy,
    ExchangeUnavailable,
    InstrumentResting,
    MalformedPage,
    Refused,
    RegionBlocked,
    Transient,
)
from ..exchange.contract import Exchange, Request, Venue
from ..guard.backoff import Backoff
from ..guard.breaker import Breaker, State
from ..guard.rate_limit import Priority
from ..telemetry import count
from .allowance import Command, RateBudget, allowed

Answer = TypeVar("Answer")

MAX_BODY_BYTES = 64 * 1024 * 1024
"""The longest honest answer, every instrument of a market, has about 3 MB; far beyond that something is wrong."""


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """
    Where requests go. `proxy` is http://, https://, socks4:// or socks5://; `tls` None means the system's defaults.

    `connect_within` and `answer_within` are seconds for one request, the longest lists included.
    """

    url: str
    proxy: str | None = None
    tls: ssl.SSLContext | None = None
    connect_within: float = 10.0
    answer_within: float = 30.0


@dataclass(frozen=True, slots=True)
class Patience:
    """
    How often and how long one question is repeated. Waits in seconds: `first_wait`, doubling up to `longest_wait`, of each up
    to a half left to chance, and never less than the exchange said.
    """

    attempts: int = 8
    deadline: float = 180.0
    first_wait: float = 1.0
    longest_wait: float = 30.0

    def wait(self, tries: int, *, told: float, chance: Random) -> float:
        """The seconds before the next try, after so many in vain; `told` is the least the exchange asked for."""
        return max(told, Backoff(base=self.first_wait, ceiling=self.longest_wait).delay(tries, chance))


class BreakerBoard(Protocol):
    """Where a process tells others which family of endpoints it gives a rest (storage/breaker_board.py)."""

    async def rests(self, family: str, seconds: float) -> None:
        """This process asks nothing of the family for so long; 0.0: it asks again. Never raises for a store that is away."""


def region_breaker() -> Breaker:
    """
    How long a blocked region is believed: a minute, up to a quarter of an hour when it is found blocked again. One request then
    finds out whether it still is, so that what runs for weeks takes up its work when a block ends.
    """
    return Breaker(trip_after=1, rest=60.0, longest_rest=900.0)


@dataclass(slots=True)
class Tally:
    """Requests sent for one purpose, repeats included."""

    requests: int = 0
    repeats: int = 0


@dataclass(slots=True)
class VenueClient:
    """
    Asks a venue. Open it with `opened_for`, which closes it too; one per event loop.

    A family of endpoints (`Request.family`) that fails again and again rests by its breaker; a blocked region rests everything.
    """

    exchange: Venue
    address: HttpAddress
    budget: RateBudget
    session: aiohttp.ClientSession
    patience: Patience = field(default_factory=Patience)
    board: BreakerBoard | None = None
    breakers: dict[str, Breaker] = field(default_factory=dict)
    region: Breaker = field(default_factory=region_breaker)
    chance: Random = field(default_factory=Random)
    sent: int = 0
    _busy: set[str] = field(default_factory=set)  # endpoints whose last answer was a 429
    _blocked: RegionBlocked | None = None  # what the exchange said when `region` opened

    async def fetch(
        self,
        request: Request,
        read: Callable[[int, bytes], Answer],
        *,
        priority: Priority,
        tally: Tally | None = None,
        along: list[Command] | None = None,
    ) -> Answer:
        """
        Send the request and read its answer, repeating while that may help. Commands `along` are done in the budget's store
        before the request is sent, and taken out of the list.

        Raises Transient when patience is over (ExchangeBusy, ExchangeUnavailable), Malformed when the answers stay
        unreadable, Refused at once.
        """
        tally = tally if tally is not None else Tally()
        async for attempt in stamina.retry_context(
            on=_worth_repeating,
            attempts=self.patience.attempts,
            timeout=self.patience.deadline,
            wait_initial=self.patience.first_wait / 2,
            wait_max=self.patience.longest_wait,
            wait_jitter=self.patience.first_wait / 2,
        ):
            with attempt:
                if attempt.num > 1:
                    tally.repeats += 1
                return await self._once(request, read, priority=priority, tally=tally, tries=attempt.num, along=along)
        raise AssertionError("retrying ends with an answer or an error")

    async def fetch_once(self, request: Request, read: Callable[[int, bytes], Answer]) -> Answer:
        """
        Send it once, whatever the breaker of its family says: for a probe, which is there to find out. Its part of the budget
        has been taken. Raises as `fetch` does.
        """
        self._heed_the_region()
        return await self._asked(request, read, tries=1)

    async def _once(
        self,
        request: Request,
        read: Callable[[int, bytes], Answer],
        *,
        priority: Priority,
        tally: Tally,
        tries: int,
        along: list[Command] | None,
    ) -> Answer:
        self._heed_the_region()
        resting = self._breaker(request).resting(now=time.monotonic())
        if resting > 0:
            raise ExchangeUnavailable(
                f"{request.family} failed repeatedly and rests", where=self.address.url, retry_after=resting
            )
        await allowed(self.budget, request.endpoint, request.per_second, priority, along=along)
        tally.requests += 1
        return await self._asked(request, read, tries=tries)

    def _heed_the_region(self) -> None:
        """Raises what the exchange said of our region, while that is believed; then one caller finds out."""
        if self._blocked is not None and self.region.resting(now=time.monotonic()) > 0:
            raise self._blocked

    def _breaker(self, request: Request) -> Breaker:
        return self.breakers.setdefault(request.family, Breaker())

    async def _asked(self, request: Request, read: Callable[[int, bytes], Answer], *, tries: int) -> Answer:
        """Send it and read the answer; breakers, budget and board hear of the outcome."""
        breaker = self._breaker(request)
        before = breaker.state
        try:
            return await self._judged(request, read, breaker, tries=tries)
        finally:
            if self.board is not None and breaker.state is not before and breaker.state is not State.TRIAL:
                await self.board.rests(request.family, breaker.rest if breaker.state is State.OPEN else 0.0)

    async def _judged(
        self, request: Request, read: Callable[[int, bytes], Answer], breaker: Breaker, *, tries: int
    ) -> Answer:
        headers: dict[str, str] = {}
        try:
            status, headers, body = await self._send(request)
            answer = read(status, body)
        except ExchangeBusy as busy:
            self._answered(breaker)  # it is there; the budget deals with the rest
            count("history.busy")
            told = told_to_wait(headers) or busy.retry_after
            busy.retry_after = self.patience.wait(tries, told=told, chance=self.chance)
            self._busy.add(request.endpoint)
            await self.budget.penalise(request.endpoint, request.per_second, busy.retry_after)
            raise
        except ExchangeUnavailable as unavailable:
            breaker.failed(now=time.monotonic())
            told = told_to_wait(headers) or unavailable.retry_after
            unavailable.retry_after = self.patience.wait(tries, told=told, chance=self.chance)
            raise
        except MalformedPage:
            breaker.failed(now=time.monotonic())
            raise
        except RegionBlocked as blocked:
            breaker.succeeded(now=time.monotonic())
            self._blocked = blocked  # the whole address is affected: nobody should go on asking
            self.region.failed(now=time.monotonic())
            raise
        except (Refused, InstrumentResting):  # of this question alone
            self._answered(breaker)
            raise
        self._answered(breaker)
        if request.endpoint in self._busy:
            self._busy.discard(request.endpoint)
            await self.budget.succeeded(request.endpoint, request.per_second)
        left = self.exchange.read_headers(headers)
        if left is not None and left < request.per_second / 4:
            await self.budget.remaining(request.endpoint, request.per_second, left)
        return answer

    def _answered(self, breaker: Breaker) -> None:
        """The exchange is there, and serves this region."""
        now = time.monotonic()
        breaker.succeeded(now=now)
        self.region.succeeded(now=now)
        self._blocked = None

    async def _send(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        url = request.url(self.address.url)
        timeout = aiohttp.ClientTimeout(total=self.address.answer_within, connect=self.address.connect_within)
        self.sent += 1
        count("history.requests")
        try:
            async with self.session.get(
                URL(url, encoded=True), timeout=timeout, proxy=_http_proxy(self.address), allow_redirects=False
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise MalformedPage(f"an answer of more than {MAX_BODY_BYTES} bytes", where=request.endpoint)
                return response.status, dict(response.headers), bytes(body)
        except TimeoutError as error:
            raise ExchangeUnavailable(f"no answer within {timeout.total:g} s", where=request.endpoint) from error
        except (ProxyError, ProxyConnectionError, ProxyTimeoutError) as error:  # of neither family below
            raise ExchangeUnavailable(
                f"the proxy does not let us through: {_cause(error)}",
                where=request.endpoint,
                remedy="check BITGET_PIPELINE_PROXY",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ExchangeUnavailable(
                f"the exchange cannot be reached: {_cause(error)}", where=f"{self.address.url}, {request.endpoint}"
            ) from error


@dataclass(slots=True)
class HistoryClient(VenueClient):
    """
    Asks the exchange whose whole market data we keep. Open it with `opened`, which closes it too; one per event loop.
    """

    exchange: Exchange


def told_to_wait(headers: Mapping[str, str]) -> float:
    """The seconds of a `Retry-After` header; 0.0 without one that can be read (RFC 9110 also allows a date)."""
    for name, value in headers.items():
        if name.lower() == "retry-after" and value.strip().isascii() and value.strip().isdecimal():
            return float(value)
    return 0.0


def _worth_repeating(error: Exception) -> bool | float:
    """
    Transient failures, at the earliest when they say; an unreadable page too: torn answers are usual in release windows.
    """
    if isinstance(error, Transient):
        return error.retry_after if error.retry_after > 0 else True
    return isinstance(error, MalformedPage)


def _http_proxy(address: HttpAddress) -> str | None:
    return address.proxy if address.proxy and address.proxy.startswith(("http://", "https://")) else None


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__


@contextlib.asynccontextmanager
async def opened(
    exchange: Exchange,
    address: HttpAddress,
    budget: RateBudget,
    *,
    patience: Patience | None = None,
    board: BreakerBoard | None = None,
) -> AsyncIterator[HistoryClient]:
    """A client that can be used until the end of the block."""
    async with _session(address) as session:
        yield HistoryClient(exchange, address, budget, session, patience or Patience(), board)


@contextlib.asynccontextmanager
async def opened_for(
    venue: Venue, address: HttpAddress, budget: RateBudget, *, patience: Patience | None = None
) -> AsyncIterator[VenueClient]:
    """The same for a venue that is no exchange of ours, such as one that stands in for it; its budget is its own."""
    async with _session(address) as session:
        yield VenueClient(venue, address, budget, session, patience or Patience())


def _session(address: HttpAddress) -> aiohttp.ClientSession:
    tls = address.tls if address.tls is not None else True
    if address.proxy and address.proxy.startswith("socks"):
        connector: aiohttp.BaseConnector = ProxyConnector.from_url(address.proxy, ssl=tls, limit=32)
    else:
        connector = aiohttp.TCPConnector(ssl=tls, limit=32)
    return aiohttp.ClientSession(connector=connector, headers={"User-Agent": "bitget-pipeline"})
