"""Runs of history give way to live work and to the pages."""

from __future__ import annotations

import multiprocessing
import os

from bitget_pipeline.defs.priority import NICENESS, give_way


def _niceness_after(answer: multiprocessing.Queue[int]) -> None:
    give_way()
    answer.put(os.getpriority(os.PRIO_PROCESS, 0))


def test_a_run_of_its_own_gives_way() -> None:
    """
    In a process that was started for one run everything else on the machine comes first.
    """
    spawn = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[int] = spawn.Queue()
    process = spawn.Process(target=_niceness_after, args=(answer,))
    process.start()
    try:
        assert answer.get(timeout=120) == max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
    finally:
        process.join()


def test_a_process_of_somebody_else_is_left_as_it_is() -> None:
    """
    Whoever materializes within a process of their own keeps their place.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    give_way()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
