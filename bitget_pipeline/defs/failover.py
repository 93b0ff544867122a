"""
The failover of the live run, put together from the settings; and who may be decided about meanwhile.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..exchange import registry
from ..feed.websocket import SocketAddress
from ..market.instrument import Market
from ..pipeline.beside.stand_in_feed import Second
from ..pipeline.beside.substitute import Failover
from ..pipeline.live.plan import LiveStores
from ..pipeline.watch.failover import FailoverRules, Mode
from ..pipeline.watch.probe import Prober
from ..settings import redis_address, ssl_context, substitute_addresses
from ..storage.redis_connection import connect_sync
from ..storage.stream import TradeStream
from ..storage.substitution import Substitutions, Wishes
from .resources import History, PipelineResource, boot


@asynccontextmanager
async def failover_of(
    pipeline: PipelineResource, history: History, stores: LiveStores, shard: str, *, ours: Prober
) -> AsyncIterator[Failover]:
    """The companion of a live run, over clients that are open for the length of a block; `ours` is run by somebody else."""
    place, settings = boot(), pipeline.operational()
    proxy = place.proxy.get_secret_value() if place.proxy else None
    addresses = substitute_addresses(place)
    async with pipeline.substitutes() as clients:
        seconds = []
        for market, client in clients.items():
            venue, url = registry.substitute(market), addresses[market].ws_url
            if venue is None or not url or market not in settings.failover_markets:
                continue
            socket = SocketAddress(url, proxy=proxy, tls=ssl_context(place) if url.startswith("wss:") else None)
            stream = TradeStream(
                history.redis, place.redis_prefix, shard, capacity=settings.stream_max_entries, source=venue.source
            )
            seconds.append(Second(venue, client, socket, stream))
        yield Failover(
            seconds,
            stores,
            Substitutions(history.redis, place.redis_prefix, shard),
            ours=ours,
            modes=dict.fromkeys(Market, Mode(settings.failover)),
            rules=FailoverRules(steady_for=settings.failover_steady_seconds),
            flush_rules=pipeline.flush_rules(),
        )


def substituted(shard: str) -> dict[Market, str]:
    """The markets that somebody stands in for now, and why: nothing is decided about them meanwhile."""
    client = connect_sync(redis_address(boot()))
    try:
        states = Wishes(client, boot().redis_prefix, shard).states()
    finally:
        client.close()
    return {
        market: f"{state.episode.source} stands in: {state.episode.reason}"
        for market, state in states.items()
        if state.episode is not None
    }
