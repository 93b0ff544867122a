"""
Rounds: what goes wrong is drawn by a seed, checkpoints compare, and the last one compares everything.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bitget_pipeline.market.interval import Interval

from .compare import Comparison, compare
from .kinds import KINDS, Kind
from .scene import MINUTE, Scene

AT_ONCE = 0.25
"""How often two things go wrong together."""


@dataclass
class Report:
    """How the rounds went: seconds to recover by what had gone wrong, and the comparison of everything."""

    seed: int
    rounds: int = 0
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    result: Comparison = field(default_factory=Comparison)
    exit_code: int | None = None
    exit_codes: list[int] = field(default_factory=list)  # of the flushers that were at work in the end
    claimed: int = 0
    held: int = 0  # entries that are not acknowledged although everybody has ended well

    @property
    def agrees(self) -> bool:
        """Whether nothing was lost, and all that wrote ended well."""
        return self.result.agrees and self.exit_code == 0 and not any(self.exit_codes) and not self.held

    def table(self) -> str:
        """For a person."""
        lines = [f"{'what went wrong':<32}{'rounds':>8}{'recovered in s, median':>26}{'longest':>10}"]
        for name, seconds in sorted(self.recoveries.items(), key=lambda item: -len(item[1])):
            ordered = sorted(seconds)
            lines.append(f"{name:<32}{len(ordered):>8}{ordered[len(ordered) // 2]:>26.1f}{ordered[-1]:>10.1f}")
        one = self.result
        lines += [
            f"seed {self.seed}, {self.rounds} rounds",
            f"trades compared {one.trades:,}: lost {one.lost}, doubled {one.doubled}, invented {one.invented}, "
            f"different {one.different}",
            f"candles compared {one.candles:,}: wrong {one.candles_wrong}",
            f"breaks {one.breaks:,}: not repaired in the ledger {one.breaks_not_in_ledger}",
            f"entries taken over from another {self.claimed:,}; held by nobody in the end {self.held}",
            *one.examples,
        ]
        return "\n".join(lines)


async def play(
    scene: Scene,
    *,
    rounds: int,
    seed: int,
    every: int = 20,
    kinds: Sequence[Kind] = KINDS,
    note: Callable[[str], None] = lambda text: None,
) -> Report:
    """
    Play so many rounds and compare everything at the end; checkpoints after `every` rounds end it early when something
    differs. Raises DidNotSettle when the scene does not recover.
    """
    rng, report = random.Random(seed), Report(seed)
    compared = scene.start_ms
    for number in range(1, rounds + 1):
        chosen = rng.choices(kinds, weights=[kind.weight for kind in kinds], k=2 if rng.random() < AT_ONCE else 1)
        moments = [0.0, *(rng.uniform(0.0, 1.0) for _ in chosen[1:])]
        await asyncio.sleep(rng.uniform(0.1, 1.2))
        luck = [random.Random(rng.random()) for _ in chosen]
        await asyncio.gather(*map(_act, chosen, moments, luck, [scene] * len(chosen)))
        seconds = await scene.recovered(scene.exchange.now_ms())
        name = " + ".join(sorted({kind.name for kind in chosen})) if len(chosen) == 1 else "two at once"
        report.recoveries[name].append(seconds)
        report.rounds = number
        note(f"round {number}: {' + '.join(kind.name for kind in chosen)}; recovered in {seconds:.1f} s")
        if number % every == 0 and number < rounds:
            through = await _settled(scene)
            part = await compare(scene, Interval(compared, through))
            note(f"checkpoint: {part.trades:,} trades, lost {part.lost}, not yet found {part.not_yet_found}")
            if not part.agrees:
                report.result = part
                return report
            compared = through
    if scene.lossy:
        over = max(scene.lossy) + MINUTE
        note("waiting for the last minute with lost frames")
        await scene.until(lambda: scene.exchange.now_ms() > over, within=90, what="the last minute is over")
        await scene.reconciled()
    through = await _settled(scene)
    await scene.nothing_left_behind()
    flushers = scene.flushers_wanted
    report.exit_code = await scene.worker.end()
    await scene.flushers_idle()
    report.exit_codes = [await flusher.end() for flusher in flushers]
    report.held = sum((await scene.asked(scene.consumers) or {"nobody answers": 1}).values())
    report.claimed = scene.claimed()
    report.result = await compare(scene, Interval(scene.start_ms, through), last=True)
    return report


async def _act(kind: Kind, moment: float, luck: random.Random, scene: Scene) -> None:
    await asyncio.sleep(moment)
    await kind.act(scene, luck)


async def _settled(scene: Scene) -> int:
    await scene.ended_by_themselves()
    return await scene.settled()
