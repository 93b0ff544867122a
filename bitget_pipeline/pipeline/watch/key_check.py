"""
What a key may do, asked of the exchange by a signed call.

Input: a client of the exchange and the key; output: the exchange's verdict, or the reason why the key is not used. Asked by the
commands before a key is stored, and by the reconfiguration sensor while it is in use.
"""

from __future__ import annotations

import aiohttp
import stamina
from yarl import URL

from ...errors import CredentialsRefused, ExchangeUnavailable, Transient
from ...exchange.contract import Credentials, Family, KeyVerdict
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient

OUR_CLOCK = frozenset({"40003", "40004", "40005", "40008"})
"""Codes that say nothing of the key: the request's time was wrong."""


class Alone:
    """A budget for a single request at a time that nobody else is to be asked about."""

    async def reserve(self, endpoint: str, per_second: float, priority: Priority, *, along: object = ()) -> float:
        """At once."""
        return 0.0

    async def penalise(self, endpoint: str, per_second: float, seconds: float) -> None:
        """We do not come back."""

    async def succeeded(self, endpoint: str, per_second: float) -> None:
        """We do not come back."""

    async def remaining(self, endpoint: str, per_second: float, left: int) -> None:
        """We do not come back."""


async def ask_account(client: HistoryClient, credentials: Credentials) -> KeyVerdict:
    """
    The verdict of the family of calls that the account answers to. Raises CredentialsRefused, ExchangeUnavailable and its
    kin.
    """
    verdict = await _ask_family(client, credentials, Family.CLASSIC)
    if verdict.family is Family.UNIFIED and not verdict.rights:
        verdict = await _ask_family(client, credentials, Family.UNIFIED)
    return verdict


def require_read_only(verdict: KeyVerdict, *, allowed: bool, where: str) -> None:
    """Raises CredentialsRefused for a key that may do more than read, unless that is `allowed`."""
    if verdict.read_only or allowed:
        return
    rights = f"may do more than read ({', '.join(verdict.rights)})"
    raise CredentialsRefused(
        f"the Bitget key {rights if verdict.rights else 'may do nobody knows what: the exchange names no rights'}",
        where=where,
        remedy="make a read-only key, or allow this one with BITGET_PIPELINE_ALLOW_TRADING_KEY=true",
    )


async def server_time(client: HistoryClient) -> int:
    """The exchange's clock, Unix ms."""
    exchange = client.exchange
    return await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)


def _worth_repeating(error: Exception) -> bool:
    """One such call a second is allowed, and a key that "does not exist" was once seen to exist (reference 8.4)."""
    return isinstance(error, Transient) or (isinstance(error, CredentialsRefused) and error.code == "40037")


@stamina.retry(on=_worth_repeating, attempts=3, wait_initial=1.1, wait_jitter=0.2)
async def _ask_family(client: HistoryClient, credentials: Credentials, family: Family) -> KeyVerdict:
    exchange = client.exchange
    request = exchange.account_info(family)
    headers = exchange.signed_headers(request, credentials, now_ms=await server_time(client))
    proxy = client.address.proxy
    try:
        async with client.session.get(
            URL(request.url(client.address.url), encoded=True),
            headers=headers,
            proxy=proxy if proxy and proxy.startswith("http") else None,  # SOCKS is the connector's business
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=client.address.answer_within),
        ) as response:
            status, body = response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ExchangeUnavailable(
            f"the key could not be checked: {error or type(error).__name__}", where=client.address.url
        ) from error
    return exchange.read_account_info(status, body)
