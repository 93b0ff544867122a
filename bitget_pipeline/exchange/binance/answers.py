"""
What an HTTP answer of Binance says: status and body in, rows or the right error out.

An answer is bare JSON with status 200; an error is `{"code": -1121, "msg": "…"}` with another status. The statuses of
refusal decide before the code, because 418 and 429 share one. Whatever is no answer (an HTML page, an empty body, JSON
that breaks off) counts as the exchange being unavailable. Used by adapter.py; error codes are data in codes.py.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Raw

from ... import telemetry
from ...errors import (
    ExchangeBusy,
    ExchangeUnavailable,
    MalformedPage,
    PipelineError,
    RegionBlocked,
    RequestRefused,
)
from ..rows import Rows
from .codes import BAN, CODES, FIREWALL, MINUTE
from .wire import Refusal

Wire = TypeVar("Wire")
Answer = TypeVar("Answer")

_refusal = msgspec.json.Decoder(Refusal).decode
_REGION_WORDS = ("restricted location", "country", "region")


def checked(status: int, body: bytes, *, where: str) -> bytes:
    """The body of a successful answer. Raises what the answer means otherwise."""
    start = body[:256].lstrip()
    if status != 200:
        raise _refused(status, body, where=where)
    if start.startswith(b"{") and b'"code"' in start:
        refusal = _read_refusal(body)
        if refusal is not None and refusal.code is not None:
            raise _refused(status, body, where=where)
    if not start.startswith((b"{", b"[")):
        what = "an empty answer" if not start else "a web page or other text instead of an answer"
        raise ExchangeUnavailable(f"{what} (HTTP {status})", where=where, remedy="it is tried again")
    return body


def read(decoder: msgspec.json.Decoder[Answer], body: bytes, *, where: str) -> Answer:
    """An answer that is one object. Raises MalformedPage or ExchangeUnavailable when it is something else."""
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable(error, where=where) from None


def rows(reader: Rows[Wire], body: bytes | Raw, *, where: str) -> tuple[list[Wire], list[str]]:
    """The rows of an answer and why others were set aside. Raises MalformedPage when it holds no list."""
    try:
        return reader.read(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable(error, where=where) from None


def _unreadable(error: Exception, *, where: str) -> PipelineError:
    if isinstance(error, msgspec.ValidationError):
        return MalformedPage(f"the answer makes no sense: {error}", where=where, remedy="it is set aside")
    return ExchangeUnavailable("an answer that breaks off or is no JSON", where=where, remedy="it is tried again")


def _read_refusal(body: bytes) -> Refusal | None:
    try:
        return _refusal(body)
    except (ValueError, RecursionError):
        return None


def _refused(status: int, body: bytes, *, where: str) -> PipelineError:
    refusal = _read_refusal(body) or Refusal()
    said = f"HTTP {status}, code {refusal.code}: {refusal.msg}" if refusal.code is not None else f"HTTP {status}"
    text = (refusal.msg or body[:2000].decode(errors="replace")).lower()
    if status == 451 or (status == 403 and any(word in text for word in _REGION_WORDS)):
        return RegionBlocked(
            f"Binance does not serve this region ({said})",
            where=where,
            remedy="use a network it serves; without it there is nothing to fail over to",
        )
    if status == 418:
        return ExchangeBusy(
            f"this address is banned for a while ({said})", where=where, remedy="it is tried again", retry_after=BAN
        )
    if status == 403:
        return ExchangeBusy(
            f"the exchange's firewall refuses us ({said})",
            where=where,
            remedy="it is tried again",
            retry_after=FIREWALL,
        )
    if status == 429:
        return ExchangeBusy(f"too many requests ({said})", where=where, remedy="it is tried again", retry_after=MINUTE)
    meaning = CODES.get(refusal.code) if refusal.code is not None else None
    if meaning is not None:
        return meaning.raised(said, where=where)
    if refusal.code is not None:
        telemetry.count("exchange.unknown_codes")
    if status == 408 or status >= 500:
        return ExchangeUnavailable(f"the exchange failed ({said})", where=where, remedy="it is tried again")
    return RequestRefused(
        f"the exchange refuses ({said})",
        where=where,
        remedy="check the base address of Binance and any proxy on the way",
    )
