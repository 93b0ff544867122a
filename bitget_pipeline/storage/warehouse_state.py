"""
How ClickHouse stands: parts, merges, mutations and disk of our database, in one question, for health.

Asked every ten seconds or so by pipeline/watch/attention.py and once a minute by the sensor. On a cluster it tells of the replica
that answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from .connection import Connection

_LOOK = """
SELECT
    parts.most, parts.place, parts.whole,
    merges.n, merges.longest,
    mutations.n, mutations.oldest, mutations.failed,
    disks.free, disks.name,
    (SELECT max(toUInt64(value)) FROM system.merge_tree_settings WHERE name = 'parts_to_delay_insert')
FROM
    (SELECT max(n) AS most, argMax(of, n) AS place, sum(n) AS whole FROM (
        SELECT count() AS n, table || ' ' || partition AS of FROM system.parts
        WHERE database = currentDatabase() AND active GROUP BY table, partition)) AS parts
    CROSS JOIN (SELECT count() AS n, max(elapsed) AS longest FROM system.merges
        WHERE database = currentDatabase()) AS merges
    CROSS JOIN (SELECT count() AS n, max(now() - create_time) AS oldest, max(latest_fail_reason) AS failed
        FROM system.mutations WHERE database = currentDatabase() AND NOT is_done) AS mutations
    CROSS JOIN (SELECT min(if(total_space = 0, 1, free_space / total_space)) AS free,
        argMin(name, if(total_space = 0, 1, free_space / total_space)) AS name FROM system.disks) AS disks
"""


@dataclass(frozen=True, slots=True)
class WarehouseState:
    """
    The partition with most active parts and how many it has, beside the number at which ClickHouse slows inserts down
    (`delays_at`); merges at work and the longest one's seconds; mutations not done, the oldest one's seconds, and why one fails;
    the free share of the fullest disk, None where the server does not say.
    """

    parts: int
    parts_of: str
    parts_in_all: int
    delays_at: int
    merges: int
    longest_merge: float
    mutations: int
    oldest_mutation: float
    mutation_failed: str
    disk_free: float | None
    disk: str


def warehouse_state(warehouse: Connection) -> WarehouseState:
    """One look. Blocks; raises StoreUnavailable and its kin."""
    row = warehouse.query(_LOOK)[0]
    return WarehouseState(
        parts=int(row[0]),
        parts_of=str(row[1]).strip(),
        parts_in_all=int(row[2]),
        merges=int(row[3]),
        longest_merge=float(row[4]),
        mutations=int(row[5]),
        oldest_mutation=float(row[6]) if row[5] else 0.0,
        mutation_failed=str(row[7]),
        disk_free=None if not row[9] else float(row[8]),
        disk=str(row[9]),
        delays_at=int(row[10] or 1_000),
    )
