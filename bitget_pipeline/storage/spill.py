"""
Trades on local disk while Redis cannot take them: append-only files, drained in order later.

Written by pipeline/live/append.py when the stream is full or away, read back by it, or by its successor, when the stream is
there again. Files are named by the fence of the run that wrote them, so that a run that was cut off never writes into
a successor's. A frame is its length, its CRC-32 and a record; the first record of a file says what it follows on, so
that whoever drains it knows whether something is missing before it. A file that a crash cut off is read up to the cut.
It is removed only after what it held went into the stream: a crash in between brings trades twice, which at rest are
once.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import msgspec

from ..errors import DiskFull, PipelineError
from ..market.instrument import Symbol
from ..market.trade import Arrived, Broke, Follows, Trade, TradeBatch
from ..telemetry import count, get_logger

log = get_logger(__name__)

_HEAD = struct.Struct("<II")  # length and CRC-32 of what follows
SUFFIX = ".spill"


class _Trades(msgspec.Struct, array_like=True, frozen=True, tag="trades"):
    symbol: str
    received_ms: int
    snapshot: bool
    rejected: int
    trades: list[Trade]


class _Broke(msgspec.Struct, array_like=True, frozen=True, tag="broke"):
    symbols: list[str]


class _Follows(msgspec.Struct, array_like=True, frozen=True, tag="follows"):
    newest: dict[str, int]
    broken: list[str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Trades | _Broke | _Follows).decode


@dataclass(frozen=True, slots=True)
class SpillState:
    """What lies on disk, and the bound of it."""

    files: int
    bytes: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class Torn:
    """The rest of a file cannot be read."""


class Spill:
    """
    The spill folder of one shard. It is written by the run with the lease (`own`), and read by it.

    `file_bytes` is where a new file begins, `most_bytes` the bound of all: past it, DiskFull.
    """

    def __init__(self, folder: Path, *, file_bytes: int = 8 * 2**20, most_bytes: int = 4 * 2**30) -> None:
        self.folder = folder
        self._file_bytes = file_bytes
        self._most_bytes = most_bytes
        self._fence = 0
        self._writing = threading.Lock()  # a write goes on when whoever waited for it was cancelled
        self._open: FileIO | None = None
        self._written = 0  # bytes in the file that is open
        self._others = 0  # bytes in all other files, as last seen
        self._files = 0  # how many there are, as last seen
        folder.mkdir(parents=True, exist_ok=True)
        self.files()

    def own(self, fence: int) -> None:
        """From here on new files carry this fence."""
        self.close()
        self._fence = fence

    def append(self, items: Sequence[Arrived], *, follows: Callable[[], Follows]) -> None:
        """
        Write items and wait until the disk has them; `follows` tells what they follow on, when a file begins with them.

        Raises DiskFull; then nothing of them counts as written.
        """
        with self._writing:
            self._append(items, follows)

    def _append(self, items: Sequence[Arrived], follows: Callable[[], Follows]) -> None:
        if self._open is not None and self._written >= self._file_bytes:
            self.close()
        frames = bytearray()
        for record in ([follows()] if self._open is None else []) + list(items):
            data = _encode(_wire(record))
            frames += _HEAD.pack(len(data), zlib.crc32(data)) + data
        if self._others + self._written + len(frames) > self._most_bytes:
            self.files()  # somebody may have made room
            if self._others + self._written + len(frames) > self._most_bytes:
                raise DiskFull(
                    f"the spill holds its bound of {self._most_bytes:,} bytes",
                    where=str(self.folder),
                    remedy="bring Redis and ClickHouse back, it drains by itself",
                )
        try:
            file = self._current()
            if file.write(frames) != len(frames):
                raise OSError(errno.ENOSPC, "only a part was written")
            os.fsync(file.fileno())
        except OSError as error:
            self._cut()
            why = "no room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"{error.strerror or error}"
            raise DiskFull(
                f"trades cannot be spilled: {why}", where=str(self.folder), remedy="free space, or mend the disk"
            ) from error
        self._written += len(frames)
        count("spill.records", len(items))

    def files(self) -> list[Path]:
        """The files, oldest first."""
        found = sorted(self.folder.glob(f"*{SUFFIX}"))
        mine = None if self._open is None else Path(str(self._open.name))
        self._others = sum(_size(file) for file in found if file != mine)
        self._files = len(found)
        return found

    def is_own(self, file: Path) -> bool:
        """Whether this run wrote it."""
        return file.name.split("-")[0] == f"{self._fence:020d}"

    def read(self, file: Path) -> Iterator[Arrived | Torn]:
        """
        What a file holds, in order. What a crash left half written at its end is not counted as held and is left out; a
        frame that is damaged, or not ours to read, ends the file: then Torn is its last item.
        """
        if self._open is not None and Path(str(self._open.name)) == file:
            self.close()  # the next append begins another
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
            try:
                record = _ours(frame)
            except (msgspec.MsgspecError, PipelineError, ValueError) as error:
                log.warning("spill.frame_not_ours", file=str(file), at=at, problem=str(error))
                break
            yield record
            at = body + length
        if at < len(data):
            count("spill.files_cut")
            log.warning("spill.file_cut", file=str(file), read=at, bytes=len(data))
            yield Torn()

    def remove(self, file: Path) -> None:
        """What the file held is in the stream."""
        if self._open is not None and Path(str(self._open.name)) == file:
            self.close()
        file.unlink(missing_ok=True)
        self.files()

    def state(self) -> SpillState:
        """
        How much lies on disk, as last seen: this is asked several times a second, and the folder is looked at whenever
        something begins, ends or is drained.
        """
        return SpillState(self._files, self._others + self._written, self._most_bytes)

    def close(self) -> None:
        """Close the file that is being written; the next append begins another."""
        if self._open is not None:
            self._open.close()
            self._open = None
            self._others += self._written
            self._written = 0

    def _current(self) -> FileIO:
        if self._open is None:
            # Never an existing file: a cut-off frame at its end would hide what came after it.
            head = f"{self._fence:020d}-"
            last = max((int(file.stem.split("-")[1]) for file in self.folder.glob(f"{head}*{SUFFIX}")), default=0)
            self._open = FileIO(self.folder / f"{head}{last + 1:08d}{SUFFIX}", "xb")
            self._written = 0
            self._files += 1
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)  # the name of the file, too
            finally:
                os.close(folder)
        return self._open

    def _cut(self) -> None:
        """Take back a write that failed half-way; if even that fails, the next append begins another file."""
        if self._open is None:
            return
        try:
            os.ftruncate(self._open.fileno(), self._written)
            self._open.seek(self._written)
        except OSError:
            self._open = None
            self._written = 0


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # removed meanwhile
        return 0


def _wire(item: Arrived) -> _Trades | _Broke | _Follows:
    match item:
        case TradeBatch():
            return _Trades(str(item.symbol), item.received_ms, item.snapshot, item.rejected, item.trades)
        case Broke():
            return _Broke([str(symbol) for symbol in item.symbols])
        case Follows():
            newest = {str(symbol): held for symbol, held in item.newest.items()}
            return _Follows(newest, sorted(str(symbol) for symbol in item.broken))


def _ours(frame: bytes) -> Arrived:
    record = _decode(frame)
    if isinstance(record, _Trades):
        symbol = Symbol.parse(record.symbol)
        return TradeBatch(symbol, record.trades, record.received_ms, record.snapshot, record.rejected)
    if isinstance(record, _Broke):
        return Broke(tuple(map(Symbol.parse, record.symbols)))
    newest = {Symbol.parse(name): held for name, held in record.newest.items()}
    return Follows(newest, frozenset(map(Symbol.parse, record.broken)))
