"""
What can go wrong in a round, a row each: what is done to the scene, and undone before the row is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import redis

from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync

from .flushers import add_or_end_flusher, kill_flusher, kill_flusher_and_redis, kill_flusher_and_worker, pause_flusher
from .processes import paused
from .scene import MINUTE, DidNotSettle, Scene

Act = Callable[[Scene, random.Random], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """One way to fail; `weight` says how often it is drawn."""

    name: str
    act: Act
    weight: int = 2


async def kill_worker(scene: Scene, rng: random.Random) -> None:
    """SIGKILL in the middle of whatever it does; sometimes its successor too, while it starts."""
    scene.worker.kill()
    if rng.random() < 0.3:
        await asyncio.sleep(rng.uniform(0.3, 1.5))
        scene.worker.kill()


async def kill_redis(scene: Scene, rng: random.Random) -> None:
    """SIGKILL; it comes back with what it wrote."""
    scene.redis.kill()


async def empty_redis(scene: Scene, rng: random.Random) -> None:
    """SIGKILL, and everything that it held is gone: a lost append-only file, or a failover to an empty replica."""
    scene.redis.hold()
    try:
        scene.redis.kill()
        await scene.until(lambda: not scene.redis.alive, within=60, what="redis is dead")
        for left in scene.redis_config.data.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.suffix in (".aof", ".rdb"):
                left.unlink()
        await asyncio.sleep(rng.uniform(0.0, 1.0))
    finally:
        scene.redis.resume()


async def full_disk(scene: Scene, rng: random.Random) -> None:
    """The disk on which trades wait takes no more, and Redis is away so that they should: they stay in memory, bounded."""
    scene.fill_disk(True)
    scene.redis.hold()
    try:
        scene.redis.kill()
        await asyncio.sleep(rng.uniform(0.5, 2.5))
        if rng.random() < 0.5:  # there is room again before Redis is back, or only afterwards
            scene.fill_disk(False)
    finally:
        scene.redis.resume()
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        scene.fill_disk(False)


async def kill_warehouse(scene: Scene, rng: random.Random) -> None:
    """SIGKILL in the middle of an insert, perhaps."""
    scene.warehouse.kill()


async def drop_sockets(scene: Scene, rng: random.Random) -> None:
    """Every socket is cut, and stays away for a while."""
    with scene.exchange.faulty("refuse_connections"):
        scene.exchange.drop()
        await asyncio.sleep(rng.uniform(0.0, 1.5))


async def half_open(scene: Scene, rng: random.Random) -> None:
    """The sockets stay open and say nothing any more."""
    scene.exchange.fault("half_open")
    await asyncio.sleep(rng.uniform(0.5, 2.0))


async def torn_frames(scene: Scene, rng: random.Random) -> None:
    """Frames arrive cut in the middle."""
    with scene.exchange.faulty("bad_frame", probability=0.1):
        await asyncio.sleep(rng.uniform(0.2, 1.0))


async def repeated_frames(scene: Scene, rng: random.Random) -> None:
    """Frames arrive twice, and some in another order."""
    with scene.exchange.faulty("duplicate"), scene.exchange.faulty("reorder", probability=0.2):
        await asyncio.sleep(rng.uniform(0.5, 1.5))


async def lost_frames(scene: Scene, rng: random.Random) -> None:
    """Single frames are lost while the sockets stay up: nobody can see that, but the exchange's own bars tell it later."""
    first = -(-scene.start_ms // MINUTE) * MINUTE
    # A minute of which only a part is collected cannot be reconciled.
    await scene.until(lambda: scene.exchange.now_ms() >= first, within=90, what="the first whole minute begins")
    began = scene.exchange.now_ms()
    with scene.exchange.faulty("lose_trades", probability=0.2):
        await asyncio.sleep(rng.uniform(0.3, 1.5))
    scene.lossy.update(range(began // MINUTE * MINUTE, scene.exchange.now_ms() + 1, MINUTE))


async def failing_rest(scene: Scene, rng: random.Random) -> None:
    """A break, and the exchange's HTTP is of no help for a while."""
    kind = rng.choice(["html_502", "bad_json", "fills_history_lag", "slow"])
    params = {"html_502": {}, "bad_json": {}, "fills_history_lag": {"lag_seconds": 20}, "slow": {"delay": 1.0}}[kind]
    with scene.exchange.faulty(kind, **params):
        scene.exchange.drop()
        await asyncio.sleep(rng.uniform(0.5, 1.5))


async def pause_worker(scene: Scene, rng: random.Random) -> None:
    """The worker stands still, for less than its lease or for longer."""
    await paused(scene.worker, rng.choice([0.5, 1.0, 2.5]))


async def replace_paused_worker(scene: Scene, rng: random.Random) -> None:
    """It stands still for so long that its successor takes the lease; then it wakes up beside it."""
    number = scene.worker.starts
    process = scene.worker.let_go()
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGSTOP)
        scene.left_alone[number] = process
        await asyncio.sleep(rng.uniform(0.0, 2.0))
        with contextlib.suppress(DidNotSettle):  # woken up earlier, it would rightly go on
            await scene.until(lambda: scene.taken_over(number), within=90, what="the successor has the lease")
            process.send_signal(signal.SIGCONT)
            return
        process.kill()


async def pause_redis(scene: Scene, rng: random.Random) -> None:
    """Redis stands still: commands wait."""
    await paused(scene.redis, rng.uniform(0.5, 2.5))


async def pause_warehouse(scene: Scene, rng: random.Random) -> None:
    """ClickHouse stands still: inserts wait, the stream fills to its bound."""
    await paused(scene.warehouse, rng.uniform(0.5, 3.0))


async def whole_host(scene: Scene, rng: random.Random) -> None:
    """Everything is killed at once, and comes back after a while."""
    await _host_dies(scene, rng)


async def power_cut(scene: Scene, rng: random.Random) -> None:
    """The same, and what Redis had not yet brought to the disk, up to a second of it, is gone."""
    log = scene.redis_config.data / "appendonly.aof"
    size = log.stat().st_size if log.exists() else None
    await asyncio.sleep(rng.uniform(0.1, 0.9))

    def lose() -> None:
        if size is not None and log.stat().st_size > size:
            with log.open("r+b") as file:
                file.truncate(size)

    await _host_dies(scene, rng, meanwhile=lose)


async def full_redis(scene: Scene, rng: random.Random) -> None:
    """Redis has no memory left and refuses to take anything."""
    client: Any = connect_sync(RedisAddress("127.0.0.1", scene.redis_config.port))

    def limit(full: bool) -> None:
        with contextlib.suppress(redis.RedisError):
            used = int(client.info("memory")["used_memory"])
            client.config_set("maxmemory", max(used - 100_000, 1) if full else scene.redis_config.maxmemory_mb << 20)

    await asyncio.to_thread(limit, True)
    try:
        await asyncio.sleep(rng.uniform(0.5, 2.5))
    finally:
        await asyncio.to_thread(limit, False)
        client.close()


async def _host_dies(scene: Scene, rng: random.Random, *, meanwhile: Callable[[], None] | None = None) -> None:
    host = scene.processes
    for process in host:
        process.hold()
    try:
        for process in host:
            process.kill()
        for left in scene.left_alone.values():
            with contextlib.suppress(ProcessLookupError):
                left.kill()
        await scene.until(lambda: not any(p.alive for p in host), within=60, what="everything is dead")
        if meanwhile is not None:
            meanwhile()
        await asyncio.sleep(rng.uniform(0.0, 0.5))
    finally:
        for process in host:
            process.resume()


LOST_FRAMES = Kind("single frames lost", lost_frames)
KINDS = (
    Kind("worker killed", kill_worker, 5),
    Kind("redis killed", kill_redis, 4),
    Kind("clickhouse killed", kill_warehouse, 4),
    Kind("sockets dropped", drop_sockets, 3),
    Kind("sockets half open", half_open),
    LOST_FRAMES,
    Kind("torn frames", torn_frames),
    Kind("frames twice", repeated_frames),
    Kind("break and failing http", failing_rest),
    Kind("worker stands still", pause_worker),
    Kind("worker replaced while still", replace_paused_worker),
    Kind("redis stands still", pause_redis),
    Kind("clickhouse stands still", pause_warehouse),
    Kind("redis full", full_redis),
    Kind("redis emptied", empty_redis, 3),
    Kind("disk full", full_disk, 3),
    Kind("whole host killed", whole_host),
    Kind("power cut", power_cut),
    Kind("flusher killed", kill_flusher, 5),
    Kind("flusher and worker killed", kill_flusher_and_worker, 3),
    Kind("flusher and redis killed", kill_flusher_and_redis, 3),
    Kind("flusher stands still", pause_flusher, 3),
    Kind("one flusher more or less", add_or_end_flusher),
)
