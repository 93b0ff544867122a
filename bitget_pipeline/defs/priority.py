"""
Who comes first on a machine that has too little for all: live work and the pages before history.

Called where a run begins to work through its partitions. On a laptop the runs of a large backfill share two cores with
Dagster's web server, which otherwise answers seconds late now and then.
"""

import multiprocessing
import os

NICENESS = 15
"""What runs of history are set to (0 is normal, 19 the last of all)."""


def give_way() -> None:
    """
    Let everything else on this machine come first, for the rest of this process, if that was started for one run.

    A process that is somebody else's (a test, a notebook, an op that runs beside others) is left as it is.
    """
    if multiprocessing.parent_process() is not None:
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
