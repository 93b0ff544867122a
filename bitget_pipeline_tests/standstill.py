"""
Every test, on a machine that stands still: pytest and what it started is stopped for seconds, all of it or a part.

    python -m bitget_pipeline_tests.standstill [--seed 5] [--longest 9] [what pytest is to be told]

What fails here alone takes for granted that its machine goes on: a laptop that is busy or asleep does not. The moments are
drawn by the seed, the tests meet them as they come. The exit code is pytest's.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

ALL_TOGETHER = 0.6
"""Part of the standstills that hold everything; of the others each process is one by chance."""
BETWEEN = (10.0, 35.0)
SHORTEST = 1.5
AS_IN_MAKE_TEST = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", "-q")


def main() -> int:
    """Run the tests; their exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=5, help="draws the moments")
    parser.add_argument("--longest", type=float, default=9.0, help="seconds (default 9)")
    chosen, rest = parser.parse_known_args()
    rng, count = random.Random(chosen.seed), 0
    tests = subprocess.Popen([sys.executable, "-m", "pytest", *AS_IN_MAKE_TEST, *rest])
    try:
        while _still_runs(tests, rng.uniform(*BETWEEN)):
            everybody = rng.random() < ALL_TOGETHER
            stopped = _stopped(one for one in _family(tests.pid) if everybody or rng.random() < 0.5)
            try:
                time.sleep(rng.uniform(SHORTEST, chosen.longest))
            finally:
                _go_on(stopped)
            count += 1
    except KeyboardInterrupt:  # pytest was told too, and sums up
        tests.wait()
    print(f"stood still {count} times, seed {chosen.seed}", file=sys.stderr)
    return tests.returncode


def _still_runs(tests: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        tests.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    return []


def _stopped(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Stop these. Who stands still already was stopped by its test, and is left to it."""
    stopped: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_STOPPED:
                process.send_signal(signal.SIGSTOP)
                stopped.append(process)
    return stopped


def _go_on(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(main())
