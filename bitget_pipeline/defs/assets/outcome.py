"""
What a run over symbol-days came to, told to Dagster: which partitions are green, with which figures, and why it failed.

Used by every asset of history that is partitioned by day and symbol; the walks of pipeline/history make the reports.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from enum import StrEnum
from typing import Any, Protocol

import dagster as dg

from ...market.instrument import Symbol
from ..metadata import add_to_each, as_table

NOTHING_CAME = "the answers held nothing; an empty answer proves nothing, the ledger says when it is tried again"


class Done(Protocol):
    """What every walk says of one symbol-day."""

    @property
    def symbol(self) -> Symbol: ...
    @property
    def day(self) -> date: ...
    @property
    def state(self) -> StrEnum: ...
    @property
    def rows(self) -> int: ...
    @property
    def holes(self) -> Sequence[object]: ...
    @property
    def requests(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def error(self) -> str: ...
    @property
    def in_vain(self) -> bool: ...


def told(
    context: dg.AssetExecutionContext,
    partitions: Mapping[str, Sequence[Done]],
    of_run: Mapping[str, Any],
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> dg.MaterializeResult:
    """
    What the run came to: each partition with its own metadata, to which `more` may add.

    A partition is green when something came of each of its days. When one failed, or an answer was empty where something
    should be (which proves nothing), the run fails; the others are reported one by one before, because what is stored
    should not show as missing. (Without a run of their own: Dagster drops the events of a step that raises.)
    """
    figures = {key: of_partition(done) | dict((more or {}).get(key, {})) for key, done in partitions.items()}
    vain = {key for key, done in partitions.items() if any(one.in_vain for one in done)}
    if not vain:
        add_to_each(context, figures)
        return dg.MaterializeResult(metadata=dict(of_run))
    for key in partitions:
        if key not in vain:
            context.instance.report_runless_asset_event(
                dg.AssetMaterialization(asset_key=context.asset_key, partition=key, metadata=figures[key])
            )
    raise _failure([one for done in partitions.values() for one in done])


def of_partition(done: Sequence[Done]) -> dict[str, Any]:
    """The metadata of one partition: a symbol-day, or all days of a symbol's month."""
    states = sorted({str(one.state) for one in done})
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(sum(one.rows for one in done)),
        "state": dg.MetadataValue.text(", ".join(states)),
        "holes": dg.MetadataValue.int(sum(len(one.holes) for one in done)),
        "requests": dg.MetadataValue.int(sum(one.requests for one in done)),
        "seconds": dg.MetadataValue.float(round(sum(one.seconds for one in done), 3)),
    }


def _failure(done: Sequence[Done]) -> dg.Failure:
    """Which symbol-days failed, and why."""
    failed = [one for one in done if one.in_vain]
    first = failed[0]
    return dg.Failure(
        f"{len(failed)} of {len(done)} symbol-days failed; the others are stored. First: {first.symbol} "
        f"{first.day}: {first.error or NOTHING_CAME}",
        metadata={
            "failed": as_table(
                ({"symbol": d.symbol.name, "day": d.day, "why": d.error or NOTHING_CAME} for d in failed),
                columns=("symbol", "day", "why"),
            )
        },
        allow_retries=False,
    )
