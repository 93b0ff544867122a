"""
The stream of trades of one live shard, in Redis: what was received and is not in ClickHouse yet.

Appended by pipeline/live/run.py, read and acknowledged by pipeline/live/flush.py. One entry a batch, one round trip a call
however many batches. An entry is MessagePack, typed on both sides: two thirds of the size of JSON, and it keeps integers of 64
bits and floats to the bit.

Nothing is trimmed on append: `trim` drops only what every group has done with. The bound (`capacity`, in entries)
refuses instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import redis.asyncio
import redis.exceptions

from ..errors import LeaseLost, PipelineError, StoreRefused, StreamFull
from ..market.instrument import Market, Symbol
from ..market.trade import TradeBatch
from ..telemetry import count, get_logger
from .anchors import Anchor, Held, padded, parse_anchor
from .keys import shard_key
from .payload import decode_batch, encode_batch, symbol_of
from .redis_connection import LONGEST_BLOCK_MS
from .redis_errors import translated
from .scripts import script

log = get_logger(__name__)

GROUP = "flush"
Place = tuple[int, int]
"""Where an entry stands in the stream: the two numbers of its id."""
_READ_AT_ONCE = 1_000
NOBODY = Symbol(Market.SPOT, "")
"""Whose trades an entry holds that cannot be read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """
    A batch that waits in the stream, under its id there. One that is not ours to read has no trades, and a `problem`; its
    `symbol` is known where at least that could be told. `raw` is how it lies there.
    """

    id: str
    batch: TradeBatch
    raw: bytes = b""
    problem: str = ""
    symbol: Symbol | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """
    What was read and not acknowledged: how many entries, the oldest one's id and time (Unix ms of the Redis server).
    """

    count: int
    oldest_id: str | None
    oldest_ms: int | None


class TradeStream:
    """
    The stream of one shard, or beside it that of another `source` whose trades stand in; the fence is the shard's.

    All methods raise StoreUnavailable and its kin; those that take a `fence` raise LeaseLost when a successor holds the
    lease.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        prefix: str,
        shard: str,
        *,
        group: str = GROUP,
        capacity: int = 2_000_000,
        source: str = "",
    ) -> None:
        self._redis = client
        self._group = group
        self.capacity = capacity
        self._fence = shard_key(prefix, shard, "fence")
        beside = f":{source}" if source else ""
        self._stream = shard_key(prefix, shard, f"trades{beside}")
        self._anchors = shard_key(prefix, shard, f"anchors{beside}")
        self._append = script("append")
        self._append_name = sha1(self._append.encode()).hexdigest()  # how Redis calls it
        self._loaded = False
        self.doubted = False
        """Whether Redis was restarted since it was trusted last: nothing is appended until `trust` is called."""
        self._acknowledge = client.register_script(script("acknowledge"))
        self._trim = client.register_script(script("trim"))
        self._forget_vanished = client.register_script(script("forget_vanished"))

    async def append(
        self,
        batches: Sequence[TradeBatch],
        *,
        fence: int,
        gaps: Iterable[tuple[Symbol, int, int]] = (),
        held: Iterable[Held] = (),
        advance: bool = True,
    ) -> list[str]:
        """
        Append batches (empty ones are left out), advance the anchors, note gaps and what a repair has closed of them, all
        or nothing; returns the entries' ids. Repairs do not `advance` anchors: what they bring does not follow on what is
        held.

        Raises LeaseLost, and StreamFull when the bound is reached. After StoreUnavailable it may or may not have
        happened: append again, a trade that comes twice is stored once. A Redis that was restarted under our feet may
        have lost its last second: it is noticed before the first append to it, which then fails, and all others until
        the anchors were looked at again (`trust`).
        """
        arguments: list[Any] = [fence, self.capacity, 0, 0]
        for batch in batches:
            trades = batch.trades
            if trades:
                newest = max(trades).trade_id  # its first field
                arguments += (str(batch.symbol), padded(newest) if advance else "", encode_batch(batch))
        arguments[2] = (len(arguments) - 4) // 3
        for symbol, after_id, before_id in gaps:
            arguments += (str(symbol), padded(after_id), padded(before_id))
            arguments[3] += 1
        for symbol, from_id, through_id, fetched in held:
            arguments += (str(symbol), padded(from_id), padded(through_id), fetched)
        if len(arguments) == 4:
            return []
        ids = await self._run(self._evaluate, [self._fence, self._stream, self._anchors], arguments)
        return [one.decode() for one in ids]

    async def trust(self) -> None:
        """
        Append to the Redis that runs now. Read the anchors after this, not before: one that is restarted in between is
        doubted again.
        """
        with translated():
            await self._redis.script_load(self._append)
        self.doubted, self._loaded = False, True

    async def _evaluate(self, *, keys: list[str], args: list[Any]) -> Any:
        """Run the append, by its name alone: a Redis that does not know it any more was restarted."""
        if self.doubted:
            raise redis.exceptions.ConnectionError("it was restarted, and its anchors are not read yet")
        if not self._loaded:
            await self._redis.script_load(self._append)
            self._loaded = True
        try:
            return await self._redis.evalsha(self._append_name, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError as error:
            self.doubted = True
            raise redis.exceptions.ConnectionError("it was restarted") from error

    async def read(self, consumer: str, max_rows: int, block_ms: int | None) -> list[Entry]:
        """
        New entries for this consumer, of some `max_rows` trades; waits up to `block_ms` (at most 5,000; not at all with
        None or 0) for the first.

        They stay pending until acknowledged, those with a problem too.
        """
        entries: list[Entry] = []
        rows = 0
        block = min(block_ms, LONGEST_BLOCK_MS) if block_ms else None  # to Redis, 0 means for ever
        while rows < max_rows:
            wanted = min(max_rows - rows, _READ_AT_ONCE)
            found = await self._read_group(consumer, wanted, block)
            if not found:
                break
            block = None
            for raw_id, fields in found:
                entry = _entry(raw_id, fields)
                entries.append(entry)
                rows += len(entry.batch.trades)
            if len(found) < wanted:
                break
        return entries

    async def unacknowledged(self, consumer: str) -> list[Entry]:
        """
        What this consumer read and did not acknowledge, oldest first: also what a read brought that was broken off when Redis had
        answered already.
        """
        entries: list[Entry] = []
        since: str | bytes = "0"
        while True:
            answer = await self._in_group(
                lambda after: self._redis.xreadgroup(self._group, consumer, {self._stream: after}, count=_READ_AT_ONCE),
                since,
            )
            found = answer[0][1] if answer else []
            if not found:
                return entries
            since = found[-1][0]
            entries += [_entry(raw_id, fields) for raw_id, fields in found if fields]  # without: it is gone

    async def claim(self, consumer: str, idle_ms: int, max_rows: int = 50_000) -> list[Entry]:
        """
        Entries that another consumer read and did not acknowledge for `idle_ms`, now this consumer's: some `max_rows`
        trades.

        A successor calls it with 0 until nothing is left, storing and acknowledging in between.
        """
        entries: list[Entry] = []
        rows = 0
        vanished = False
        cursor: Any = "0-0"
        while rows < max_rows:
            answer = await self._in_group(
                lambda since: self._redis.xautoclaim(
                    self._stream, self._group, consumer, idle_ms, start_id=since, count=_READ_AT_ONCE
                ),
                cursor,
            )
            cursor, found = answer[0], answer[1]
            for raw_id, fields in found:
                if raw_id is None or fields is None:
                    vanished = True  # Redis 6.2 says nil for an entry that is gone, and does not say which
                    continue
                entry = _entry(raw_id, fields)
                entries.append(entry)
                rows += len(entry.batch.trades)
            if cursor in (b"0-0", "0-0"):
                break
        if vanished:
            await self.forget_vanished()
        return entries

    async def forget_vanished(self) -> int:
        """
        Acknowledge entries that are pending and not there any more: somebody's XDEL or XTRIM. Nobody can write them, and
        nothing newer could be trimmed while they are pending. Returns how many.
        """
        gone = int(await self._run(self._forget_vanished, [self._stream], [self._group]))
        if gone:
            count("stream.entries_vanished", gone)
            log.warning("stream.entries_vanished", entries=gone, stream=self._stream)
        return gone

    async def acknowledge(self, ids: Sequence[str], *, fence: int) -> int:
        """These entries are in ClickHouse; returns how many of them were pending. Raises LeaseLost."""
        if not ids:
            return 0
        return int(await self._run(self._acknowledge, [self._fence, self._stream], [fence, self._group, *ids]))

    async def fence(self) -> int:
        """The fence that holds now, 0 when nobody ever held the lease: for flushers that are no live run."""
        with translated():
            found: Any = await self._redis.get(self._fence)
        return int(found or 0)

    async def last_id(self) -> str | None:
        """The newest entry, None when the stream is empty."""
        with translated():
            found: Any = await self._redis.xrevrange(self._stream, count=1)
        return found[0][0].decode() if found else None

    async def is_done(self, entry_id: str) -> bool:
        """Whether this entry and all before it are in ClickHouse."""
        return await self.done_before() > place_of(entry_id)

    async def done_before(self) -> Place:
        """All entries before this place are in ClickHouse, whichever processes wrote them; (0, 0) when none is."""
        with translated():
            try:
                groups: Any = await self._redis.xinfo_groups(self._stream)
            except redis.exceptions.ResponseError as error:
                if "no such key" not in str(error).lower():
                    raise
                groups = []
        mine = next((one["last-delivered-id"] for one in groups if one["name"] == self._group.encode()), None)
        if mine is None:
            return 0, 0
        # Asked after it: what was delivered by then is either acknowledged or among these.
        oldest = (await self.pending()).oldest_id
        milliseconds, number = place_of(mine.decode())
        return min((milliseconds, number + 1), place_of(oldest)) if oldest is not None else (milliseconds, number + 1)

    async def trim(self) -> int:
        """Drop the entries that every group has done with; returns how many."""
        return int(await self._run(self._trim, [self._stream], []))

    async def pending(self) -> Pending:
        """What was read and not acknowledged."""
        found = await self._in_group(lambda group: self._redis.xpending(self._stream, group), self._group)
        oldest = found["min"]
        if not oldest:
            return Pending(0, None, None)
        oldest_id = oldest.decode()
        return Pending(int(found["pending"]), oldest_id, int(oldest_id.split("-")[0]))

    async def length(self) -> int:
        """How many entries lie in the stream, acknowledged ones included until they are trimmed."""
        with translated():
            return int(await self._redis.xlen(self._stream))

    async def anchors(self) -> dict[Symbol, Anchor]:
        """How far each symbol's trades are held without a hole."""
        with translated():
            found: Any = await self._redis.hgetall(self._anchors)
        return {Symbol.parse(name.decode()): parse_anchor(text.decode()) for name, text in found.items()}

    async def forget_anchors(self) -> None:
        """Begin anew: what comes does not follow on what was appended before."""
        with translated():
            await self._redis.delete(self._anchors)

    async def anchor(self, symbol: Symbol) -> Anchor | None:
        """How far one symbol's trades are held without a hole; None while nothing of it was appended."""
        with translated():
            found: Any = await self._redis.hget(self._anchors, str(symbol))
        return None if found is None else parse_anchor(found.decode())

    async def close_gap(self, symbol: Symbol, through_id: int, *, fence: int) -> bool:
        """
        Everything of the symbol up to and including `through_id` is held now (with what was appended before the call).

        Returns whether no gap is left open. Raises LeaseLost.
        """
        await self.append([], fence=fence, held=[Held(symbol, 0, through_id)])
        anchor = await self.anchor(symbol)
        return anchor is None or not anchor.gaps

    async def _read_group(self, consumer: str, wanted: int, block: int | None) -> list[Any]:
        answer = await self._in_group(
            lambda wait: self._redis.xreadgroup(self._group, consumer, {self._stream: ">"}, count=wanted, block=wait),
            block,
        )
        return list(answer[0][1]) if answer else []

    async def _in_group(self, act: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
        """
        Do what needs the group; create it when that fails, not before: a full Redis refuses even to look whether it is
        there.
        """
        with translated():
            try:
                return await act(argument)
            except redis.exceptions.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
            try:
                # From the very first entry, so that nothing appended before its birth is skipped.
                await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            except redis.exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            return await act(argument)

    async def _run(self, prepared: Any, keys: list[str], arguments: list[Any]) -> Any:
        with translated():
            try:
                return await prepared(keys=keys, args=arguments)
            except redis.exceptions.ResponseError as error:
                ours = _ours(error, self._stream, self.capacity)
                if ours is None:
                    raise
                raise ours from error


def _ours(error: redis.exceptions.ResponseError, stream: str, capacity: int) -> PipelineError | None:
    if "FENCED" in str(error):
        return LeaseLost("another live run has taken over this shard", where=stream, remedy="this run must stop")
    if "FULL" in str(error):
        return StreamFull(
            f"the stream holds its bound of {capacity:,} entries",
            where=stream,
            remedy="ClickHouse is behind or down: bring it back, the backlog drains by itself",
        )
    return None


def place_of(entry_id: str) -> Place:
    """Where an entry stands in the stream."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def _entry(raw_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    entry_id, raw = raw_id.decode(), fields.get(b"b", b"")
    try:
        return Entry(entry_id, decode_batch(raw, where=f"entry {entry_id} of the stream"), raw)
    except StoreRefused as error:
        return Entry(entry_id, TradeBatch(NOBODY, [], place_of(entry_id)[0]), raw, error.what, symbol_of(raw))
