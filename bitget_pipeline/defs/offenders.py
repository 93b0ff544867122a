"""
What a check is: a sentence that should be true, and the query for the rows of which it is not.
"""

from dataclasses import dataclass

import dagster as dg

SINCE = "inserted_at >= now() - INTERVAL 1 HOUR"


@dataclass(frozen=True, slots=True)
class Check:
    """A sentence that should be true of an asset's rows; `offenders` selects the rows of which it is not."""

    asset: str  # `*/candles_1m` stands for that asset of every market, `futures/…` of every futures market
    name: str
    sentence: str
    offenders: str
    columns: tuple[str, ...]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
