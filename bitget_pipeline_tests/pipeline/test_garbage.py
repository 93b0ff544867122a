"""How often Python looks for garbage while a walk is at work."""

from __future__ import annotations

import gc

from bitget_pipeline.pipeline.garbage import SELDOM, seldom_collected


def test_garbage_is_looked_for_seldom_while_walks_are_at_work_and_as_usual_afterwards() -> None:
    """
    Also when two overlap in one process, and the one that began first ends first.
    """
    usual = gc.get_threshold()
    first, second = seldom_collected(), seldom_collected()
    first.__enter__()
    second.__enter__()
    assert gc.get_threshold() == SELDOM
    assert gc.get_freeze_count() > 0
    first.__exit__(None, None, None)
    assert gc.get_threshold() == SELDOM
    second.__exit__(None, None, None)
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() == 0
