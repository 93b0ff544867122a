"""
What a table, a column and a view are, and the DDL they become on each kind of ClickHouse.

Input: the `Table` and `View` values of tables.py and views.py; output: statements that migrations.py runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..errors import SettingsInvalid

LOCAL_SUFFIX = "_local"
"""On a cluster the replicated table carries this suffix and the plain name is the Distributed one."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CLUSTER = re.compile(r"[A-Za-z0-9_.{}-]{1,64}")


class Profile(StrEnum):
    """The kinds of ClickHouse: one server, replicated over a cluster, or ClickHouse Cloud."""

    SINGLE = "single"
    CLUSTER = "cluster"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `about` says meaning and unit, and is stored as the column's comment."""

    name: str
    type: str
    about: str
    codec: str = ""
    default: str = ""

    @property
    def ddl(self) -> str:
        """The column as it stands in CREATE TABLE."""
        parts = [f"`{self.name}`", self.type]
        if self.default:
            parts.append(f"DEFAULT {self.default}")
        parts.append(f"COMMENT {quoted(self.about)}")
        if self.codec:
            parts.append(f"CODEC({self.codec})")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Table:
    """
    A table. With `version` it is a ReplacingMergeTree (of equal keys the greatest version stays; a row whose
    `is_deleted` column is 1 hides the key); without, rows are only ever added.
    """

    name: str
    about: str
    columns: tuple[Column, ...]
    order_by: str
    partition_by: str = ""
    version: str = ""
    is_deleted: str = ""
    ttl: str = ""
    settings: str = ""
    shard_by: str = "rand()"

    def column(self, name: str) -> Column:
        """The column of that name. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name}")

    def types_of(self, names: Sequence[str]) -> list[str]:
        """The ClickHouse types of these columns."""
        return [self.column(name).type for name in names]

    def ddl(self, place: Place) -> list[str]:
        """The statements that create the table; each may be repeated without harm."""
        name = f"{self.name}{LOCAL_SUFFIX}" if place.distributed else self.name
        columns = ",\n    ".join(column.ddl for column in self.columns)
        lines = [
            f"CREATE TABLE IF NOT EXISTS {place.qualified(name)}{place.on_cluster} (\n    {columns}\n)",
            f"ENGINE = {self._engine(place)}",
            f"PARTITION BY {self.partition_by}" if self.partition_by else "",
            f"ORDER BY {self.order_by}",
            f"TTL {self.ttl}" if self.ttl else "",
            f"SETTINGS {self.settings}" if self.settings else "",
            f"COMMENT {quoted(self.about)}",
        ]
        statements = ["\n".join(line for line in lines if line)]
        if place.distributed:
            statements.append(
                f"CREATE TABLE IF NOT EXISTS {place.qualified(self.name)}{place.on_cluster} AS {place.qualified(name)}\n"
                f"ENGINE = Distributed({quoted(place.cluster)}, {quoted(place.database)}, {quoted(name)}, {self.shard_by})"
            )
        return statements

    def _engine(self, place: Place) -> str:
        replicated = "Replicated" if place.distributed else ""
        if not self.version:
            return f"{replicated}MergeTree"
        arguments = ", ".join(filter(None, (self.version, self.is_deleted)))
        return f"{replicated}ReplacingMergeTree({arguments})"


@dataclass(frozen=True, slots=True)
class View:
    """A plain view. In `query`, `{db}` stands for the database."""

    name: str
    about: str
    query: str

    def ddl(self, place: Place) -> list[str]:
        """The statement that creates or replaces the view."""
        query = self.query.replace("{db}", f"`{place.database}`")
        return [
            f"CREATE OR REPLACE VIEW {place.qualified(self.name)}{place.on_cluster} AS\n{query.strip()}\n"
            f"COMMENT {quoted(self.about)}"
        ]


@dataclass(frozen=True, slots=True)
class Place:
    """Where tables are created. Raises SettingsInvalid for names that cannot stand in SQL."""

    database: str
    profile: Profile = Profile.SINGLE
    cluster: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.database):
            raise SettingsInvalid(
                f"{self.database!r} cannot be the name of a database",
                remedy="set CLICKHOUSE_DATABASE to letters, digits and underscores, at most 64",
            )
        if self.distributed and not _CLUSTER.fullmatch(self.cluster):
            raise SettingsInvalid(
                f"{self.cluster!r} cannot be the name of a cluster",
                remedy="set CLICKHOUSE_CLUSTER to a name of system.clusters",
            )

    @property
    def distributed(self) -> bool:
        """Whether tables are replicated and sharded by us (ClickHouse Cloud does it by itself)."""
        return self.profile is Profile.CLUSTER

    @property
    def on_cluster(self) -> str:
        """The clause that makes a statement run on every node, or nothing."""
        return f" ON CLUSTER {quoted(self.cluster)}" if self.distributed else ""

    def qualified(self, name: str) -> str:
        """A table's name with its database."""
        return f"`{self.database}`.`{name}`"

    def create_database(self) -> str:
        """The statement that creates the database. Its engine is Atomic; ClickHouse Cloud chooses its own."""
        engine = "" if self.profile is Profile.CLOUD else " ENGINE = Atomic"
        return f"CREATE DATABASE IF NOT EXISTS `{self.database}`{self.on_cluster}{engine}"


def quoted(text: str) -> str:
    """A string literal of ClickHouse."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
