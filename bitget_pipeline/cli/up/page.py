"""
Dagster's webserver, started with `up`: loaded beside the code server, but opened only when that one answers.

Both take seconds to load, so they load at the same time. A webserver that asks too early logs a stack trace and shows a
code location that cannot be reached.

Input: the code server's port as first argument, the webserver's own arguments after it.
"""

from __future__ import annotations

import sys
import time

from . import probes

LONGEST_WAIT = 90.0  # seconds; then the page itself is the best place to see what is wrong


def main(arguments: list[str]) -> None:
    """Load, wait, serve until told to stop."""
    from dagster_webserver.cli import main as serve  # the slow part

    code_server_answers = probes.port_accepts(int(arguments[0]))
    deadline = time.monotonic() + LONGEST_WAIT
    while not code_server_answers() and time.monotonic() < deadline:
        time.sleep(0.05)
    sys.argv = ["dagster-webserver", *arguments[1:]]
    serve()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1:])
