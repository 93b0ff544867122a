"""
The end of a failover: our exchange's own trades of that time are awaited, what stood in is retired, and the incident told.

Run by market_failover.py for each episode whose streams are ended. The repair itself is that of every break
(pipeline/live/repair.py): here it is seen that it happened, symbol by symbol, up to the rows in ClickHouse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

from ...market.instrument import Symbol
from ...market.interval import Interval
from ...storage.substitution import Episode
from ...telemetry import get_logger
from ..live.companion import Writing
from ..live.plan import LiveStores
from .failover_incidents import begun, seconds, tell

log = get_logger(__name__)


class FailBack:
    """Follows one episode from the end of its streams until nothing of it is left to do. Its methods raise what stores say."""

    def __init__(self, episode: Episode, stores: LiveStores, writing: Writing) -> None:
        self.episode = episode
        self._stores = stores
        self._writing = writing
        self._bridged: dict[Symbol, str | None] = {}  # and the newest entry of the stream when it was seen

    def waiting(self, collected: Collection[Symbol]) -> list[Symbol]:
        """Symbols whose substituted bars are still shown. One that is not collected any more gets no repair, and keeps them."""
        done = set(self.episode.retired)
        return [one for text in self.episode.symbols if text not in done and (one := Symbol.parse(text)) in collected]

    async def look(self, collected: Collection[Symbol]) -> bool:
        """Retire what is repaired by now; whether that was the last of it."""
        episode, stream = self.episode, self._stores.stream
        waiting = self.waiting(collected)
        fresh = [symbol for symbol in waiting if symbol not in self._bridged and self._is_bridged(symbol)]
        if fresh:
            newest = await stream.last_id()
            self._bridged.update(dict.fromkeys(fresh, newest))
        for symbol in waiting:
            if symbol not in self._bridged:
                continue
            newest = self._bridged[symbol]
            if newest is not None and not await stream.is_done(newest):
                continue
            episode.minutes += await asyncio.to_thread(
                self._stores.warehouse.retire_candles,
                symbol,
                Interval(episode.since_ms, episode.ended_ms + 1),
                source=episode.source,
                run_id=self._writing.run_id,
            )
            episode.retired.append(str(symbol))
        return not self.waiting(collected)

    def _is_bridged(self, symbol: Symbol) -> bool:
        """Whether nothing of ours is missing up to the moment at which it was well again, as far as ids tell."""
        return not self._writing.unproven(symbol) and self._writing.trades_through(symbol) >= self.episode.back_ms

    async def close(self) -> None:
        """Write the incident with its figures."""
        episode, warehouse = self.episode, self._stores.warehouse
        symbols = [Symbol.parse(text) for text in episode.symbols]
        stood_in = Interval(episode.since_ms, episode.ended_ms + 1)
        dark = Interval(episode.silent_ms, max(episode.silent_ms, episode.back_ms))
        substituted = await asyncio.to_thread(warehouse.count_trades, symbols, stood_in, source=episode.source)
        repaired = await asyncio.to_thread(warehouse.count_trades, symbols, dark, source=self._writing.source)
        now_ms = self._writing.clock()
        stood = seconds(episode.detected_ms, episode.ended_ms)
        first = begun(episode)
        figures = {
            **first.details,
            "rows_substituted": substituted,
            "rows_repaired": repaired,
            "minutes_retired": episode.minutes,
            "symbols_retired": len(episode.retired),
            "dark_seconds": seconds(episode.silent_ms, episode.back_ms),
            "repaired_after_seconds": seconds(episode.ended_ms, now_ms),
        }
        what = (
            f"{episode.source} stood in for {episode.market.value} for {stood or 0:.0f} s: {substituted:,} trades; of ours "
            f"{repaired:,} are there for the time in which it was dark"
        )
        incident = replace(first, what=what, closed_ms=now_ms, details=figures)
        await tell(incident, self._stores, run_id=self._writing.run_id)
        log.info("failover.settled", market=episode.market.value, **figures)
