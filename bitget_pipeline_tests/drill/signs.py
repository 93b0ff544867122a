"""
What can be seen of the pipeline from outside, and since when: the evidence that a fault was noticed.

Input: what the live run publishes, lease and budget in Redis, the open incidents in ClickHouse, looked at a few times a second as
`status` looks at them, and the live run's log. Output: signs with their first and last moment, which attempt.py holds against the
moment of the fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from bitget_pipeline.errors import PipelineError
from bitget_pipeline.storage.budget import EndpointUse
from bitget_pipeline.storage.control import Published
from bitget_pipeline.storage.overview import Overview, budget_use
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync
from bitget_pipeline.storage.warehouse import Warehouse

from .scene import DrillScene

LOOK_EVERY = 0.2
STALE = 8.0
"""
Seconds without a word of the live run after which it is called silent; it speaks every second. A process that stood still for so
long says so when it goes on (watch/clocks.py).
"""
HELD_UP = 2.0
"""Seconds between two looks after which this machine, or a store, stood still."""
SAID_WITHIN = 15.0
"""Seconds within which a live run has said that it stood still."""
BAD = ("degraded", "critical")
LOGGED = {
    "feed.subscription_stale": "symbol",
    "live.store_restarted": "",
    "live.spilling": "",
    "live.gap_found": "symbol",
}
"""Lines of the live run's log that say that it noticed something, and the field that says whose."""


MADE_HERE = (
    *("log.", "incident.", "stands_in.", "redis.away", "clickhouse.away", "live.lease", "live.silent", "live.trouble"),
    *("budget.refused", "budget.closed", "symbol.silent", "symbol.gap", "silence.mended", "connection.closed"),
)
"""The beginnings of signs that are made here; all others are vitals, by their names."""


@dataclass(frozen=True, slots=True)
class Sign:
    """Something is not as it should be: `name` says what, as `part.what`, `subject` whose."""

    name: str
    subject: str = ""
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.name} {self.subject}".strip()

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Whether one of the patterns (of `name subject`, with wildcards) means it."""
        return any(fnmatch(str(self), pattern) or fnmatch(self.name, pattern) for pattern in patterns)


@dataclass(slots=True)
class Spell:
    """A sign, seen from `began` on (seconds of time.monotonic) and gone at `ended`; None while it lasts."""

    sign: Sign
    began: float
    ended: float | None = None


@dataclass
class Figures:
    """
    Totals that only grow while a live run lives, in which an action shows; `refused` are answers of 429, `remedies` the last
    deeds of remediation, from inside and outside.
    """

    run_id: str = ""
    sockets_opened: int = 0
    remedies: list[dict[str, Any]] = field(default_factory=list)
    repaired: int = 0
    refused: int = 0


class Watch:
    """Looks at a scene until the end of its block, and remembers."""

    def __init__(self, scene: DrillScene) -> None:
        self.spells: list[Spell] = []
        self.figures = Figures()
        self._published: Published | None = None
        self._scene = scene
        self._open: dict[Sign, Spell] = {}
        self._last_refused: int | None = None
        self._refused_at = -1e9
        self._mended: tuple[str, int] | None = None  # by which run, and how many
        self._warehouse: Warehouse | None = None
        self._asked_warehouse = 0.0
        self._of_warehouse: list[Sign] = []
        self._task: asyncio.Task[None] | None = None
        self._read = 0  # bytes of the log
        self._held_up: list[tuple[float, float]] = []  # from one look to the next

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._run(), name="watch")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._warehouse is not None:
            self._warehouse.close()

    async def _run(self) -> None:
        before = time.monotonic()
        while True:
            found = await asyncio.to_thread(self._look)
            now = time.monotonic()
            if now - before > HELD_UP:
                self._held_up.append((before, now))
            before = now
            for sign in await asyncio.to_thread(self._in_the_log):
                self.spells.append(Spell(sign, now, now))
            for sign in found - self._open.keys():
                self._open[sign] = Spell(sign, now)
                self.spells.append(self._open[sign])
            for sign in self._open.keys() - found:
                self._open.pop(sign).ended = now
            await asyncio.sleep(LOOK_EVERY)

    # ------------------------------------------------------------ what was seen

    @property
    def published(self) -> Published | None:
        """What the live run said last, None when none did."""
        self._still_looks()
        return self._published

    def standing(self) -> list[Spell]:
        """What is wrong now. Raises what kept anybody from looking."""
        self._still_looks()
        return list(self._open.values())

    def stood_still(self, since: float, until: float) -> bool:
        """Whether this machine, a store or the live run stood still in that time: then something was wrong."""
        return any(began < until and ended > since for began, ended in self._held_up) or any(
            since <= one.began < until + SAID_WITHIN and one.sign.matches(("clock.*",)) for one in self.spells
        )

    def first(self, patterns: tuple[str, ...], *, since: float) -> Spell | None:
        """The first such sign that began after a moment."""
        self._still_looks()
        return next((one for one in self.spells if one.began >= since and one.sign.matches(patterns)), None)

    def _still_looks(self) -> None:
        if self._task is not None and self._task.done():
            self._task.result()

    # ------------------------------------------------------------ looking, in a thread

    def _look(self) -> set[Sign]:
        return {*self._in_redis(), *self._in_the_warehouse()}

    def _in_the_log(self) -> list[Sign]:
        """What the live run has logged since this was last asked."""
        with self._scene.worker_log.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        found: list[Sign] = []
        for line in whole.splitlines():
            if not line.startswith(b"{"):
                continue
            with contextlib.suppress(ValueError):  # the line of one who was killed while he wrote it
                said = json.loads(line)
                if said.get("event") in LOGGED:
                    subject = str(said.get(LOGGED[said["event"]], ""))
                    found.append(Sign(f"log.{said['event']}", subject, str(said.get("problem", ""))))
        return found

    def _in_redis(self) -> Iterator[Sign]:
        client = connect_sync(RedisAddress("127.0.0.1", self._scene.redis_config.port))
        try:
            overview = Overview(client, self._scene.prefix, "0")
            lease, published = overview.lease(), overview.published()
            uses, closed_for = budget_use(client, self._scene.prefix)
            supervisor = overview.supervisor()
        except PipelineError as error:
            yield Sign("redis.away", text=str(error))
            return
        finally:
            client.close()
        if lease is None or lease.age > STALE:
            yield Sign("live.lease", text="nobody holds it" if lease is None else f"not renewed for {lease.age:.0f} s")
        yield from self._of_budget(uses, closed_for)
        if published is None or published.age > STALE:
            yield Sign("live.silent", text="the live run says nothing")
            return
        self._published = published
        self.figures.remedies = [
            *((published.overall.get("attention") or {}).get("remediation") or {}).get("last", ()),
            *((supervisor.said.get("last") or ()) if supervisor is not None else ()),
        ]
        yield from _of_the_run(published)
        yield from self._of_silences(published)
        self._note(published)

    def _of_silences(self, published: Published) -> Iterator[Sign]:
        """One that a connection mended by itself since the last look."""
        said, run_id = published.overall.get("silences") or {}, str(published.overall["run_id"])
        before, self._mended = self._mended, (run_id, int(said.get("mended") or 0))
        if before is not None and before[0] == run_id and self._mended[1] > before[1]:
            yield Sign("silence.mended", str(said.get("newest", "")))

    def _of_budget(self, uses: list[EndpointUse], closed_for: float) -> Iterator[Sign]:
        refused = sum(use.penalties for use in uses)
        if self._last_refused is not None and refused > self._last_refused:
            self._refused_at = time.monotonic()
        self._last_refused = self.figures.refused = refused
        if time.monotonic() - self._refused_at < 1.0:
            yield Sign("budget.refused", text="answers of 429")
        if closed_for > 0:
            yield Sign("budget.closed", text=f"for {closed_for:.0f} s")

    def _note(self, published: Published) -> None:
        said = published.overall
        opened = sum(int(one["opened"]) for one in said["connections"].values())
        self.figures.run_id, self.figures.sockets_opened = said["run_id"], opened
        self.figures.repaired = int(said["repaired"])

    def _in_the_warehouse(self) -> list[Sign]:
        """Asked once a second: it has other things to do."""
        if time.monotonic() - self._asked_warehouse < 1.0:
            return self._of_warehouse
        try:
            if self._warehouse is None:
                self._warehouse = self._scene.open_warehouse()
            rows = self._warehouse.query(
                "SELECT kind, market, symbol, what FROM incidents_final WHERE closed_at IS NULL ORDER BY opened_at"
            )
            self._of_warehouse = [
                Sign(f"incident.{kind}", f"{market}:{symbol}" if symbol else market, what)
                for kind, market, symbol, what in rows
            ]
        except PipelineError as error:
            self._of_warehouse = [Sign("clickhouse.away", text=str(error))]
            self._warehouse = None
        self._asked_warehouse = time.monotonic()
        return self._of_warehouse


def _of_the_run(published: Published) -> Iterator[Sign]:
    """What the live run says of itself: its vitals, and what was published before there were any."""
    said: dict[str, Any] = published.overall
    for vital in said.get("vitals") or ():
        if vital["status"] in BAD:
            yield Sign(vital["name"], vital.get("subject", "").replace("/", ":"), vital["reason"])
    for symbol, of in published.symbols.items():
        if of["silent"]:
            yield Sign("symbol.silent", str(symbol), of["silent"])
        if of["gap"]:
            yield Sign("symbol.gap", str(symbol), of["repair"])
    if said["trouble"]:
        yield Sign("live.trouble", text=said["trouble"])
    for name, of in said["connections"].items():
        if of["age"] is None:
            yield Sign("connection.closed", name, of["last_reason"])
    failover = said.get("failover") or {}
    for market, of in failover.items() if isinstance(failover, dict) else ():
        if isinstance(of, dict) and of.get("state") not in (None, "ours", "none"):
            yield Sign(f"stands_in.{market}", text=str(of.get("state")))
