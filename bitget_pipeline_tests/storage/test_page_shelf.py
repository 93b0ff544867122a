"""Pages under way: laid down and taken up again, exactly."""

from __future__ import annotations

import redis.asyncio

from bitget_pipeline.market.candle import Candle, Candles, Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.storage.keys import shelf_key
from bitget_pipeline.storage.page_shelf import PageShelf, ShelvedPage

BTC = Symbol(Market.SPOT, "BTCUSDT")
DAY = Interval(1_790_294_400_000, 1_790_380_800_000)
BARS = Candles.of(
    Candle(DAY.start_ms + minute * 60_000, 0.1, 0.1 + 0.2, 1e-300, 83765.17, 2.0**53, 0.0) for minute in range(3)
)


async def test_a_page_comes_back_as_it_was_laid_down(redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """To the last bit, by the moment before which it was asked for; an empty answer too."""
    shelf = PageShelf(redis_client, redis_prefix)
    pages = {DAY.end_ms: ShelvedPage(1_790_400_000_123, BARS), DAY.start_ms: ShelvedPage(7, Candles.of(()))}
    for end_ms, page in pages.items():
        await redis_client.execute_command(*shelf.laying(BTC, Resolution.M1, DAY, end_ms=end_ms, page=page))

    assert await shelf.pages(BTC, Resolution.M1, DAY) == pages
    assert await shelf.for_refresh().pages(BTC, Resolution.M1, DAY) == {}
    await shelf.clear(BTC, Resolution.M1, DAY)
    assert await shelf.pages(BTC, Resolution.M1, DAY) == {}


async def test_what_lies_there_is_forgotten(redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """An old answer is not what the exchange says now."""
    shelf = PageShelf(redis_client, redis_prefix, kept_seconds=7700)
    laying = shelf.laying(BTC, Resolution.M1, DAY, end_ms=DAY.end_ms, page=ShelvedPage(1, BARS))
    await redis_client.execute_command(*laying)

    (key,) = [key async for key in redis_client.scan_iter(match=f"{redis_prefix}*")]
    assert 7600 < await redis_client.ttl(key) <= 7700


async def test_what_is_no_page_is_left_out(redis_client: redis.asyncio.Redis, redis_prefix: str) -> None:
    """Another version of the program may have laid it down."""
    key = shelf_key(redis_prefix, f"{BTC}:{Resolution.M1}:{DAY.start_ms}-{DAY.end_ms}")
    for end_ms, data in {"1": b"", "2": b"\x92\x01\x90", "3": b"x" * 63, "some": b"x" * 8}.items():
        await redis_client.hset(key, end_ms, data)  # type: ignore[misc]

    assert await PageShelf(redis_client, redis_prefix).pages(BTC, Resolution.M1, DAY) == {}
