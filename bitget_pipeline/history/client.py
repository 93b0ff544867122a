"""
The HTTP that asks the exchange: within the shared rate budget, with bounded retries, through the operator's proxy.

Requests come from an exchange's adapter, answers go back into its readers; pipeline/ calls `fetch` with both. What
cannot be helped by repeating (a wrong parameter, a blocked region) is raised at once; the rest after bounded patience.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import aiohttp
import stamina
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError
from yarl import URL

from ..errors import ExchangeBusy, ExchangeUnavailable, MalformedPage, Refused, RegionBlocked, Transient
from ..exchange.contract import Exchange, Request, Venue
from ..guard.breaker import Breaker
from ..guard.rate_limit import Priority
from ..telemetry import count, get_logger

log = get_logger(__name__)

Answer = TypeVar("Answer")

MAX_BODY_BYTES = 64 * 1024 * 1024
"""The longest honest answer, every instrument of a market, has about 3 MB; far beyond that something is wrong."""


GRANT_KEEPS = 0.1
"""Seconds within which a grant must be used: two requests a second are the margin between budget and limit."""


class RateBudget(Protocol):
    """The allowance of requests that all processes of one address share (storage/budget.py)."""

    async def reserve(self, endpoint: str, per_second: float, priority: Priority) -> float:
        """Take one request out of it: 0.0, it may be sent. Else nothing was taken: ask again after so many seconds."""

    async def penalise(self, endpoint: str, per_second: float, seconds: float) -> None:
        """The exchange said that it is too much: nobody asks this endpoint for so long."""

    async def succeeded(self, endpoint: str, per_second: float) -> None:
        """A request was served after a 429; asked only then, not after every request."""

    async def remaining(self, endpoint: str, per_second: float, left: int) -> None:
        """The exchange said how many requests are left in this second."""


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """
    Where requests go. `proxy` is http://, https://, socks4:// or socks5://; `tls` None means the system's defaults.

    `connect_within` and `answer_within` are seconds for one request; bulk lists get `bulk_within`.
    """

    url: str
    proxy: str | None = None
    tls: ssl.SSLContext | None = None
    connect_within: float = 10.0
    answer_within: float = 30.0
    bulk_within: float = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long one question is repeated. Waits in seconds, doubling with jitter up to the ceiling."""

    attempts: int = 8
    deadline: float = 180.0
    first_wait: float = 0.5
    longest_wait: float = 30.0


@dataclass(slots=True)
class Tally:
    """Requests sent for one purpose, repeats included."""

    requests: int = 0
    repeats: int = 0


@dataclass(slots=True)
class VenueClient:
    """
    Asks a venue. Open it with `opened_for`, which closes it too; one per event loop.
    """

    exchange: Venue
    address: HttpAddress
    budget: RateBudget
    session: aiohttp.ClientSession
    patience: Patience = field(default_factory=Patience)
    breakers: dict[str, Breaker] = field(default_factory=dict)
    sent: int = 0
    _busy: set[str] = field(default_factory=set)  # endpoints whose last answer was a 429
    _blocked: RegionBlocked | None = None

    async def fetch(
        self,
        request: Request,
        read: Callable[[int, bytes], Answer],
        *,
        priority: Priority,
        tally: Tally | None = None,
        bulk: bool = False,
    ) -> Answer:
        """
        Send the request and read its answer, repeating while that may help.

        Raises Transient when patience is over (ExchangeBusy, ExchangeUnavailable), Malformed when the answers stay
        unreadable, Refused at once.
        """
        tally = tally if tally is not None else Tally()
        async for attempt in stamina.retry_context(
            on=_worth_repeating,
            attempts=self.patience.attempts,
            timeout=self.patience.deadline,
            wait_initial=self.patience.first_wait,
            wait_max=self.patience.longest_wait,
            wait_jitter=self.patience.first_wait,
        ):
            with attempt:
                if attempt.num > 1:
                    tally.repeats += 1
                return await self._once(request, read, priority=priority, tally=tally, bulk=bulk, tries=attempt.num)
        raise AssertionError("retrying ends with an answer or an error")

    async def fetch_once(self, request: Request, read: Callable[[int, bytes], Answer]) -> Answer:
        """
        Send it once, whatever the breaker says: for a probe, which is there to find out. Its part of the budget has been taken.
        Raises as `fetch` does.
        """
        if self._blocked is not None:
            raise self._blocked
        return await self._asked(request, read, tries=1)

    async def _once(
        self,
        request: Request,
        read: Callable[[int, bytes], Answer],
        *,
        priority: Priority,
        tally: Tally,
        bulk: bool,
        tries: int,
    ) -> Answer:
        if self._blocked is not None:
            raise self._blocked
        breaker = self.breakers.setdefault(request.endpoint, Breaker())
        resting = breaker.resting(now=time.monotonic())
        if resting > 0:
            raise ExchangeUnavailable(
                f"{request.endpoint} failed repeatedly and rests", where=self.address.url, retry_after=resting
            )
        await allowed(self.budget, request.endpoint, request.per_second, priority)
        tally.requests += 1
        return await self._asked(request, read, bulk=bulk, tries=tries)

    async def _asked(
        self, request: Request, read: Callable[[int, bytes], Answer], *, tries: int, bulk: bool = False
    ) -> Answer:
        """Send it and read the answer; breaker and budget hear of the outcome."""
        breaker = self.breakers.setdefault(request.endpoint, Breaker())
        headers: dict[str, str] = {}
        try:
            status, headers, body = await self._send(request, bulk=bulk)
            answer = read(status, body)
        except ExchangeBusy as busy:
            breaker.succeeded(now=time.monotonic())  # it is there; the budget deals with the rest
            count("history.busy")
            busy.retry_after = told_to_wait(headers) or busy.retry_after
            seconds = busy.retry_after or min(30.0, 2.0 ** (tries - 1))
            self._busy.add(request.endpoint)
            await self.budget.penalise(request.endpoint, request.per_second, seconds)
            raise
        except (ExchangeUnavailable, MalformedPage):
            breaker.failed(now=time.monotonic())
            raise
        except Refused as refused:
            breaker.succeeded(now=time.monotonic())
            if isinstance(refused, RegionBlocked):
                self._blocked = refused  # the whole address is affected: nobody should go on asking
            raise
        breaker.succeeded(now=time.monotonic())
        if request.endpoint in self._busy:
            self._busy.discard(request.endpoint)
            await self.budget.succeeded(request.endpoint, request.per_second)
        left = self.exchange.read_headers(headers)
        if left is not None and left < request.per_second / 4:
            await self.budget.remaining(request.endpoint, request.per_second, left)
        return answer

    async def _send(self, request: Request, *, bulk: bool) -> tuple[int, dict[str, str], bytes]:
        url = request.url(self.address.url)
        timeout = aiohttp.ClientTimeout(
            total=self.address.bulk_within if bulk else self.address.answer_within,
            connect=self.address.connect_within,
        )
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


async def allowed(budget: RateBudget, endpoint: str, per_second: float, priority: Priority) -> None:
    """
    Wait until one request may be sent; it has been taken out of the budget then.

    A grant that reaches us late, because this process stood still, is dropped once and asked for again: the requests of
    a stall would otherwise all be sent at its end, more than the exchange allows in a second.
    """
    late_before = False
    while True:
        asked = time.monotonic()
        delay = await budget.reserve(endpoint, per_second, priority)
        heed_cancellation()
        if delay <= 0:
            if late_before or time.monotonic() - asked < GRANT_KEEPS:
                return
            late_before = True
            count("history.grants_late")
            continue
        if delay > 30:
            log.warning("history.closed_by_budget", endpoint=endpoint, seconds=round(delay))
        await asyncio.sleep(delay)


def heed_cancellation() -> None:
    """
    Raise CancelledError if this task was cancelled and the cancellation got lost in a library.

    Python 3.11's `asyncio.wait_for`, which redis-py uses, drops a cancellation that arrives together with the result.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


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
    exchange: Exchange, address: HttpAddress, budget: RateBudget, *, patience: Patience | None = None
) -> AsyncIterator[HistoryClient]:
    """A client that can be used until the end of the block."""
    async with _session(address) as session:
        yield HistoryClient(exchange, address, budget, session, patience or Patience())


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
