"""
Live data: assets that the live run writes outside of any materialization.

Dagster knows them as external assets; the health sensor reports on them once a minute, and while rows reach the table that is a
materialization: the heartbeat that freshness goes by.
"""

from collections.abc import Sequence

import dagster as dg

from ...market.instrument import Market
from ..freshness import LIVE
from ..metadata import KINDS, OWNERS, described
from .reference import universe

GROUP = "live"

trades = dg.AssetSpec(
    key="trades",
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=LIVE,
    deps=[universe],
    metadata=described("trades"),
    description=(
        "Single trades of all selected symbols, written by the job `live`: sockets → Redis Streams → ClickHouse. A trade is "
        "acknowledged only after it is stored; what a break may have lost is fetched from the exchange's history. Read "
        "`trades_final`. The observations say how many arrive, how late, and who is silent."
    ),
)

order_books = dg.AssetSpec(
    key="order_books",
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=LIVE,
    deps=[universe],
    metadata=described("order_books"),
    description=(
        "The best levels of every selected symbol's order book (15, with credentials 50), once a second, kept for seven days, "
        "written by the job `live`. Read `order_books_final`; the newest book of each symbol lies in Redis too. A book that "
        "breaks its sequence, its checksum or its own order is not stored: the observations count those and what was begun "
        "anew."
    ),
)

candles_live = dg.AssetSpec(
    key="candles_live",
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    freshness_policy=LIVE,
    deps=[trades],
    metadata=described("candles_live"),
    description=(
        "Candles of 1s to 1h built from the stored trades, computed anew whenever a trade of theirs is stored. They hold "
        "what was traded inside; `candles_unified` shows them as the exchange draws bars. Every closed minute is held "
        "against the exchange's own (`match_rate`), and fetched again where it differs."
    ),
)


def live_assets(markets: Sequence[Market]) -> list[dg.AssetSpec]:
    """The live assets, and the view that joins them with the history of these markets."""
    candles_unified = dg.AssetSpec(
        key="candles_unified",
        group_name=GROUP,
        owners=OWNERS,
        kinds=KINDS,
        freshness_policy=LIVE,
        deps=[candles_live, *(dg.AssetKey([market.value, "candles_1m"]) for market in markets)],
        metadata={"dagster/table_name": "trading.candles_unified"},
        description=(
            "What readers ask first: for every market, symbol, resolution and minute the best bar known, the exchange's own over "
            "ours from live trades; `source` and `origin` say which. A view: it is always up to date."
        ),
    )
    return [trades, order_books, candles_live, candles_unified]
