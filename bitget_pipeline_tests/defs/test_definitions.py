"""What Dagster loads: complete, described, silent, and on."""

import os
import subprocess
import sys
from datetime import date, timedelta

import dagster as dg
import pytest
import yaml

from bitget_pipeline.cli.up.dagster_home import dagster_yaml
from bitget_pipeline.definitions import defs
from bitget_pipeline.defs.checks import fits, live_checks
from bitget_pipeline.defs.health import FAMILIES


@pytest.fixture(scope="module")
def specs():
    """Every asset's specification."""
    return list(defs.resolve_all_asset_specs())


def test_definitions_load_without_a_word():
    """A warning at every load is what people learn not to read."""
    load = "import dagster, bitget_pipeline.definitions as d; dagster.Definitions.validate_loadable(d.defs)"
    bare = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, env=bare, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_asset_says_what_it_is_whose_it_is_and_where_it_lies(specs):
    """The catalogue is read by people who have not read the code."""
    for spec in specs:
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert "clickhouse" in spec.kinds, spec.key
        assert spec.group_name in {"reference", "history", "live", "health"}, spec.key


def test_tables_are_described_column_by_column(specs):
    """Every asset that is a table carries its columns with their meaning and unit."""
    for spec in specs:
        if spec.key.to_user_string() in ("tables", "candles_unified", "retention"):
            continue
        schema = spec.metadata["dagster/column_schema"]
        assert schema.columns, spec.key
        assert all(column.description for column in schema.columns), spec.key


def test_history_is_one_asset_for_each_market_by_day_and_symbol(specs):
    """Spot and futures share symbols, so each market has partitions of its own."""
    grids = {spec.key.to_user_string(): spec.partitions_def for spec in specs if spec.partitions_def}

    everywhere = (
        "candles_1m", "candles_1m_archive", "candles_derived", "candles_derived_archive", "trades_history",
    )  # fmt: skip
    on_both = {f"{market}/{asset}" for market in ("spot", "usdtm") for asset in everywhere}
    assert set(grids) == on_both | {"usdtm/mark_candles", "usdtm/index_candles", "scorecard"}
    for market in ("spot", "usdtm"):
        by_name = {one.name: one.partitions_def for one in grids[f"{market}/candles_1m"].partitions_defs}
        assert by_name["symbol"].name == f"{market}_symbols"


def test_deep_history_is_by_month_and_ends_where_the_grid_begins(specs):
    """No minute has a place in both, and both share their symbols."""
    for market in ("spot", "usdtm"):
        by_key = {spec.key.to_user_string(): spec.partitions_def for spec in specs}
        archive, days = by_key[f"{market}/candles_1m_archive"], by_key[f"{market}/candles_1m"]
        months = archive.get_partitions_def_for_dimension("month").get_partition_keys()
        first_day = days.get_partitions_def_for_dimension("day").get_first_partition_key()

        assert months[0] == "2018-01-01"
        assert (date.fromisoformat(months[-1]) + timedelta(days=31)).replace(day=1).isoformat() == first_day
        assert archive.get_partitions_def_for_dimension("symbol") == days.get_partitions_def_for_dimension("symbol")
        assert by_key[f"{market}/candles_derived_archive"] == archive


def test_an_asset_warns_before_it_has_too_many_partitions():
    """At four fifths a warning, at Dagster's advice an error."""
    assert fits(150, 500).passed
    nearly, over = fits(170, 500), fits(200, 500)
    assert (nearly.passed, nearly.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (over.passed, over.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_live_data_is_external_and_follows_the_selection(specs):
    """Nobody can press Materialize on what the live run writes."""
    by_key = {spec.key.to_user_string(): spec for spec in specs}
    executable = {key.to_user_string() for key in defs.resolve_asset_graph().executable_asset_keys}

    assert not {"trades", "order_books", "candles_live", "candles_unified"} & executable
    assert [dep.asset_key.to_user_string() for dep in by_key["trades"].deps] == ["universe"]


def test_whatever_is_made_by_itself_says_how_old_it_may_become(specs):
    """Live data minutes, by its heartbeat; what runs by the clock somewhat longer than that; what is on demand has no age."""
    warn = {
        spec.key.to_user_string(): spec.freshness_policy.warn_window.to_timedelta()
        for spec in specs
        if spec.freshness_policy
    }
    live = {spec.key.to_user_string() for spec in specs if spec.group_name == "live"}
    assert {name for name, window in warn.items() if window == timedelta(minutes=2)} == live
    assert min(warn[name] for name in ("instruments", "universe", "usdtm/funding_rates")) > timedelta(hours=1)
    assert min(warn[name] for name in ("coverage", "scorecard", "retention", "spot/candles_1m")) > timedelta(days=1)
    on_demand = ("candles_1m_archive", "candles_derived_archive", "trades_history", "mark_candles", "index_candles")
    assert {spec.key.path[-1] for spec in specs} - {name.split("/")[-1] for name in warn} == set(on_demand)


def test_the_instance_looks_at_freshness():
    """Without the daemon the policies are words."""
    assert yaml.safe_load(dagster_yaml().read_text())["freshness"] == {"enabled": True}


def test_schedules_and_sensors_are_on():
    """`up` has nothing to switch on: whoever starts the pipeline wants it to run."""
    repository = defs.get_repository_def()

    assert {s.name for s in repository.schedule_defs} == {
        "hourly_discovery",
        "quarterly_live_checks",
        "daily_recount",
        "daily_housekeeping",
        "daily_scorecard",
        "spot_daily_top_up",
        "usdtm_daily_top_up",
        "hourly_funding",
        "quarterly_open_interest",
    }
    assert all(s.default_status is dg.DefaultScheduleStatus.RUNNING for s in repository.schedule_defs)
    assert all(s.default_status is dg.DefaultSensorStatus.RUNNING for s in repository.sensor_defs)
    assert all(s.description for s in repository.sensor_defs)


def test_checks_of_what_no_run_materializes_have_a_run_of_their_own():
    """
    A check that nothing runs says "not evaluated" for ever; those of the minute's look are the health sensor's.
    """
    graph = defs.resolve_asset_graph()
    run = {key.name for key in live_checks.selection.resolve_checks(graph)}
    live = {"trades", "order_books", "candles_live"}
    watched = {family.check for family in FAMILIES}
    assert run == {
        key.name for key in graph.asset_check_keys if key.asset_key.to_user_string() in live and key.name not in watched
    }
    assert {"trades_are_possible", "live_candles_hold_every_trade"} <= run


def test_every_check_says_its_sentence():
    """A red check must be understood without reading its query."""
    checks = defs.resolve_asset_graph().asset_check_keys

    assert len(checks) >= 10
    for key in checks:
        spec = next(s for d in defs.asset_checks or [] for s in d.check_specs if s.key == key)
        assert spec.description, key
