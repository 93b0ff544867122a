"""
What a request asks for: who, in which session, with which settings and parameters, and the text or data it brings.

From an aiohttp request to `server.py`. The names are those of ClickHouse's HTTP interface (HTTPHandler.cpp).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import BodyPartReader, web

from .codecs import chosen_encoding, decoder
from .config import WarehouseConfig
from .outside import setting_reaches_outside
from .refusals import refusal

# Parameters that ClickHouse's HTTP handler keeps to itself; client_protocol_version and role mean nothing to chDB.
_NOT_SETTINGS = frozenset(
    {
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "quota_key",
        "session_id",
        "session_timeout",
        "session_check",
        "close_session",
        "query_id",
        "compress",
        "decompress",
        "buffer_size",
        "wait_end_of_query",
        "client_protocol_version",
        "role",
        "stacktrace",
        "enable_http_compression",
        "http_zlib_compression_level",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
        "http_write_exception_in_output_format",
        "http_native_compression_disable_checksumming_on_decompress",
        "http_wait_end_of_query",
        "http_response_buffer_size",
    }
)
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_FORM_BYTES = 256 << 20


@dataclass(frozen=True)
class ExternalTable:
    """A table that lives for one statement, uploaded with it."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass
class Asked:
    """One request, understood. `text` is the part of the statement known so far, `body` brings the rest of it or its data."""

    query_id: str
    database: str
    settings: dict[str, str]
    params: dict[str, str]
    text: bytes
    body: AsyncIterator[bytes]
    default_format: str
    wait_for_end: bool
    read_only: bool
    encoding: str
    zlib_level: int
    session_id: str
    session_timeout: float
    session_check: bool
    close_session: bool
    external: list[ExternalTable] = field(default_factory=list)


def check_credentials(request: web.Request, config: WarehouseConfig) -> None:
    """Raise a refusal (516) unless user and password are ours; compared in a time that tells nothing."""
    user, password = _credentials(request)
    right_user = hmac.compare_digest(user.encode(), config.user.encode())
    right_password = not config.password or hmac.compare_digest(password.encode(), config.password.encode())
    if not (right_user and right_password):
        raise refusal(
            516,
            f"{user}: Authentication failed: password is incorrect, or there is no user with such name.",
        )


def _credentials(request: web.Request) -> tuple[str, str]:
    """User and password, from ClickHouse's own headers, else basic authorisation, else the address."""
    if "X-ClickHouse-User" in request.headers or "X-ClickHouse-Key" in request.headers:
        return request.headers.get("X-ClickHouse-User", "default"), request.headers.get("X-ClickHouse-Key", "")
    authorisation = request.headers.get("Authorization", "")
    if authorisation:
        scheme, _, token = authorisation.partition(" ")
        try:
            if scheme.lower() != "basic":
                raise ValueError
            user, _, password = base64.b64decode(token.strip(), validate=True).decode().partition(":")
        except (ValueError, binascii.Error):
            raise refusal(516, "Authentication failed: only Basic authorisation is understood.") from None
        return user, password
    return request.query.get("user", "default"), request.query.get("password", "")


async def understood(request: web.Request) -> Asked:
    """
    Read a request up to its body. Raises refusals.

    A multipart form is read whole: its fields join the address's parameters, its files become external tables.
    """
    given = dict(request.query)
    files: dict[str, bytes] = {}
    body = _raw(request)
    if request.content_type == "multipart/form-data":
        fields, files = await _form(request)
        given |= fields
        body = _nothing()
    elif given.get("decompress") == "1":
        raise refusal(48, "decompress=1 (ClickHouse's own block compression) is not supported: use Content-Encoding.")
    if given.get("compress") == "1":
        raise refusal(48, "compress=1 (ClickHouse's own block compression) is not supported: use Accept-Encoding.")
    of_files = {f"{name}_{what}" for name in files for what in ("format", "structure", "types")}
    settings = {k: v for k, v in given.items() if k not in _NOT_SETTINGS | of_files and not k.startswith("param_")}
    for name in settings:
        if not _SETTING_NAME.fullmatch(name):
            raise refusal(115, f"Unknown setting {name!r}.")
        if (denied := setting_reaches_outside(name)) is not None:
            raise denied
    query_id = given.get("query_id", "") or str(uuid.uuid4())
    if not query_id.isprintable() or len(query_id) > 256:
        raise refusal(36, "A query_id has at most 256 printable characters.")
    query = given.get("query", "").encode("utf-8", "surrogateescape")
    compressing = given.get("enable_http_compression", "0") in ("1", "true")
    return Asked(
        query_id=query_id,
        database=given.get("database", request.headers.get("X-ClickHouse-Database", "")),
        settings=settings,
        params={k[6:]: v for k, v in given.items() if k.startswith("param_")},
        # As ClickHouse does: the address's statement, a line break, the body.
        text=query + b"\n" if query and not isinstance(body, _Nothing) else query,
        body=body,
        default_format=given.get("default_format", request.headers.get("X-ClickHouse-Format", "TabSeparated")),
        wait_for_end=given.get("wait_end_of_query", given.get("http_wait_end_of_query", "0")) in ("1", "true"),
        read_only=request.method in ("GET", "HEAD"),
        encoding=chosen_encoding(request.headers.get("Accept-Encoding", "")) if compressing else "",
        zlib_level=_number(given.get("http_zlib_compression_level"), default=3, most=9),
        session_id=given.get("session_id", ""),
        session_timeout=float(_number(given.get("session_timeout"), default=60, most=3600)),
        session_check=given.get("session_check", "0") in ("1", "true"),
        close_session=given.get("close_session", "0") in ("1", "true"),
        external=[_external(name, data, given) for name, data in files.items()],
    )


def _number(text: str | None, *, default: int, most: int) -> int:
    if not text:
        return default
    if not text.isdigit():
        raise refusal(36, f"{text!r} is not a number.")
    return min(int(text), most)


def _external(name: str, data: bytes, given: dict[str, str]) -> ExternalTable:
    structure = given.get(f"{name}_structure", "")
    if not structure and given.get(f"{name}_types"):
        kinds = _split_types(given[f"{name}_types"])
        structure = ", ".join(f"_{number} {kind}" for number, kind in enumerate(kinds, 1))
    if not structure:
        raise refusal(36, f"Neither structure nor types have been provided for external table {name}.")
    return ExternalTable(name, structure, given.get(f"{name}_format", "TabSeparated"), data)


def _split_types(text: str) -> list[str]:
    """Split at the commas that stand in no parenthesis."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


async def _form(request: web.Request) -> tuple[dict[str, str], dict[str, bytes]]:
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    room = _MOST_FORM_BYTES
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            raise refusal(36, "Nested multipart forms are not understood.")
        pieces = []
        while piece := await part.read_chunk(1 << 16):
            room -= len(piece)
            if room < 0:
                raise refusal(36, f"The form is larger than {_MOST_FORM_BYTES >> 20} MiB.")
            pieces.append(bytes(piece))
        data = b"".join(pieces)
        name = part.name or ""
        if part.filename is None:
            # Statements may hold bytes that are no UTF-8; they come back unharmed through the same error handler.
            fields[name] = data.decode("utf-8", "surrogateescape")
        else:
            files[name] = data
    return fields, files


async def _raw(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes, decompressed."""
    decode = decoder(request.headers.get("Content-Encoding", ""))
    async for piece in request.content.iter_any():
        for plain in decode.feed(piece):
            yield plain
    decode.finish()


class _Nothing:
    """No body."""

    def __aiter__(self) -> _Nothing:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


def _nothing() -> AsyncIterator[bytes]:
    return _Nothing()
