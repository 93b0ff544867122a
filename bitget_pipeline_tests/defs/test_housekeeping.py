"""Dagster's own old runs, and the asset that deletes what is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from bitget_pipeline.defs.assets import retention
from bitget_pipeline.defs.dagster_runs import KEEP, free_runs
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.market.coverage import CoverageState
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import to_ms
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.warehouse import Warehouse

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=40)


@dg.asset
def hourly() -> None:
    """Something that is made again and again."""


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def parted() -> None:
    """Something with partitions."""


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]), backfill_policy=dg.BackfillPolicy.single_run())
def ranged() -> None:
    """Something whose partitions are made several at once."""


@dg.op
def fails() -> None:
    """Something that never goes well."""
    raise dg.Failure("it never does")


@dg.job
def failing() -> None:
    """Runs that failed."""
    fails()


@pytest.fixture
def instance(tmp_path: Path) -> dg.DagsterInstance:
    """A Dagster instance of its own, on sqlite."""
    return dg.DagsterInstance.local_temp(str(tmp_path))


def ran(instance: dg.DagsterInstance, what: dg.AssetsDefinition, **more: object) -> str:
    """Make it; the run's id, with something printed."""
    run = dg.materialize([what], instance=instance, **more).dagster_run.run_id  # type: ignore[arg-type]
    return printed(instance, run)


def printed(instance: dg.DagsterInstance, run: str) -> str:
    """A run that wrote into its log."""
    file = folder_of(instance, run) / "step.out"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a line\n" * 100)
    return run


def folder_of(instance: dg.DagsterInstance, run: str) -> Path:
    """Where a run's logs are."""
    manager = instance.compute_log_manager
    return Path(manager.get_captured_local_path([run, "compute_logs", "x"], "out")).parent  # type: ignore[attr-defined]


def test_old_runs_go_but_for_the_newest_those_whose_partitions_are_shown_and_those_to_keep(
    instance: dg.DagsterInstance,
) -> None:
    """
    What the page shows as stored stays so: every partition, and the last time each asset was made.
    """
    old = [ran(instance, hourly) for _ in range(3)]
    tagged = ran(instance, hourly, tags={KEEP: "yes"})
    part = ran(instance, parted, partition_key="a")
    newest = ran(instance, hourly)
    failed = [failing.execute_in_process(instance=instance, raise_on_error=False).run_id for _ in range(2)]

    assert all(one.items == 0 for one in free_runs(instance, runs_days=30, logs_days=14, now=NOW, dry=False))
    would = free_runs(instance, runs_days=30, logs_days=14, now=LATER, dry=True)
    runs, logs = free_runs(instance, runs_days=30, logs_days=14, now=LATER, dry=False)
    assert [(one.items, one.bytes) for one in would] == [(runs.items, runs.bytes), (logs.items, logs.bytes)]
    # The failed job's newest run stays too; of its two the older one goes.
    assert (runs.items, runs.kept, logs.items) == (4, 4, 7)
    assert runs.bytes > 0
    assert logs.bytes >= 5 * 700

    left = {run.run_id for run in instance.get_runs()}
    assert left == {tagged, part, newest, failed[1]}
    assert not any(Path(instance.event_log_storage.path_for_shard(run)).exists() for run in old)  # type: ignore[attr-defined]
    assert folder_of(instance, tagged).is_dir()
    assert not folder_of(instance, newest).exists()
    assert instance.get_materialized_partitions(dg.AssetKey("parted")) == {"a"}
    latest = instance.get_latest_materialization_event(dg.AssetKey("hourly"))
    assert latest is not None
    assert latest.run_id == newest


def test_a_run_goes_once_each_of_its_partitions_was_stored_again(instance: dg.DagsterInstance) -> None:
    """
    While one of them was not, the page would show it as missing; a range of several is one run.
    """
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    both = ran(instance, ranged, tags=tags)
    again = [ran(instance, ranged, partition_key="a")]
    runs, _ = free_runs(instance, runs_days=30, logs_days=0, now=LATER, dry=False)
    assert (runs.items, {run.run_id for run in instance.get_runs()}) == (0, {both, *again})
    again.append(ran(instance, ranged, partition_key="b"))
    runs, _ = free_runs(instance, runs_days=30, logs_days=0, now=LATER, dry=False)
    assert (runs.items, {run.run_id for run in instance.get_runs()}) == (1, set(again))
    assert instance.get_materialized_partitions(dg.AssetKey("ranged")) == {"a", "b"}


def test_newest_run_that_failed_does_not_cost_the_last_good_one(instance: dg.DagsterInstance) -> None:
    """
    The last time an asset was made well is what its page shows.
    """
    good = [ran(instance, hourly), ran(instance, hourly)]

    @dg.asset(name="hourly")
    def broken() -> None:
        raise dg.Failure("not today")

    bad = [dg.materialize([broken], instance=instance, raise_on_error=False).dagster_run.run_id for _ in range(2)]
    runs, _ = free_runs(instance, runs_days=30, logs_days=0, now=LATER, dry=False)
    assert runs.items == 2
    assert {run.run_id for run in instance.get_runs()} == {good[1], bad[1]}


def test_nothing_goes_when_the_days_are_zero(instance: dg.DagsterInstance) -> None:
    """
    Zero is for ever.
    """
    ran(instance, hourly)
    ran(instance, hourly)
    assert all(one.items == 0 for one in free_runs(instance, runs_days=0, logs_days=0, now=LATER, dry=False))


@pytest.fixture
def given() -> dict[str, str]:
    """Trades are kept for ten days."""
    return {"BITGET_PIPELINE_RETENTION": "trades=10"}


def test_materializing_deletes_what_is_over_and_says_so(
    warehouse: Warehouse, pipeline: PipelineResource, instance: dg.DagsterInstance
) -> None:
    """
    First a look, then the deed: figures as metadata, rows gone, the ledger told.
    """
    symbol, old = Symbol(Market.SPOT, "BTCUSDT"), to_ms(NOW - timedelta(days=20))
    trades = [TradeBatch(symbol, [Trade(at, at, 1.0, 2.0, True)], at) for at in (old, to_ms(NOW))]
    warehouse.store_trades(trades, source="local", run_id="run-1")

    def once(*, dry: bool) -> dict[str, object]:
        done = dg.materialize(
            [retention],
            instance=instance,
            resources={"pipeline": pipeline},
            selection=[retention],
            run_config={"ops": {"retention": {"config": {"dry_run": dry}}}},
        )
        (event,) = done.get_asset_materialization_events()
        return {name: value.value for name, value in event.materialization.metadata.items()}

    would = once(dry=True)
    assert (would["only looked"], would["rows deleted"], would["statements to the ledger"]) == (True, 1, 0)
    assert warehouse.query("SELECT count() FROM trades")[0][0] == 2
    done = once(dry=False)
    assert (done["only looked"], done["rows deleted"], done["statements to the ledger"]) == (False, 1, 1)
    assert "| trades | 1 | 1 |" in str(done["in detail"])
    assert warehouse.query("SELECT count() FROM trades")[0][0] == 1
    assert [one.state for one in warehouse.coverage("trades")] == [CoverageState.EXPIRED]
