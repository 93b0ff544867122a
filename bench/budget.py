"""
How much of the request budget several processes use together: at least 95 %, without one 429.

    python -m bench.budget [--seconds 180] [--processes 4] [--share 0.9]

Real backfills (pages, inserts, evidence) of spot days in processes that know of each other by Redis alone, against the
local exchange with the limits enforced: 20 requests a second per endpoint, counted in fixed and in sliding windows.
What they are given is `share` of that. Start and end are cut off: counted is a stretch in the middle.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from .surroundings import Surroundings, result, spot_keys, surroundings, worker

PER_SECOND = 20
SETTLING = 3.0


def measure(where: Surroundings, *, seconds: float, processes: int, share: float) -> dict[str, Any]:
    """One window, one figure."""
    needed = int((seconds + 30) * PER_SECOND / 8 / processes) + 8
    keys = spot_keys(where, symbols=40, days=needed * processes // 40 + 2)
    jobs = [
        where.job(keys[n::processes][:needed], prefix="bench:", share=share, seconds=seconds + 2 * SETTLING + 10)
        for n in range(processes)
    ]
    workers = [worker(job) for job in jobs]
    time.sleep(SETTLING)
    before, began = _requests(where), time.monotonic()
    time.sleep(seconds)
    after, ended = _requests(where), time.monotonic()
    cpu = sum(result(process)["cpu_seconds"] for process in workers)
    counted = where.counters()
    per_second = (after - before) / (ended - began)
    return {
        "seconds": round(ended - began, 1),
        "requests": after - before,
        "given_per_second": share * PER_SECOND,
        "used_per_second": round(per_second, 3),
        "used_of_given": round(per_second / (share * PER_SECOND), 4),
        "too_many_requests": counted["429"],
        "violations": counted["limit_violations_total"],
        "cpu_seconds_of_all_processes": round(cpu, 1),
    }


def _requests(where: Surroundings) -> int:
    return int(sum(n for path, n in where.counters()["requests"].items() if path.endswith("/history-candles")))


def main() -> int:
    """Both windows; 0 when both are as promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--window", choices=["fixed", "sliding"], action="append")
    given = parser.parse_args()
    kept = True
    for window in given.window or ["fixed", "sliding"]:
        with surroundings("--window", window) as where:
            figures = measure(where, seconds=given.seconds, processes=given.processes, share=given.share)
        print(json.dumps({"bench": "budget", "window": window, "processes": given.processes, **figures}), flush=True)
        kept &= figures["used_of_given"] >= 0.95 and figures["too_many_requests"] == 0
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
