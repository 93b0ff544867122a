"""
The numbered changes of the schema, and which of them a database has.

Run by the `tables` asset (and by `up`) before anything is written. Every statement may be repeated without harm, so
that two who migrate at once, or one who is killed in between, do no damage. Migration 1 creates what tables.py lists;
whoever changes a table later changes it there and adds a migration that alters existing databases (`ADD COLUMN IF NOT
EXISTS`). Views are made again whenever their text changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import StoreRefused
from .connection import Connection
from .ledgers import BUDGET_READINGS, COVERAGE_EVIDENCE, HEALTH, RECONCILIATION, SCHEMA_MIGRATIONS, SCORECARD
from .market_tables import CANDLES_LIVE, PRICE_CANDLES, VENUE_MAP
from .schema import LOCAL_SUFFIX, Place, Table
from .tables import TABLES
from .views import VIEWS

VIEWS_NUMBER = 0
"""Under this number the digest of the views is kept."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One change of the schema. Its statements may be repeated without harm."""

    number: int
    name: str
    statements: Callable[[Place], list[str]]


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What was done. `version` is the number of the newest migration the database has."""

    applied: list[int]
    version: int
    views_renewed: bool


def _first_day(place: Place) -> list[str]:
    return [statement for table in TABLES for statement in table.ddl(place)]


def _added(table: Table, *names: str) -> Callable[[Place], list[str]]:
    """The statements that add these columns of a table where they are missing."""

    def statements(place: Place) -> list[str]:
        physical = [f"{table.name}{LOCAL_SUFFIX}", table.name] if place.distributed else [table.name]
        return [
            f"ALTER TABLE {place.qualified(name)}{place.on_cluster} ADD COLUMN IF NOT EXISTS {table.column(column).ddl}"
            for name in physical
            for column in names
        ]

    return statements


def _price_candles(place: Place) -> list[str]:
    return PRICE_CANDLES.ddl(place)


def _reconciliation(place: Place) -> list[str]:
    return RECONCILIATION.ddl(place)


def _venue_map(place: Place) -> list[str]:
    return VENUE_MAP.ddl(place)


def _days_in_figures(place: Place) -> list[str]:
    """Nobody wrote into `scorecard` before; its figures may be unknown from now on."""
    physical = [f"{SCORECARD.name}{LOCAL_SUFFIX}", SCORECARD.name] if place.distributed else [SCORECARD.name]
    kinds = [
        f"ALTER TABLE {place.qualified(name)}{place.on_cluster} MODIFY COLUMN {SCORECARD.column('value').ddl}"
        for name in physical
    ]
    return [*kinds, *_added(SCORECARD, "reason")(place), *BUDGET_READINGS.ddl(place)]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "the tables of the first day", _first_day),
    Migration(2, "the ledger counts vain attempts", _added(COVERAGE_EVIDENCE, "attempts", "missed_since")),
    Migration(3, "mark and index prices", _price_candles),
    Migration(4, "minutes of ours beside the exchange's", _reconciliation),
    Migration(5, "who stands in for whom", _venue_map),
    Migration(6, "bars that stood in can be retired", _added(CANDLES_LIVE, "retired")),
    Migration(7, "days in figures, and what they are counted from", _days_in_figures),
    Migration(8, "health has a figure and the line it is held against", _added(HEALTH, "value", "line")),
)


def migrate(warehouse: Connection) -> MigrationReport:
    """
    Bring the database to the schema of this code; a second call does nothing.

    Raises StoreRefused when the database is newer than the code.
    """
    place = warehouse.place
    for statement in SCHEMA_MIGRATIONS.ddl(place):
        warehouse.command(statement)
    done = _applied(warehouse)
    newest = MIGRATIONS[-1].number
    if max(done, default=0) > newest:
        raise StoreRefused(
            f"the database {place.database!r} has migration {max(done)}, this program knows {newest} only",
            where=str(warehouse.address),
            remedy="update bitget_pipeline, or set CLICKHOUSE_DATABASE to another database",
        )
    applied = []
    for migration in MIGRATIONS:
        if migration.number not in done:
            _apply(warehouse, migration.number, migration.name, migration.statements(place))
            applied.append(migration.number)
    views = [statement for view in VIEWS for statement in view.ddl(place)]
    renew = bool(applied) or done.get(VIEWS_NUMBER) != _digest(views)
    if renew:
        _apply(warehouse, VIEWS_NUMBER, "views", views)
    return MigrationReport(applied, newest, renew)


def schema_version(warehouse: Connection) -> int:
    """The number of the newest migration the database has, 0 if none."""
    there = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'schema_migrations'"
    return max(_applied(warehouse), default=0) if warehouse.query(there)[0][0] else 0


def newest_migration() -> int:
    """The number of the newest migration this program knows."""
    return MIGRATIONS[-1].number


def drift(warehouse: Connection) -> list[str]:
    """Where the database differs from tables.py, one line for a person each; empty when it does not."""
    rows = warehouse.query("SELECT table, name, type FROM system.columns WHERE database = currentDatabase()")
    found: dict[str, dict[str, str]] = {}
    for table, name, kind in rows:
        found.setdefault(table, {})[name] = kind
    lines = []
    for table in TABLES:
        physical = f"{table.name}{LOCAL_SUFFIX}" if warehouse.place.distributed else table.name
        columns = found.get(physical)
        if columns is None:
            lines.append(f"table {physical} is missing")
            continue
        for column in table.columns:
            kind = columns.get(column.name)
            if kind is None:
                lines.append(f"{physical}.{column.name} is missing")
            elif kind != column.type:
                lines.append(f"{physical}.{column.name} is {kind}, not {column.type}")
        known = {column.name for column in table.columns}
        lines += [f"{physical}.{name} is not ours" for name in columns if name not in known]
    lines += [f"view {view.name} is missing" for view in VIEWS if view.name not in found]
    return lines


def _applied(warehouse: Connection) -> dict[int, str]:
    return {int(row[0]): str(row[1]) for row in warehouse.query("SELECT version, digest FROM schema_migrations FINAL")}


def _apply(warehouse: Connection, number: int, name: str, statements: list[str]) -> None:
    for statement in statements:
        warehouse.command(statement)
    warehouse.command(
        "INSERT INTO schema_migrations (version, name, digest, applied_at) "
        "SELECT {number:UInt32}, {name:String}, {digest:String}, now64(3, 'UTC')",
        {"number": number, "name": name, "digest": _digest(statements)},
    )


def _digest(statements: list[str]) -> str:
    return hashlib.sha256("\n".join(statements).encode()).hexdigest()
