"""
Health: is data arriving, per symbol against its own rate, and does it reach the tables?

From what the live run publishes in Redis, the stream's backlog, the lease, and ClickHouse; to the `health` sensor, checks and
`status`. Every verdict has its facts and its reason; what cannot be evaluated is unknown, never healthy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import log
from typing import Any

from ...errors import PipelineError, StoreUnavailable
from ...guard.vitals import WORST_FIRST, Status
from ...market.instrument import Symbol
from ...storage.control import Published
from ...storage.lease import LeaseState
from ...storage.overview import Backlog, Overview
from ...storage.warehouse import Warehouse


@dataclass(frozen=True, slots=True)
class HealthRules:
    """
    Where the lines are. Ages and lags in seconds; `bound_degraded` is a share of what Redis may hold.

    If trades arrive at a known pace, with nothing but chance between them, a silence longer than `-ln(chance) / pace` has
    that chance only; with `silence_chance` of one in a million a symbol with one arrival a second may be silent for 14 s,
    one with an arrival a minute for 14 minutes. `least_silence` and `most_silence` bound it.
    """

    silence_chance: float = 1e-6
    least_silence: float = 30.0
    most_silence: float = 6 * 3600.0
    published_within: float = 10.0
    lease_within: float = 20.0
    backlog_degraded: float = 15.0
    backlog_critical: float = 120.0
    bound_degraded: float = 0.5
    lag_degraded: float = 5.0
    learning: float = 60.0


@dataclass(frozen=True, slots=True)
class SymbolHealth:
    """
    One symbol. `age` is how long ago its newest trade reached us, `expected_within` how long it may be silent at its own
    pace, `rate` its trades a second; None where it is not known yet.
    """

    symbol: Symbol
    status: Status
    reason: str
    age: float | None
    rate: float | None
    expected_within: float | None
    trades: int
    stored_behind: int


@dataclass(frozen=True, slots=True)
class Health:
    """
    The whole, its reasons (worst first, one line each), each symbol, and the facts it was judged by.

    `newest_stored_age` is how many seconds ago the newest trade in the table was traded; None when nobody can say.
    """

    status: Status
    reasons: list[str]
    symbols: list[SymbolHealth] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    newest_stored_age: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found, None for what could not be asked; `redis_error` and `warehouse_error` say why."""

    lease: LeaseState | None = None
    published: Published | None = None
    backlog: Backlog | None = None
    redis_error: str = ""
    warehouse_error: str = ""


def watch(warehouse: Warehouse, overview: Overview, *, now_ms: int, rules: HealthRules | None = None) -> Health:
    """Ask both stores and judge. Blocks; never raises for a store that is down. `now_ms` is market time."""
    lease, published, backlog, redis_error, warehouse_error = None, None, None, "", ""
    try:
        lease, published, backlog = overview.lease(), overview.published(), overview.backlog()
    except PipelineError as error:
        redis_error = str(error)
    try:
        warehouse.ping()
    except PipelineError as error:
        warehouse_error = str(error)
    return judge(Facts(lease, published, backlog, redis_error, warehouse_error), now_ms=now_ms, rules=rules)


def judge(facts: Facts, *, now_ms: int, rules: HealthRules | None = None) -> Health:
    """The verdict on these facts. Pure."""
    rules = rules or HealthRules()
    found: list[tuple[Status, str]] = []
    if facts.redis_error:
        found.append((Status.CRITICAL, f"Redis: {facts.redis_error}"))
    if facts.warehouse_error:
        found.append((Status.CRITICAL, f"ClickHouse: {facts.warehouse_error}"))
    symbols: list[SymbolHealth] = []
    if not facts.redis_error:
        found += _of_the_run(facts, rules)
        if facts.backlog is not None:
            found += _of_the_backlog(facts.backlog, rules)
            found += _of_the_bound(facts, rules)
        if facts.published is not None:
            symbols = judge_symbols(facts.published, now_ms=now_ms, rules=rules)
            found += _of_the_symbols(symbols)
    if not found:
        found.append((Status.HEALTHY, "every symbol delivers at its own rate"))
    ordered = sorted(found, key=lambda one: WORST_FIRST.index(one[0]))
    newest = max((int(said.get("stored_through_ms") or 0) for said in _said(facts)), default=0)
    age = max(0.0, (now_ms - newest) / 1000) if newest else None
    return Health(ordered[0][0], [reason for _, reason in ordered], symbols, _as_facts(facts), age)


def _said(facts: Facts) -> Iterable[dict[str, Any]]:
    return facts.published.symbols.values() if facts.published is not None else ()


def _of_the_run(facts: Facts, rules: HealthRules) -> Iterable[tuple[Status, str]]:
    published, lease = facts.published, facts.lease
    if lease is None:
        yield Status.CRITICAL, "no live run holds the lease: nothing is being collected"
    elif lease.age > rules.lease_within:
        yield Status.CRITICAL, f"the live run has not renewed its lease for {lease.age:.0f} s"
    if published is None:
        yield Status.UNKNOWN, "no live run has published anything"
        return
    if lease is not None and published.age > rules.published_within:
        yield Status.CRITICAL, f"the live run has said nothing for {published.age:.0f} s"
    trouble = published.overall.get("trouble")
    if trouble:
        yield Status.DEGRADED, f"the live run has trouble: {trouble}"
    spilled = int(published.overall.get("spill_bytes") or 0)
    if spilled:
        yield Status.DEGRADED, f"trades wait on local disk ({spilled / 2**20:,.1f} MiB): Redis does not take them"
    for channel, why in (published.overall.get("shed") or {}).items():
        yield Status.DEGRADED, f"{channel} are not collected: {why}"
    for name, said in published.overall.items():  # what the companions say of themselves
        if isinstance(said, dict) and said.get("trouble"):
            waiting = f", {said['waiting']} rows wait" if said.get("waiting") else ""
            yield Status.DEGRADED, f"{name.replace('_', ' ')}: {said['trouble']}{waiting}"
    lag = published.overall.get("lag_p99_ms")
    if lag is not None and lag > rules.lag_degraded * 1000:
        yield Status.DEGRADED, f"one in a hundred trades needs more than {lag / 1000:.1f} s to the table"


def _of_the_backlog(backlog: Backlog, rules: HealthRules) -> Iterable[tuple[Status, str]]:
    age = backlog.oldest_age
    if age is None or age <= rules.backlog_degraded:
        return
    status = Status.CRITICAL if age > rules.backlog_critical else Status.DEGRADED
    yield status, f"trades wait in Redis for {age:.0f} s ({backlog.pending} entries read and not stored)"


def _of_the_bound(facts: Facts, rules: HealthRules) -> Iterable[tuple[Status, str]]:
    """How much of what Redis may hold is used: said before trades have to go to disk."""
    bound = int(facts.published.overall.get("stream_capacity") or 0) if facts.published is not None else 0
    entries = facts.backlog.entries if facts.backlog is not None else 0
    if bound and entries >= rules.bound_degraded * bound:
        yield Status.DEGRADED, f"the stream in Redis is {entries / bound:.0%} full ({entries:,} of {bound:,} entries)"


def _of_the_symbols(symbols: Sequence[SymbolHealth]) -> Iterable[tuple[Status, str]]:
    for status in (Status.CRITICAL, Status.DEGRADED, Status.UNKNOWN):
        bad = [one for one in symbols if one.status is status]
        if bad:
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            yield status, "; ".join(f"{one.symbol}: {one.reason}" for one in bad[:3]) + more
    if symbols and all(one.status in (Status.DEGRADED, Status.CRITICAL) for one in symbols):
        yield Status.CRITICAL, "no symbol at all delivers as it should"


def judge_symbols(published: Published, *, now_ms: int, rules: HealthRules | None = None) -> list[SymbolHealth]:
    """Each symbol against its own rate. Pure."""
    rules = rules or HealthRules()
    uptime = float(published.overall.get("uptime") or 0.0)
    return [
        _judge_symbol(symbol, said, uptime=uptime, now_ms=now_ms, rules=rules)
        for symbol, said in sorted(published.symbols.items(), key=lambda item: str(item[0]))
    ]


def _judge_symbol(
    symbol: Symbol, said: dict[str, Any], *, uptime: float, now_ms: int, rules: HealthRules
) -> SymbolHealth:
    heard = int(said.get("last_data_ms") or 0)
    rate, pace = float(said.get("rate") or 0.0), float(said.get("pace") or 0.0)
    trades = int(said.get("trades") or 0)
    behind = trades - int(said.get("stored_trades") or 0)
    age = max(0.0, (now_ms - heard) / 1000) if heard else None
    within = None
    if pace > 0:
        within = min(rules.most_silence, max(rules.least_silence, -log(rules.silence_chance) / pace))
    if said.get("silent"):
        status, reason = Status.DEGRADED, str(said["silent"])
    elif said.get("gap"):
        status, reason = Status.DEGRADED, str(said.get("repair") or "a gap is being repaired")
    elif age is None or within is None or uptime < rules.learning:
        status, reason = Status.UNKNOWN, "its own rate is not known yet"
        if heard and uptime < rules.learning:
            status, reason = Status.HEALTHY, "delivers; its rate is still being learned"
    elif age > within:
        status = Status.CRITICAL if age > 4 * within else Status.DEGRADED
        reason = f"silent for {age:.0f} s, at its rate {within:.0f} s would be unusual"
    else:
        status, reason = Status.HEALTHY, "delivers"
    return SymbolHealth(symbol, status, reason, age, rate or None, within, trades, behind)


def _as_facts(facts: Facts) -> dict[str, Any]:
    """The figures behind the verdict, flat, for metadata and JSON."""
    flat: dict[str, Any] = {}
    if facts.lease is not None:
        flat |= {"lease_owner": facts.lease.owner, "lease_age_s": round(facts.lease.age, 1)}
    if facts.backlog is not None:
        flat |= {
            "stream_entries": facts.backlog.entries,
            "stream_pending": facts.backlog.pending,
            "stream_oldest_s": facts.backlog.oldest_age,
        }
    if facts.published is not None:
        flat |= {"published_age_s": round(facts.published.age, 1), **facts.published.overall}
    return flat


_ROW = ("at", "market", "symbol", "stream", "status", "last_data_at", "lag_seconds", "rate", "reason", "run_id")


def record_health(warehouse: Warehouse, seen: Health, *, now_ms: int) -> None:
    """
    Add what was seen to the `health` table: a row for the whole (empty market and symbol), and one for each symbol.

    A warehouse that is down cannot be told so; the caller's events say it.
    """
    run_id = str(seen.facts.get("run_id") or "")
    rows: list[tuple[Any, ...]] = [
        (now_ms, "", "", "", seen.status.value, None, 0.0, 0.0, "; ".join(seen.reasons[:5]), run_id)
    ]
    for one in seen.symbols:
        heard = None if one.age is None else now_ms - round(one.age * 1000)
        place = (one.symbol.market.value, one.symbol.name, "trades")
        rows.append((now_ms, *place, one.status.value, heard, one.age or 0.0, one.rate or 0.0, one.reason, run_id))
    with suppress(StoreUnavailable):
        warehouse.insert_columns("health", _ROW, [list(column) for column in zip(*rows, strict=True)])
