"""
Compression of requests and answers, piece by piece, as HTTP and clickhouse-connect name it.

Between the socket and the engine, both ways; used by `body.py` and `answers.py`. The caller runs it off the event loop.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import lz4.frame
import zstandard

from .refusals import refusal

_PIECE = 4 << 20


class Decoder(Protocol):
    """Takes compressed pieces, gives plain ones."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain pieces that `data` completes."""

    def finish(self) -> None:
        """Raises a refusal when the data ended too early."""


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> None:
        pass


class _Framed:
    """
    A decoder for formats whose frames may follow one another.

    clickhouse-connect compresses every block on its own, so a body is a row of frames, none of which need end where a
    piece from the network ends.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._frame = self._new()
        self._begun = False

    def _new(self) -> _Frame:
        if self._encoding == "lz4":
            return _Lz4Frame()
        if self._encoding == "zstd":
            return _ZstdFrame()
        return _ZlibFrame(self._encoding)

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            while data:
                self._begun = True
                plain, data = self._frame.decode(data)
                if plain:
                    yield plain
                if self._frame.ended:
                    self._frame, self._begun = self._new(), False
        except (RuntimeError, zlib.error, zstandard.ZstdError) as error:
            raise refusal(117, f"The request body is not valid {self._encoding}: {error}.") from None

    def finish(self) -> None:
        if self._begun:
            raise refusal(117, f"The request body ends in the middle of its {self._encoding} data.")


class _Frame(Protocol):
    ended: bool

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """(plain bytes, compressed bytes that are left to decode)."""


class _Lz4Frame:
    def __init__(self) -> None:
        self._decoder = lz4.frame.LZ4FrameDecompressor()
        self.ended = False

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        plain = self._decoder.decompress(data)
        self.ended = self._decoder.eof
        return plain, (self._decoder.unused_data or b"") if self.ended else b""


class _ZstdFrame:
    def __init__(self) -> None:
        self._decoder = zstandard.ZstdDecompressor().decompressobj()
        self.ended = False

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        plain = self._decoder.decompress(data)
        self.ended = self._decoder.eof
        return plain, self._decoder.unused_data if self.ended else b""


class _ZlibFrame:
    def __init__(self, encoding: str) -> None:
        # 32 + MAX_WBITS tells gzip and zlib headers apart by itself; "deflate" is zlib in HTTP.
        self._decoder = zlib.decompressobj(32 + zlib.MAX_WBITS)
        self.ended = False

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        plain = self._decoder.decompress(data, _PIECE)
        self.ended = self._decoder.eof
        return plain, self._decoder.unused_data if self.ended else self._decoder.unconsumed_tail


def decoder(encoding: str) -> Decoder:
    """The decoder for a Content-Encoding. Raises a refusal (48) for one that is not served."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return _Plain()
    if encoding in ("gzip", "x-gzip", "deflate", "zstd", "lz4"):
        return _Framed(encoding)
    raise refusal(48, f"Content-Encoding {encoding!r} is not supported: use gzip, deflate, zstd, lz4 or none.")


class Encoder(Protocol):
    """Takes plain pieces, gives compressed ones."""

    def feed(self, data: bytes) -> bytes:
        """Compressed bytes that are ready, perhaps none."""

    def finish(self) -> bytes:
        """The end of the compressed data."""


class _Identity:
    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _Lz4:
    def __init__(self) -> None:
        self._encoder = lz4.frame.LZ4FrameCompressor(auto_flush=True)
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        head: bytes = b"" if self._begun else self._encoder.begin()
        self._begun = True
        return head + bytes(self._encoder.compress(data))

    def finish(self) -> bytes:
        head: bytes = b"" if self._begun else self._encoder.begin()
        return head + bytes(self._encoder.flush())


class _Zstd:
    def __init__(self) -> None:
        self._encoder = zstandard.ZstdCompressor(level=1).compressobj()

    def feed(self, data: bytes) -> bytes:
        return self._encoder.compress(data)

    def finish(self) -> bytes:
        return self._encoder.flush()


class _Zlib:
    def __init__(self, window: int, level: int) -> None:
        self._encoder = zlib.compressobj(level, zlib.DEFLATED, window)

    def feed(self, data: bytes) -> bytes:
        return self._encoder.compress(data)

    def finish(self) -> bytes:
        return self._encoder.flush()


# By cost: on loopback the cheapest to undo is the fastest.
SERVED = ("lz4", "zstd", "gzip", "deflate")


def chosen_encoding(accept: str) -> str:
    """The best of the encodings a client accepts, "" for none."""
    wanted = {part.split(";")[0].strip().lower() for part in accept.split(",") if "q=0" not in part.replace("q=0.", "")}
    return next((name for name in SERVED if name in wanted), "")


def encoder(encoding: str, *, level: int = 3) -> Encoder:
    """The encoder for one of `SERVED`, or the identity for ""; `level` is that of gzip and deflate."""
    if encoding == "lz4":
        return _Lz4()
    if encoding == "zstd":
        return _Zstd()
    if encoding in ("gzip", "deflate"):
        return _Zlib(31 if encoding == "gzip" else 15, min(max(level, 1), 9))
    return _Identity()
