"""
What a run needs of the outside: settings, the exchange's HTTP, ClickHouse, Redis.

The resource carries no configuration: where things are is read from the environment once per process (settings/), so
no address or secret stands in a run's config. Everything is opened when a run asks for it and closed with it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256

import dagster as dg
import redis
import redis.asyncio

from ..exchange import registry
from ..feed.connection import SocketAddress
from ..feed.shards import ShardRules
from ..guard.rate_limit import BudgetRules
from ..guard.remedy_table import FROM_OUTSIDE, RULES, changed
from ..guard.vitals import Line
from ..history.client import HistoryClient, HttpAddress, Patience, VenueClient, opened, opened_for
from ..market.instrument import Market, Symbol
from ..pipeline.beside.order_books import BookRules, OrderBooks
from ..pipeline.beside.tickers import Tickers
from ..pipeline.live.companion import Companion
from ..pipeline.live.flush import FlushRules
from ..pipeline.live.hands import Hands
from ..pipeline.live.run import LiveStores
from ..pipeline.watch.attention import Attention, Places
from ..pipeline.watch.health_rules import HealthRules
from ..pipeline.watch.probe import Prober
from ..pipeline.watch.remediation import Remediation
from ..pipeline.watch.remedy_incidents import RemedyIncidents
from ..settings import (
    Boot,
    InForce,
    Operational,
    Tier,
    boot_in_force,
    exchange_address,
    operational_in_force,
    redis_address,
    ssl_context,
    substitute_addresses,
    warehouse_address,
)
from ..storage.alert_book import AlertBook
from ..storage.breaker_board import BreakerBoard
from ..storage.budget import Budget, EndpointUse
from ..storage.connects import ConnectBudget
from ..storage.control import LiveControl
from ..storage.latest import Latest
from ..storage.lease import Lease
from ..storage.overview import Overview, backfill_restraint, budget_use
from ..storage.paces import PaceBook
from ..storage.page_shelf import PageShelf
from ..storage.redis_connection import connect, connect_sync, server_identity
from ..storage.remedy_memory import RemedyMemory
from ..storage.spill import Spill
from ..storage.stamp import stamp_database, stamp_prefix
from ..storage.stream import TradeStream
from ..storage.versions import Versions
from ..storage.warehouse import Warehouse

ANSWER_WITHIN = {Tier.PUBLIC: 30.0, Tier.CREDENTIALED: 60.0}
"""Seconds for one request."""

SHORT_PATIENCE = Patience(attempts=3, deadline=45.0)
"""For whoever stands in: what is not decided now is decided in an hour."""


@cache
def boot() -> Boot:
    """Where everything is, as this process found it when it first asked."""
    return boot_in_force()


@dataclass(frozen=True, slots=True)
class History:
    """What it takes to ask the exchange and to number what is stored."""

    client: HistoryClient
    versions: Versions
    redis: redis.asyncio.Redis
    shelf: PageShelf


class PipelineResource(dg.ConfigurableResource):
    """The pipeline's surroundings, as the settings describe them."""

    def operational(self) -> Operational:
        """What is collected and how: the generation that holds now."""
        return self.in_force().settings

    def in_force(self) -> InForce:
        """The generation that holds now, and what is wrong with the settings, if they are."""
        return operational_in_force(boot())

    @property
    def source(self) -> str:
        """What stands in the `source` column of rows from this exchange."""
        return boot().exchange

    @contextmanager
    def warehouse(self, *, answer_within: float = 300.0) -> Iterator[Warehouse]:
        """ClickHouse. Raises WrongExchange when the database holds the other exchange's data."""
        with Warehouse.open(warehouse_address(boot()), answer_within=answer_within) as warehouse:
            stamp_database(warehouse, boot().exchange)
            yield warehouse

    @contextmanager
    def overview(self, shard: str) -> Iterator[Overview]:
        """A live shard seen from outside, for sensors."""
        client = connect_sync(redis_address(boot()))
        try:
            yield Overview(client, boot().redis_prefix, shard, egress=boot().egress_name)
        finally:
            client.close()

    @asynccontextmanager
    async def live_control(self, shard: str) -> AsyncIterator[tuple[LiveControl, Callable[[], Awaitable[object]]]]:
        """
        Where a live run tells that it starts, before there is anything else; and what to ask Redis for until it answers. That
        raises WrongExchange when Redis holds the other exchange's state.
        """
        place = boot()
        client = connect(redis_address(place))
        try:
            yield (
                LiveControl(client, place.redis_prefix, shard),
                lambda: stamp_prefix(client, place.redis_prefix, place.exchange),
            )
        finally:
            await client.aclose()

    def warehouse_answers(self, *, within: float) -> None:
        """Return when ClickHouse answers. Blocks no longer than that; raises StoreUnavailable and its kin."""
        with self.warehouse(answer_within=within) as warehouse:
            warehouse.ping()

    def budget_rules(self, settings: Operational) -> BudgetRules:
        """What requests are planned with."""
        return BudgetRules(share=settings.request_share, backfill_per_second=settings.historical_rps)

    def budget_of(self, client: redis.asyncio.Redis, settings: Operational, *, venue: str = "") -> Budget:
        """
        The budget of the address that the settings go out by; a `venue` that stands in has one of its own there, without the
        ceiling for backfills.
        """
        place, rules = boot(), self.budget_rules(settings)
        egress = place.egress_name
        if venue:
            egress = venue if egress == "default" else f"{venue}:{egress}"
            rules = replace(rules, backfill_per_second=None)
        return Budget(client, place.redis_prefix, egress, rules=rules, most_processes=settings.request_processes)

    def budget(self) -> tuple[list[EndpointUse], float]:
        """The use of the shared budget by endpoint, and the seconds for which the exchange asked for silence."""
        client = connect_sync(redis_address(boot()))
        try:
            return budget_use(client, boot().redis_prefix, boot().egress_name)
        finally:
            client.close()

    def restraint(self) -> float | None:
        """How many requests a second remediation leaves to backfills; None when it leaves them alone."""
        client = connect_sync(redis_address(boot()))
        try:
            return backfill_restraint(client, boot().redis_prefix, boot().egress_name)
        finally:
            client.close()

    @contextmanager
    def alert_book(self) -> Iterator[AlertBook]:
        """What was told of alerts, and what waits to be told. A Redis that hangs must hold up no sensor that has noticed."""
        client = connect_sync(redis_address(boot()), answer_within=0.5)
        try:
            yield AlertBook(client, boot().redis_prefix)
        finally:
            client.close()

    @asynccontextmanager
    async def history(self, warehouse: Warehouse) -> AsyncIterator[History]:
        """The exchange's HTTP within the shared budget. Raises WrongExchange when Redis holds the other exchange's state."""
        place, settings = boot(), self.operational()
        client = connect(redis_address(place))
        try:
            await stamp_prefix(client, place.redis_prefix, place.exchange)
            budget = self.budget_of(client, settings)
            proxy = place.proxy.get_secret_value() if place.proxy else None
            address = HttpAddress(
                exchange_address(place).rest_url,
                proxy=proxy,
                tls=ssl_context(place),
                answer_within=ANSWER_WITHIN[settings.tier],
            )
            board = BreakerBoard(client, place.redis_prefix, place.egress_name)
            async with opened(registry.get("bitget"), address, budget, board=board) as http:
                versions = Versions(client, place.redis_prefix, floor=warehouse.highest_version)
                yield History(http, versions, client, PageShelf(client, place.redis_prefix))
        finally:
            await client.aclose()

    @asynccontextmanager
    async def substitutes(self) -> AsyncIterator[dict[Market, VenueClient]]:
        """
        Who could stand in for a market, each host within a budget of its own; empty when the settings want nobody asked, or
        the local exchange plays nobody else.
        """
        place, settings = boot(), self.operational()
        addresses = substitute_addresses(place)
        proxy = place.proxy.get_secret_value() if place.proxy else None
        client = connect(redis_address(place))
        try:
            async with AsyncExitStack() as stack:
                found: dict[Market, VenueClient] = {}
                for market in Market if settings.stand_ins else ():
                    venue = registry.substitute(market)
                    if venue is None:
                        continue
                    where = addresses.get(market)
                    if where is None:
                        continue
                    budget = self.budget_of(client, settings, venue=f"{venue.name}-{market.value}")
                    address = HttpAddress(where.rest_url, proxy=proxy, tls=ssl_context(place))
                    found[market] = await stack.enter_async_context(
                        opened_for(venue, address, budget, patience=SHORT_PATIENCE)
                    )
                yield found
        finally:
            await client.aclose()

    def live_stores(self, warehouse: Warehouse, history: History, shard: str) -> LiveStores:
        """What a live run writes to."""
        prefix, settings = boot().redis_prefix, self.operational()
        return LiveStores(
            stream=TradeStream(history.redis, prefix, shard, capacity=settings.stream_max_entries),
            lease=Lease(history.redis, prefix, shard),
            control=LiveControl(history.redis, prefix, shard),
            warehouse=warehouse,
            versions=history.versions,
            client=history.client,
            identity=lambda: server_identity(history.redis),
            connects=ConnectBudget(history.redis, prefix, boot().egress_name),
            restrain=self.budget_of(history.redis, settings).restrain,
            spill=Spill(boot().home / "spill" / f"live-{shard}", most_bytes=settings.spill_max_mib * 2**20),
            disks=boot().store_folders,
            paces=PaceBook(history.redis, prefix, shard),
        )

    def companions(
        self, symbols: Sequence[Symbol], warehouse: Warehouse, history: History, *, clock: Callable[[], int]
    ) -> list[Companion]:
        """What the live run collects beside trades, by the settings."""
        settings = self.operational()
        latest = Latest(history.redis, boot().redis_prefix)
        found: list[Companion] = []
        if settings.books:
            rules = BookRules(levels=settings.book_levels)
            found.append(OrderBooks(symbols, latest, warehouse, clock=clock, rules=rules))
        if settings.tickers:
            found.append(Tickers(symbols, latest, warehouse, clock=clock))
        return found

    def health_rules(self) -> HealthRules:
        """Where health draws its lines."""
        settings = self.operational()
        return HealthRules(
            throughput=Line(settings.throughput_degraded, settings.throughput_critical),
            errors=Line(settings.errors_degraded, settings.errors_critical),
        )

    def attention(self, warehouse: Warehouse, history: History, prober: Prober, shard: str) -> Attention:
        """What the live run looks at beside its own work; `warehouse` should give answers little time."""
        place = boot()
        places = Places(
            client=history.client,
            redis=history.redis,
            prefix=place.redis_prefix,
            shard=shard,
            warehouse=warehouse,
            home=place.home,
            share=self.operational().request_share,
            egress=place.egress_name,
        )
        return Attention(places, prober, rules=self.health_rules())

    def remediation(
        self, hands: Hands, warehouse: Warehouse, history: History, *, run_id: str, clock: Callable[[], int], shard: str
    ) -> Remediation:
        """What helps the live run, by the settings' rules; a listener of its attention."""
        settings = self.operational()
        return Remediation(
            hands,
            [rule for rule in changed(RULES, settings.remedies) if rule.name not in FROM_OUTSIDE],
            settings.remediation,
            clock=clock,
            incidents=RemedyIncidents(warehouse, history.versions, run_id=run_id, clock=clock, of=shard),
            memory=RemedyMemory(history.redis, boot().redis_prefix, shard),
        )

    def socket_address(self) -> SocketAddress:
        """Where live data comes from."""
        place = boot()
        proxy = place.proxy.get_secret_value() if place.proxy else None
        url = exchange_address(place).ws_url
        return SocketAddress(url, proxy=proxy, tls=ssl_context(place) if url.startswith("wss:") else None)

    def shard_rules(self, settings: Operational) -> ShardRules:
        """How much one connection carries."""
        return ShardRules(max_channels=settings.max_channels, max_symbols=settings.symbols_per_connection)

    def flush_rules(self) -> FlushRules:
        """When live trades are written."""
        settings = self.operational()
        return FlushRules(
            max_rows=settings.flush_max_rows,
            max_wait=settings.flush_max_seconds,
            resolutions=settings.live_resolutions,
        )

    def live_generation(self, symbols: Iterable[Symbol], settings: Operational) -> str:
        """A short name for the settings together with the selection: when it changes, the live run changes."""
        content = [settings.generation, *sorted(map(str, symbols))]
        return sha256("\n".join(content).encode()).hexdigest()[:12]
