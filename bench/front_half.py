"""
The front half of the live walk, socket → Redis append: trades per CPU second of the worker, as a ratio.

    python -m bench.front_half [--trades 200000] [--rounds 3]

Against the rate at which the `websockets` library merely receives the same frames (promised: 0.5 at one trade a frame, 0.35
at five), and against ccxt.pro's rate of parsing them (promised: 3). A process of its own sends frames made beforehand over
loopback as fast as they are taken, so the figures are of a worker that never waits. Receivers take turns, and the middle
of each one's rounds counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import msgspec

from bitget_pipeline.local import redis as local_redis

from .blast import Blast
from .receivers import RECEIVERS, Task

PROMISED = {1: 0.5, 5: 0.35}
PROMISED_OF_CCXT = 3.0
CCXT_PART = 8
"""ccxt.pro parses the eighth part of the frames: its pace does not change, and it takes its time."""


def rates(blast: Blast, redis_port: int, *, rounds: int) -> dict[str, float]:
    """Trades per CPU second of each receiver."""
    sender = subprocess.Popen(
        [sys.executable, "-m", "bench.blast", msgspec.json.encode(blast).decode()], stdout=subprocess.PIPE
    )
    try:
        assert sender.stdout is not None
        port = json.loads(sender.stdout.readline())["port"]
        found: dict[str, list[float]] = {name: [] for name in RECEIVERS}
        for number in range(rounds):
            for name, measured in found.items():
                sent = msgspec.structs.replace(blast, frames=blast.frames // CCXT_PART) if name == "ccxt" else blast
                task = Task(sent, port, redis_port, prefix=f"bench{blast.trades_per_frame}-{number}:")
                measured.append(_rate(name, task))
        return {name: median(measured) for name, measured in found.items()}
    finally:
        sender.kill()
        sender.wait()


def _rate(name: str, task: Task) -> float:
    command = [sys.executable, "-m", "bench.receivers", name, msgspec.json.encode(task).decode()]
    said = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300).stdout)
    assert said["trades"] == task.blast.trades, said
    return float(said["trades"] / said["cpu_seconds"])


def main() -> int:
    """Both sizes of frame; 0 when both are as promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--trades", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    kept = True
    with tempfile.TemporaryDirectory(prefix="bitget-bench-") as folder:
        config = local_redis.with_port(local_redis.RedisConfig(data=Path(folder) / "redis"))
        server = local_redis.start(config)
        try:
            for size, promised in PROMISED.items():
                found = rates(Blast(given.trades // size, size), config.port, rounds=given.rounds)
                figures = {
                    "trades_a_frame": size,
                    **{f"{name}_trades_per_cpu_second": round(rate) for name, rate in found.items()},
                    "of_bare_receive": round(found["ours"] / found["bare"], 3),
                    "of_ccxt_parsing": round(found["ours"] / found["ccxt"], 2),
                }
                print(json.dumps({"bench": "front_half", **figures}), flush=True)
                kept &= figures["of_bare_receive"] >= promised and figures["of_ccxt_parsing"] >= PROMISED_OF_CCXT
        finally:
            local_redis.stop(server)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
