"""
What `credentials limits` shows: the rules of the tiers beside what holds, and the published request limits beside the plan.

Input: operational settings and the exchange's own requests, which carry their limits; output: rows, as data and as tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.table import Table

from ..exchange import registry
from ..exchange.contract import Exchange, Request
from ..guard.rate_limit import BudgetRules
from ..market.candle import Resolution
from ..market.derivatives import PriceKind
from ..market.instrument import Market, Symbol
from ..settings import TIERS, Operational, Tier, TierRules

TIER_ROWS: Sequence[tuple[str, Callable[[TierRules], Any], Callable[[Operational], Any]]] = (
    ("markets", lambda rules: _words(rules.allowed_markets), lambda now: _words(now.markets)),
    ("symbols a market", lambda rules: rules.max_symbols_per_market, lambda now: now.symbols_per_market),
    ("symbols a connection", lambda rules: rules.max_symbols_per_connection, lambda now: now.symbols_per_connection),
    ("finest live candles", lambda rules: str(rules.finest), lambda now: str(_finest(now.live_resolutions))),
    ("levels of order books", lambda rules: rules.max_book_levels, lambda now: now.book_levels),
    (
        "days of history, when nothing is said",
        lambda rules: rules.defaults["history_days"],
        lambda now: now.history_days,
    ),
)
"""What it is, what a tier allows, what holds now."""


def tier_limits(now: Operational) -> list[dict[str, Any]]:
    """One row for each thing a tier limits."""
    return [
        {
            "what": what,
            "without_key": allowed(TIERS[Tier.PUBLIC]),
            "with_key": allowed(TIERS[Tier.CREDENTIALED]),
            "now": holds(now),
        }
        for what, allowed, holds in TIER_ROWS
    ]


def request_limits(exchange: str, now: Operational) -> list[dict[str, Any]]:
    """One row for each kind of request: the published limit, and what is planned with."""
    rules = BudgetRules(share=now.request_share, backfill_per_second=now.historical_rps)
    published = {request.endpoint: request.per_second for request in _requests(registry.get(exchange))}
    everything = rules.per_minute / 60
    rows = [
        {"endpoint": endpoint, "published": per_second, "planned": _rounded(rules.share * per_second)}
        for endpoint, per_second in sorted(published.items())
    ]
    backfills = min(now.historical_rps, rules.share * everything)
    return [
        *rows,
        {"endpoint": "everything together", "published": everything, "planned": _rounded(rules.share * everything)},
        {"endpoint": "backfills together", "published": None, "planned": _rounded(backfills)},
    ]


def tier_table(rows: list[dict[str, Any]]) -> Table:
    """For people."""
    table = Table("allowed", "without a key", "with a key", "now", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(row["what"], str(row["without_key"]), str(row["with_key"]), str(row["now"]))
    return table


def request_table(rows: list[dict[str, Any]]) -> Table:
    """For people."""
    table = Table("requests", "published", "planned with", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        published = "-" if row["published"] is None else f"{row['published']:g}"
        table.add_row(row["endpoint"], published, f"{row['planned']:g}")
    return table


def _requests(exchange: Exchange) -> Iterator[Request]:
    """Each kind of public request that we make, once a market."""
    yield exchange.server_time()
    for market in exchange.markets:
        symbol = Symbol(market, "BTCUSDT")
        yield exchange.instruments(market)
        yield exchange.tickers(market)
        yield exchange.candle_page(symbol, Resolution.M1, end_ms=0)
        yield exchange.recent_trades(symbol)
        yield exchange.trade_page(symbol)
        yield exchange.book(symbol)
        if market is not Market.SPOT:
            yield from (exchange.price_page(symbol, kind, Resolution.M1, end_ms=0) for kind in PriceKind)
            yield exchange.funding_page(symbol, page=1)
            yield exchange.open_interest(symbol)


def _finest(resolutions: Sequence[Resolution]) -> Resolution:
    return min(resolutions, key=lambda resolution: resolution.length)


def _words(markets: Sequence[Market]) -> str:
    return ", ".join(markets)


def _rounded(rate: float) -> float:
    return round(rate, 2)
