"""The ids of partitions as stretches of time, and when they are over."""

from datetime import UTC, datetime

import pytest

from bitget_pipeline.market.interval import Interval, to_ms
from bitget_pipeline.market.retention import DAY_MS, is_over, span_of


def at(*parts):
    return to_ms(datetime(*parts, tzinfo=UTC))


@pytest.mark.parametrize(
    ("name", "first", "end"),
    [
        ("2024", (2024, 1, 1), (2025, 1, 1)),
        ("202402", (2024, 2, 1), (2024, 3, 1)),
        ("202412", (2024, 12, 1), (2025, 1, 1)),
        ("20240229", (2024, 2, 29), (2024, 3, 1)),
    ],
)
def test_partition_is_the_stretch_that_its_id_names(name, first, end):
    """A year, a month or a day, of leap years too."""
    assert span_of(name) == Interval(at(*first), at(*end))


@pytest.mark.parametrize("name", ["all", "", "20241301", "20240230", "2024-02-01", "99999", "²024"])
def test_partition_of_another_kind_is_left_alone(name):
    """What cannot be read is no stretch of time."""
    assert span_of(name) is None


def test_partition_is_over_when_its_last_moment_is():
    """Its first rows are kept for longer, never for less."""
    span = Interval(0, DAY_MS)
    assert not is_over(span, days=7, now_ms=8 * DAY_MS - 1)
    assert is_over(span, days=7, now_ms=8 * DAY_MS)
    assert not is_over(span, days=0, now_ms=10**15)
