"""
The live run under Dagster, killed with everything around it, brought back by the supervisor sensor alone.

    python -m bitget_pipeline_tests.chaos.live_through_dagster [--rounds 20] [--seed 5] [--only sockets]

An instance of its own, as `bitget-pipeline up` makes it, in a temporary folder; the local exchange stands outside of it. In
each round something is killed at a seeded random moment: the live run's worker, the code server, the daemon, Redis,
ClickHouse, sockets, or the whole host (kill -9 of every process, then `up` again); or the sockets stay open and say nothing,
or lose single frames, which only the exchange's own bars tell. At the end the stored trades and candles are compared with
what was traded, row by row, and each break that a run told of with the ledger. Exit code 0 only if nothing differs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import click
import psutil

from bitget_pipeline.cli.up import folder, leftovers
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.market.instrument import Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync

from ..smoke.dagster import Dagster
from ..smoke.truth import Comparison, Exchange, Warehouse, compare_trades
from .scene import free_port

EXCHANGE = ("--spot-instruments", "60", "--usdtm-instruments", "30", "--active-per-market", "6")
SYMBOLS_PER_MARKET = 3
STEADY = 32.0
"""Seconds a live run lives before it is killed: a run that fails sooner belongs to a series, which the supervisor slows down."""
MINUTE = 60_000
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TOLD = re.compile(r"""["']?(symbol|after|before)["']?\s*[=:]\s*["']?([\w:]+)""")


class Instance:
    """One instance in a folder, and what may be done to it; `settings` are variables of the environment beside the usual."""

    def __init__(self, home: Path, exchange: dict[str, str], settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.exchange = exchange
        self.settings = dict(settings or {})
        self.port = free_port()
        self.began = time.monotonic()
        self.up: subprocess.Popen[bytes] | None = None
        self.lossy: set[int] = set()
        """Minutes in which single frames were lost, Unix ms; reconciliation has to find them."""

    def note(self, text: str) -> None:
        """Tell a person where we are."""
        print(f"chaos {time.monotonic() - self.began:7.1f} s  {text}", file=sys.stderr, flush=True)

    def start(self) -> None:
        """`bitget-pipeline up`, as a user starts it."""
        settings = {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_REST_URL": self.exchange["rest_url"],
            "BITGET_WS_URL": self.exchange["ws_url"],
            "BITGET_PIPELINE_SYMBOLS_PER_MARKET": str(SYMBOLS_PER_MARKET),
            "BITGET_PIPELINE_HISTORY_DAYS": "1",
            "BITGET_PIPELINE_HISTORY_TARGETS": "none",
            **self.settings,
        }
        command = [sys.executable, "-m", "bitget_pipeline.cli.main", "up", "--headless"]
        with (self.home.parent / "up.log").open("ab") as log:
            self.up = subprocess.Popen(
                [*command, "--home", str(self.home), "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | settings,
            )

    def wait(self, what: str, ready: Callable[[], Any], *, within: float = 240.0) -> Any:
        """Poll until `ready` answers something true. Raises SystemExit when that takes too long."""
        deadline, trouble = time.monotonic() + within, ""
        while True:
            try:
                if found := ready():
                    return found
            except (OSError, URLError, RuntimeError, KeyError, ValueError) as error:
                trouble = str(error).splitlines()[0] if str(error) else repr(error)
            except Exception as error:  # each client has errors of its own while its server is away
                trouble = repr(error)
            if time.monotonic() > deadline:
                raise SystemExit(f"chaos: {what}: not within {within:.0f} s ({trouble}); logs: {self.home / 'logs'}")
            assert self.up is not None
            if self.up.poll() is not None:
                raise SystemExit(f"chaos: `up` ended by itself with code {self.up.returncode}, see up.log")
            time.sleep(0.25)

    # ------------------------------------------------------------ looking

    def run_file(self) -> dict[str, Any]:
        """What `up` wrote of itself."""
        return folder.read_run(self.home)

    @property
    def dagster(self) -> Dagster:
        """Its page."""
        return Dagster(f"http://127.0.0.1:{self.port}")

    def warehouse(self) -> Warehouse:
        """Its ClickHouse."""
        address = self.run_file()["addresses"]["warehouse"]
        return Warehouse(
            host=address["host"], port=address["port"], username=address["user"], database="trading", compress=False
        )

    def stored_through(self) -> dict[tuple[str, str], int]:
        """The newest stored trade of each symbol, Unix ms."""
        rows = self.warehouse().rows(
            "SELECT market, symbol, toUnixTimestamp64Milli(max(ts)) FROM trades GROUP BY market, symbol"
        )
        return {(market, symbol): newest for market, symbol, newest in rows}

    def selected(self) -> list[tuple[str, str]]:
        """The symbols that are collected."""
        return [(m, s) for m, s in self.warehouse().rows("SELECT market, symbol FROM universe_now ORDER BY ALL")]

    def gaps_open(self) -> int:
        """Breaks that are not repaired yet."""
        port = int(self.run_file()["addresses"]["redis"]["port"])
        overview = Overview(connect_sync(RedisAddress("127.0.0.1", port)), "bitget_pipeline:", "0")
        anchors = overview.anchors()
        if not anchors:
            raise RuntimeError("there are no anchors")
        return sum(len(anchor.gaps) for anchor in anchors.values())

    def breaks(self) -> list[tuple[Symbol, Interval]]:
        """Every break that a live run has told of, from the last trade before it to the first one after it."""
        time_of = get("bitget").trade_time_ms
        found: list[tuple[Symbol, Interval]] = []
        for log in (self.home / "dagster").rglob("*"):
            if log.suffix not in (".out", ".err") or not log.is_file():
                continue
            for line in log.read_text(errors="replace").splitlines():
                if "live.gap_found" not in line:
                    continue
                said = dict(_TOLD.findall(_COLOUR.sub("", line)))
                if said.keys() >= {"symbol", "after", "before"}:  # else of one who was killed while he wrote it
                    interval = Interval(time_of(int(said["after"])), time_of(int(said["before"])))
                    found.append((Symbol.parse(said["symbol"]), interval))
        return found

    def not_in_ledger(self, breaks: Sequence[tuple[Symbol, Interval]]) -> list[tuple[Symbol, Interval]]:
        """Those of which the ledger does not say throughout that nothing is missing."""
        missing: list[tuple[Symbol, Interval]] = []
        for symbol, interval in breaks:
            rows = self.warehouse().rows(
                "SELECT toUnixTimestamp64Milli(interval_start), toUnixTimestamp64Milli(interval_end) FROM coverage "
                "WHERE stream = 'trades' AND market = {market:String} AND symbol = {symbol:String} AND state = 'complete' "
                "ORDER BY interval_start",
                market=symbol.market.value,
                symbol=symbol.name,
            )
            reached = interval.start_ms
            for start, end in rows:
                if start <= reached < end:
                    reached = end
            if reached <= interval.end_ms:
                missing.append((symbol, interval))
        return missing

    def reconciled(self, symbols: int) -> bool:
        """Whether each symbol's minutes with lost frames were looked into, to an end."""
        (found,) = self.warehouse().rows(
            "SELECT count() FROM reconciliation_final WHERE state != 'differs' "
            f"AND toUnixTimestamp64Milli(minute) IN ({', '.join(map(str, sorted(self.lossy)))})"
        )
        return int(found[0]) >= symbols * len(self.lossy)

    def worker(self) -> int:
        """The process of the live run's worker, 0 if it does not run."""
        run = self.dagster.live_run()
        return self.dagster.worker_of(run) if run else 0

    # ------------------------------------------------------------ acting

    def kill(self, program: str) -> None:
        """SIGKILL for one of the programs of `up`."""
        newest = {session.name: session for session in leftovers.recorded_sessions(self.run_file())}
        if leftovers.is_alive(newest[program].pid, newest[program].created):
            os.kill(newest[program].pid, signal.SIGKILL)

    def kill_host(self) -> None:
        """SIGKILL for every process of the instance at once: watchdog, `up`, stores, Dagster, run workers."""
        run = self.run_file()
        assert self.up is not None
        watchdog = run.get("watchdog") or {}
        first = [int(watchdog["pid"])] if watchdog and leftovers.is_alive(watchdog["pid"], watchdog["created"]) else []
        for pid in [*first, self.up.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.up.wait()
        sessions, mark = leftovers.recorded_sessions(run), str(run.get("mark", ""))
        while living := leftovers.members(sessions, mark):
            for process, _ in living.values():
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def end(self) -> int:
        """Ctrl-C; the exit code."""
        assert self.up is not None
        self.up.send_signal(signal.SIGINT)
        return self.up.wait(timeout=120)

    def fault(self, **body: object) -> None:
        """Pull a lever of the exchange."""
        url = f"{self.exchange['rest_url']}/admin/faults"
        with urlopen(Request(url, data=json.dumps(body).encode(), method="POST"), timeout=10) as answer:
            answer.read()


def worker_killed(instance: Instance, rng: random.Random) -> None:
    """SIGKILL for the worker of the live run."""
    os.kill(instance.wait("the live run has a worker", instance.worker), signal.SIGKILL)


def host_killed(instance: Instance, rng: random.Random) -> None:
    """Everything at once, and `up` again."""
    instance.kill_host()
    time.sleep(rng.uniform(0.0, 2.0))
    instance.start()


def half_open(instance: Instance, rng: random.Random) -> None:
    """The sockets stay open, and nothing is read or sent on them any more."""
    instance.fault(kind="half_open")


def frames_lost(instance: Instance, rng: random.Random) -> None:
    """Every fifth frame of trades is lost for a while, on sockets that are healthy."""
    seconds = rng.uniform(0.5, 2.0)
    began = round(time.time() * 1000)
    instance.fault(kind="lose_trades", probability=0.2, seconds=seconds)
    time.sleep(seconds)
    instance.lossy.update(range(began // MINUTE * MINUTE, round(time.time() * 1000) + 1, MINUTE))


def _killed(program: str) -> Callable[[Instance, random.Random], None]:
    return lambda instance, rng: instance.kill(program)


KINDS: dict[str, tuple[int, bool, Callable[[Instance, random.Random], None]]] = {
    "run worker killed": (4, True, worker_killed),
    "whole host killed": (3, True, host_killed),
    "code server killed": (3, False, _killed("code-server")),
    "daemon killed": (3, False, _killed("dagster-daemon")),
    "redis killed": (3, False, _killed("redis")),
    "clickhouse killed": (3, False, _killed("warehouse")),
    "sockets dropped": (2, False, lambda instance, rng: instance.fault(kind="drop")),
    "sockets half open": (2, False, half_open),
    "single frames lost": (2, False, frames_lost),
}
"""Name: how often it is drawn, whether the live run dies of it, and what is done."""


def play(
    instance: Instance, *, rounds: int, seed: int, only: Sequence[str] = ()
) -> tuple[Comparison, dict[str, list[float]]]:
    """The rounds, then the comparison; with the seconds that each recovery took."""
    rng, recoveries = random.Random(seed), dict[str, list[float]]()
    kinds = {name: kind for name, kind in KINDS.items() if not only or any(word in name for word in only)}
    instance.start()
    instance.wait("ClickHouse has its first trades of every market", lambda: len(instance.stored_through()) >= 6)
    symbols = instance.selected()
    first = (round(time.time() * 1000) // MINUTE + 1) * MINUTE
    instance.note(f"{len(symbols)} symbols are live; compared from the next minute on")
    instance.wait("the next minute", lambda: time.time() * 1000 > first)
    live_since = time.monotonic()
    for number in range(1, rounds + 1):
        name = rng.choices(list(kinds), weights=[kind[0] for kind in kinds.values()])[0]
        _, deadly, act = KINDS[name]
        moment = rng.uniform(0.5, 4.0)
        if deadly:
            moment += max(0.0, live_since + STEADY - time.monotonic())
        time.sleep(moment)
        act(instance, rng)
        fault_ms, began = round(time.time() * 1000), time.monotonic()
        instance.wait(
            f"round {number}, {name}: trades of after it are stored",
            lambda since=fault_ms: max(instance.stored_through().values()) > since,
        )
        took = time.monotonic() - began
        if deadly:
            live_since = time.monotonic()
        recoveries.setdefault(name, []).append(took)
        instance.note(f"round {number}: {name}; recovered in {took:.1f} s")
    end = (round(time.time() * 1000) // MINUTE + 1) * MINUTE
    instance.wait("every symbol is stored", lambda: min(instance.stored_through()[one] for one in symbols) > end)
    if instance.lossy:
        instance.wait("minutes with lost frames are reconciled", lambda: instance.reconciled(len(symbols)), within=300)
    instance.wait("every break is repaired", lambda: instance.gaps_open() == 0)
    trades, candles = compare_trades(Exchange(instance.exchange["rest_url"]), instance.warehouse(), symbols, first, end)
    trades.duplicates += candles.duplicates
    trades.differences += candles.differences
    trades.examples += candles.examples
    found = instance.breaks()
    instance.note(f"{len(found)} breaks; each has to be in the ledger with its repair")
    for symbol, interval in instance.not_in_ledger(found):
        trades.differ(f"{symbol}: the break of {interval} is not repaired in the ledger")
    if trades.expected == 0 or candles.expected == 0:
        trades.differ("nothing was expected: the comparison would be empty")
    return trades, recoveries


@contextlib.contextmanager
def exchange_running(log: Path) -> Iterator[dict[str, str]]:
    """A local exchange as a process of its own; its addresses."""
    command = [sys.executable, "-m", "bitget_pipeline.local.exchange", *EXCHANGE]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@click.command()
@click.option("--rounds", default=20, show_default=True)
@click.option("--seed", default=5, show_default=True)
@click.option("--only", multiple=True, help="A word of the kinds to draw from; may be given again.")
def main(rounds: int, seed: int, only: tuple[str, ...]) -> None:
    """Kill an instance's processes again and again, and compare what is stored with what was traded."""
    logging.disable(logging.CRITICAL)  # the ClickHouse client's, of each question to a server that is away
    place = Path(tempfile.mkdtemp(prefix="bitget-chaos-"))
    agrees, instance = False, None
    try:
        with exchange_running(place / "exchange.log") as exchange:
            instance = Instance(place / "home", exchange)
            try:
                result, recoveries = play(instance, rounds=rounds, seed=seed, only=only)
                code = instance.end()
            finally:
                if instance.up is not None and instance.up.poll() is None:
                    instance.kill_host()
        for name, seconds in sorted(recoveries.items(), key=lambda item: -len(item[1])):
            middle = sorted(seconds)[len(seconds) // 2]
            click.echo(f"{name:<24}{len(seconds):>4} rounds, recovered in {middle:.1f} s, at most {max(seconds):.1f} s")
        click.echo(
            f"seed {seed}, {rounds} rounds through Dagster: {result.expected:,} trades, {result.differences} differences "
            f"with their candles, {result.duplicates} twice; `up` ended with code {code}"
        )
        for example in result.examples:
            click.echo(example)
        agrees = result.differences == 0 and result.duplicates == 0 and code == 0
    finally:
        if agrees:
            shutil.rmtree(place, ignore_errors=True)
        else:
            click.echo(f"logs and data are kept in {place}")
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
