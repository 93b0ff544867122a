"""
A small exchange for each test, on a free port: 40 + 40 + 10 + 6 instruments, a few of them busy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running

from .client import Client

SMALL = ExchangeConfig(
    spot_instruments=40,
    usdtm_instruments=40,
    coinm=10,
    usdcm=6,
    active_per_market=6,
    trades_per_second=300.0,
    tick_seconds=0.02,
    limits=False,
)


@pytest.fixture
def small() -> ExchangeConfig:
    """The config of the small exchange, without limits."""
    return SMALL


@pytest.fixture
async def exchange(small: ExchangeConfig) -> AsyncIterator[LocalExchange]:
    """A running small exchange."""
    async with running(small) as started:
        yield started


@pytest.fixture
async def client(exchange: LocalExchange) -> AsyncIterator[Client]:
    """A bare HTTP and socket client of it."""
    async with aiohttp.ClientSession() as session:
        yield Client(exchange, session)
