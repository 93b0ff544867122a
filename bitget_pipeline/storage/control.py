"""
What a live run and its supervisor tell each other, in Redis.

The live run publishes how it is doing every second, and looks whether it is asked to stop. The other side, the sensors'
and `status`'s, is overview.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import redis.asyncio
import redis.exceptions

from ..errors import LeaseLost
from ..market.instrument import Symbol
from .keys import shard_key
from .lease import lease_keys
from .redis_errors import translated
from .scripts import script

KEPT_SECONDS = 86_400
"""A state outlives its run for a day, so that one can still see how it ended."""

SUPERVISOR_SECONDS = 3600
"""What the supervisor of the live run said stays so long after it said anything last."""

QUARANTINE = 200
QUARANTINE_SECONDS = 7 * 86_400
"""Frames set aside that are kept to be looked at, and how long."""
QUARANTINED_BYTES = 4096
"""Of each."""

OVERALL = b""
"""The field of the whole run, beside one field for each symbol."""

_encode = msgspec.json.Encoder().encode  # JSON: a person may look at it with redis-cli
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Somebody asks this run to end by itself. `age` is the number of seconds since it was asked first."""

    run_id: str
    because: str
    age: float


@dataclass(frozen=True, slots=True)
class SetAside:
    """A frame that made no sense: when it came (Unix ms), why it was set aside, its beginning, and how long it was."""

    at_ms: int
    problem: str
    frame: str
    bytes: int


def parse_set_aside(text: bytes) -> SetAside:
    """The frame that lies in Redis."""
    return SetAside(**_decode(text))


@dataclass(frozen=True, slots=True)
class Published:
    """
    How a live run is doing, as it said `age` seconds ago: of the whole, and of each symbol, in the words of
    pipeline/live/state.py.
    """

    age: float
    overall: dict[str, Any] = field(default_factory=dict)
    symbols: dict[Symbol, dict[str, Any]] = field(default_factory=dict)


class LiveControl:
    """The live run's side of one shard. All methods raise StoreUnavailable and its kin."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, shard: str) -> None:
        self._redis = client
        self._fence = lease_keys(prefix, shard)[0]
        self._publish = client.register_script(script("publish"))
        self._start_over = client.register_script(script("start_over"))
        self._state = shard_key(prefix, shard, "state")
        self._stop = shard_key(prefix, shard, "stop")
        self._start = shard_key(prefix, shard, "start")
        self._flush = shard_key(prefix, shard, "flush")
        self._change = shard_key(prefix, shard, "change")
        self._quarantine = shard_key(prefix, shard, "quarantine")

    async def set_aside(self, frames: Sequence[SetAside]) -> None:
        """Keep frames that were set aside to be looked at; the newest of them, for some days."""
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.lpush(self._quarantine, *(_encode(asdict(one)) for one in frames))
            pipeline.ltrim(self._quarantine, 0, QUARANTINE - 1)
            pipeline.expire(self._quarantine, QUARANTINE_SECONDS)
            await pipeline.execute()

    async def ask_to_flush(self) -> None:
        """Whoever writes shall write at once."""
        with translated():
            await self._redis.incr(self._flush)
            await self._redis.expire(self._flush, KEPT_SECONDS)

    async def flushes_asked(self) -> int:
        """How often somebody asked; a run that sees it grow writes at once."""
        with translated():
            found: Any = await self._redis.get(self._flush)
        return int(found or 0)

    async def starting(self, run_id: str, stage: str, *, failed: str = "") -> None:
        """A run begins a stage of its start, or failed in it; its predecessor may still be at work."""
        with translated():
            seconds, microseconds = await self._redis.time()
            said = {"run_id": run_id, "stage": stage, "failed": failed, "at": seconds + microseconds / 1e6}
            await self._redis.set(self._start, _encode(said), ex=KEPT_SECONDS)

    async def started(self, run_id: str) -> None:
        """The start of a run is over; that of another, which began meanwhile, is not."""
        with translated():
            await self._start_over(keys=[self._start], args=[run_id])

    async def publish(
        self, overall: Mapping[str, Any], symbols: Mapping[Symbol, Mapping[str, Any]], *, fence: int
    ) -> None:
        """
        Say how it goes; replaces what was said before, as a whole. Values are whatever JSON can hold.

        Raises LeaseLost when a successor has taken the lease since this `fence` was given: the words are its own now.
        """
        with translated():
            seconds, microseconds = await self._redis.time()
            said: list[Any] = [OVERALL, _encode({"at": seconds + microseconds / 1e6, "said": dict(overall)})]
            for symbol, of in symbols.items():
                said += [str(symbol).encode(), _encode(dict(of))]
            try:
                await self._publish(keys=[self._fence, self._state], args=[fence, KEPT_SECONDS, *said])
            except redis.exceptions.ResponseError as error:
                if "FENCED" not in str(error):
                    raise
                raise LeaseLost(
                    "another live run has taken over this shard", where=self._state, remedy="this run must stop"
                ) from error

    async def ask_to_stop(self, run_id: str, because: str) -> None:
        """Ask a run to end by itself; what supervises it begins another."""
        with translated():
            now = await self._redis.time()
            await self._redis.set(self._stop, stop_text(run_id, because, now), ex=KEPT_SECONDS)

    async def stop_request(self, run_id: str) -> StopRequest | None:
        """Whether this run is asked to stop."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(self._stop)
            pipeline.time()
            text, now = await pipeline.execute()
        asked = parse_stop(text, now)
        return asked if asked is not None and asked.run_id == run_id else None

    async def change_request(self, run_id: str) -> ChangeRequest | None:
        """What this run was asked last to change to, whether or not it did."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(self._change)
            pipeline.time()
            text, now = await pipeline.execute()
        asked = parse_change(text, now)
        return asked if asked is not None and asked.run_id == run_id else None


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """
    Somebody asks this run to become one of another generation: collect these symbols, at most so many channels and symbols
    on a connection. `age` is the number of seconds since it was asked.
    """

    run_id: str
    generation: str
    symbols: tuple[Symbol, ...]
    max_channels: int
    max_symbols: int
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Starting:
    """A run that is starting: since `age` seconds in this stage; `failed` says why it ended there, if it did."""

    run_id: str
    stage: str
    failed: str
    age: float


@dataclass(frozen=True, slots=True)
class SupervisorSaid:
    """How the rules that look at a live run from outside stand, and their last deeds, as was said `age` seconds ago."""

    age: float
    said: dict[str, Any]


def supervisor_text(said: Mapping[str, Any], now: tuple[int, int]) -> bytes:
    """The supervisor's words, as they lie in Redis."""
    return _encode({"at": now[0] + now[1] / 1e6, "said": dict(said)})


def parse_supervisor(text: bytes | None, now: tuple[int, int]) -> SupervisorSaid | None:
    """The supervisor's words that lie in Redis, if any."""
    if not text:
        return None
    found = _decode(text)
    return SupervisorSaid(max(0.0, now[0] + now[1] / 1e6 - found["at"]), found["said"])


def parse_starting(text: bytes | None, now: tuple[int, int]) -> Starting | None:
    """The run that is starting, if any."""
    if not text:
        return None
    said = _decode(text)
    return Starting(said["run_id"], said["stage"], said["failed"], max(0.0, now[0] + now[1] / 1e6 - said["at"]))


def stop_text(run_id: str, because: str, now: tuple[int, int]) -> bytes:
    """A request to stop, as it lies in Redis."""
    return _encode({"run_id": run_id, "because": because, "at": now[0] + now[1] / 1e6})


def change_text(asked: ChangeRequest, now: tuple[int, int]) -> bytes:
    """A request to change, as it lies in Redis."""
    said = asdict(asked) | {"symbols": list(map(str, asked.symbols)), "at": now[0] + now[1] / 1e6}
    del said["age"]
    return _encode(said)


def parse_change(text: bytes | None, now: tuple[int, int]) -> ChangeRequest | None:
    """The request to change that lies in Redis, if any."""
    if not text:
        return None
    said = _decode(text)
    age = max(0.0, now[0] + now[1] / 1e6 - said.pop("at"))
    return ChangeRequest(**said | {"symbols": tuple(map(Symbol.parse, said["symbols"])), "age": age})


def parse_stop(text: bytes | None, now: tuple[int, int]) -> StopRequest | None:
    """The request to stop that lies in Redis, if any."""
    if not text:
        return None
    found = _decode(text)
    return StopRequest(found["run_id"], found["because"], max(0.0, now[0] + now[1] / 1e6 - found["at"]))


def parse_published(fields: Mapping[bytes, bytes], now: tuple[int, int]) -> Published | None:
    """What a live run published, if anything."""
    if OVERALL not in fields:
        return None
    whole = _decode(fields[OVERALL])
    return Published(
        age=max(0.0, now[0] + now[1] / 1e6 - whole["at"]),
        overall=whole["said"],
        symbols={Symbol.parse(name.decode()): _decode(text) for name, text in fields.items() if name != OVERALL},
    )
