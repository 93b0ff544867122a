"""
What an instance has done and is doing, gathered for `status` and for the live view of `up`.

Input: what sources.py is told by ClickHouse, Redis and Dagster; output: `Facts`. All are asked side by side, and none is
waited for longer than a short while: one that is down or late leaves its own figures empty, says why, and never hides the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import PipelineError
from ..settings import Boot, Operational, key_now, operational_in_force, refused
from .asked import Asked, NoAnswerYet
from .up import folder
from .up.remedies import failover_told

SHARD = "0"
"""The one live run of one machine owns every symbol (defs/live.py)."""

WITHIN = 2.0
"""Seconds for all sources together to answer."""


@dataclass(slots=True)
class Facts:
    """
    Figures of one moment. None means that it could not be found out; `unreachable` says why, by source, and `late` names those
    that did not answer in time: of them nothing is known, not even that they are down.
    """

    at: float  # Unix seconds
    instruments: int | None = None
    selected: dict[str, int] = field(default_factory=dict)  # by market
    candles: int | None = None  # rows of `candles`, all versions
    candle_days: int | None = None  # complete or verified empty (symbol, day) keys of those that are wanted
    candle_days_wanted: int | None = None
    trades: int | None = None  # rows of `trades`, all versions
    age_seconds: float | None = None  # of the newest stored trade
    stage: str | None = None  # of the live run, as it says itself
    starting: dict[str, Any] | None = None  # a run in its start: run_id, stage, age in seconds, why it failed
    lag_p50_ms: float | None = None  # from a trade's arrival to its row in ClickHouse
    lag_p99_ms: float | None = None
    traded_lag_p50_ms: float | None = None  # from its own time at the exchange
    traded_lag_p99_ms: float | None = None
    trouble: str = ""  # the live run's, in its words
    connections: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the live run's sockets, by name
    spill_bytes: int = 0  # trades that wait on local disk
    set_aside: int = 0  # frames that made no sense, since the live run began
    shed: dict[str, str] = field(default_factory=dict)  # channels given up for want of room, and why
    gaps_open: int | None = None  # breaks in the trades that are being repaired
    repair_seconds_left: float | None = None  # at the pace so far
    agreement: dict[str, Any] = field(default_factory=dict)  # minutes beside the exchange's own, since the run began
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)  # by companion of the live run, in its words
    failover: dict[str, dict[str, Any]] = field(default_factory=dict)  # by market, in the live run's words
    remediation: dict[str, Any] = field(default_factory=dict)  # mode, last look, rules, last deeds, what holds history
    backlog: int | None = None  # entries of the stream that wait for ClickHouse or for trimming
    budget: list[dict[str, Any]] = field(default_factory=list)  # of each endpoint: requests granted, 429s, pace
    budget_closed_for: float = 0.0  # seconds for which the exchange asked for silence
    breakers: list[dict[str, Any]] = field(default_factory=list)  # families of endpoints that a process gives a rest
    lease: dict[str, Any] | None = None  # owner (a run id), fence, age in seconds
    health: str | None = None
    health_reasons: list[str] = field(default_factory=list)  # worst first
    vitals: list[dict[str, Any]] = field(default_factory=list)  # everything that is watched
    runs: dict[str, int] = field(default_factory=dict)  # by status, lower case
    live_run: str | None = None
    backfills: int | None = None  # asset backfills in progress
    tier: str | None = None
    settings_generation: str | None = None  # of the settings that are in force
    settings_problems: list[str] = field(default_factory=list)  # a wrong file, a key that is refused: not in force
    reconfiguration: dict[str, Any] = field(
        default_factory=dict
    )  # of the live run: what it is changing, and changed last
    unreachable: dict[str, str] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


class Gatherer:
    """Asks again and again; keeps its connections between questions. A source that owes an answer is not asked again."""

    def __init__(
        self,
        boot: Boot,
        operational: Operational,
        environ: Mapping[str, str] | None = None,
        *,
        within: float = WITHIN,
        now: Callable[[], float] = time.time,
    ) -> None:
        from . import sources  # the drivers; imported before the time of the stores begins

        self._boot = boot
        self._environ = environ
        self._operational = operational
        self._within = within
        self._now = now
        # Longer than anybody waits, so that who is late is called late, and whole seconds, as ClickHouse's driver cuts them off.
        longest = math.ceil(within) + 1.0
        self._stores = {
            "clickhouse": Asked(
                sources.InWarehouse(boot, history_days=operational.history_days, answer_within=longest), within=within
            ),
            "redis": Asked(sources.InRedis(boot, answer_within=longest), within=within),
            "dagster": Asked(sources.InDagster(boot, answer_within=longest), within=within),
        }

    def gather(self) -> Facts:
        """Ask every source once. Never raises for a source that is down, and waits for none longer than `within`."""
        facts = Facts(at=self._now())
        asked = {name: store.begin() for name, store in self._stores.items()}
        deadline = time.monotonic() + self._within
        for name, look in (("disk", self._look_at_disk), ("settings", self._look_at_settings)):
            try:
                look(facts)
            except PipelineError as error:
                facts.unreachable[name] = str(error)
        wait(asked.values(), timeout=max(0.0, deadline - time.monotonic()))
        told: dict[str, Any] = {}
        for name, store in self._stores.items():
            try:
                found = store.told()
            except NoAnswerYet:
                facts.late.append(name)
                facts.unreachable[name] = f"unknown: no answer within {self._within:g} s"
            except PipelineError as error:
                facts.unreachable[name] = str(error)
            else:
                told |= found.behind
                for figure, value in found.figures.items():
                    setattr(facts, figure, value)
                facts.unreachable |= found.missing
        if facts.instruments is not None:
            facts.candle_days_wanted = sum(facts.selected.values()) * self._operational.history_days
        if facts.remediation:
            steady = self._operational.failover_steady_seconds
            facts.remediation["failover"] = failover_told(steady, facts.failover)
        self._judge(facts, told)
        return facts

    def close(self) -> None:
        """Give the connections back; one that is still being waited for ends by its own limits."""
        for store in self._stores.values():
            store.close()

    def _judge(self, facts: Facts, told: Mapping[str, Any]) -> None:
        """The verdict on what is known; what a store did not tell is unknown."""
        from ..guard.vitals import as_plain
        from ..pipeline.watch import health

        if "tables" in facts.unreachable or (facts.instruments is not None and not facts.selected):
            # of an instance that has just begun there is nothing to judge
            facts.health, facts.health_reasons = "unknown", ["nothing is selected yet: the first discovery does it"]
            return
        late = frozenset(facts.late)
        known = health.Facts(
            **told,
            redis_error=facts.unreachable.get("redis", ""),
            warehouse_error=facts.unreachable.get("clickhouse", ""),
            late=late,
        )
        judged = health.judge(known, now_ms=round(self._now() * 1000))
        facts.health, facts.health_reasons = judged.status.value, judged.reasons
        facts.vitals = [as_plain(one) for one in judged.vitals]

    def _look_at_settings(self, facts: Facts) -> None:
        """What is wrong with the settings file, or with the key; what was good before is in force then."""
        in_force = operational_in_force(self._boot, self._environ, looking=True)
        facts.tier, facts.settings_generation = in_force.settings.tier.value, in_force.settings.generation
        credentials = key_now(self._boot)
        refusal = refused(self._boot.home, credentials) if credentials is not None else ""
        facts.settings_problems = [str(one) for one in (in_force.problem, refusal) if one]

    def _look_at_disk(self, facts: Facts) -> None:
        folder.require_room(self._boot.home)
