"""
What can go wrong with the flushers beside the live worker: processes of the command `bitget-pipeline flusher`.

Rows of kinds.py. One is killed only once it reads from the stream, so that it dies with entries in its hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal

from .processes import Supervised, paused
from .scene import DidNotSettle, Scene

AT_WORK_WITHIN = 20.0
"""Seconds for a flusher to start, on a busy machine and with stores that fail meanwhile."""


async def kill_flusher(scene: Scene, rng: random.Random) -> None:
    """SIGKILL in the middle of whatever it does; sometimes its neighbour right after it."""
    await _kill_one(scene, rng)
    if rng.random() < 0.3:
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        await _kill_one(scene, rng)


async def kill_flusher_and_worker(scene: Scene, rng: random.Random) -> None:
    """Both, one shortly after the other: nobody who knew of the entries is left."""
    flusher_first = rng.random() < 0.5
    if not flusher_first:
        scene.worker.kill()
        await asyncio.sleep(rng.uniform(0.0, 0.3))
    await _kill_one(scene, rng)
    if flusher_first:
        await asyncio.sleep(rng.uniform(0.0, 0.3))
        scene.worker.kill()


async def kill_flusher_and_redis(scene: Scene, rng: random.Random) -> None:
    """The flusher and the Redis that knows what it held."""
    await _kill_one(scene, rng)
    await asyncio.sleep(rng.uniform(0.0, 0.3))
    scene.redis.kill()


async def pause_flusher(scene: Scene, rng: random.Random) -> None:
    """It stands still, perhaps until another has taken over its entries; then it writes them once more."""
    flusher = await _at_work(scene, rng)
    if flusher is not None:
        await paused(flusher, rng.choice([0.5, 1.5, 5.0]))


async def add_or_end_flusher(scene: Scene, rng: random.Random) -> None:
    """One more begins, or one is asked to end."""
    running = scene.flushers_wanted
    if len(running) < len(scene.flushers):
        next(one for one in scene.flushers if not one.wanted).resume()
        return
    ended = rng.choice(running)
    with contextlib.suppress(TimeoutError):  # a store is away, and it may not write what it holds
        await ended.end(within=15.0)
    ended.send(signal.SIGKILL)


async def _kill_one(scene: Scene, rng: random.Random) -> None:
    flusher = await _at_work(scene, rng)
    if flusher is not None:
        await asyncio.sleep(rng.uniform(0.0, 0.6))
        flusher.kill()


async def _at_work(scene: Scene, rng: random.Random) -> Supervised | None:
    """One of the flushers that run, as soon as it reads; None when it does not come to that, as without a store."""
    chosen = rng.choice(scene.flushers_wanted or scene.flushers[:1])

    async def reads() -> bool:
        process = chosen.process
        names = await scene.asked(scene.consumers) or {}
        return process is not None and any(name.endswith(f"-{process.pid}") for name in names)

    with contextlib.suppress(DidNotSettle):
        await scene.until(reads, within=AT_WORK_WITHIN, what="a flusher reads")
        return chosen
    return None
