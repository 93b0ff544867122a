"""
What an HTTP answer of Bitget says: status and body in, rows or the right error out.

The body's code decides first, the status second. Whatever is not an answer (an HTML page, an empty body, JSON that
breaks off) counts as the exchange being unavailable. Used by adapter.py; error codes are data in codes.py.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from ... import telemetry
from ...errors import (
    CredentialsRefused,
    ExchangeBusy,
    ExchangeUnavailable,
    ForeignGeneration,
    InstrumentResting,
    MalformedPage,
    PipelineError,
    RegionBlocked,
    RequestRefused,
    UnknownInstrument,
)
from ..rows import Rows, Wire
from .channels import FIRST_GENERATION_SUFFIXES
from .codes import CODES, Meaning, Verdict
from .wire import Envelope

_ENVELOPE = msgspec.json.Decoder(Envelope)
_ROW_KEYS = msgspec.json.Decoder(list[dict[str, Raw]])
_NOTHING = frozenset({b"", b'""', b"null"})

V1_KEYS = frozenset({"symbolName", "priceScale", "fillPrice", "fillQuantity", "baseVol", "quoteVol", "buyOne"})
V3_KEYS = frozenset({"category", "execId", "lastPrice", "turnover", "turnover24h", "priceMultiplier"})
"""Words that only rows of the other generations have."""

REGION = CODES["40000"]


def data(status: int, body: bytes, *, where: str) -> Raw | None:
    """
    The data of a successful answer, None when it has none. Raises what the answer means otherwise.

    A newly listed symbol answers `""` where a list belongs: no rows yet.
    """
    envelope = opened(status, body, where=where)
    meaning = CODES.get(str(envelope.code))
    if meaning is not None and meaning.verdict is Verdict.NO_DATA:
        return None
    if meaning is None or meaning.verdict is not Verdict.SUCCESS:
        raise _refusal(status, envelope, meaning, where=where)
    if status != 200:
        raise _by_status(status, f"the exchange answered HTTP {status}", where=where)
    return None if bytes(envelope.data) in _NOTHING else envelope.data


def opened(status: int, body: bytes, *, where: str) -> Envelope:
    """The envelope of an answer, whatever its code. Raises when there is none."""
    try:
        envelope = _ENVELOPE.decode(body)
    except (ValueError, RecursionError) as error:
        raise _no_envelope(status, body, error, where=where) from None
    if envelope.code is None:
        raise MalformedPage("the answer has no code", where=where, remedy="check that the address is Bitget's V2")
    return envelope


def rows(reader: Rows[Wire], raw: Raw | None, *, where: str) -> tuple[list[Wire], list[str]]:
    """The rows of an answer and why others were set aside. Raises MalformedPage when it holds no list."""
    if raw is None:
        return [], []
    _refuse_other_generations(raw, where=where)
    try:
        good, rejected = reader.read(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedPage(f"the answer holds no rows: {error}", where=where, remedy="it is set aside") from None
    return good, rejected


def foreign(generation: str, *, where: str) -> ForeignGeneration:
    """What to raise for a message of V1 or V3."""
    return ForeignGeneration(
        f"a {generation} message where V2 was expected",
        where=where,
        remedy="use Bitget's V2 addresses (/api/v2/… and /v2/ws/public)",
    )


def _no_envelope(status: int, body: bytes, error: Exception, *, where: str) -> PipelineError:
    text = body.strip()
    if text.startswith(b"[") and status == 200 and isinstance(error, msgspec.ValidationError):
        return foreign("V1", where=where)
    if isinstance(error, msgspec.ValidationError) and status == 200:
        return MalformedPage(f"the answer is no envelope: {error}", where=where, remedy="it is set aside")
    if not text:
        what = f"an empty answer (HTTP {status})"
    elif text.startswith(b"<"):
        what = f"a web page instead of an answer (HTTP {status})"
    else:
        what = f"an answer that breaks off or is no JSON (HTTP {status})"
    return _by_status(status, what, where=where)


def _by_status(status: int, what: str, *, where: str) -> PipelineError:
    """What an answer without a useful code means."""
    if status in (403, 451):
        return RegionBlocked(f"{REGION.what}: {what}", where=where, remedy=REGION.remedy)
    if status == 429:
        return ExchangeBusy("too many requests", where=where, remedy="it is tried again", retry_after=1.0)
    if status == 408 or not 300 <= status < 500:
        return ExchangeUnavailable(what, where=where, remedy="it is tried again")
    return RequestRefused(what, where=where, remedy="check the base address of the exchange and any proxy on the way")


def _refusal(status: int, envelope: Envelope, meaning: Meaning | None, *, where: str) -> PipelineError:
    said = f"code {envelope.code}: {envelope.msg or envelope.message or 'no message'}"
    if meaning is None:
        telemetry.count("exchange.unknown_codes")
        if status in (408, 429) or status >= 500:
            return _by_status(status, said, where=where)
        return RequestRefused(
            f"the exchange refuses with {said}", where=where, remedy="this code is new to us: see its message"
        )
    what = f"{meaning.what} ({said})"
    if meaning.verdict is Verdict.BUSY:
        return ExchangeBusy(what, where=where, remedy=meaning.remedy, retry_after=meaning.wait)
    if meaning.verdict is Verdict.UNAVAILABLE:
        return ExchangeUnavailable(what, where=where, remedy=meaning.remedy, retry_after=meaning.wait)
    if meaning.verdict is Verdict.RESTING:
        return InstrumentResting(what, where=where, remedy=meaning.remedy, retry_after=meaning.wait)
    refusal = _STOPS.get(meaning.verdict, RequestRefused)(what, where=where, remedy=meaning.remedy)
    if isinstance(refusal, CredentialsRefused):
        refusal.code = str(envelope.code)
    return refusal


_STOPS: dict[Verdict, type[PipelineError]] = {
    Verdict.REFUSED: RequestRefused,
    Verdict.UNKNOWN_INSTRUMENT: UnknownInstrument,
    Verdict.REGION: RegionBlocked,
    Verdict.CREDENTIALS: CredentialsRefused,
    Verdict.OTHER_FAMILY: CredentialsRefused,
}


def _refuse_other_generations(raw: Raw, *, where: str) -> None:
    """Look at the rows' words: V1 and V3 rows resemble V2's enough to be misread."""
    try:
        first = _ROW_KEYS.decode(raw)[:1]
    except (ValueError, RecursionError):
        return  # rows that are lists (bars), or no rows at all: the reader says so
    for row in first:
        ends = bytes(row.get("symbol", b"")).decode(errors="replace").strip('"')
        if ends.endswith(FIRST_GENERATION_SUFFIXES) or V1_KEYS & row.keys():
            raise foreign("V1", where=where)
        if V3_KEYS & row.keys():
            raise foreign("V3", where=where)
