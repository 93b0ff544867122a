"""
Backfills in the Dagster that runs: launched and watched through the GraphQL of its webserver, as its pages do.

Used by the command `backfill`. It launches ranges of days × symbols itself: a backfill of Dagster's own is split into at
least one run for each symbol, or for each day, because none of its runs crosses from one to the next. All runs of one
command carry a tag, by which Dagster's page of runs shows them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import quote

from ..errors import StoreUnavailable
from ..market.instrument import Market
from ..pipeline.history.rectangles import Rectangle, month_rectangles, rectangles
from ..settings import Boot
from .graphql import DagsterSilent, ask_graphql
from .up import folder

REPOSITORY = {"repositoryLocationName": "bitget_pipeline", "repositoryName": "__repository__"}

BACKFILL_TAG = "bitget_pipeline/backfill"
KEYS_TAG = "bitget_pipeline/keys"
AFTER_OTHERS = {"dagster/priority": "-1"}
"""The newest days, which the launchers and the nightly top-up want, are not to wait for an old range."""

DAYS_PER_RUN = 365
"""Symbol-days: under three minutes of the budget of one endpoint, so that a failure costs little and much is green soon."""
MONTHS_PER_RUN = 12
LAUNCHED_AT_ONCE = 10
MOST_RUNS = 1000

ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})

RUNS = """
query($filter: RunsFilter!, $limit: Int!) { runsOrError(filter: $filter, limit: $limit) { __typename
  ... on Runs { results { runId status tags { key value } } } } }
"""
WHY = """
query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
  ... on ExecutionStepFailureEvent { error { message errorChain { error { message } } } } } } } }
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
mutation($runs: [ExecutionParams!]!) { launchMultipleRuns(executionParamsList: $runs) { __typename
  ... on PythonError { message } ... on LaunchMultipleRunsResult { launchMultipleRunsResult { __typename
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } ... on UnauthorizedError { message }
    ... on RunConfigValidationInvalid { errors { message } } } } } }
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the runs of a backfill stand, in partitions (symbol-days, or symbol-months of the archive)."""

    runs: int
    ended: int
    targeted: int
    materialized: int
    failed: int
    error: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.ended == self.runs

    @property
    def succeeded(self) -> bool:
        """Whether every partition was filled."""
        return self.over and self.materialized == self.targeted


def few_ranges(
    open_keys: Sequence[tuple[str, date]],
    wanted: Sequence[tuple[str, date]],
    *,
    order: Sequence[str],
    monthly: bool,
) -> list[Rectangle]:
    """
    What to launch so that every open key is covered, in few runs.

    Scattered holes would be a run each: then the whole range is launched, whose complete days cost an event and no request.
    """
    cover, most = (month_rectangles, MONTHS_PER_RUN) if monthly else (rectangles, DAYS_PER_RUN)
    exact, whole = (cover(keys, order=order, max_keys=most) for keys in (open_keys, wanted))
    return exact if len(exact) <= 2 * len(whole) else whole


def new_name() -> str:
    """A name for a backfill that is going to be launched."""
    return uuid.uuid4().hex[:12]


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
        """Where a person watches its runs, or cancels them."""
        return f"http://{self._host}:{self._port}/runs?q[0]={quote(f'tag:{BACKFILL_TAG}={backfill}', safe='')}"

    def ensure_symbols(self, market: Market, names: Sequence[str]) -> list[str]:
        """
        Add what is no partition yet; returns all symbols in the order of their partitions. New ones go to the end, so
        that no waiting range is shifted.
        """
        found = self._ask(PARTITIONS, key={"path": [market.value, "candles_1m"]})["assetNodeOrError"]
        dimensions = {one["name"]: one["partitionKeys"] for one in found.get("partitionKeysByDimension") or []}
        if "symbol" not in dimensions:
            raise DagsterSilent(f"Dagster knows no asset {market}/candles_1m", where=f"{self._host}:{self._port}")
        known: list[str] = list(dimensions["symbol"])
        new = [name for name in names if name not in set(known)]
        for name in new:
            answer = self._ask(ADD, repository=REPOSITORY, name=f"{market}_symbols", key=name)["addDynamicPartition"]
            if answer["__typename"] not in ("AddDynamicPartitionSuccess", "DuplicateDynamicPartitionError"):
                raise DagsterSilent(f"the partition {name} was not added: {answer.get('message', answer)}")
        return known + new

    def launch(
        self, market: Market, asset: str, ranges: Sequence[Rectangle], *, refresh: bool, backfill: str | None = None
    ) -> str:
        """
        Launch a run for each range of `candles_1m` or `candles_1m_archive`; returns what their tag says (`backfill`, if the
        caller has to know it before the first is launched).
        """
        backfill = backfill or new_name()
        job = f"{market}_{'history' if asset == 'candles_1m' else 'archive'}"
        config = {"ops": {f"{market}__{asset}": {"config": {"refresh": True}}}} if refresh else {}
        runs = []
        for one in ranges:
            tags = {**one.tags, **AFTER_OTHERS, BACKFILL_TAG: backfill, KEYS_TAG: str(one.keys)}
            runs.append(
                {
                    "selector": REPOSITORY | {"jobName": job},
                    "runConfigData": config,
                    "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
                }
            )
        for start in range(0, len(runs), LAUNCHED_AT_ONCE):
            some = runs[start : start + LAUNCHED_AT_ONCE]
            answer = self._ask(LAUNCH, timeout=120.0, runs=some)["launchMultipleRuns"]
            for result in answer.get("launchMultipleRunsResult") or [answer]:
                if "run" not in result:
                    why = result.get("message") or "; ".join(one["message"] for one in result.get("errors", []))
                    raise DagsterSilent(f"a run was not launched: {(why or result['__typename']).splitlines()[0]}")
        return backfill

    def runs(self, backfill: str) -> int:
        """How many runs of it there are."""
        return len(self._runs(backfill))

    def standing(self, backfill: str) -> Standing:
        """How it stands now."""
        found = self._runs(backfill)
        if not found:
            raise DagsterSilent(f"Dagster knows no runs of backfill {backfill}")
        keys = {"SUCCESS": 0, "FAILURE": 0, "CANCELED": 0, "": 0}
        for run in found:
            its = next((int(tag["value"]) for tag in run["tags"] if tag["key"] == KEYS_TAG), 0)
            keys[run["status"] if run["status"] in ENDED else ""] += its
        failed = [run["runId"] for run in found if run["status"] == "FAILURE"]
        over = all(run["status"] in ENDED for run in found)
        return Standing(
            runs=len(found),
            ended=sum(run["status"] in ENDED for run in found),
            targeted=sum(keys.values()),
            materialized=keys["SUCCESS"],
            failed=keys["FAILURE"] + keys["CANCELED"],
            error=self._why(failed[-1]) if failed and over else "",
        )

    def _runs(self, backfill: str) -> list[dict[str, Any]]:
        asked = {"tags": [{"key": BACKFILL_TAG, "value": backfill}]}
        return self._ask(RUNS, filter=asked, limit=MOST_RUNS)["runsOrError"].get("results") or []

    def _why(self, run: str) -> str:
        """The first line of what a failed run said."""
        events = self._ask(WHY, id=run)["logsForRun"].get("events") or []
        for event in events:
            if error := event.get("error"):
                inner = [one["error"]["message"] for one in error.get("errorChain") or []]
                return str((inner or [error["message"]])[-1]).strip().partition("\n")[0]
        return ""

    def _ask(self, query: str, *, timeout: float = 30.0, **variables: Any) -> dict[str, Any]:
        return ask_graphql(self._host, self._port, query, timeout=timeout, **variables)
