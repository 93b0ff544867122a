"""
Whose data a database or a Redis prefix holds: the real exchange's or the local one's. Never both.

Called before anything is written; the first one to come leaves its stamp, the other one is refused.
"""

from __future__ import annotations

import redis.asyncio

from ..errors import WrongExchange
from .connection import Connection
from .keys import stamp_key
from .ledgers import STAMP
from .redis_errors import translated


def stamp_database(warehouse: Connection, exchange: str) -> None:
    """Stamp the database with `exchange`, or check that it is. Raises WrongExchange."""
    for statement in STAMP.ddl(warehouse.place):
        warehouse.command(statement)
    found = _stamps(warehouse)
    if not found:
        # Two that come at once both write, then both read both rows and refuse: nothing is mixed.
        stamp = "INSERT INTO stamp (exchange, stamped_at) SELECT {exchange:String}, now64(3, 'UTC')"
        warehouse.command(stamp, {"exchange": exchange})
        found = _stamps(warehouse)
    if found != {exchange}:
        raise _wrong(
            f"the database {warehouse.place.database!r}", found, exchange, "set CLICKHOUSE_DATABASE to another name"
        )


def database_exchange(warehouse: Connection) -> str | None:
    """The exchange a database is stamped with, None if it has no stamp."""
    there = warehouse.query("SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'stamp'")
    found = _stamps(warehouse) if there[0][0] else set()
    return " and ".join(sorted(found)) or None


async def stamp_prefix(redis: redis.asyncio.Redis, prefix: str, exchange: str) -> None:
    """Stamp the Redis prefix with `exchange`, or check that it is. Raises WrongExchange."""
    with translated():
        await redis.set(stamp_key(prefix), exchange, nx=True)
        found = await redis.get(stamp_key(prefix))
    name = found.decode() if isinstance(found, bytes) else str(found)
    if name != exchange:
        raise _wrong(
            f"the Redis prefix {prefix!r}", {name}, exchange, "set BITGET_PIPELINE_REDIS_PREFIX to another text"
        )


def _stamps(warehouse: Connection) -> set[str]:
    return {row[0] for row in warehouse.query("SELECT DISTINCT exchange FROM stamp")}


def _wrong(what: str, found: set[str], exchange: str, remedy: str) -> WrongExchange:
    holds = " and ".join(sorted(found))
    return WrongExchange(f"{what} holds data of {holds}, this is {exchange}", remedy=remedy)
