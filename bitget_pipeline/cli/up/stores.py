"""
What must hold in ClickHouse and Redis before anything is written: the exchange's stamp, and the tables.

Done by `up` in a thread while Dagster starts, so that its pages never show a schema that is not there yet. The drivers
are imported when they are used: they take a while.
"""

from __future__ import annotations

import asyncio

from ...settings import Boot, redis_address, warehouse_address


def require_answers(boot: Boot) -> None:
    """
    Ask the stores that others run for a sign of life, before anything is started or written.

    Raises StoreUnavailable or CredentialsRefused.
    """
    if not boot.embedded_redis:
        from ...storage.redis_connection import connect_sync
        from ...storage.redis_errors import translated

        redis = connect_sync(redis_address(boot))
        try:
            with translated():
                redis.ping()
        finally:
            redis.close()
    if not boot.embedded_warehouse:
        from ...storage.connection import Connection

        with Connection.open(warehouse_address(boot)) as warehouse:
            warehouse.query("SELECT 1")


def prepare(boot: Boot) -> str:
    """
    Stamp both stores, then migrate. Returns what was done, for people.

    Raises WrongExchange before anything else is written, StoreUnavailable, StoreRefused or CredentialsRefused.
    """
    from ...storage.connection import Connection
    from ...storage.migrations import migrate
    from ...storage.stamp import stamp_database

    asyncio.run(_stamp_redis(boot))
    with Connection.open(warehouse_address(boot)) as warehouse:
        stamp_database(warehouse, boot.exchange)
        report = migrate(warehouse)
    applied = f"migrated to version {report.version}" if report.applied else f"at version {report.version}"
    return f"the tables are {applied}"


async def _stamp_redis(boot: Boot) -> None:
    from ...storage.redis_connection import connect
    from ...storage.stamp import stamp_prefix

    redis = connect(redis_address(boot))
    try:
        await stamp_prefix(redis, boot.redis_prefix, boot.exchange)
    finally:
        await redis.aclose()
