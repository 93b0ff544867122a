"""
How answers look on the wire: headers, compression, and errors before and in the middle of a body.

From `work.py`'s answers and `refusals.py` to aiohttp; the header names and the exception footer are those of ClickHouse's
HTTP interface (WriteBufferFromHTTPServerResponse.cpp).
"""

from __future__ import annotations

import secrets

from aiohttp import web

from .asked import Asked
from .codecs import Encoder, encoder
from .refusals import Refusal
from .work import Answer, Figures

_CONTENT_TYPES = (
    ("JSONEACHROW", "application/x-ndjson; charset=UTF-8"),
    ("JSON", "application/json; charset=UTF-8"),
    ("CSV", "text/csv; charset=UTF-8; header=absent"),
    ("TABSEPARATED", "text/tab-separated-values; charset=UTF-8"),
    ("TSV", "text/tab-separated-values; charset=UTF-8"),
    ("PRETTY", "text/plain; charset=UTF-8"),
    ("VERTICAL", "text/plain; charset=UTF-8"),
    ("XML", "application/xml; charset=UTF-8"),
    ("PARQUET", "application/octet-stream"),
)


def _content_type(format_: str) -> str:
    upper = format_.upper()
    if not upper:
        return "text/plain; charset=UTF-8"
    return next((kind for start, kind in _CONTENT_TYPES if upper.startswith(start)), "application/octet-stream")


class Voice:
    """Speaks to one client about one request."""

    def __init__(self, request: web.Request, *, timezone: str, version: str) -> None:
        self._request = request
        self._timezone = timezone
        self._version = version
        self.response: web.StreamResponse | None = None
        self._encoder: Encoder | None = None
        self._tag = secrets.token_hex(8)

    def _headers(self, asked: Asked | None) -> dict[str, str]:
        headers = {"X-ClickHouse-Server-Display-Name": "bitget_pipeline", "X-ClickHouse-Timezone": self._timezone}
        if asked is not None:
            headers["X-ClickHouse-Query-Id"] = asked.query_id
        return headers

    async def begin(self, asked: Asked, answer: Answer) -> None:
        """Headers and the first pieces. A short answer is sent whole, a longer one in chunks."""
        headers = self._headers(asked) | {
            "X-ClickHouse-Summary": answer.figures.header(),
            "Content-Type": _content_type(answer.format),
        }
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        if asked.encoding and answer.pieces:
            headers["Content-Encoding"] = asked.encoding
        self._encoder = encoder(asked.encoding if answer.pieces else "", level=asked.zlib_level)
        response = web.StreamResponse(headers=headers)
        self.response = response
        if not answer.more:
            data = b"".join([self._encoder.feed(piece) for piece in answer.pieces]) + self._encoder.finish()
            response.content_length = len(data)
            await response.prepare(self._request)
            if data:
                await response.write(data)
            await response.write_eof()
            return
        response.headers["X-ClickHouse-Exception-Tag"] = self._tag
        response.enable_chunked_encoding()
        await response.prepare(self._request)
        for piece in answer.pieces:
            await self.more(piece)

    async def more(self, piece: bytes) -> None:
        """The next piece of an answer that was begun with a stream."""
        assert self.response is not None
        assert self._encoder is not None
        if data := self._encoder.feed(piece):
            await self.response.write(data)

    async def end(self) -> None:
        """The end of an answer that was begun with a stream."""
        assert self.response is not None
        assert self._encoder is not None
        if data := self._encoder.finish():
            await self.response.write(data)
        await self.response.write_eof()

    async def broke(self, why: Refusal) -> None:
        """An error after the headers: the footer that tells it apart from data, by a tag no data can guess."""
        text = self._text(why).encode()
        tag = self._tag.encode()
        footer = b"\r\n__exception__\r\n" + tag + b"\r\n" + text + str(len(text)).encode() + b" " + tag
        await self.more(footer + b"\r\n__exception__\r\n")
        await self.end()

    def refuse(self, why: Refusal, asked: Asked | None) -> web.Response:
        """An error before any header."""
        headers = self._headers(asked) | {
            "X-ClickHouse-Exception-Code": str(why.code),
            "X-ClickHouse-Summary": Figures().header(),
            "Content-Type": "text/plain; charset=UTF-8",
        }
        return web.Response(status=why.status, body=self._text(why).encode(), headers=headers)

    def _text(self, why: Refusal) -> str:
        return f"{why.text} (version {self._version})\n"
