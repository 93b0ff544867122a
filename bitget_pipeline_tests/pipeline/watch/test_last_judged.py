"""What the sensor judged last is told with its age, and is unknown once that is too old."""

from __future__ import annotations

import pytest

from bitget_pipeline.guard.vitals import Status, Vital
from bitget_pipeline.pipeline.watch.last_judged import DAGSTER, Judged, as_of_now

NOW = 1_800_000_000_000
ALIVE = Vital("dagster.daemon", Status.HEALTHY, "3 daemons of Dagster are alive", 12.0, 60.0)


@pytest.mark.parametrize(
    ("seconds", "status", "words"),
    [
        (0, Status.HEALTHY, "3 daemons of Dagster are alive (seen 0 s ago)"),
        (180, Status.HEALTHY, "(seen 180 s ago)"),
        (181, Status.UNKNOWN, "the health sensor judged it 3 minutes ago, and not since"),
        (7200, Status.UNKNOWN, "120 minutes ago"),
        (-5, Status.HEALTHY, "(seen 0 s ago)"),
    ],
)
def test_a_verdict_holds_for_three_minutes(seconds: int, status: Status, words: str) -> None:
    """
    Longer than three looks of the sensor nobody knows; a clock that is behind makes no negative age.
    """
    daemon, runs = as_of_now([Judged(NOW - seconds * 1000, ALIVE)], DAGSTER, now_ms=NOW)
    assert daemon.status is status
    assert words in daemon.reason
    assert runs.name == "dagster.runs"


def test_what_nobody_judged_is_unknown() -> None:
    """
    Without a row there is no verdict, and no good one.
    """
    found = as_of_now([], DAGSTER, now_ms=NOW)
    assert [one.status for one in found] == [Status.UNKNOWN, Status.UNKNOWN]
    assert "no health sensor has judged it" in found[0].reason
