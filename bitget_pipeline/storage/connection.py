"""
The connection to ClickHouse: over HTTP, the same whether the server is embedded, a container, a cluster or in the
cloud.

Input: an address; output: rows, Arrow tables and inserts for warehouse.py and the files it is made of. Errors are
raised as ours.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from .clickhouse_errors import translated
from .schema import Place, Profile
from .tables import BY_NAME
from .wires import Wires

if TYPE_CHECKING:
    import pyarrow as pa  # a tenth of a second that not every process needs

CLUSTER_SETTINGS: dict[str, Any] = {
    # A step that reads what it just wrote must find it, on whatever replica it reads (ClickHouse documentation; not run by us).
    "insert_quorum": "auto",
    "insert_quorum_parallel": 0,
    "select_sequential_consistency": 1,
    "distributed_foreground_insert": 1,
}


@dataclass(frozen=True, slots=True)
class WarehouseAddress:
    """Where ClickHouse is and who we are to it. The paths are of PEM files; the password shows in no text."""

    host: str
    port: int
    user: str = "default"
    password: str = field(default="", repr=False)
    secure: bool = False
    verify: bool = True
    ca_cert: str | None = None
    client_cert: str | None = None
    client_cert_key: str | None = None
    database: str = "trading"
    profile: Profile = Profile.SINGLE
    cluster: str = ""

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}/{self.database}"

    @property
    def place(self) -> Place:
        """Where tables are created. Raises SettingsInvalid for names that cannot stand in SQL."""
        return Place(self.database, Profile(self.profile), self.cluster)

    @property
    def on_this_machine(self) -> bool:
        """Whether compression would only cost time (measured: it halves the insert rate on loopback)."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Connection:
    """
    An open connection. It may be used from several threads at once: there is no session.

    Every method raises StoreUnavailable, StoreRefused, DiskFull or CredentialsRefused.
    """

    def __init__(self, client: Client, address: WarehouseAddress) -> None:
        self._client = client
        self._wires = Wires(client.http)  # type: ignore[attr-defined]  # the HTTP client's own
        self.address = address
        self.place = address.place

    @classmethod
    def open(cls, address: WarehouseAddress, *, answer_within: float = 300.0) -> Self:
        """Connect, and create the database if it is missing. Whoever only looks gives an answer less time (seconds)."""
        place = address.place
        with translated(str(address)):
            client = clickhouse_connect.get_client(
                host=address.host,
                port=address.port,
                username=address.user,
                password=address.password,
                secure=address.secure,
                verify=address.verify,
                ca_cert=address.ca_cert,
                client_cert=address.client_cert,
                client_cert_key=address.client_cert_key,
                compress=False if address.on_this_machine else "lz4",
                connect_timeout=min(5.0, answer_within),
                send_receive_timeout=answer_within,
                autogenerate_session_id=False,
                dedicated_pool=True,
                tz_mode="aware",
                settings=CLUSTER_SETTINGS if place.distributed else None,
            )
            try:
                known = "SELECT count() FROM system.databases WHERE name = {name:String}"
                if not client.query(known, parameters={"name": place.database}).result_rows[0][0]:
                    client.command(place.create_database())
            except BaseException:
                client.close()
                raise
        client.database = place.database
        return cls(client, address)

    def close(self) -> None:
        """Give the sockets back. Whoever waits for an answer, in whatever thread, hears at once that there will be none."""
        self._wires.cut()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ping(self) -> None:
        """Return if the server answers a query. Raises StoreUnavailable."""
        with translated(str(self.address)):
            self._client.query("SELECT 1")

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query. Values go in as `{name:Type}` parameters, never into the text."""
        with translated(str(self.address)):
            return [tuple(row) for row in self._client.query(sql, parameters=dict(params or {})).result_rows]

    def query_arrow(self, sql: str, params: Mapping[str, Any] | None = None) -> pa.Table:
        """The answer of a query as an Arrow table."""
        with translated(str(self.address)):
            return self._client.query_arrow(sql, parameters=dict(params or {}))

    def command(self, sql: str, params: Mapping[str, Any] | None = None) -> int:
        """Run a statement that answers no rows; returns how many rows it wrote, where the server says so."""
        with translated(str(self.address)):
            summary = self._client.command(sql, parameters=dict(params or {}))
        return int(getattr(summary, "written_rows", 0) or 0)

    def command_with_lists(self, sql: str, params: Mapping[str, Any]) -> None:
        """Run a statement whose parameters may be long: they travel in the body of the request, not in its address."""
        with translated(str(self.address)):
            self._client.raw_query(sql, parameters=dict(params))

    def insert_arrow(self, table: str, data: pa.Table) -> int:
        """Insert an Arrow table whose columns carry the table's names; returns its rows. Best from 20,000 rows up."""
        if data.num_rows == 0:
            return 0
        with translated(str(self.address)):
            self._client.insert_arrow(table, data)
        return int(data.num_rows)

    def insert_columns(self, table: str, names: Sequence[str], columns: Sequence[Sequence[Any]]) -> int:
        """
        Insert columns of equal length; returns the number of rows.

        Times are integers, Unix milliseconds UTC (datetime objects cost more than half of the speed, measured).
        """
        if not columns or not columns[0]:
            return 0
        types = BY_NAME[table].types_of(names)
        with translated(str(self.address)):
            self._client.insert(table, columns, column_names=names, column_type_names=types, column_oriented=True)
        return len(columns[0])
