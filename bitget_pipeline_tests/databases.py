"""
Databases with every table and view, lent to one test after the other.

Creating them takes ClickHouse 0.7 s of CPU, emptying the few tables that hold rows a tenth of it (measured): a test gets one
that an earlier test gave back, emptied, and a new one only when there is none. One whose tables are no longer as they were
made is dropped.
"""

from __future__ import annotations

import uuid

from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.warehouse import Warehouse

KEPT = "schema_migrations"
"""The table that says how the others were made."""
RESTING = 2
"""How many that were given back are left alone: a process that a test killed may have had an insert on its way."""

Tables = dict[str, str]
"""How each table and view was made, by name."""


class Databases:
    """The databases of one server. `lend` gives one that is empty, `take_back` ends the loan."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[WarehouseAddress] = []
        self._made: dict[WarehouseAddress, Tables] = {}

    def unmade(self) -> WarehouseAddress:
        """The name of a database that does not exist."""
        return WarehouseAddress("127.0.0.1", self._port, database=f"t_{uuid.uuid4().hex[:12]}")

    def lend(self) -> WarehouseAddress:
        """A database with every table and view and no row."""
        while len(self._free) > RESTING:
            address = self._free.pop(0)
            if self._emptied(address):
                return address
        address = self.unmade()
        with Warehouse.open(address) as warehouse:
            migrate(warehouse)
            self._made[address] = _tables(warehouse)
        return address

    def take_back(self, address: WarehouseAddress) -> None:
        """Whoever had it is done with it."""
        self._free.append(address)

    def _emptied(self, address: WarehouseAddress) -> bool:
        """Empty it. One that is not what it was is dropped instead."""
        with Warehouse.open(address) as warehouse:
            now, made = _tables(warehouse), self._made[address]
            for table in now.keys() - made.keys():
                warehouse.command(f"DROP TABLE `{table}`")
            if {name: now.get(name) for name in made} != made:
                del self._made[address]
                warehouse.command(f"DROP DATABASE IF EXISTS `{address.database}`")
                return False
            for (table,) in warehouse.query(
                "SELECT DISTINCT table FROM system.parts WHERE database = currentDatabase() AND active AND rows > 0"
            ):
                if table != KEPT:
                    warehouse.command(f"TRUNCATE TABLE `{table}`")
        return True


def _tables(warehouse: Warehouse) -> Tables:
    return dict(
        warehouse.query("SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()")
    )
