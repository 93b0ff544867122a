"""What repairs may use of the request limits, whoever repairs."""

from __future__ import annotations

import time

from bitget_pipeline.exchange.registry import get
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.live.repair_pace import RepairPace

BTC = Symbol(Market.SPOT, "BTCUSDT")


async def test_a_break_and_a_minute_that_differs_share_one_pace() -> None:
    """
    Both ask before each request, and half of an endpoint's limit is used, whoever asks; other endpoints have a pace of their
    own.
    """
    exchange, pace = get("bitget"), RepairPace(0.5)
    page = exchange.trade_page(BTC, before_id=1_487_438_024_626_143_232)
    every = 1 / (0.5 * page.per_second)
    began = time.monotonic()
    for _ in range(5):
        await pace(page)
    assert time.monotonic() - began >= 3.9 * every - 0.05
    slow, every = RepairPace(0.0005), 1 / (0.0005 * page.per_second)
    await slow(page)
    began = time.monotonic()
    await slow(exchange.recent_trades(BTC))
    assert time.monotonic() - began < every / 2
