"""What is launched: what the ledger does not call settled, when its next try is due."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from bitget_pipeline.defs.history_launcher import (
    archive_derivations,
    archive_launches,
    days_back,
    launches,
    missing,
    older_days,
)
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, days_of_month
from bitget_pipeline.market.target import HistoryTarget
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.storage.migrations import migrate
from bitget_pipeline.storage.warehouse import CoverageState, Evidence

NOW = datetime(2026, 10, 5, 12, tzinfo=UTC)
YESTERDAY = date(2026, 10, 4)
BTC = Symbol(Market.SPOT, "BTCUSDT")
ETH = Symbol(Market.SPOT, "ETHUSDT")


@pytest.fixture
def selected(warehouse):
    """A warehouse in which BTC and ETH are selected on spot."""
    migrate(warehouse)
    chosen = [Chosen(symbol, rank, 1e9, Reason.VOLUME) for rank, symbol in enumerate((BTC, ETH), start=1)]
    warehouse.store_universe(chosen, selected_at=NOW, run_id="test")
    return warehouse


def evidence(symbol, day, state, retry_at=None):
    return Evidence(symbol, "candles_1m", Interval.of_day(day), state, reason="test", retry_at=retry_at)


def pairs(found):
    return [(one.symbol.name, one.day) for one in found]


def test_days_reach_back_from_yesterday_and_not_before_the_grid():
    """Today is not closed; before the grid there are no partitions."""
    assert days_back(3, now=NOW, not_before=date(2026, 10, 3)) == [YESTERDAY, date(2026, 10, 3)]


def test_all_that_is_selected_is_missing_at_first(selected):
    """An empty ledger knows of nothing."""
    found = missing(selected, Market.SPOT, days=[YESTERDAY], now=NOW)
    assert pairs(found) == [("BTCUSDT", YESTERDAY), ("ETHUSDT", YESTERDAY)]
    assert missing(selected, Market.USDTM, days=[YESTERDAY], now=NOW) == []


def test_settled_days_are_left_alone(selected):
    """Complete, or proven empty: nothing more to fetch."""
    found = [evidence(BTC, YESTERDAY, CoverageState.COMPLETE), evidence(ETH, YESTERDAY, CoverageState.VERIFIED_EMPTY)]
    selected.store_evidence(found, version=1, run_id="test")

    assert missing(selected, Market.SPOT, days=[YESTERDAY], now=NOW) == []


def test_hole_is_tried_again_when_it_is_due_and_not_before(selected):
    """A day with a hole rests until its next try."""
    later = evidence(BTC, YESTERDAY, CoverageState.UNKNOWN, retry_at=NOW + timedelta(minutes=1))
    due = evidence(ETH, YESTERDAY, CoverageState.UNKNOWN, retry_at=NOW)
    selected.store_evidence([later, due], version=1, run_id="test")

    assert pairs(missing(selected, Market.SPOT, days=[YESTERDAY], now=NOW)) == [("ETHUSDT", YESTERDAY)]


def test_launches_are_ranges_of_the_partitions_there_are(selected):
    """Two neighbours and two days are one run."""
    days = [YESTERDAY, YESTERDAY - timedelta(days=1)]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ["ETHUSDT", "BTCUSDT"])
        (rectangle,) = launches(selected, instance, Market.SPOT, days=days, now=NOW)

    assert rectangle.tags == {
        "dagster/asset_partition_range_start": "2026-10-03|ETHUSDT",
        "dagster/asset_partition_range_end": "2026-10-04|BTCUSDT",
    }


def test_the_important_symbols_come_first_of_one_day(selected):
    """By rank, whatever the order in which they became partitions."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ["ETHUSDT", "OTHERUSDT", "BTCUSDT"])
        found = launches(selected, instance, Market.SPOT, days=[YESTERDAY], now=NOW)

    assert [rectangle.first for rectangle in found] == ["BTCUSDT", "ETHUSDT"]


def test_holes_come_oldest_first_and_the_first_fill_newest_first_in_turns(selected):
    """
    A hole was asked for before and is due again. Whoever just began sees yesterday first; a hole of last month waits for
    nothing else, and nothing waits for all holes. A hole that is not due is no reason for a run.
    """
    days = [YESTERDAY - timedelta(days=back) for back in range(12)]
    due, later = NOW - timedelta(minutes=1), NOW + timedelta(hours=1)
    tried = [
        evidence(ETH, days[4], CoverageState.UNKNOWN, retry_at=due),
        evidence(BTC, days[4], CoverageState.UNKNOWN, retry_at=due),
        evidence(BTC, days[10], CoverageState.UNKNOWN, retry_at=due),
        evidence(ETH, days[2], CoverageState.UNKNOWN, retry_at=later),
    ]
    selected.store_evidence(tried, version=1, run_id="test")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ["ETHUSDT", "OTHERUSDT", "BTCUSDT"])
        found = launches(selected, instance, Market.SPOT, days=days, now=NOW)

    def of(one):
        return (one.first, YESTERDAY.toordinal() - one.last_day.toordinal(), one.keys)

    assert [of(one) for one in found[:6]] == [
        ("BTCUSDT", 10, 1),
        ("BTCUSDT", 0, 4),
        ("BTCUSDT", 4, 1),
        ("ETHUSDT", 0, 2),
        ("ETHUSDT", 4, 1),
        ("ETHUSDT", 3, 1),
    ]
    assert [of(one)[1] for one in found[6:]] == [5, 5, 11]


def test_a_hole_in_older_days_waits_for_no_first_fill_of_younger_ones(selected):
    """Where a target reaches, the oldest hole is the first range, although all of the last days are still to come."""
    targets = [HistoryTarget.parse("BTCUSDT=2026-09-01")]
    hole = evidence(BTC, date(2026, 9, 3), CoverageState.UNKNOWN, retry_at=NOW)
    selected.store_evidence([hole], version=1, run_id="test")
    older = older_days(targets, before=YESTERDAY, not_before=date(2026, 9, 1))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ["BTCUSDT", "ETHUSDT"])
        found = launches(selected, instance, Market.SPOT, days=[YESTERDAY], now=NOW, older=older, targets=targets)

    assert (found[0].first, found[0].first_day, found[0].keys) == ("BTCUSDT", date(2026, 9, 3), 1)
    assert (found[1].first, found[1].last, found[1].last_day) == ("BTCUSDT", "ETHUSDT", YESTERDAY)


def test_older_days_are_those_of_the_targets_alone(selected):
    """BTC reaches back five days, ETH does not: its days are not asked for."""
    targets = [HistoryTarget.parse("BTCUSDT=2026-09-30")]
    days = older_days(targets, before=date(2026, 10, 3), not_before=date(2026, 10, 1))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ["BTCUSDT", "ETHUSDT"])
        (rectangle,) = launches(selected, instance, Market.SPOT, days=[], now=NOW, older=days, targets=targets)

    assert days == [date(2026, 10, 2), date(2026, 10, 1)]
    assert (rectangle.first, rectangle.last, rectangle.first_day) == ("BTCUSDT", "BTCUSDT", date(2026, 10, 1))


def archived(warehouse, instance, *, targets=(), history_days=30, now=NOW, nothing_of=None):
    """What the archive launches of spot."""
    return archive_launches(
        warehouse,
        instance,
        Market.SPOT,
        targets=targets,
        history_days=history_days,
        grid_starts=date(2026, 9, 1),
        now=now,
        nothing_of=nothing_of,
    )


def test_an_archive_of_which_nothing_is_missing_is_looked_at_again_after_an_hour(selected):
    """A ledger of years is not folded every half minute; a symbol with something missing is looked at each time."""
    targets, quiet = [HistoryTarget.parse("BTCUSDT=2026-08-01"), HistoryTarget.parse("ETHUSDT=2026-08-01")], {}
    august = [evidence(BTC, day, CoverageState.COMPLETE) for day in days_of_month(date(2026, 8, 1))]
    selected.store_evidence(august, version=1, run_id="test")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ["ETHUSDT", "BTCUSDT"])

        def found(minutes):
            now = NOW + timedelta(minutes=minutes)
            return [one.name for one in archived(selected, instance, targets=targets, now=now, nothing_of=quiet)]

        assert (found(0), set(quiet)) == (["ETHUSDT"], {(BTC, date(2026, 8, 1))})
        lost = evidence(BTC, date(2026, 8, 3), CoverageState.UNKNOWN, retry_at=NOW)
        selected.store_evidence([lost], version=2, run_id="test")
        assert (found(59), found(60)) == (["ETHUSDT"], ["BTCUSDT", "ETHUSDT"])


def test_history_days_reach_beyond_the_grid_for_every_selected_symbol(selected):
    """They begin in the archive then, month by month, as a target does; an earlier target still counts."""
    targets = [HistoryTarget.parse("ETHUSDT=2026-05-01")]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ["ETHUSDT", "BTCUSDT"])
        within_the_grid = list(archived(selected, instance))
        found = list(archived(selected, instance, targets=targets, history_days=80))
        (first, *_) = archived(selected, instance, targets=targets, history_days=3660)

    assert within_the_grid == []
    assert [(one.name, one.first_month.month, one.last_month.month) for one in found] == [
        ("BTCUSDT", 7, 8),
        ("ETHUSDT", 5, 7),
        ("ETHUSDT", 8, 8),
    ]
    assert (first.name, first.first_month) == ("BTCUSDT", date(2018, 1, 1))  # no partition is older


def test_the_archive_begins_with_the_oldest_month_of_the_most_important_symbol(selected):
    """Three months to a run; a month whose days are settled is left out."""
    for day in days_of_month(date(2026, 6, 1)):
        selected.store_evidence([evidence(BTC, day, CoverageState.COMPLETE)], version=1, run_id="test")
    targets = [HistoryTarget.parse("BTCUSDT=2026-05-01"), HistoryTarget.parse("spot:ETHUSDT=2026-03-15")]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ["ETHUSDT", "BTCUSDT"])
        found = list(archived(selected, instance, targets=targets))

    assert [(one.name, one.first_month.month, one.last_month.month) for one in found] == [
        ("BTCUSDT", 5, 5),
        ("BTCUSDT", 7, 8),
        ("ETHUSDT", 3, 5),
        ("ETHUSDT", 6, 8),
    ]
    assert found[1].tags == {
        "dagster/asset_partition_range_start": "2026-07-01|BTCUSDT",
        "dagster/asset_partition_range_end": "2026-08-01|BTCUSDT",
    }


def test_months_whose_minutes_have_no_longer_candles_yet_are_derived(selected):
    """Neighbouring months of a symbol are one run; a month that is derived, and the days of the grid, are left alone."""
    grid_starts = date(2026, 9, 1)

    def know(symbol, day, stream="candles_1m", version=1):
        said = Evidence(symbol, stream, Interval.of_day(day), CoverageState.COMPLETE, 1440, 1440, 77, reason="test")
        selected.store_evidence([said], version=version, run_id="test")

    for symbol, month, day in ((BTC, 3, 31), (BTC, 4, 1), (BTC, 7, 9), (ETH, 5, 5), (BTC, 9, 2)):
        know(symbol, date(2026, month, day))
    know(ETH, date(2026, 5, 5), "candles_derived", 2)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ["ETHUSDT", "BTCUSDT"])
        found = archive_derivations(selected, instance, Market.SPOT, grid_starts=grid_starts)

    assert [(one.name, one.first_month.month, one.last_month.month) for one in found] == [
        ("BTCUSDT", 3, 4),
        ("BTCUSDT", 7, 7),
    ]
