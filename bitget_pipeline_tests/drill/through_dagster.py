"""
The drills that need Dagster: who replaces a live run that is dead, how one takes over from another, what a machine that slept
wakes up to, and whether a webhook that hangs or refuses holds anything up.

One instance, as `bitget-pipeline up` makes it, on a local exchange of its own: the instance of the kill suite
(chaos/live_through_dagster.py).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bitget_pipeline.cli.up import leftovers

from ..chaos.compare import Comparison
from ..chaos.live_through_dagster import MINUTE, STEADY, Instance, exchange_running
from ..pipeline.watch.alert_servers import Hook, a_webhook
from ..smoke.truth import Exchange, compare_trades
from .attempt import Outcome
from .report import line

ASLEEP = 60.0
HANGS, REFUSES, TAKES = 0, 500, 200

Note = Callable[[str], None]


@dataclass
class Stage:
    """What a drill acts on, and its row."""

    instance: Instance
    hook: Hook
    rng: random.Random
    outcome: Outcome

    def begins(self) -> float:
        """The fault begins now."""
        self.outcome.from_ms = round(time.time() * 1000)
        return time.monotonic()

    def back(self, since: float) -> None:
        """Wait until trades of after this moment are stored; the seconds since the fault are the row's."""
        moment = round(time.time() * 1000)
        self.instance.wait(
            f"{self.outcome.name}: trades of after it are stored",
            lambda: max(self.instance.stored_through().values()) > moment,
        )
        self.outcome.recovered = time.monotonic() - since

    def lived(self) -> None:
        """Wait until the live run has lived long enough that its end is no series of failures."""
        self.instance.wait("a live run", self.instance.worker)
        time.sleep(STEADY)


def run_killed(stage: Stage) -> None:
    """kill -9 for the worker of the live run, while the webhook hangs; then it answers 500, then it takes what waited."""
    instance, hook, out = stage.instance, stage.hook, stage.outcome
    stage.lived()
    hook.status = HANGS
    run = instance.dagster.live_run()
    worker = instance.wait("the live run has a worker", instance.worker)
    began = stage.begins()
    os.kill(worker, signal.SIGKILL)
    instance.wait(
        "somebody sees it",
        lambda: instance.dagster.run_status(str(run)) == "FAILURE" or instance.dagster.live_run() != run,
    )
    out.detected, out.seen_as = time.monotonic() - began, "the supervisor"
    instance.wait("another live run", lambda: instance.dagster.live_run() not in (None, run))
    stage.back(began)
    out.actions = "live run replaced"


def webhook_fails(stage: Stage) -> None:
    """What the run's death had to tell waits while the webhook hangs, then answers 500, and is told once when it takes it."""
    instance, hook, out = stage.instance, stage.hook, stage.outcome
    began = stage.begins()
    instance.wait("the webhook, which hangs, was asked", lambda: hook.asked > 0)
    out.detected, out.seen_as = time.monotonic() - began, "an alert that waits"
    before, hook.status = hook.asked, REFUSES
    hook.released.set()
    instance.wait("the webhook, which answers 500, was asked", lambda: hook.asked > before)
    moment = round(time.time() * 1000)
    instance.wait("live trades go on meanwhile", lambda: max(instance.stored_through().values()) > moment, within=30.0)
    hook.status = TAKES
    lifted = time.monotonic()
    instance.wait("the alert is told", lambda: any("live" in text for text in hook.texts))
    out.recovered = time.monotonic() - lifted
    told = [text for text in hook.texts if "failed" in text]
    out.actions = f"asked {hook.asked} times, told {len(told)}×"


def host_crashes(stage: Stage) -> None:
    """kill -9 for every process of the instance at once; `up` is started again at once, as a service manager would."""
    stage.lived()
    began = stage.begins()
    stage.instance.kill_host()
    stage.instance.start()
    stage.back(began)
    stage.outcome.to_notice, stage.outcome.actions = False, "everything started again"


def machine_sleeps(stage: Stage) -> None:
    """Every process of the instance stands still for a minute, longer than the lease lives; the exchange trades on."""
    instance, out = stage.instance, stage.outcome
    stage.lived()
    run = instance.dagster.live_run()
    run_file = instance.run_file()
    stopped = [
        process
        for process, _ in leftovers.members(leftovers.recorded_sessions(run_file), str(run_file["mark"])).values()
    ]
    assert instance.up is not None
    stopped.append(psutil.Process(instance.up.pid))
    stage.begins()
    for process in stopped:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    time.sleep(ASLEEP)
    for process in reversed(stopped):
        with contextlib.suppress(psutil.Error):
            process.resume()
    woken = time.monotonic()
    stage.back(woken)
    instance.wait("every break is repaired", lambda: instance.gaps_open() == 0)
    out.recovered = time.monotonic() - woken
    out.to_notice = False
    out.actions = "the same live run goes on" if instance.dagster.live_run() == run else "live run replaced"


def settings_change(stage: Stage) -> None:
    """A setting that a live run reads at its start alone: an heir is started beside it, and takes over without a break."""
    instance, out = stage.instance, stage.outcome
    stage.lived()
    run = instance.dagster.live_run()
    stage.begins()
    (instance.home / "settings.toml").write_text("book_levels = 5\n", encoding="utf-8")
    gaps: list[int] = []

    def taken_over() -> bool:
        gaps.append(instance.gaps_open())
        lease = instance.overview().lease()
        return lease is not None and lease.owner != run

    instance.wait("an heir has the lease", taken_over)
    since = time.monotonic()
    stage.back(since)
    instance.wait("its predecessor has ended well", lambda: instance.dagster.run_status(str(run)) == "SUCCESS")
    gaps.append(instance.gaps_open())
    out.to_notice = False
    out.actions = f"an heir took over, {max(gaps)} gaps"
    if any(gaps):
        out.problem = "a break while one run took over from another"


DRILLS: dict[str, tuple[str, Callable[[Stage], None]]] = {
    "live run killed (Dagster)": ("back ≤ 15 s", run_killed),
    "webhook hangs, then 500": ("", webhook_fails),
    "host crashes (Dagster)": ("back ≤ 60 s", host_crashes),
    "asleep for 60 s (Dagster)": ("", machine_sleeps),
    "other book levels (Dagster)": ("no gap", settings_change),
}
"""Name: what is promised, and what is done. The webhook's drill tells of the run killed before it."""


def played_through_dagster(folder: Path, *, names: Sequence[str], seed: int, note: Note) -> list[Outcome]:
    """Play these on one instance, and compare what is stored with what was traded meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, outcomes = random.Random(seed), list[Outcome]()
    with exchange_running(folder / "exchange.log") as exchange, a_webhook() as hook:
        instance = Instance(folder / "home", exchange, settings={"BITGET_PIPELINE_ALERT_WEBHOOK": hook.url})
        try:
            instance.start()
            instance.wait("the first trades of every market are stored", lambda: len(instance.stored_through()) >= 6)
            symbols, first = instance.selected(), (round(time.time() * 1000) // MINUTE + 1) * MINUTE
            note(f"an instance with {len(symbols)} symbols; logs in {folder}")
            for name in names:
                promised, act = DRILLS[name]
                out = Outcome(name, promised=promised)
                outcomes.append(out)
                try:
                    act(Stage(instance, hook, rng, out))
                except SystemExit as error:
                    out.problem = str(error)
                out.to_ms = round(time.time() * 1000)
                note(line(out))
                if out.problem:
                    break
            _compare(instance, outcomes, symbols, first)
            code = instance.end()
            if code != 0:
                outcomes[-1].problem = outcomes[-1].problem or f"`up` ended with code {code}"
        finally:
            if instance.up is not None and instance.up.poll() is None:
                instance.kill_host()
    return outcomes


def _compare(instance: Instance, outcomes: Sequence[Outcome], symbols: Sequence[tuple[str, str]], first: int) -> None:
    end = (outcomes[-1].to_ms // MINUTE + 1) * MINUTE
    instance.wait("every symbol is stored", lambda: min(instance.stored_through()[one] for one in symbols) > end)
    instance.wait("every break is repaired", lambda: instance.gaps_open() == 0)
    for out in outcomes:
        within = max(first, out.from_ms // MINUTE * MINUTE), -(-out.to_ms // MINUTE) * MINUTE
        truth = Exchange(instance.exchange["rest_url"])
        trades, candles = compare_trades(truth, instance.warehouse(), symbols, *within)
        out.compared = Comparison(
            trades=trades.expected,
            lost=trades.differences,
            doubled=trades.duplicates,
            candles=candles.expected,
            candles_wrong=candles.differences + candles.duplicates,
            examples=[*trades.examples, *candles.examples],
        )
