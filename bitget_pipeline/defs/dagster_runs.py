"""
Old runs of Dagster, their events and what they printed: what may go, and its going.

Beside defs/assets/housekeeping.py. With a run its materializations go, and with them what the page shows of assets and
partitions. So a run stays while it was the last to store one of its partitions, and of each job the newest; ticks have a time
of their own in dagster.yaml.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from shutil import rmtree

import dagster as dg

from ..pipeline.housekeeping.report import Freed

KEEP = "housekeeping/keep"
"""A run with this tag stays, whatever its value."""
PARTITIONED = ("dagster/partition", "dagster/asset_partition_range_start", "dagster/backfill")
AT_ONCE = 200
MOST = 5_000
"""Runs that are deleted in one night, at most: each is some statements to the databases."""

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def free_runs(instance: dg.DagsterInstance, *, runs_days: int, logs_days: int, now: datetime, dry: bool) -> list[Freed]:
    """Delete runs and printed logs that are older than so many days (0: none); only look when `dry`."""
    runs, logs = Freed("runs of Dagster"), Freed("logs of runs")
    newest: set[tuple[str, ...]] = set()
    shown = _Shown(instance)
    for record in _finished(instance, now):
        run = record.dagster_run
        age = now.timestamp() - (record.end_time or record.update_timestamp.timestamp())
        if KEEP in run.tags:
            runs.kept += 1
            continue
        if logs_days and age > logs_days * 86_400:
            _free_logs(instance, run.run_id, logs, dry=dry)
        if not runs_days or age <= runs_days * 86_400 or runs.items >= MOST:
            newest.update(_names(run))
            continue
        if not newest.issuperset(_names(run)) or (any(tag in run.tags for tag in PARTITIONED) and shown.needs(run)):
            newest.update(_names(run))
            runs.kept += 1
            continue
        if not dry:
            instance.delete_run(run.run_id)
        runs.bytes += _free_file(instance, run.run_id, dry=dry)
        runs.items += 1
    if runs.kept:
        runs.why = "they stored partitions last, are the newest of their job, or have the tag " + KEEP
    return [runs, logs]


class _Shown:
    """Which runs the page shows partitions of: those that stored one last. Each asset is looked up once, when it is asked for."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._runs: dict[dg.AssetKey, frozenset[str]] = {}
        self._assets: dict[str, frozenset[dg.AssetKey]] = {}

    def needs(self, run: dg.DagsterRun) -> bool:
        """Whether a partition would be shown as missing without this run; also when nobody knows what it made."""
        made = run.asset_selection or self._planned(run.execution_plan_snapshot_id)
        return not made or any(run.run_id in self._last_of(key) for key in made)

    def _planned(self, plan: str | None) -> frozenset[dg.AssetKey]:
        if plan is None:
            return frozenset()
        if plan not in self._assets:
            outputs = [
                output.properties
                for step in self._instance.get_execution_plan_snapshot(plan).steps
                for output in step.outputs
            ]
            self._assets[plan] = frozenset(one.asset_key for one in outputs if one is not None and one.asset_key)
        return self._assets[plan]

    def _last_of(self, key: dg.AssetKey) -> frozenset[str]:
        if key not in self._runs:
            newest = self._instance.event_log_storage.get_latest_storage_id_by_partition(
                key, dg.DagsterEventType.ASSET_MATERIALIZATION
            )
            ids = sorted(newest.values())
            found: set[str] = set()
            for start in range(0, len(ids), AT_ONCE):
                some = dg.AssetRecordsFilter(asset_key=key, storage_ids=ids[start : start + AT_ONCE])
                found.update(one.run_id for one in self._instance.fetch_materializations(some, limit=AT_ONCE).records)
            self._runs[key] = frozenset(found)
        return self._runs[key]


def _finished(instance: dg.DagsterInstance, now: datetime) -> Iterator[dg.RunRecord]:
    """The finished runs, newest first."""
    cursor: str | None = None
    filters = dg.RunsFilter(statuses=FINISHED, updated_before=now + timedelta(days=1))
    while True:
        records: Sequence[dg.RunRecord] = instance.get_run_records(filters, limit=AT_ONCE, cursor=cursor)
        if not records:
            return
        cursor = records[-1].dagster_run.run_id
        yield from records


def _names(run: dg.DagsterRun) -> set[tuple[str, ...]]:
    """Whose newest run it may be: its job's, and when it ended well that of what it made."""
    chosen = sorted(key.to_user_string() for key in run.asset_selection or ())
    of_job = (run.job_name, *chosen)
    return {of_job, ("well", *of_job)} if run.status is dg.DagsterRunStatus.SUCCESS else {of_job}


def _free_logs(instance: dg.DagsterInstance, run_id: str, logs: Freed, *, dry: bool) -> None:
    manager = instance.compute_log_manager
    path_of = getattr(manager, "get_captured_local_path", None)
    if path_of is None:  # elsewhere than on this machine, with its own rules of age
        return
    folder = Path(path_of([run_id, "compute_logs", "any"], "out")).parent
    if not folder.is_dir():
        return
    logs.items += 1
    logs.bytes += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if not dry:
        rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # not empty: something of the run's own
            folder.parent.rmdir()


def _free_file(instance: dg.DagsterInstance, run_id: str, *, dry: bool) -> int:
    """On sqlite the events of a run are a file of their own, which Dagster empties and leaves; its bytes."""
    path_of = getattr(instance.event_log_storage, "path_for_shard", None)
    if path_of is None:
        return 0
    found = 0
    for suffix in ("", "-wal", "-shm"):
        file = Path(f"{path_of(run_id)}{suffix}")
        with suppress(FileNotFoundError):
            found += file.stat().st_size
            if not dry:
                file.unlink()
    return found
