"""Whether the process of a live run is gone, as another process on the same machine sees it."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psutil

from bitget_pipeline.pipeline.live.whereabouts import here, is_gone

TELLS_AND_WAITS = (
    "import json, time; from bitget_pipeline.pipeline.live.whereabouts import here; "
    "print(json.dumps(here()), flush=True); time.sleep(600)"
)


def test_a_process_that_was_killed_is_gone_and_one_that_works_is_not() -> None:
    """
    Killed and not yet waited for by its parent is gone too: it does nothing any more.
    """
    with subprocess.Popen([sys.executable, "-c", TELLS_AND_WAITS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert (told["machine"], told["pid"]) == (here()["machine"], process.pid)
        assert not is_gone(told)
        process.kill()
        deadline = time.monotonic() + 60.0
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert is_gone(told)
    assert is_gone(told)
    assert not is_gone(here())


def test_nobody_knows_of_a_process_elsewhere_or_of_one_that_never_told() -> None:
    """
    Another start of the machine, another machine, another container: the number means nothing here.
    """
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert is_gone(here() | {"pid": ended.pid})
    assert not is_gone({"machine": "another one", "pid": ended.pid})
    assert not is_gone(None)
    assert not is_gone({})
