"""
A job of the product as a process: the live run, or the discovery, with everything that the settings put beside it.

`python -m bitget_pipeline_tests.drill.worker live|discovery RUN_ID CLOCK`. Where things are stands in the environment, as for
any user; RUN_ID is that of the Dagster run; CLOCK is a file that holds how many milliseconds this machine's wall clock is
ahead. Logs to stderr as JSON lines.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

import dagster as dg

from bitget_pipeline.telemetry import configure

AHEAD = struct.Struct("<q")


def set_clock(clock: Path, ahead_ms: int) -> None:
    """The wall clock of whoever follows the file jumps, as it does when a machine wakes up."""
    if clock.exists():
        with clock.open("r+b") as file:
            file.write(AHEAD.pack(ahead_ms))
    else:
        clock.write_bytes(AHEAD.pack(ahead_ms))


def follow_clock(clock: Path) -> None:
    """The wall clock of this process is ahead by what the file says; the clock that nobody sets goes on as it did."""
    with clock.open("rb") as file:
        ahead = mmap.mmap(file.fileno(), AHEAD.size, prot=mmap.PROT_READ)
    wall, wall_ns = time.time, time.time_ns

    def seconds() -> float:
        return wall() + float(AHEAD.unpack_from(ahead)[0]) / 1000

    def nanoseconds() -> int:
        return wall_ns() + int(AHEAD.unpack_from(ahead)[0]) * 1_000_000

    time.time, time.time_ns = seconds, nanoseconds


def main() -> None:
    """Run the job to its end; the exit code says how it ended."""
    job, run_id, clock = sys.argv[1:4]
    follow_clock(Path(clock))
    from bitget_pipeline.definitions import defs  # whoever takes `time.time` at its import shall take this one

    configure(json=True)
    with dg.DagsterInstance.ephemeral() as instance:
        done = defs.resolve_job_def(job).execute_in_process(instance=instance, run_id=run_id, raise_on_error=False)
    sys.exit(0 if done.success else 1)


if __name__ == "__main__":
    main()
