"""
Ending Dagster's runs in order, before their processes are ended.

Input: the address of the webserver; output: whether every run that is at work was told. A run worker that is merely
killed leaves a failed run: red in the page, and counted by the sensors that decide when to try again.
"""

from __future__ import annotations

import json

from ..graphql import DagsterSilent, ask_graphql

ANSWER_WITHIN = 20.0
"""Seconds for each answer. A run that was not told gets a signal, and is red in the page: patience is cheaper."""

AT_WORK = "{ runsOrError(filter: {statuses: [STARTING, STARTED]}) { ... on Runs { results { runId } } } }"


def cancel(host: str, port: int) -> bool:
    """Ask Dagster to cancel what is at work. False when not every run took it, or Dagster does not answer."""
    try:
        runs = (ask_graphql(host, port, AT_WORK, timeout=ANSWER_WITHIN).get("runsOrError") or {}).get("results") or []
        if not runs:
            return True
        ids = json.dumps([run["runId"] for run in runs])
        answer = ask_graphql(
            host,
            port,
            f"mutation {{ terminateRuns(runIds: {ids}, terminatePolicy: SAFE_TERMINATE) "
            "{ ... on TerminateRunsResult { terminateRunResults { __typename } } } }",
            timeout=ANSWER_WITHIN,
        )
    except DagsterSilent:
        return False
    results = (answer.get("terminateRuns") or {}).get("terminateRunResults") or []
    return len(results) == len(runs) and all(one["__typename"] == "TerminateRunSuccess" for one in results)
