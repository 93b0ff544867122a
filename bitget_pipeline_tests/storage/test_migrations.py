"""The schema: created from nothing, changed by number, and never by the wrong exchange."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bitget_pipeline.errors import SettingsInvalid, StoreRefused, WrongExchange
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.migrations import MIGRATIONS, drift, migrate, schema_version
from bitget_pipeline.storage.schema import Place, Profile
from bitget_pipeline.storage.stamp import database_exchange, stamp_database
from bitget_pipeline.storage.tables import TABLES
from bitget_pipeline.storage.views import VIEWS
from bitget_pipeline.storage.warehouse import Warehouse


def test_an_empty_server_gets_the_database_and_every_table_and_view(warehouse_address: WarehouseAddress) -> None:
    """
    Opening creates the database, migrating all that is in it, and nothing of it differs from the code.
    """
    with Warehouse.open(warehouse_address) as warehouse:
        assert schema_version(warehouse) == 0
        report = migrate(warehouse)

        assert report.applied == [migration.number for migration in MIGRATIONS]
        assert schema_version(warehouse) == report.version
        assert drift(warehouse) == []
        warehouse.command(f"DROP DATABASE `{warehouse_address.database}`")


def test_migrating_twice_changes_nothing(warehouse: Warehouse) -> None:
    """
    The second call finds everything done.
    """
    report = migrate(warehouse)

    assert report.applied == []
    assert not report.views_renewed


def test_views_are_renewed_when_their_text_changed(warehouse: Warehouse) -> None:
    """
    A database whose views are of an older text gets the new ones.
    """
    warehouse.command("INSERT INTO schema_migrations SELECT 0, 'views', 'older', now64(3, 'UTC') + 1")

    assert migrate(warehouse).views_renewed


def test_a_database_newer_than_the_code_is_refused(warehouse: Warehouse) -> None:
    """
    An old program must not write into a schema it does not know.
    """
    warehouse.command("INSERT INTO schema_migrations SELECT 999, 'later', '', now64(3, 'UTC')")

    with pytest.raises(StoreRefused, match="update bitget_pipeline"):
        migrate(warehouse)


def test_drift_names_what_differs(warehouse: Warehouse) -> None:
    """
    A column that somebody added, one that is gone and a view that is gone are told apart.
    """
    warehouse.command("ALTER TABLE health ADD COLUMN mood String")
    warehouse.command("ALTER TABLE health DROP COLUMN reason")
    warehouse.command("DROP VIEW pins")

    assert drift(warehouse) == ["health.reason is missing", "health.mood is not ours", "view pins is missing"]


def test_a_database_belongs_to_one_exchange(warehouse: Warehouse) -> None:
    """
    The first stamp stays; the other exchange is refused and changes nothing.
    """
    assert database_exchange(warehouse) is None
    stamp_database(warehouse, "local")
    stamp_database(warehouse, "local")

    with pytest.raises(WrongExchange, match="CLICKHOUSE_DATABASE"):
        stamp_database(warehouse, "bitget")
    assert database_exchange(warehouse) == "local"


def test_names_that_could_carry_sql_are_refused(warehouse_address: WarehouseAddress) -> None:
    """
    A database or cluster name is never put into SQL unless it is a plain name.
    """
    with pytest.raises(SettingsInvalid):
        Warehouse.open(replace(warehouse_address, database="x`; DROP TABLE y"))
    with pytest.raises(SettingsInvalid):
        Place("trading", Profile.CLUSTER, "")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_cluster_gets_a_replicated_and_a_distributed_table(table) -> None:  # type: ignore[no-untyped-def]
    """
    On a cluster each table is replicated under a name of its own and read through a Distributed one, on every node.
    """
    replicated, distributed = table.ddl(Place("trading", Profile.CLUSTER, "main"))

    assert f"`trading`.`{table.name}_local` ON CLUSTER 'main'" in replicated
    assert "ENGINE = Replicated" in replicated
    assert f"ENGINE = Distributed('main', 'trading', '{table.name}_local'" in distributed
    if table.version and {"market", "symbol"} <= {c.name for c in table.columns} and table.shard_by != "0":
        assert distributed.endswith("cityHash64(market, symbol))"), "rows that replace each other must share a shard"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_cloud_gets_plain_engines(table) -> None:  # type: ignore[no-untyped-def]
    """
    ClickHouse Cloud maps plain engine names to its shared ones.
    """
    (statement,) = table.ddl(Place("trading", Profile.CLOUD))

    assert "Replicated" not in statement
    assert "ON CLUSTER" not in statement


def test_every_column_is_described() -> None:
    """
    Descriptions are shown in Dagster and stand in the database.
    """
    assert [f"{t.name}.{c.name}" for t in TABLES for c in t.columns if not c.about] == []
    assert [view.name for view in VIEWS if not view.about] == []


def test_a_database_of_the_first_day_gets_what_came_later(warehouse: Warehouse) -> None:
    """
    Later migrations are applied by number to a database that was made before them.
    """
    warehouse.command("DROP TABLE price_candles SYNC")
    warehouse.command("ALTER TABLE schema_migrations DELETE WHERE version > 1 SETTINGS mutations_sync = 2")
    assert schema_version(warehouse) == 1

    later = [migration.number for migration in MIGRATIONS[1:]]
    assert migrate(warehouse).applied == later
    assert drift(warehouse) == []
