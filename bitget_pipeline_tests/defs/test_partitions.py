"""The grid of history, and the ranges that cover what is missing in it."""

from datetime import date, timedelta

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.defs.metadata import add_to_each
from bitget_pipeline.defs.partitions import admissible, grid
from bitget_pipeline.market.instrument import Market
from bitget_pipeline.pipeline.history.rectangles import RANGE_END, RANGE_START, Rectangle, month_rectangles, rectangles

ORDER = [f"S{n}USDT" for n in range(12)]
FIRST_DAY = date(2026, 1, 1)
pairs = st.sets(st.tuples(st.sampled_from(ORDER), st.dates(FIRST_DAY, FIRST_DAY + timedelta(days=20))), max_size=120)


def keys_in(rectangle: Rectangle) -> list[tuple[str, date]]:
    names = ORDER[ORDER.index(rectangle.first) : ORDER.index(rectangle.last) + 1]
    days = (rectangle.last_day - rectangle.first_day).days + 1
    return [(name, rectangle.first_day + timedelta(days=n)) for name in names for n in range(days)]


@given(wanted=pairs, max_keys=st.integers(1, 40))
def test_rectangles_cover_exactly_what_is_wanted_and_nothing_twice(wanted, max_keys):
    """Every wanted pair lies in one rectangle, no other pair in any, and none is larger than allowed."""
    covered = [pair for r in rectangles(wanted, order=ORDER, max_keys=max_keys) for pair in keys_in(r)]

    assert sorted(covered) == sorted(wanted)
    assert all(len(keys_in(r)) == r.keys <= max_keys for r in rectangles(wanted, order=ORDER, max_keys=max_keys))


def test_two_days_of_neighbouring_symbols_are_one_rectangle():
    """The usual case, everything of the last days, is one run and not one run per symbol."""
    wanted = [(name, FIRST_DAY + timedelta(days=n)) for name in ORDER for n in range(2)]

    assert len(rectangles(wanted, order=ORDER)) == 1


def test_months_are_covered_as_days_are():
    """Months that follow each other, over a new year, are one rectangle; a month that is lacking splits them."""
    months = [date(2024, 11, 1), date(2024, 12, 1), date(2025, 1, 1), date(2025, 3, 1)]
    wanted = [(name, month) for name in ORDER[:2] for month in months]

    found = month_rectangles(wanted, order=ORDER, max_keys=12)

    assert [(one.first_day, one.last_day, one.first, one.last, one.keys) for one in found] == [
        (date(2025, 3, 1), date(2025, 3, 1), ORDER[0], ORDER[1], 2),
        (date(2024, 11, 1), date(2025, 1, 1), ORDER[0], ORDER[1], 6),
    ]


def test_newest_days_come_first():
    """What a user looks at first is filled first."""
    wanted = [(ORDER[0], FIRST_DAY), (ORDER[0], FIRST_DAY + timedelta(days=9))]

    assert [r.last_day for r in rectangles(wanted, order=ORDER)] == [FIRST_DAY + timedelta(days=9), FIRST_DAY]


def test_of_holes_the_oldest_come_first_and_of_one_day_the_most_important():
    """What is missing longest has been a hole to whoever reads longest."""
    late, early = FIRST_DAY + timedelta(days=9), FIRST_DAY
    wanted = [(ORDER[0], late), (ORDER[0], early), (ORDER[4], early)]
    found = rectangles(wanted, order=ORDER, rank={ORDER[4]: 0, ORDER[0]: 1}, oldest_first=True)

    assert [(r.first, r.first_day) for r in found] == [(ORDER[4], early), (ORDER[0], early), (ORDER[0], late)]


def test_symbol_without_a_partition_is_left_out():
    """A symbol that was selected a moment ago has no partition yet and waits for the next look."""
    assert rectangles([("NEWUSDT", FIRST_DAY)], order=ORDER) == []


def test_names_that_dagster_would_drop_are_told_apart():
    """Dagster splits keys at these characters, accepts such a key and loses it."""
    assert admissible(["BTCUSDT", "A|B", "A,B", "[A]", "牛来USDT"]) == (["BTCUSDT", "牛来USDT"], ["A|B", "A,B", "[A]"])


@pytest.mark.parametrize("days", [1, 3])
def test_dagster_resolves_a_rectangle_to_the_same_keys(days):
    """The tags mean to Dagster what we mean, for symbols that are not in alphabetical order."""
    order = ["ZECUSDT", "BTCUSDT", "牛来USDT"]
    wanted = {(name, FIRST_DAY + timedelta(days=n)) for name in order for n in range(days)}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", order)
        (rectangle,) = rectangles(wanted, order=instance.get_dynamic_partitions("spot_symbols"))
        context = dg.build_asset_context(
            instance=instance,
            partition_key_range=dg.PartitionKeyRange(rectangle.tags[RANGE_START], rectangle.tags[RANGE_END]),
        )

        @dg.asset(partitions_def=grid(Market.SPOT, starts=FIRST_DAY), backfill_policy=dg.BackfillPolicy.multi_run(9))
        def probe(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            seen.update(context.partition_keys)
            return dg.MaterializeResult()

        seen: set[str] = set()
        probe(context)

    assert {str(key) for key in seen} == {f"{day.isoformat()}|{name}" for name, day in wanted}


def test_a_run_resolves_its_range_once_and_gives_each_key_its_own_metadata():
    """The keys of a range stay what they were while their metadata are added; afterwards new symbols count again."""
    days = grid(Market.SPOT, starts=FIRST_DAY)

    @dg.asset(partitions_def=days, backfill_policy=dg.BackfillPolicy.multi_run(9))
    def probe(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        add_to_each(context, {str(key): {"key": str(key)} for key in context.partition_keys})
        return dg.MaterializeResult(metadata={"of the run": 1})

    wanted = [(name, FIRST_DAY + timedelta(days=n)) for name in ORDER[:2] for n in range(3)]
    (rectangle,) = rectangles(wanted, order=ORDER)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("spot_symbols", ORDER[:2])
        done = dg.materialize([probe], instance=instance, tags=rectangle.tags)
        events = done.asset_materializations_for_node("probe")

        every = dg.PartitionKeyRange(rectangle.tags[RANGE_START], rectangle.tags[RANGE_END])
        with days.resolved_once():
            resolved = days.get_partition_keys_in_range(every, dynamic_partitions_store=instance)
            assert days.get_partition_keys_in_range(every, dynamic_partitions_store=instance) is resolved
        assert days.get_partition_keys_in_range(every, dynamic_partitions_store=instance) is not resolved

    assert {event.partition: event.metadata["key"].value for event in events} == {key: key for key in resolved}
    assert len(resolved) == len(events) == 6
    assert all(event.metadata["of the run"].value == 1 for event in events)
