"""
What Dagster itself costs for a run of many keys: planning, one event with metadata for each key, storing them on sqlite.

    python -m bench.dagster_overhead [--keys 1000]

One range run of an asset with the grid, the events and the metadata of `candles_1m`, that fetches nothing, on a fresh
instance in a folder of its own, with the two variables that `up` sets.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import date, timedelta

os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "500")
os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "true")

import dagster as dg

from bitget_pipeline.defs.assets.outcome import of_partition
from bitget_pipeline.defs.metadata import add_to_each
from bitget_pipeline.defs.partitions import grid, key_of, slice_of, symbol_partitions
from bitget_pipeline.market.instrument import Market
from bitget_pipeline.pipeline.history.backfill import KeyReport, KeyState
from bitget_pipeline.pipeline.history.rectangles import rectangles

FIRST = date(2026, 1, 1)
SYMBOLS = 20


@dg.asset(
    key=dg.AssetKey(["spot", "candles_1m"]),
    partitions_def=grid(Market.SPOT, starts=FIRST),
    backfill_policy=dg.BackfillPolicy.multi_run(100_000),
)
def candles_1m(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """The events of a backfill, without the backfill."""
    keys = slice_of(context, Market.SPOT)
    done = [KeyReport(symbol, day, KeyState.COMPLETE, 1440, 1440, 1440, (), 8, 0.5) for symbol, day in keys]
    add_to_each(context, {key_of(one.symbol, one.day): of_partition([one]) for one in done})
    return dg.MaterializeResult(metadata={"candles stored": 0})


def main() -> int:
    """0 when it takes at most 15 seconds for a thousand keys."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--keys", type=int, default=1000)
    keys = parser.parse_args().keys
    names = [f"S{n}USDT" for n in range(SYMBOLS)]
    wanted = [(name, FIRST + timedelta(days=n)) for n in range(keys // SYMBOLS) for name in names]
    job = dg.define_asset_job("history", selection=[candles_1m], executor_def=dg.in_process_executor)
    defs = dg.Definitions(assets=[candles_1m], jobs=[job])
    with (
        tempfile.TemporaryDirectory(prefix="bitget-bench-") as folder,
        dg.DagsterInstance.local_temp(folder) as instance,
    ):
        partitions = symbol_partitions(Market.SPOT).name
        assert partitions is not None
        instance.add_dynamic_partitions(partitions, names)
        (rectangle,) = rectangles(wanted, order=names, max_keys=keys)
        began, cpu = time.monotonic(), time.process_time()
        done = defs.resolve_job_def("history").execute_in_process(instance=instance, tags=rectangle.tags)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        stored = len(instance.get_materialized_partitions(candles_1m.key))
    assert done.success
    assert stored == len(wanted) == rectangle.keys, (stored, len(wanted))
    figures = {
        "keys": stored,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "milliseconds_per_key": round(1000 * seconds / stored, 2),
    }
    print(json.dumps({"bench": "dagster_overhead", **figures}), flush=True)
    return 0 if seconds <= 15 * keys / 1000 else 1


if __name__ == "__main__":
    sys.exit(main())
