"""What the tests of history share: market time begins at noon, far from where days, and the eight hours of funding, end."""

from __future__ import annotations

import pytest

from bitget_pipeline.local.exchange import LocalExchange

DAY_MS = 86_400_000


def at_noon(server: LocalExchange) -> LocalExchange:
    """Put its clock forward to the next noon (UTC): "yesterday" is the same day from a test's first line to its last."""
    now = server.now_ms()
    noon = now - now % DAY_MS + DAY_MS // 2
    server.venue.clock.set(now_ms=noon if noon > now else noon + DAY_MS)
    return server


@pytest.fixture
async def local_exchange(local_exchange: LocalExchange) -> LocalExchange:
    """A running local exchange of its own, at noon."""
    return at_noon(local_exchange)
