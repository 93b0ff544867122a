"""
How often each symbol's trades arrive, from one live run to the next: so that one that trades every second and is deaf right after
a start is noticed at once.

Read by run.py before its first socket and by reconfigure.py for symbols that join; written once a minute, and at the end. From
Redis, where the last run left it; else from the trades of the last day in ClickHouse. Who cannot be asked in time is not waited
for: a pace is learned anew within some arrivals.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from ...errors import PipelineError
from ...exchange.contract import Channel, Subscription
from ...feed.pace import Pace
from ...market.instrument import Symbol
from ...storage.paces import KnownPace
from ...storage.trade_rows import Stored
from ...telemetry import get_logger
from .plan import LiveStores
from .state import LiveState

log = get_logger(__name__)

REMEMBER_EVERY = 60.0
ASKED_WITHIN = 3.0
"""Seconds for each store to tell."""
LEAST_SECONDS = 9
"""So many seconds with trades make a pace; of fewer nothing is guessed."""


async def learned_before(
    stores: LiveStores, symbols: Sequence[Symbol], *, source: str, now_ms: int, steady: float
) -> dict[Symbol, Pace]:
    """
    What is known of these symbols, of Redis's what can be read. `steady` is the present moment of the clock that paces are kept
    by. Never raises for a store that is away.
    """
    found: dict[Symbol, Pace] = {}
    if not symbols:
        return found
    try:
        if stores.paces is not None:
            async with asyncio.timeout(ASKED_WITHIN):
                found |= remembered(await stores.paces.known(symbols), steady=steady)
    except (PipelineError, TimeoutError) as error:
        log.warning("live.paces_not_read", problem=str(error) or "Redis does not answer in time")
    unknown = [symbol for symbol in symbols if symbol not in found]
    try:
        if unknown:
            async with asyncio.timeout(ASKED_WITHIN):
                rows = await asyncio.to_thread(
                    stores.warehouse.seconds_with_trades, unknown, source=source, now_ms=now_ms, within=ASKED_WITHIN
                )
            found |= guessed(rows, steady=steady)
    except (PipelineError, TimeoutError) as error:
        log.warning("live.paces_not_guessed", problem=str(error) or "ClickHouse does not answer in time")
    log.info("live.paces_known", symbols=len(symbols), known=len(found), guessed=len(set(found) & set(unknown)))
    return found


def remembered(known: Mapping[Symbol, KnownPace], *, steady: float) -> dict[Symbol, Pace]:
    """The paces that the last run left. Pure."""
    found: dict[Symbol, Pace] = {}
    for symbol, (learned, age) in known.items():
        try:
            pace = Pace.of_plain(learned, now=steady, later=age)
        except (KeyError, TypeError, ValueError):  # of another version
            continue
        if pace.known:
            found[symbol] = pace
    return found


def guessed(stored: Mapping[Symbol, Stored], *, steady: float) -> dict[Symbol, Pace]:
    """
    Paces by the trades of the last day. Pure. The longest pause is left out of the average: it may be a time in which nobody
    collected.
    """
    found: dict[Symbol, Pace] = {}
    for symbol, (seconds, span, longest) in stored.items():
        if seconds >= LEAST_SECONDS:
            gap = max(1.0, (span - longest) / (seconds - 2))
            found[symbol] = Pace.seeded(arrivals=seconds - 1, gap=gap, longest=longest, now=steady)
    return found


def of_trades(paces: Mapping[Symbol, Pace]) -> dict[Subscription, Pace]:
    """The same by subscription."""
    return {Subscription(symbol, Channel.TRADE): pace for symbol, pace in paces.items()}


async def remember(stores: LiveStores, state: LiveState) -> None:
    """Leave what is known for the next run. Raises StoreUnavailable and its kin."""
    if stores.paces is not None:
        now = time.monotonic()
        await stores.paces.put({symbol: pace.plain(now=now) for symbol, pace in state.paces().items()})


async def remember_on(stores: LiveStores, state: LiveState) -> None:
    """The same every minute, until cancelled."""
    while True:
        await asyncio.sleep(REMEMBER_EVERY)
        try:
            await remember(stores, state)
        except PipelineError as error:
            log.warning("live.paces_not_remembered", problem=str(error))
