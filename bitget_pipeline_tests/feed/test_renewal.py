"""Connections are renewed before their end, and not while the exchange puts new programs to work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.renewal import renew_after

RELEASES = get("bitget").limits.releases
DAY = 23.5 * 3600
TUESDAY = datetime(2026, 11, 17, tzinfo=UTC)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_a_renewal_in_a_release_window_is_moved_before_it(spread: float) -> None:
    """
    Opened on Monday at 08:00, due on Tuesday at 07:30, in the window from 06:00 to 09:00: renewed in the twenty minutes
    before it.
    """
    opened = TUESDAY - timedelta(hours=16)
    moment = opened + timedelta(seconds=renew_after(opened, DAY, RELEASES, spread=spread))
    assert TUESDAY.replace(hour=5, minute=40) <= moment <= TUESDAY.replace(hour=6)


@pytest.mark.parametrize(
    "opened",
    [
        TUESDAY - timedelta(hours=10),  # due at 13:30
        TUESDAY - timedelta(days=1, hours=16),  # due on Monday at 07:30: no window
        TUESDAY + timedelta(hours=9, minutes=30),  # due on Wednesday at 09:00, when the window has ended
    ],
)
def test_any_other_renewal_stays_where_it_is(opened: datetime) -> None:
    """
    Outside the window nothing is moved.
    """
    assert renew_after(opened, DAY, RELEASES, spread=0.5) == DAY


def test_a_young_connection_is_not_renewed_for_the_sake_of_a_window() -> None:
    """
    Opened shortly before the window, with a short life: it is renewed when it is due.
    """
    opened = TUESDAY.replace(hour=5, minute=45)
    assert renew_after(opened, 3600, RELEASES, spread=0.5) == 3600
