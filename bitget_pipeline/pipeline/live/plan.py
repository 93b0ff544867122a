"""
What a live run is given and what it gives back: values for run.py, made by the live op.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...feed.connection import SocketAddress
from ...feed.session_rules import SessionRules
from ...feed.shards import ShardRules
from ...guard.backoff import Backoff
from ...history.client import HistoryClient
from ...market.instrument import Symbol
from ...storage.connects import ConnectBudget
from ...storage.control import LiveControl
from ...storage.lease import Lease
from ...storage.paces import PaceBook
from ...storage.spill import Spill
from ...storage.stream import TradeStream
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from .flush import FlushRules
from .shed import ShedRules


@dataclass(frozen=True, slots=True)
class LivePlan:
    """
    What one live run does. `run_id` owns the lease; `generation` names the selection and settings it works by, `fixed` the
    part of them that only another run can change. It is replaced as a whole when the selection changes (reconfigure.py).

    `repair_share` is the part of the published request limits that repairs may use: half of what is planned with.

    Times in seconds: after ten connections in a row that could not be opened, nobody tries for `rest_after_failures`, then
    one does for all; the lease lives `lease_ttl` after each renewal; `flush_within` bounds what is still written at the
    end. `sockets_within`: so long the start waits for a socket before it goes on without one; None: it does not go on.

    `succeeds` names the run that this one takes over from: it is asked to stop once everything is subscribed to here.
    """

    symbols: tuple[Symbol, ...]
    source: str
    run_id: str
    generation: str
    socket: SocketAddress
    fixed: str = ""
    shard_rules: ShardRules = field(default_factory=ShardRules)
    session_rules: SessionRules | None = None  # None: what the exchange says of itself
    flush_rules: FlushRules = field(default_factory=FlushRules)
    shed_rules: ShedRules = field(default_factory=ShedRules)
    reconnects: Backoff = field(default_factory=lambda: Backoff(base=0.5, ceiling=30.0))
    store_retries: Backoff = field(default_factory=lambda: Backoff(base=0.2, ceiling=5.0))
    rest_after_failures: float = 5.0
    lease_ttl: float = 15.0
    flush_within: float = 5.0
    publish_every: float = 1.0
    sockets_within: float | None = None
    succeeds: str = ""
    most_waiting_trades: int = 200_000
    repair_share: float = 0.45


@dataclass(frozen=True, slots=True)
class LiveStores:
    """
    The open stores of one live run; whoever opened them closes them.

    `identity` names the running Redis process (storage.redis_connection.server_identity): another name means that it was
    restarted. Without a `spill`, what Redis cannot take waits in memory alone; without `connects`, this process
    keeps to an allowance of its own. `restrain` leaves backfills so many requests a second, for so many seconds. `disks` are the
    folders of those stores that lie on this machine; `paces` is what the run before has learned of its symbols.
    """

    stream: TradeStream
    lease: Lease
    control: LiveControl
    warehouse: Warehouse
    versions: Versions
    client: HistoryClient
    identity: Callable[[], Awaitable[str]]
    spill: Spill | None = None
    connects: ConnectBudget | None = None
    restrain: Callable[[float, float], Awaitable[None]] | None = None
    disks: tuple[Path, ...] = ()
    paces: PaceBook | None = None


@dataclass(slots=True)
class LiveReport:
    """How a live run ended. `because` is one line for a person; `appended`, `stored` and `spilled` count trades."""

    because: str
    seconds: float
    appended: int
    stored: int
    repaired: int
    reconnects: int
    left_in_stream: bool
    spilled: int = 0
