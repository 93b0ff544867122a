"""
Backfills in the Dagster that runs: launched and watched through the GraphQL of its webserver, as its pages do.

Used by the command `backfill`; what it launches shows in Dagster's pages as if a person had launched it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StoreUnavailable
from ..market.instrument import Market
from ..settings import Boot
from .facts import DagsterSilent, ask_graphql
from .up import folder

REPOSITORY = {"repositoryLocationName": "bitget_pipeline", "repositoryName": "__repository__"}

OVER = frozenset({"COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED"})

STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename ... on PartitionBackfill {
  status error { message } assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
    numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed } } } } } }
"""
PARTITIONS = """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionKeysByDimension { name partitionKeys } } } }
"""
ADD = """
mutation($repository: RepositorySelector!, $name: String!, $key: String!) {
  addDynamicPartition(repositorySelector: $repository, partitionsDefName: $name, partitionKey: $key) {
    __typename ... on PythonError { message } ... on UnauthorizedError { message } } }
"""
LAUNCH = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } ... on UnauthorizedError { message }
  ... on RunConfigValidationInvalid { errors { message } } ... on PartitionKeysNotFoundError { message } } }
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a backfill stands, in partitions (symbol-days, or symbol-months of the archive)."""

    status: str
    targeted: int
    materialized: int
    failed: int
    error: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.status in OVER

    @property
    def succeeded(self) -> bool:
        """Whether every partition was filled."""
        return self.status in ("COMPLETED_SUCCESS", "COMPLETED") and not self.failed


class Backfills:
    """The backfills of the instance that runs. All methods raise DagsterSilent."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    @classmethod
    def of(cls, boot: Boot) -> Backfills:
        """Those of this instance. Raises StoreUnavailable when it does not run."""
        address = folder.read_run(boot.home).get("addresses", {}).get("dagster")
        if not address or folder.owner(boot.home) is None:
            raise StoreUnavailable(
                "Dagster does not run, and the runs of a backfill are Dagster's",
                where=str(boot.home),
                remedy="start it with `bitget-pipeline up` (in another terminal), or use --dry-run",
            )
        return cls(address["host"], address["port"])

    def page(self, backfill: str) -> str:
        """Where a person watches or cancels it."""
        return f"http://{self._host}:{self._port}/runs/b/{backfill}"

    def ensure_symbols(self, market: Market, names: Sequence[str]) -> int:
        """Add what is no partition yet; returns how many. They go to the end, so that no waiting range is shifted."""
        found = self._ask(PARTITIONS, key={"path": [market.value, "candles_1m"]})["assetNodeOrError"]
        dimensions = {one["name"]: one["partitionKeys"] for one in found.get("partitionKeysByDimension") or []}
        if "symbol" not in dimensions:
            raise DagsterSilent(f"Dagster knows no asset {market}/candles_1m", where=f"{self._host}:{self._port}")
        new = [name for name in names if name not in set(dimensions["symbol"])]
        for name in new:
            answer = self._ask(ADD, repository=REPOSITORY, name=f"{market}_symbols", key=name)["addDynamicPartition"]
            if answer["__typename"] not in ("AddDynamicPartitionSuccess", "DuplicateDynamicPartitionError"):
                raise DagsterSilent(f"the partition {name} was not added: {answer.get('message', answer)}")
        return len(new)

    def launch(self, market: Market, asset: str, keys: Sequence[str], *, refresh: bool, title: str) -> str:
        """Launch a backfill of these partitions; returns its id."""
        path = [market.value, asset]
        params: dict[str, Any] = {"assetSelection": [{"path": path}], "partitionNames": list(keys), "title": title}
        if refresh:
            params["runConfigData"] = {"ops": {"__".join(path): {"config": {"refresh": True}}}}
        answer = self._ask(LAUNCH, timeout=120.0, params=params)["launchPartitionBackfill"]
        if "backfillId" not in answer:
            why = answer.get("message") or "; ".join(error["message"] for error in answer.get("errors", []))
            raise DagsterSilent(f"the backfill was not launched: {(why or answer['__typename']).splitlines()[0]}")
        return str(answer["backfillId"])

    def standing(self, backfill: str) -> Standing:
        """How it stands now."""
        found = self._ask(STATUS, id=backfill)["partitionBackfillOrError"]
        if "status" not in found:
            raise DagsterSilent(f"Dagster knows no backfill {backfill}")
        counts = (found.get("assetBackfillData") or {}).get("assetBackfillStatuses") or [{}]
        targeted, materialized, failed = (int(counts[0].get(name) or 0) for name in _COUNTS)
        return Standing(
            found["status"],
            targeted,
            materialized,
            failed,
            error=((found.get("error") or {}).get("message") or "").partition("\n")[0],
        )

    def _ask(self, query: str, *, timeout: float = 30.0, **variables: Any) -> dict[str, Any]:
        return ask_graphql(self._host, self._port, query, timeout=timeout, **variables)


_COUNTS = ("numPartitionsTargeted", "numPartitionsMaterialized", "numPartitionsFailed")
