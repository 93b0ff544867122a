"""
What is stored, partition by partition, and how one is dropped: for pipeline/housekeeping.

Part of the warehouse (warehouse.py). Partitions are asked of `system.parts`, so nothing is read to know how much there is;
on a cluster of every shard. A dropped partition costs nothing, a deleted row a mutation (reference: design section 4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..market.instrument import Market, Symbol
from ..market.interval import Interval
from .connection import Connection
from .schema import LOCAL_SUFFIX, quoted

_TTL_DAYS = re.compile(r"\bTTL\b.*?toIntervalDay\((\d+)\)")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a table: its id, how many rows lie in it (in all versions), and how many bytes of the disk they take."""

    table: str
    id: str
    rows: int
    bytes: int


class RetentionRows(Connection):
    """Partitions, and the one age that ClickHouse watches by itself."""

    def partitions(self, table: str) -> list[Partition]:
        """The partitions of a table, by id; each shard is counted once."""
        parts = f"cluster({quoted(self.place.cluster)}, system.parts)" if self.place.distributed else "system.parts"
        found = self.query(
            f"SELECT partition_id, sum(rows), sum(bytes_on_disk) FROM {parts} "
            "WHERE active AND database = {database:String} AND table = {table:String} "
            "GROUP BY partition_id ORDER BY partition_id",
            {"database": self.place.database, "table": self._physical(table)},
        )
        return [Partition(table, str(name), int(rows), int(size)) for name, rows, size in found]

    def rows_by_symbol(self, table: str, column: str, within: Interval) -> dict[Symbol, int]:
        """How many rows of each symbol lie in a stretch, in all versions."""
        found = self.query(
            f"SELECT market, symbol, count() FROM {self.place.qualified(table)} "
            f"WHERE `{column}` >= fromUnixTimestamp64Milli({{start:Int64}}, 'UTC') "
            f"AND `{column}` < fromUnixTimestamp64Milli({{end:Int64}}, 'UTC') GROUP BY market, symbol",
            {"start": within.start_ms, "end": within.end_ms},
        )
        return {Symbol(Market(market), name): int(rows) for market, name, rows in found if market and name}

    def drop_partition(self, partition: Partition) -> None:
        """Delete all that lies in it, on every shard. One that is gone already is no error."""
        self.command(f"{self._altered(partition.table)} DROP PARTITION ID {quoted(partition.id)}")

    def own_age(self, table: str) -> int:
        """After how many days ClickHouse itself removes rows of a table (its TTL); 0 for never."""
        found = self.query(
            "SELECT engine_full FROM system.tables WHERE database = {database:String} AND name = {table:String}",
            {"database": self.place.database, "table": self._physical(table)},
        )
        days = _TTL_DAYS.search(str(found[0][0])) if found else None
        return int(days[1]) if days else 0

    def set_own_age(self, table: str, column: str, days: int, *, resolution: str = "") -> None:
        """
        Let ClickHouse remove rows (of one resolution, if named) after so many days, 0 for never; as its merges come to them.
        """
        if not days:
            self.command(f"{self._altered(table)} REMOVE TTL")
            return
        which = f" DELETE WHERE resolution = {quoted(resolution)}" if resolution else ""
        self.command(
            f"{self._altered(table)} MODIFY TTL toDateTime(`{column}`) + toIntervalDay({int(days)}){which} "
            "SETTINGS materialize_ttl_after_modify = 0"
        )

    def rows_past_own_age(self, table: str, column: str, *, before_ms: int, resolution: str) -> int:
        """How many rows of a resolution are older than a moment, and still there."""
        found = self.query(
            f"SELECT count() FROM {self.place.qualified(table)} WHERE resolution = {{resolution:String}} "
            f"AND `{column}` < fromUnixTimestamp64Milli({{before:Int64}}, 'UTC')",
            {"resolution": resolution, "before": before_ms},
        )
        return int(found[0][0])

    def _altered(self, table: str) -> str:
        return f"ALTER TABLE {self.place.qualified(self._physical(table))}{self.place.on_cluster}"

    def _physical(self, table: str) -> str:
        return f"{table}{LOCAL_SUFFIX}" if self.place.distributed else table
