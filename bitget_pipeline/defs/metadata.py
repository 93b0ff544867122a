"""
What a run tells people: tables described for the catalogue, reports turned into Dagster's metadata.

Used by every asset; no metadata is made elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from ..storage.tables import BY_NAME
from .partitions import Grid

OWNERS = ["team:market-data"]
KINDS = {"clickhouse"}


def described(table: str) -> dict[str, Any]:
    """Definition metadata of an asset that is a table: its name and its columns, in words."""
    columns = [dg.TableColumn(c.name, c.type, description=c.about) for c in BY_NAME[table].columns]
    return {
        "dagster/table_name": f"trading.{table}",
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }


def add_to_each(context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each of these partitions of the run its own metadata."""
    partitions = context.assets_def.partitions_def
    assert isinstance(partitions, Grid), f"{context.asset_key.to_user_string()} is not partitioned by a grid"
    with partitions.resolved_once():
        for key, its_own in metadata.items():
            context.add_asset_metadata(its_own, partition_key=key)


def as_table(rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str]) -> dg.MetadataValue:
    """A small table for an event, as Markdown; at most fifty rows, the rest is counted."""
    kept = list(rows)
    shown = kept[:50]
    head = f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"
    body = "\n".join("| " + " | ".join(_cell(row.get(c, "")) for c in columns) + " |" for row in shown)
    more = f"\n\n… and {len(kept) - len(shown)} more" if len(kept) > len(shown) else ""
    return dg.MetadataValue.md(f"{head}\n{body}{more}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
