"""How often symbols trade outlives the run that learned it."""

from __future__ import annotations

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.storage.keys import shard_key
from bitget_pipeline.storage.paces import PaceBook

BTC, ETH, NEW = (Symbol(Market.SPOT, name) for name in ("BTCUSDT", "ETHUSDT", "NEWUSDT"))


async def test_what_was_learned_is_known_with_its_age_and_a_later_write_leaves_the_others(redis_client, redis_prefix):
    """
    Of a symbol that left the selection it stays; of one that nobody knows there is nothing.
    """
    book = PaceBook(redis_client, redis_prefix, "0")
    await book.put({BTC: {"arrivals": 9}, ETH: {"arrivals": 10}})
    await book.put({BTC: {"arrivals": 11}})
    await book.put({})
    known = await book.known([BTC, ETH, NEW])
    assert {symbol: one.learned["arrivals"] for symbol, one in known.items()} == {BTC: 11, ETH: 10}
    assert all(0.0 <= one.age < 60.0 for one in known.values())
    assert await book.known([]) == {}


async def test_what_cannot_be_read_is_not_known(redis_client, redis_prefix):
    """
    Somebody wrote into it, or another version did: learned anew rather than believed.
    """
    book = PaceBook(redis_client, redis_prefix, "0")
    key = shard_key(redis_prefix, "0", "paces")
    await redis_client.hset(key, mapping={str(BTC): b"{", str(ETH): b'{"at": 1.0, "learned": {"arrivals": 9}}'})
    assert await book.known([BTC, ETH]) == {}
