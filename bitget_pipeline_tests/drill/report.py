"""
The drills in their order, the comparison of each with what was traded, and the table of all.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bitget_pipeline.local.exchange import ExchangeConfig
from bitget_pipeline.market.interval import Interval

from ..chaos.compare import compare
from ..chaos.scene import MINUTE, scene
from .attempt import Attempt, Drill, Outcome
from .scene import MARKET, DrillScene
from .signs import Watch

Note = Callable[[str], None]


async def played(
    folder: Path,
    drills: Sequence[Drill],
    *,
    seed: int,
    note: Note = lambda text: None,
    market: ExchangeConfig = MARKET,
    candles: bool = True,
) -> list[Outcome]:
    """
    Play drills on one scene, then compare what is stored with what was traded while each went on; `candles`: their whole
    minutes too, which means to wait for the end of the last one.
    """
    rng = random.Random(seed)
    outcomes: list[Outcome] = []
    async with scene(folder, flushers=0, config=market, made_of=DrillScene) as made:
        note(f"{len(drills)} drills on {len(made.symbols)} symbols, seed {seed}; logs in {folder}")
        async with Watch(made) as watch:
            for drill in drills:
                done = await Attempt(drill, made, watch, random.Random(rng.random())).play()
                outcomes.append(done)
                note(line(done))
        await _compare(made, outcomes, candles=candles)
    return outcomes


async def _compare(made: DrillScene, outcomes: Sequence[Outcome], *, candles: bool) -> None:
    made.symbols = (*made.symbols, *sorted(made.gone, key=str))
    last = max((one.to_ms for one in outcomes), default=0)
    if candles:
        over = (last // MINUTE + 1) * MINUTE
        await made.until(lambda: made.exchange.now_ms() > over + 2_000, within=120, what="the last minute is over")
    await _stored_through(made, last)
    code = await made.end_worker()
    for one in outcomes:
        start, end = one.from_ms, one.to_ms
        if candles:
            start = max(start // MINUTE * MINUTE, made.start_ms)
            end = -(-end // MINUTE) * MINUTE
        one.compared = await compare(made, Interval(start, end), last=True)
    if outcomes and code != 0:
        outcomes[-1].problem = outcomes[-1].problem or f"the live run ended with code {code}"


async def _stored_through(made: DrillScene, moment_ms: int) -> None:
    alive = [f"{symbol.market}:{symbol.name}" for symbol in made.symbols if symbol not in made.gone]

    async def stored() -> bool:
        through = await made.stored_through()
        return all(through.get(name, 0) > moment_ms for name in alive)

    await made.until(stored, within=300, what="what was traded during the drills is stored")
    await asyncio.sleep(0)


# ------------------------------------------------------------ the table


HEAD = (
    "drill",
    "noticed after",
    "by",
    "done",
    "back after",
    "promised",
    "trades",
    "lost",
    "candles",
    "wrong",
    "false alarms",
)
WIDTHS = (27, 13, 28, 46, 10, 26, 8, 5, 8, 6, 12)


def line(one: Outcome) -> str:
    """How a drill went, in one line."""
    told = f"{one.name}: noticed after {_seconds(one.detected)} ({one.seen_as or '-'}), back after {_seconds(one.recovered)}"
    return f"{told}; {one.actions}" + (f"; {one.problem}" if one.problem else "")


def table(outcomes: Iterable[Outcome]) -> str:
    """All drills, for a person; what is not as promised below."""
    rows, trouble = [], list[str]()
    for one in outcomes:
        found = one.compared
        wrong = found.lost + found.doubled + found.invented + found.different
        rows.append(
            (
                one.name,
                _seconds(one.detected) if one.to_notice else "-",
                one.seen_as or "-",
                one.actions,
                _seconds(one.recovered),
                one.promised or "-",
                f"{found.trades:,}",
                str(wrong),
                str(found.candles),
                str(found.candles_wrong),
                str(len(one.false_alarms)),
            )
        )
        if not one.kept:
            trouble += [f"NOT AS PROMISED: {one.name}: {why}" for why in _why(one)]
    lines = [
        "  ".join(cell[:width].ljust(width) for cell, width in zip(row, WIDTHS, strict=True)) for row in (HEAD, *rows)
    ]
    return "\n".join([*lines, f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", *trouble])


def _why(one: Outcome) -> list[str]:
    found = one.compared
    why = [one.problem] if one.problem else []
    if one.to_notice and one.detected is None:
        why.append("nobody noticed")
    if one.recovered is None and not one.problem:
        why.append("it did not come back")
    if not found.trades:
        why.append("nothing was compared")
    why += [f"false alarm: {sign}" for sign in one.false_alarms]
    return [*why, *found.examples]


def as_json(outcomes: Iterable[Outcome]) -> str:
    """The same for a program, an object a line."""
    return "\n".join(json.dumps(_plain(one)) for one in outcomes)


def _plain(one: Outcome) -> dict[str, Any]:
    found = one.compared
    return {
        "drill": one.name,
        "kept": one.kept,
        "noticed_after": one.detected,
        "noticed_by": one.seen_as,
        "actions": one.actions,
        "back_after": one.recovered,
        "promised": one.promised,
        "trades": found.trades,
        "lost": found.lost,
        "doubled": found.doubled,
        "invented": found.invented,
        "different": found.different,
        "candles": found.candles,
        "candles_wrong": found.candles_wrong,
        "false_alarms": one.false_alarms,
        "problem": one.problem,
        "examples": found.examples,
    }


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
