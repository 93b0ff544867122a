"""
Trades on local disk while Redis cannot take them: append-only files, drained in order later.

Written by pipeline/live.py when the stream is full or away, read back by it when the stream is there again. A frame is
its length, its CRC-32 and a batch (payload.py). A file that a crash cut off is read up to the cut. A file is removed
only after what it held went into the stream, so a crash in between brings trades twice, which at rest are once.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import DiskFull
from ..market.trade import TradeBatch
from ..telemetry import count, get_logger
from .payload import decode_batch, encode_batch

log = get_logger(__name__)

_HEAD = struct.Struct("<II")  # length and CRC-32 of what follows
SUFFIX = ".spill"


@dataclass(frozen=True, slots=True)
class SpillState:
    """What lies on disk."""

    files: int
    bytes: int


class Spill:
    """
    The spill folder of one shard, used by one process (the one with the lease).

    `file_bytes` is where a new file begins, `most_bytes` the bound of all: past it, DiskFull.
    """

    def __init__(self, folder: Path, *, file_bytes: int = 32 * 2**20, most_bytes: int = 4 * 2**30) -> None:
        self.folder = folder
        self._file_bytes = file_bytes
        self._most_bytes = most_bytes
        self._open: BinaryIO | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, batches: Sequence[TradeBatch]) -> None:
        """Write batches and wait until the disk has them. Raises DiskFull; then nothing of them counts as written."""
        frames = bytearray()
        for batch in batches:
            data = encode_batch(batch)
            frames += _HEAD.pack(len(data), zlib.crc32(data)) + data
        if self.state().bytes + len(frames) > self._most_bytes:
            raise DiskFull(
                f"the spill holds its bound of {self._most_bytes:,} bytes",
                where=str(self.folder),
                remedy="bring Redis and ClickHouse back, it drains by itself",
            )
        file = self._current()
        start = file.tell()
        try:
            file.write(frames)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            self._cut(file, start)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull("no room for spilled trades", where=str(self.folder), remedy="free space") from error
            raise
        count("spill.batches", len(batches))

    def files(self) -> list[Path]:
        """The files, oldest first."""
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def read(self, file: Path) -> Iterator[TradeBatch]:
        """
        The batches of a file in order. What a crash left half written at its end is not counted as held and is left
        out; a frame that is damaged ends the file, with a line in the log.
        """
        data = file.read_bytes()
        at = 0
        while at < len(data):
            body = at + _HEAD.size
            if body > len(data):
                break
            length, checksum = _HEAD.unpack_from(data, at)
            frame = data[body : body + length]
            if len(frame) < length or zlib.crc32(frame) != checksum:
                break
            yield decode_batch(frame, where=f"{file} at byte {at}")
            at = body + length
        if at < len(data):
            count("spill.files_cut")
            log.warning("spill.file_cut", file=str(file), read=at, bytes=len(data))

    def remove(self, file: Path) -> None:
        """What the file held is in the stream."""
        if self._open is not None and Path(self._open.name) == file:
            self.close()
        file.unlink(missing_ok=True)

    def state(self) -> SpillState:
        """How much lies on disk."""
        sizes = [file.stat().st_size for file in self.files()]
        return SpillState(len(sizes), sum(sizes))

    def close(self) -> None:
        """Close the file that is being written; the next append begins another."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _current(self) -> BinaryIO:
        if self._open is not None and self._open.tell() >= self._file_bytes:
            self.close()
        if self._open is None:
            # Never the file of a predecessor: a cut-off frame at its end would hide what came after it.
            last = max((int(file.stem) for file in self.files()), default=0)
            self._open = (self.folder / f"{last + 1:012d}{SUFFIX}").open("xb")
        return self._open

    def _cut(self, file: BinaryIO, start: int) -> None:
        """Take back a write that failed half-way; if even that fails, the next append begins another file."""
        try:
            os.ftruncate(file.fileno(), start)
            file.seek(start)
        except OSError:
            self._open = None
