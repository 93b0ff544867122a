"""
The drills, a row each: what happens, what shows that it was noticed, and what the issue promises of it.

Played on a scene (scene.py) by attempt.py. Every fault ends by itself or is lifted before its row is over. What acts is the
local exchange's levers and signals to processes; the rules and times of the product are those of production.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterable

from bitget_pipeline.market.instrument import Symbol

from ..chaos.processes import Supervised
from ..chaos.scene import MINUTE
from .attempt import Attempt, Drill
from .worker import set_clock

SILENCE = ("subscription.silence*", "symbol.silent*", "log.feed.subscription_stale*", "silence.mended*")
SILENT_MAJOR = tuple(f"{pattern}BTCUSDT" for pattern in SILENCE)
CONNECTION = ("connection.*", "symbol.gap*", "throughput*")
HOUR = 3_600_000


async def nothing(at: Attempt) -> None:
    """A minute in which all is well, so that whatever is called wrong is a false alarm."""
    at.begins()
    await asyncio.sleep(45.0)
    at.over()


async def one_silent(at: Attempt) -> None:
    """One subscription of a healthy socket carries nothing any more, until it is begun again."""
    await paced(at)
    at.begins()
    at.scene.exchange.fault("deaf", f"{one_of(at)}:trade")


async def one_silent_for_good(at: Attempt) -> None:
    """The same, but beginning it again is of no help: it takes another socket."""
    await paced(at)
    at.begins()
    at.scene.exchange.fault("deaf", f"{one_of(at)}:trade", stubborn=True)


async def silent_from_the_start(at: Attempt) -> None:
    """
    A live run is killed, and a subscription of its successor brings its first trades and nothing more: too few to tell a pace,
    but the pace that the run before had learned holds.
    """
    await paced(at)
    before = at.scene.worker.starts
    at.begins()
    at.scene.worker.kill()

    def delivers() -> bool:
        said = at.watch.published
        if said is None or at.scene.worker.starts == before or said.overall["run_id"] != at.scene.present_run:
            return False
        return all(symbol in said.symbols and said.symbols[symbol]["trades"] > 0 for symbol in at.scene.majors)

    await at.scene.until(delivers, within=60.0, what="the first trades of the next run")
    at.scene.exchange.fault("deaf", f"{one_of(at)}:trade")
    at.over()  # the replacement is; the way back from the silence is timed from here


async def all_silent(at: Attempt) -> None:
    """Every socket is open and answers pings, and nothing comes, whatever is done, for some seconds after it was noticed."""
    await paced(at)
    with at.scene.exchange.muted():
        at.begins()
        await at.until_noticed()
        await asyncio.sleep(10.0)
    at.over()


async def half_open(at: Attempt) -> None:
    """The other side of every socket is gone, and nobody said so."""
    at.begins()
    at.scene.exchange.fault("half_open")


async def slow(at: Attempt) -> None:
    """HTTP answers after four seconds, and a break has to be repaired over it."""
    with at.scene.exchange.faulty("slow", delay=4.0):
        at.begins()
        await broken(at)
        await at.until_noticed(within=30.0)
        await asyncio.sleep(10.0)
    at.over()


async def dark(at: Attempt) -> None:
    """The exchange does not answer at all, HTTP and sockets, for half a minute."""
    with at.scene.exchange.faulty("dark"):
        at.begins()
        await asyncio.sleep(30.0)
    at.over()


async def stood_in(at: Attempt) -> None:
    """
    The exchange is dark for half a minute and into the next one, its substitute is not: it stands in for both markets, and goes
    again when ours is well and its trades are fetched; what it lent is shown nowhere any more.
    """
    scene = at.scene

    async def shown() -> bool:
        return await lent(at) > 0

    async def retired() -> bool:
        return await lent(at) == 0

    with scene.exchange.faulty("dark"):
        at.begins()
        await scene.until(lambda: at.substituted() == {"spot", "usdtm"}, within=60.0, what="somebody stands in")
        await asyncio.sleep(max(5.0, 30.0 - at.seconds))
        await scene.until(shown, within=90.0, what="a minute of the substitute's is shown while the exchange is dark")
    at.over()
    await scene.until(lambda: not at.substituted(), within=180.0, what="nobody stands in any more")
    await scene.until(retired, within=120.0, what="what was lent is shown no more")


async def flapping(at: Attempt) -> None:
    """Dark for five seconds and there for five, for a minute."""
    at.begins()
    for _ in range(6):
        with at.scene.exchange.faulty("dark"):
            await asyncio.sleep(5.0)
        await asyncio.sleep(5.0)
    at.over()


async def refusals(at: Attempt) -> None:
    """
    HTTP answers 429 for eight seconds although the limit is kept, while a break has to be repaired. (Ten seconds of nothing else
    mean the address's limit of a minute: then everything rests for its five minutes.)
    """
    with at.scene.exchange.faulty("rate_limit_storm"):
        at.begins()
        await broken(at)
        await asyncio.sleep(3.0)
    at.over()


async def lower_limit(at: Attempt) -> None:
    """The exchange allows two requests a second instead of its published ten, and a break has to be repaired within that."""
    with at.scene.exchange.faulty("lower_limit", per_second=2):
        at.begins()
        await broken(at)
        await at.until_noticed(within=30.0)
        await asyncio.sleep(15.0)
    at.over()


async def redis_restarts(at: Attempt) -> None:
    """Redis is ended and comes back five seconds later, and not before somebody has seen it."""
    at.begins()
    async with away([at.scene.redis]):
        await at.seen_for(5.0)
    at.over()


async def warehouse_restarts(at: Attempt) -> None:
    """ClickHouse is ended and comes back eight seconds later, and not before somebody has seen it."""
    at.begins()
    async with away([at.scene.warehouse]):
        await at.seen_for(8.0)
    at.over()


async def both_restart(at: Attempt) -> None:
    """Both stores are killed at once and come back six seconds later, and not before somebody has seen it."""
    at.begins()
    async with away([at.scene.redis, at.scene.warehouse], how=signal.SIGKILL):
        await at.seen_for(6.0)
    at.over()


async def stands_still(at: Attempt) -> None:
    """Every process of the machine stands still for twenty seconds, longer than the lease lives; the exchange goes on."""
    at.begins()
    async with still(at.scene.processes):
        await asyncio.sleep(20.0)
    at.over()


async def sleeps(at: Attempt) -> None:
    """
    A laptop sleeps for eight hours. The live run stands still, the exchange cuts its sockets as it does with whoever sends no
    ping for two minutes, and the wall clocks, its own and the market's, jump; Redis is on another machine and awake: the lease
    runs out. The clock that nobody sets goes on by seconds, as in a machine asleep.
    """
    scene = at.scene
    at.begins()
    async with still([scene.worker]):
        await asyncio.sleep(17.0)
        scene.exchange.drop()
        scene.exchange.venue.clock.set(now_ms=scene.exchange.now_ms() + 8 * HOUR)
        set_clock(scene.clock_file, 8 * HOUR)
    at.over()


async def status_renamed(at: Attempt) -> None:
    """The list of instruments says a word of a symbol that nobody knows, while it trades on."""
    scene = at.scene
    symbol = least(at)
    at.begins()
    scene.exchange.fault("status", str(symbol), status="trading_2")
    await scene.discover()
    assert symbol in await selected(at), "a word that nobody knows is no reason to stop collecting"


async def delisted(at: Attempt) -> None:
    """A symbol leaves the list and trades no more; nobody is told."""
    scene = at.scene
    symbol = least(at)
    at.begins()
    scene.exchange.fault("delisting", str(symbol))
    scene.symbols = tuple(one for one in scene.symbols if one != symbol)
    scene.gone.add(symbol)
    await scene.discover()
    await at.until_noticed()


# ------------------------------------------------------------ what they share


def one_of(at: Attempt) -> Symbol:
    """A symbol that trades every second."""
    return at.rng.choice(at.scene.majors)


def least(at: Attempt) -> Symbol:
    """The symbol that comes last in its market, so that no other drill needs it."""
    return [symbol for symbol in at.scene.symbols if symbol not in at.scene.majors][-1]


async def paced(at: Attempt) -> None:
    """Wait until the pace of all that trades every second is known (eight seconds): before that it is guessed."""

    def known() -> bool:
        published = at.watch.published
        if published is None or published.overall["run_id"] != at.scene.present_run:
            return False
        return float(published.overall["uptime"]) > 15.0 and all(
            float(published.symbols[symbol]["pace"]) > 0 for symbol in at.scene.majors
        )

    await at.scene.until(known, within=180.0, what="the pace of the busiest symbols is known")


async def selected(at: Attempt) -> set[Symbol]:
    """What is selected now."""

    def ask() -> set[Symbol]:
        with at.scene.open_warehouse() as warehouse:
            return {member.symbol for member in warehouse.current_universe()}

    return await at.scene.asked(ask) or set()


async def lent(at: Attempt) -> int:
    """How many bars of whole minutes of the drill are the substitute's, in what readers see."""

    def ask() -> int:
        with at.scene.open_warehouse() as warehouse:
            rows = warehouse.query(
                "SELECT count() FROM candles_unified WHERE resolution = '1m' AND startsWith(source, 'binance') "
                "AND open_time >= fromUnixTimestamp64Milli({start:Int64})",
                {"start": at.outcome.from_ms // MINUTE * MINUTE},
            )
        return int(rows[0][0])

    found = await at.scene.asked(ask)
    return -1 if found is None else found


async def broken(at: Attempt, *, seconds: float = 5.0) -> None:
    """Sockets are cut and stay away for so long that their snapshots do not bridge it: HTTP has to."""
    with at.scene.exchange.faulty("refuse_connections"):
        at.scene.exchange.drop()
        await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def away(processes: Iterable[Supervised], how: signal.Signals = signal.SIGTERM) -> AsyncIterator[None]:
    """Processes are ended and stay away for the length of a block."""
    ended = list(processes)
    for process in ended:
        process.hold()
        process.send(how)
    try:
        yield
    finally:
        for process in ended:
            process.resume()


@contextlib.asynccontextmanager
async def still(processes: Iterable[Supervised]) -> AsyncIterator[None]:
    """Processes stand still for the length of a block, and then go on as if nothing had been."""
    stopped = [process for process in processes if process.alive]
    for process in stopped:
        process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            process.send(signal.SIGCONT)


DRILLS = (
    Drill("all is well", nothing, bystanders=("*",)),
    Drill("one subscription silent", one_silent, SILENCE, detect_within=60.0),
    Drill("one silent for good", one_silent_for_good, SILENCE, detect_within=60.0),
    Drill("replaced, then one silent", silent_from_the_start, SILENT_MAJOR, detect_within=60.0),
    Drill("all silent, sockets open", all_silent, (*SILENCE, *CONNECTION), detect_within=60.0),
    Drill("sockets half open", half_open, (*SILENCE, *CONNECTION), detect_within=60.0),
    Drill("http slow, a break", slow, ("exchange.*",)),
    Drill("dark for 30 s", dark, ("exchange.*", *CONNECTION, "failover.*", "stands_in.*")),
    Drill("dark, Binance stands in", stood_in, ("stands_in.*",), detect_within=30.0),
    Drill("flapping every 10 s", flapping, ("exchange.*", *CONNECTION, "failover.*", "stands_in.*")),
    Drill("429 without a cause", refusals, ("budget.*", "exchange.*")),
    Drill("limit falls to 2/s", lower_limit, ("budget.*", "exchange.*")),
    Drill("redis restarts", redis_restarts, ("redis.*", "live.*")),
    Drill("clickhouse restarts", warehouse_restarts, ("clickhouse.*",)),
    Drill("both stores killed", both_restart, ("redis.*", "clickhouse.*")),
    Drill("machine stands still 20 s", stands_still, ("clock.*", "redis.*", "live.*", "clickhouse.*", *CONNECTION)),
    Drill("a status is renamed", status_renamed, ("incident.unknown_status*",)),
    Drill("a symbol is delisted", delisted, (*SILENCE, "incident.*")),
)
"""On one scene, in this order: the last ones change the market for good."""

ASLEEP = Drill("asleep for 8 hours", sleeps, ("clock.*", "live.*", "symbol.gap*"), patience=400.0)
"""On a scene of its own, because the clocks are elsewhere afterwards."""
