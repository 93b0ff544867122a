"""
Health from outside: what the live run says of itself, what only others can see, and the verdict on the whole.

From what the live run publishes in Redis (attention.py), the lease, both stores, and what Dagster's side adds; to the `health`
sensor, its checks and table, and `status`. Every verdict has its facts and its reason; what cannot be evaluated is unknown, never
healthy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import StoreUnavailable
from ...guard.vitals import WORST_FIRST, Status, Vital, from_plain, unknown, worst
from ...market.instrument import Market, Symbol
from ...storage.control import Published
from ...storage.lease import LeaseState
from ...storage.overview import Backlog, Overview
from ...storage.redis_state import RedisState
from ...storage.warehouse_state import WarehouseState
from .health_rules import HealthRules
from .of_the_run import SILENCE, run_vitals, symbol_vitals, together
from .of_the_stores import answers, backlog_vitals, budget_vitals, redis_vitals, warehouse_vitals

if TYPE_CHECKING:
    from ...storage.warehouse import Warehouse

ONLY_THE_RUN = (
    *("exchange.rest", "exchange.latency", "exchange.errors", "exchange.clock", "throughput", "errors"),
    *("lag.p50", "lag.p99", "lag.traded_p50", "lag.traded_p99", "symbols", "connection.open", "connection.reconnects"),
    *("connection.renewed", "disk.free", "clock.steady"),
    *("stream.bound", "flush.progress", *(f"failover.{market.value}" for market in Market)),
)
"""What nobody else can see, or cannot always: unknown while no live run looks."""

OF_SYMBOLS = "subscription."


@dataclass(frozen=True, slots=True)
class SymbolHealth:
    """
    One symbol. `age` is how long ago it was heard last, `expected_within` how long it may be silent at its own pace, `rate` its
    trades a second; None where it is not known yet.
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
    The whole, its reasons (worst first, one line each), each symbol, every vital, and the facts it was judged by.

    `newest_stored_age` is how many seconds ago the newest trade in the table was traded; None when nobody can say.
    """

    status: Status
    reasons: list[str]
    symbols: list[SymbolHealth] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    newest_stored_age: float | None = None
    vitals: list[Vital] = field(default_factory=list)
    redis: RedisState | None = None

    def of(self, *families: str) -> list[Vital]:
        """The vitals whose names begin so."""
        return [one for one in self.vitals if one.name.startswith(families)]


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What was found, None for what could not be asked; `redis_error` and `warehouse_error` say why. Of a store in `late`
    ("redis", "clickhouse") nothing is known but that it did not answer whoever could not wait for it. `beside` is what somebody
    else has judged: Dagster's own part.
    """

    lease: LeaseState | None = None
    published: Published | None = None
    backlog: Backlog | None = None
    redis: RedisState | None = None
    warehouse: WarehouseState | None = None
    redis_error: str = ""
    warehouse_error: str = ""
    late: frozenset[str] = frozenset()
    beside: tuple[Vital, ...] = ()


def ask_redis(overview: Overview) -> dict[str, Any]:
    """The fields of Facts that Redis knows. Raises StoreUnavailable and its kin."""
    lease, published, backlog = overview.lease(), overview.published(), overview.backlog()
    return {"lease": lease, "published": published, "backlog": backlog, "redis": overview.state()}


def judge(facts: Facts, *, now_ms: int, rules: HealthRules | None = None) -> Health:
    """The verdict on these facts. Pure."""
    rules = rules or HealthRules()
    vitals = list(_outside(facts, rules))
    symbols: list[SymbolHealth] = []
    if _speaks(facts, rules):
        assert facts.published is not None
        of_symbols = judge_symbols(facts.published, rules=rules)
        vitals = _joined(vitals, _of_the_run(facts.published, of_symbols, rules))
        symbols = as_symbols(facts.published, of_symbols)
    else:
        why = "Redis does not answer" if facts.redis_error else "no live run looks"
        if facts.lease is not None and facts.published is not None:
            why = f"the live run has said nothing for {facts.published.age:.0f} s"
        seen = {one.name for one in vitals}
        vitals += [unknown(name, f"{name} is not known: {why}") for name in ONLY_THE_RUN if name not in seen]
    newest = max((int(said.get("stored_through_ms") or 0) for said in _said(facts)), default=0)
    age = max(0.0, (now_ms - newest) / 1000) if newest else None
    why_not = told_reasons(vitals) or ["every symbol delivers at its own rate, and nothing else is out of line"]
    return Health(worst(vitals), why_not, symbols, as_facts(facts), age, vitals, facts.redis)


def _said(facts: Facts) -> Iterable[dict[str, Any]]:
    return facts.published.symbols.values() if facts.published is not None else ()


def _speaks(facts: Facts, rules: HealthRules) -> bool:
    """Whether what a live run says of itself is said of now."""
    return facts.published is not None and facts.lease is not None and facts.published.age <= rules.published


def _outside(facts: Facts, rules: HealthRules) -> Iterable[Vital]:
    """What can be seen without the live run."""
    for name, store, problem in (
        ("redis", "Redis", facts.redis_error),
        ("clickhouse", "ClickHouse", facts.warehouse_error),
    ):
        if name in facts.late:
            yield unknown(f"{name}.answers", f"{store}: {problem}")
        else:
            yield answers(f"{name}.answers", store, problem=problem, owed_for=0.0, rules=rules)
    yield from _lease(facts, rules)
    yield from redis_vitals(facts.redis, rules=rules)
    yield from warehouse_vitals(facts.warehouse, rules=rules)
    capacity = int(facts.published.overall.get("stream_capacity") or 0) if facts.published is not None else 0
    for vital in backlog_vitals(facts.backlog, capacity=capacity, unflushed_for=None, rules=rules):
        if vital.name == "stream.backlog" or (vital.name == "stream.bound" and capacity):
            yield vital
    yield from budget_vitals(facts.redis, share_used=None, breakers=None)
    yield from facts.beside


def _lease(facts: Facts, rules: HealthRules) -> Iterable[Vital]:
    lease, published = facts.lease, facts.published
    if facts.redis_error:
        yield unknown("live.lease", "who holds the lease is not known: Redis does not answer")
        yield unknown("live.run", "how the live run does is not known: Redis does not answer")
        return
    if lease is None:
        yield Vital(
            "live.lease", Status.CRITICAL, "no live run holds the lease: nothing is being collected", None, rules.lease
        )
    elif lease.age > rules.lease:
        reason = f"the live run has not renewed its lease for {lease.age:.0f} s"
        yield Vital("live.lease", Status.CRITICAL, reason, lease.age, rules.lease)
    else:
        yield Vital("live.lease", Status.HEALTHY, "a live run holds the lease", lease.age, rules.lease)
    if published is None:
        yield unknown("live.run", "no live run has published anything")
    elif lease is not None and published.age > rules.published:
        reason = f"the live run has said nothing for {published.age:.0f} s"
        yield Vital("live.run", Status.CRITICAL, reason, published.age, rules.published)
    elif lease is not None:
        yield Vital("live.run", Status.HEALTHY, "the live run says how it does", published.age, rules.published)


def _of_the_run(published: Published, of_symbols: Sequence[Vital], rules: HealthRules) -> list[Vital]:
    """What the live run saw, and each symbol at this moment; judged here where the run publishes no vitals."""
    plain = published.overall.get("vitals")
    if plain:
        seen = [from_plain(one) for one in plain]
        seen = [one for one in seen if not one.name.startswith(OF_SYMBOLS) and one.name != "symbols"]
    else:
        seen = run_vitals(published.overall, rules=rules)
    return [*seen, *([together(of_symbols)] if of_symbols else []), *of_symbols]


def _joined(outside: Sequence[Vital], seen: Sequence[Vital]) -> list[Vital]:
    """Of what both looked at, the worse verdict; where one does not know, the other's."""
    theirs = {(one.name, one.subject): one for one in seen}
    found = []
    for mine in outside:
        other = theirs.pop((mine.name, mine.subject), None)
        found.append(mine if other is None else _of_two(mine, other))
    return [*found, *theirs.values()]


def _of_two(mine: Vital, other: Vital) -> Vital:
    if Status.UNKNOWN in (mine.status, other.status):
        return other if mine.status is Status.UNKNOWN else mine
    return min(other, mine, key=lambda one: WORST_FIRST.index(one.status))


def told_reasons(vitals: Sequence[Vital]) -> list[str]:
    """
    Why it is not healthy, worst first: a line for each vital, one for all subjects of a name, one for all that is not known.
    """
    lines: list[tuple[int, str]] = []
    grouped: dict[tuple[int, str], list[str]] = {}
    lost: list[Vital] = []
    for one in vitals:
        rank = WORST_FIRST.index(one.status)
        if one.status is Status.HEALTHY:
            continue
        if one.subject:
            grouped.setdefault((rank, one.name), []).append(one.reason)
        elif one.status is Status.UNKNOWN:
            lost.append(one)
        else:
            lines.append((rank, one.reason))
    for (rank, _), said in grouped.items():
        more = f" and {len(said) - 3} more" if len(said) > 3 else ""
        lines.append((rank, "; ".join(said[:3]) + more))
    if lost:
        others = f" (nor {', '.join(one.name for one in lost[1:])})" if len(lost) > 1 else ""
        lines.append((WORST_FIRST.index(Status.UNKNOWN), f"{lost[0].reason}{others}"))
    return [line for _, line in sorted(lines, key=lambda one: one[0])]


def judge_symbols(published: Published, *, rules: HealthRules | None = None) -> list[Vital]:
    """Each symbol against its own rate, at this moment. Pure."""
    return symbol_vitals(published.symbols, rules=rules or HealthRules(), later=published.age)


def as_symbols(published: Published, of_symbols: Sequence[Vital]) -> list[SymbolHealth]:
    """The symbols' verdicts with their figures."""
    found = []
    for (symbol, said), vital in zip(
        sorted(published.symbols.items(), key=lambda item: str(item[0])), of_symbols, strict=True
    ):
        trades, rate = int(said.get("trades") or 0), float(said.get("rate") or 0.0)
        behind = trades - int(said.get("stored_trades") or 0)
        reason = vital.reason.removeprefix(f"{vital.subject}: ")
        within = vital.limit if vital.name == SILENCE else said.get("within")
        found.append(SymbolHealth(symbol, vital.status, reason, vital.value, rate or None, within, trades, behind))
    return found


def as_facts(facts: Facts) -> dict[str, Any]:
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
        overall = {name: value for name, value in facts.published.overall.items() if name != "vitals"}
        flat |= {"published_age_s": round(facts.published.age, 1), **overall}
    return flat


_ROW = (
    *("at", "market", "symbol", "stream", "status", "last_data_at", "lag_seconds", "rate", "value", "line"),
    *("reason", "run_id"),
)


def record_health(warehouse: Warehouse, seen: Health, *, now_ms: int) -> None:
    """
    Add what was seen to the `health` table: a row for the whole (empty market, symbol and stream), one for each symbol, and one
    for everything that is watched (its name in `stream`).

    A warehouse that is down cannot be told so; the caller's events say it.
    """
    run_id = str(seen.facts.get("run_id") or "")
    whole = (now_ms, "", "", "", seen.status.value, None, 0.0, 0.0, None, None, "; ".join(seen.reasons[:5]), run_id)
    rows: list[tuple[Any, ...]] = [whole]
    for one in seen.symbols:
        heard = None if one.age is None else now_ms - round(one.age * 1000)
        place = (now_ms, one.symbol.market.value, one.symbol.name, "trades", one.status.value, heard)
        rows.append((*place, one.age or 0.0, one.rate or 0.0, one.age, one.expected_within, one.reason, run_id))
    for vital in seen.vitals:
        if not vital.name.startswith(OF_SYMBOLS):
            what = (now_ms, "", vital.subject, vital.name, vital.status.value, None, 0.0, 0.0)
            rows.append((*what, vital.value, vital.limit, vital.reason, run_id))
    with suppress(StoreUnavailable):
        warehouse.insert_columns("health", _ROW, [list(column) for column in zip(*rows, strict=True)])
