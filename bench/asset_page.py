"""
What the page of an asset asks Dagster, and how long that takes.

The questions are those that the page of `spot/candles_1m` was seen to send in a browser (Chromium; Dagster 1.13.27), cut to
what costs: definition and newest event, live status with partition counts and checks, staleness; of the tab of
partitions their status; of the tab of events the newest hundred. A page sends them at the same moment and so do we; its time
is that of the last answer.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bitget_pipeline_tests.smoke.dagster import Dagster

KEY = {"path": ["spot", "candles_1m"]}

DEFINITION = """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset { id hasDefinitionOrRecord
  assetMaterializations(limit: 1) { timestamp runId partition metadataEntries { label } }
  assetObservations(limit: 1) { timestamp runId }
  definition { id description jobNames opNames groupName isPartitioned isExecutable hasMaterializePermission
    partitionDefinition { description dimensionTypes { type dynamicPartitionsDefinitionName } }
    partitionKeysByDimension { name } backfillPolicy { description } metadataEntries { label } } } } }"""
LIVE = """query($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys, loadMaterializations: true) { id
    assetMaterializations(limit: 1) { timestamp runId stepKey } assetObservations(limit: 1) { timestamp runId stepKey }
    assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { id status timestamp } } } }
    partitionStats { numMaterialized numMaterializing numPartitions numFailed } }
  assetsLatestInfo(assetKeys: $keys) { id unstartedRunIds inProgressRunIds latestRun { id status } } }"""
STALE = """query($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys) { id staleStatus
    staleCauses { key { path } reason category } } }"""
PARTITIONS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { id
    partitionKeysByDimension { name type partitionKeys }
    assetPartitionStatuses { ... on MultiPartitionStatuses { primaryDimensionName
      ranges { primaryDimStartKey primaryDimEndKey primaryDimStartTime primaryDimEndTime secondaryDim {
        ... on DefaultPartitionStatuses { materializedPartitions materializingPartitions failedPartitions } } } } } } } }"""
EVENTS = """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset { id
    assetEventHistory(limit: 100, eventTypeSelectors: [MATERIALIZATION, OBSERVATION, FAILED_TO_MATERIALIZE]) { cursor results {
      ... on MaterializationEvent { timestamp runId partition metadataEntries { label }
        runOrError { ... on Run { id status } } } } } } } }"""

ALWAYS = [(DEFINITION, {"key": KEY}), (LIVE, {"keys": [KEY]}), (STALE, {"keys": [KEY]})]
PAGES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "overview": ALWAYS,
    "partitions": [*ALWAYS, (PARTITIONS, {"key": KEY})],
    "events": [*ALWAYS, (EVENTS, {"key": KEY})],
}


def seconds_of(dagster: Dagster, page: str) -> float:
    """The time of one view of a page."""
    questions = PAGES[page]
    began = time.monotonic()
    with ThreadPoolExecutor(len(questions)) as pool:
        for answer in pool.map(lambda one: dagster.ask(one[0], **one[1]), questions):
            assert answer
    return time.monotonic() - began
