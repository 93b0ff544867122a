"""
What `up` shows while it runs: a live panel in a terminal, a line now and then elsewhere, JSON lines for programs.

Input: facts gathered in a thread (a slow ClickHouse must not hold up the supervisor), events of the supervisor.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..facts import Facts, Gatherer
from .remedies import remedies_line
from .supervisor import Happened

EVERY = 2.0  # seconds between two looks
LINE_EVERY = 15.0  # seconds between two lines where there is no terminal
KEPT_EVENTS = 5
LONGEST_REASON = 160  # characters

KNOWN_BY = {
    **dict.fromkeys(("instruments", "selected", "history", "candles", "trades"), "clickhouse"),
    **dict.fromkeys(("requests", "sockets", "lease"), "redis"),
    "runs": "dagster",
}
"""Whose word a figure is; without an answer it is unknown, and neither none nor nought."""


class Shown(Protocol):
    """What the run loop tells a view."""

    def opened(self, *, home: Path, addresses: Mapping[str, Any]) -> None:
        """The instance starts."""

    def happened(self, event: Happened) -> None:
        """A program started, died, ..."""

    def ready(self, *, seconds: float) -> None:
        """Everything runs."""

    def refresh(self, states: Mapping[str, str]) -> None:
        """Time passed."""

    def closed(self, text: str) -> None:
        """The instance stopped, or stops."""


class Watcher:
    """Gathers facts in a thread and keeps the newest two, for rates."""

    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer = gatherer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="facts", daemon=True)
        self.latest: Facts | None = None
        self.trades_per_second: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def begin(self) -> None:
        """Everything runs: there is somebody to ask."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            before, self.latest = self.latest, self._gatherer.gather()
            if before is not None and before.trades is not None and self.latest.trades is not None:
                passed = max(self.latest.at - before.at, 1e-6)
                self.trades_per_second = max(0.0, (self.latest.trades - before.trades) / passed)
        self._gatherer.close()


def rows(facts: Facts, trades_per_second: float | None) -> list[tuple[str, str]]:
    """The figures as a person reads them."""
    selected = ", ".join(f"{market} {count}" for market, count in sorted(facts.selected.items())) or "nothing yet"
    runs = ", ".join(f"{count} {status}" for status, count in facts.runs.items() if count) or "none"
    rate = "" if trades_per_second is None else f", {trades_per_second:,.0f}/s"
    lease = facts.lease
    run = facts.live_run or ("unknown" if "dagster" in facts.unreachable else "none")
    live = f"{run}{f', {facts.stage}' if facts.stage else ''}{f': {facts.trouble}' if facts.trouble else ''}"
    shown = [
        ("instruments", _number(facts.instruments)),
        ("selected", selected),
        ("history", f"{_number(facts.candle_days)} of {_number(facts.candle_days_wanted)} symbol days"),
        ("candles", _number(facts.candles)),
        ("trades", f"{_number(facts.trades)}{rate}"),
        *([("agreement", _agreement(facts.agreement))] if facts.agreement.get("minutes") else []),
        *((name.replace("_", " "), _beside(said)) for name, said in sorted(facts.beside.items())),
        ("lag", _lag(facts)),
        ("requests", _requests(facts)),
        ("runs", runs + (f", {facts.backfills} backfills in progress" if facts.backfills else "")),
        ("live run", live),
        ("sockets", _sockets(facts)),
        *([("repairs", _repairs(facts))] if facts.gaps_open else []),
        *([("failover", _failover(facts))] if facts.failover else []),
        ("lease", f"{lease['owner']}, renewed {lease['age']:.1f} s ago" if lease else "nobody holds it"),
        ("health", ": ".join(filter(None, [facts.health or "unknown", "; ".join(facts.health_reasons[:2])]))),
    ]
    if change := facts.reconfiguration.get("changing"):
        told = f"to generation {change['generation']} for {change['seconds']:.0f} s, {change['waiting']} subscriptions to come"
        shown.insert(-2, ("changing", told))
    shown[-2:-2] = [("settings", f"not in force: {problem}") for problem in facts.settings_problems]
    if "mode" in facts.remediation:
        shown.insert(-1, ("remedies", remedies_line(facts.remediation)))
    if facts.starting is not None:
        shown.insert(-2, ("live start", _start(facts.starting)))
    if facts.set_aside:
        shown.insert(-2, ("set aside", f"{facts.set_aside:,} frames; `bitget-pipeline quarantine` shows them"))
    if facts.spill_bytes:
        shown.insert(-2, ("on disk", f"{facts.spill_bytes / 2**20:,.1f} MiB of trades that Redis did not take"))
    shown[-2:-2] = [(name, f"not collected: {why}") for name, why in facts.shed.items()]
    shown = [(name, "unknown" if KNOWN_BY.get(name) in facts.unreachable else value) for name, value in shown]
    return shown + [(source, reason[:LONGEST_REASON]) for source, reason in facts.unreachable.items()]


class Panels:
    """A panel that renews itself in a terminal."""

    def __init__(self, console: Console, watcher: Watcher) -> None:
        self._console = console
        self._watcher = watcher
        self._events: list[str] = []
        self._head: list[tuple[str, str]] = []
        self._live: Live | None = None

    def opened(self, *, home: Path, addresses: Mapping[str, Any]) -> None:
        self._head = headlines(home, addresses)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._live.start()

    def happened(self, event: Happened) -> None:
        stamp = time.strftime("%H:%M:%S")
        self._events = [*self._events, f"{stamp} {event.text}"][-KEPT_EVENTS:]

    def ready(self, *, seconds: float) -> None:
        self.happened(Happened("ready", "instance", f"everything runs after {seconds:.1f} s; Ctrl-C stops it"))

    def refresh(self, states: Mapping[str, str]) -> None:
        if self._live is None:
            return
        table = Table.grid(padding=(0, 2))
        for name, value in self._head:
            table.add_row(Text(name, style="bold"), Text(value))
        if self._watcher.latest is not None:
            for name, value in rows(self._watcher.latest, self._watcher.trades_per_second):
                table.add_row(Text(name, style="cyan"), Text(value))
        processes = "  ".join(f"{name} {state}" for name, state in states.items())
        self._live.update(
            Panel(Group(table, _folded(processes), _folded("\n".join(self._events))), title="bitget_pipeline")
        )

    def closed(self, text: str) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._console.print(text)


def _folded(text: str) -> Text:
    """Small print that a narrow terminal shows in more lines; the console itself would cut it."""
    return Text(text, style="dim", no_wrap=False, overflow="fold")


class Lines:
    """One line when something happens, and one with figures now and then."""

    def __init__(self, console: Console, watcher: Watcher) -> None:
        self._console = console
        self._watcher = watcher
        self._last = 0.0

    def opened(self, *, home: Path, addresses: Mapping[str, Any]) -> None:
        for name, value in headlines(home, addresses):
            self._console.print(f"{name:<12} {value}")

    def happened(self, event: Happened) -> None:
        self._console.print(event.text, markup=False)

    def ready(self, *, seconds: float) -> None:
        self._console.print(f"everything runs after {seconds:.1f} s; Ctrl-C stops it")

    def refresh(self, states: Mapping[str, str]) -> None:
        facts, now = self._watcher.latest, time.monotonic()
        if facts is None or now - self._last < LINE_EVERY:
            return
        self._last = now
        figures = rows(facts, self._watcher.trades_per_second)
        self._console.print(" · ".join(f"{name}: {value}" for name, value in figures), markup=False)

    def closed(self, text: str) -> None:
        self._console.print(text, markup=False)


class Json:
    """The same as JSON lines."""

    def __init__(self, console: Console, watcher: Watcher) -> None:
        self._console = console
        self._watcher = watcher
        self._last = 0.0

    def opened(self, *, home: Path, addresses: Mapping[str, Any]) -> None:
        self._write(event="opened", home=str(home), addresses=dict(addresses))

    def happened(self, event: Happened) -> None:
        self._write(event=event.kind, name=event.name, text=event.text)

    def ready(self, *, seconds: float) -> None:
        self._write(event="running", seconds=round(seconds, 1))

    def refresh(self, states: Mapping[str, str]) -> None:
        facts, now = self._watcher.latest, time.monotonic()
        if facts is None or now - self._last < LINE_EVERY:
            return
        self._last = now
        rate = self._watcher.trades_per_second
        self._write(event="facts", processes=dict(states), trades_per_second=rate, **facts.as_json())

    def closed(self, text: str) -> None:
        self._write(event="stopped", text=text)

    def _write(self, **content: Any) -> None:
        self._console.out(json.dumps(content, default=str, ensure_ascii=False), highlight=False)


def headlines(home: Path, addresses: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The addresses a person wants first, and where the data lies."""
    warehouse, redis = addresses["warehouse"], addresses["redis"]
    return [
        ("Dagster", str(addresses["dagster"]["url"])),
        ("ClickHouse", f"http://{warehouse['host']}:{warehouse['port']}/?database={warehouse['database']}"),
        ("Redis", f"{redis['host']}:{redis['port']}"),
        ("exchange", str(addresses["exchange"]["rest_url"])),
        *([("metrics", str(addresses["metrics"]["url"]))] if "metrics" in addresses else []),
        ("data", str(home)),
    ]


def _failover(facts: Facts) -> str:
    """Who delivers each market."""

    def who(one: dict[str, Any]) -> str:
        state = str(one.get("state"))
        names = {"ours": "Bitget", "none": "Bitget alone", "returning": f"{one.get('substitute')}, Bitget is back"}
        wanted = f" (wanted {one['mode']})" if one.get("mode") in ("on", "off") else ""
        return names.get(state, f"{one.get('substitute')}: {one.get('reason')}") + wanted

    return "; ".join(f"{market} {who(one)}" for market, one in sorted(facts.failover.items()))


def _repairs(facts: Facts) -> str:
    left = facts.repair_seconds_left
    end = (
        ""
        if left is None
        else f", done in about {left / 60:.0f} min"
        if left >= 120
        else f", done in about {left:.0f} s"
    )
    return f"{_number(facts.gaps_open)} breaks in the trades are being fetched{end}"


def _lag(facts: Facts) -> str:
    newest = "no trade in ten minutes" if facts.age_seconds is None else f"newest trade {facts.age_seconds:.1f} s old"
    if "clickhouse" in facts.unreachable:
        newest = "the newest trade is unknown"
    told: list[str] = []
    if facts.traded_lag_p50_ms is not None and facts.traded_lag_p99_ms is not None:
        told += [
            f"{facts.traded_lag_p50_ms:,.0f} ms half, {facts.traded_lag_p99_ms:,.0f} ms 99 % of them since they were made"
        ]
    if facts.lag_p50_ms is not None and facts.lag_p99_ms is not None:
        told += [f"{facts.lag_p50_ms:,.0f} ms half, {facts.lag_p99_ms:,.0f} ms 99 % of them since they arrived"]
    if not told:
        return newest
    return "; ".join([*told, newest, f"{_number(facts.backlog)} waiting"])


def _sockets(facts: Facts) -> str:
    every = facts.connections.values()
    if not every:
        return "none"
    told = [f"{sum(one['age'] is not None for one in every)} of {len(every)} open"]
    told += [f"{sum(one[what] for one in every)} {what}" for what in ("live", "asked", "silent", "refused")]
    return ", ".join([*told, f"{sum(one['frames_per_second'] for one in every):,.0f} frames/s"])


def _start(starting: Mapping[str, Any]) -> str:
    if starting["failed"]:
        return f"run {starting['run_id']} failed {starting['age']:.0f} s ago: {starting['failed'][:LONGEST_REASON]}"
    return f"run {starting['run_id']} in the stage {starting['stage']} since {starting['age']:.0f} s"


def _beside(said: Mapping[str, Any]) -> str:
    """What a companion of the live run collects: how many symbols deliver, what is stored, and what went wrong."""
    delivering = said.get("usable", said.get("heard"))
    symbols = "" if delivering is None else f"{delivering} of {said.get('symbols', '?')} symbols, "
    told = [f"{symbols}{said['stored']:,} rows stored by this run"]
    words = {"waiting": "waiting", "dropped": "dropped", "broken": "broken", "set_aside": "set aside"}
    told += [f"{said[key]:,} {word}" for key, word in words.items() if said.get(key)]
    return ", ".join(told) + (f": {said['trouble']}" if said.get("trouble") else "")


def _agreement(said: Mapping[str, Any]) -> str:
    """How many of the minutes that closed during this run are the exchange's own."""
    same = said.get("matched", 0) + said.get("repaired", 0)
    told = [f"{same:,} of {said['minutes']:,} minutes are the exchange's own"]
    words = {
        "repaired": "repaired",
        "open_differs": "open elsewhere",
        "unexplained": "unexplained",
        "waiting": "looked into",
    }
    return ", ".join([*told, *(f"{said[key]:,} {word}" for key, word in words.items() if said.get(key))])


def _requests(facts: Facts) -> str:
    granted, refused = sum(use["granted"] for use in facts.budget), sum(use["penalties"] for use in facts.budget)
    told = [f"{granted:,} of the shared budget" if granted else "none of the shared budget yet"]
    if refused:
        told.append(f"{refused:,} answered with 429")
    told += [f"{use['endpoint']} at {use['pace']:.0%} of its pace" for use in facts.budget if use["pace"] < 1]
    if facts.budget_closed_for > 0:
        told.append(f"closed for {facts.budget_closed_for:.0f} s")
    return ", ".join(told)


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"
