"""What Dagster says, asked through the GraphQL of its webserver, as its pages do."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.request import Request, urlopen

LOCATION = {"repositoryLocationName": "bitget_pipeline", "repositoryName": "__repository__"}


class Dagster:
    """The GraphQL face of a Dagster webserver."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/graphql"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `data` of an answer; raises RuntimeError with Dagster's words when it has errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(self._url, data=body, headers={"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            content = json.load(answer)
        if content.get("errors"):
            raise RuntimeError(content["errors"][0]["message"])
        data: dict[str, Any] = content["data"]
        return data

    def runs_by_status(self) -> dict[str, int]:
        """How many runs ended or stand how, by job and status."""
        runs = self.ask("{ runsOrError(limit: 1000) { ... on Runs { results { status jobName } } } }")
        counted = Counter(f"{run['jobName']} {run['status']}" for run in runs["runsOrError"]["results"])
        return dict(sorted(counted.items()))

    def live_run(self) -> str | None:
        """The id of the live run that is started, if any."""
        runs = self.ask(
            '{ runsOrError(filter: {pipelineName: "live", statuses: [STARTED]}, limit: 1) '
            "{ ... on Runs { results { runId } } } }"
        )["runsOrError"]["results"]
        return runs[0]["runId"] if runs else None

    def worker_of(self, run_id: str) -> int:
        """The process id of a run's worker, as Dagster logged it; 0 if it did not yet."""
        logs = self.ask(
            "query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { "
            "... on MessageEvent { message } } } } }",
            id=run_id,
        )["logsForRun"]
        for event in logs.get("events", []):
            if found := re.search(r"Started process for run \(pid: (\d+)\)", event.get("message") or ""):
                return int(found[1])
        return 0

    def partitions(self, path: list[str]) -> dict[str, int]:
        """Numbers of materialized, failed and all partitions of an asset."""
        answer = self.ask(
            "query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { "
            "partitionStats { numMaterialized numFailed numPartitions numMaterializing } } } }",
            key={"path": path},
        )
        stats: dict[str, int] = answer["assetNodeOrError"]["partitionStats"]
        return stats

    def materialized(self, path: list[str]) -> bool:
        """Whether an asset was materialized at least once."""
        answer = self.ask(
            "query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { "
            "assetMaterializations(limit: 1) { runId } } } }",
            key={"path": path},
        )
        return bool(answer["assetNodeOrError"].get("assetMaterializations"))

    def observed(self, path: list[str]) -> bool:
        """Whether an asset was observed at least once."""
        answer = self.ask(
            "query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { "
            "assetObservations(limit: 1) { timestamp } } } }",
            key={"path": path},
        )
        return bool(answer["assetNodeOrError"].get("assetObservations"))

    def launch_run(self, job: str, tags: Mapping[str, str]) -> str:
        """What the launchpad's button does, with these tags; returns the id of the run."""
        answer = self.ask(
            "mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename "
            "... on LaunchRunSuccess { run { runId } } ... on PythonError { message } "
            "... on RunConfigValidationInvalid { errors { message } } } }",
            params={
                "selector": LOCATION | {"jobName": job},
                "runConfigData": {},
                "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
            },
        )["launchRun"]
        if "run" not in answer:
            raise RuntimeError(f"the run was not launched: {answer}")
        run: str = answer["run"]["runId"]
        return run

    def run_status(self, run_id: str) -> str:
        """QUEUED, STARTED, SUCCESS, FAILURE and so on."""
        answer = self.ask("query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
        status: str = answer["runOrError"].get("status", "UNKNOWN")
        return status

    def launch_backfill(self, path: list[str], partition_names: list[str]) -> str:
        """What the asset page's button does; returns the id of the backfill."""
        answer = self.ask(
            "mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) { __typename "
            "... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            params={"assetSelection": [{"path": path}], "partitionNames": partition_names},
        )["launchPartitionBackfill"]
        if "backfillId" not in answer:
            raise RuntimeError(f"the backfill was not launched: {answer}")
        backfill: str = answer["backfillId"]
        return backfill

    def backfill_status(self, backfill: str) -> str:
        """REQUESTED, COMPLETED_SUCCESS and so on."""
        answer = self.ask(
            "query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename "
            "... on PartitionBackfill { status } } }",
            id=backfill,
        )
        status: str = answer["partitionBackfillOrError"].get("status", "UNKNOWN")
        return status
