"""
The trades of one minute, asked for again by id.

Called by reconcile.py when a minute of ours is not the exchange's. The newest trades come first (one request, without
lag); where they do not reach back far enough, `fills-history` is walked from the minute's end, with answers that overlap
(history/trade_walk.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import Transient
from ...exchange.contract import Exchange, Request
from ...guard.rate_limit import Priority
from ...history.client import HistoryClient
from ...history.trade_walk import Outcome, TradesBefore, TradeWalk
from ...market.instrument import Symbol
from ...market.interval import Interval
from ...market.trade import Trade
from ..live.repair_pace import Pace, unpaced

MOST_PAGES = 60
"""Of one minute: 60,000 trades, a thousand a second."""
LAG_MS = 120_000
"""The trade history may lag behind the market by so much; what is older is there."""


@dataclass(frozen=True, slots=True)
class MinuteOfTrades:
    """The exchange's trades of a minute, oldest first; `whole` when they are surely all that it knows of it."""

    trades: list[Trade]
    whole: bool


async def trades_again(
    client: HistoryClient,
    exchange: Exchange,
    symbol: Symbol,
    minute: Interval,
    *,
    clock: Callable[[], int],
    pace: Pace = unpaced,
) -> MinuteOfTrades:
    """
    Ask for the trades of a minute, at the pace of repairs. Raises what `HistoryClient.fetch` does, and Transient for
    unreadable trades.
    """
    start_id, end_id = exchange.id_at(minute.start_ms), exchange.id_at(minute.end_ms)

    async def ask(request: Request) -> list[Trade]:
        await pace(request)
        read = functools.partial(exchange.read_trades, symbol, received_ms=clock())
        page = await client.fetch(request, read, priority=Priority.LIVE_REPAIR)
        if page.rejected:
            raise Transient(f"{len(page.rejected)} unreadable trades: {page.rejected[0]}", where=str(symbol))
        return sorted(page)

    def inside(trades: list[Trade]) -> list[Trade]:
        each = {trade.trade_id: trade for trade in trades if start_id <= trade.trade_id < end_id}
        return [each[trade_id] for trade_id in sorted(each)]

    found = await ask(exchange.recent_trades(symbol))
    if found and found[0].trade_id < start_id:
        return MinuteOfTrades(inside(found), whole=True)
    connected = bool(found) and found[0].trade_id < end_id
    arrived = connected or clock() - minute.end_ms > LAG_MS
    if not connected:
        found = await ask(exchange.trade_page(symbol, before_id=end_id))
        if not found or found[-1].trade_id < start_id:
            return MinuteOfTrades([], whole=arrived)
    walk = TradeWalk(after_id=start_id - 1, before_id=found[-1].trade_id, recent_first=False)
    walk.take(found)
    for _ in range(MOST_PAGES):
        wanted = walk.ask
        if not isinstance(wanted, TradesBefore):
            break
        found += walk.take(await ask(exchange.trade_page(symbol, before_id=wanted.before_id)))
    return MinuteOfTrades(inside(found), whole=arrived and walk.outcome in (Outcome.BRIDGED, Outcome.PASSED))
