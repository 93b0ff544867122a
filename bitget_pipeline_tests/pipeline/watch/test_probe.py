"""Whether the exchange answers is asked every few seconds; what is not the exchange's fault is not held against it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from bitget_pipeline.errors import Withheld
from bitget_pipeline.exchange.registry import get, substitute
from bitget_pipeline.guard.rate_limit import Priority
from bitget_pipeline.history.client import HttpAddress, opened, opened_for
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.instrument import Market
from bitget_pipeline.pipeline.watch import probe as probe_module
from bitget_pipeline.pipeline.watch.probe import Probe, Prober, time_prober


class Budget:
    """A budget that answers what the test wants, and keeps what it was asked."""

    def __init__(self, wait: float = 0.0, hangs: bool = False) -> None:
        self.wait = wait
        self.hangs = hangs
        self.asked: list[tuple[str, Priority]] = []
        self.penalties = 0

    async def reserve(self, endpoint: str, per_second: float, priority: Priority, *, along: object = ()) -> float:
        self.asked.append((endpoint, priority))
        if self.hangs:
            await asyncio.Event().wait()
        return self.wait

    async def penalise(self, endpoint: str, per_second: float, seconds: float) -> None:
        self.penalties += 1

    async def succeeded(self, endpoint: str, per_second: float) -> None: ...

    async def remaining(self, endpoint: str, per_second: float, left: int) -> None: ...


def stand_still(seconds: float) -> None:
    time.sleep(seconds)


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    config = ExchangeConfig(
        spot_instruments=10, usdtm_instruments=5, coinm=1, usdcm=1, active_per_market=4, binance=True
    )
    async with running(config) as server:
        yield server


async def probed(exchange: LocalExchange, *, within: float = 60.0, budget: Budget | None = None) -> Probe | None:
    async with opened(get("bitget"), HttpAddress(exchange.rest_url), budget or Budget()) as client:
        return await time_prober(client, within=within).probe()


async def test_an_exchange_that_answers_tells_its_latency_and_its_clock(local_exchange):
    """
    One request in the part of the budget that is for health.
    """
    budget = Budget()
    probe = await probed(local_exchange, budget=budget)
    assert probe is not None
    assert (probe.answered, probe.problem) == (True, "")
    assert probe.latency is not None
    assert 0 < probe.latency < 60
    assert probe.skew is not None
    assert abs(probe.skew) <= probe.latency / 2 + 1  # of a slow answer nobody knows which way was slow
    assert [priority for _, priority in budget.asked] == [Priority.HEALTH]


async def test_a_clock_that_is_wrong_is_measured(local_exchange):
    """
    The exchange's clock is two minutes ahead of ours, or ours behind; nobody can tell which.
    """
    with local_exchange.faulty("clock_skew", skew_ms=120_000):
        probe = await probed(local_exchange)
    assert probe is not None
    assert probe.latency is not None
    assert probe.skew == pytest.approx(120, abs=probe.latency / 2 + 1)


async def test_an_answer_that_takes_too_long_is_none(local_exchange, monkeypatch):
    """
    A probe has its time, whatever a request may take otherwise.
    """
    monkeypatch.setattr(probe_module, "STOOD_STILL", 60.0)
    with local_exchange.faulty("slow", "/public/time", delay=30):
        probe = await probed(local_exchange, within=0.2)
    assert probe is not None
    assert (probe.answered, probe.latency, probe.skew) == (False, None, None)
    assert probe.problem == "no answer within 0.2 s"


@pytest.mark.parametrize("fault", ["dark", "html_502", "release_window", "bad_json"])
async def test_an_exchange_that_gives_no_usable_answer_does_not_answer(local_exchange, fault):
    """
    Cut off, a page of a proxy, a release window, half an answer: each with its reason, without a repeat.
    """
    budget = Budget()
    with local_exchange.faulty(fault):
        probe = await probed(local_exchange, budget=budget)
    assert probe is not None
    assert not probe.answered
    assert probe.problem
    assert len(budget.asked) == 1


async def test_too_many_requests_is_an_answer(local_exchange):
    """
    The exchange is there, although it refuses; the budget hears of it.
    """
    budget = Budget()
    with local_exchange.faulty("rate_limit_storm"):
        probe = await probed(local_exchange, budget=budget)
    assert probe is not None
    assert probe.answered
    assert probe.problem
    assert budget.penalties == 1


async def test_a_probe_that_our_own_budget_forbids_says_nothing_of_the_exchange(local_exchange):
    """
    Nothing is sent and nobody is told; the prober says why it did not ask.
    """
    heard: list[Probe] = []
    budget = Budget(wait=300.0)
    async with opened(get("bitget"), HttpAddress(local_exchange.rest_url), budget) as client:
        prober = time_prober(client, every=0.01)
        prober.listeners.append(heard.append)
        task = asyncio.create_task(prober.run())
        await until(lambda: len(budget.asked) >= 2)
        task.cancel()
        assert client.sent == 0
    assert heard == []
    assert "budget has no room" in prober.withheld


async def test_a_budget_that_hangs_does_not_make_the_exchange_dark(local_exchange):
    """
    Redis stands still: the probe goes out all the same.
    """
    probe = await probed(local_exchange, budget=Budget(hangs=True))
    assert probe is not None
    assert probe.answered


async def test_a_breaker_that_rests_does_not_keep_the_probe_from_finding_out(local_exchange):
    """
    The first probe after the exchange is back says so, however often it failed before.
    """
    async with opened(get("bitget"), HttpAddress(local_exchange.rest_url), Budget()) as client:
        prober = time_prober(client, within=60.0)
        with local_exchange.faulty("html_502"):
            for _ in range(8):
                failed = await prober.probe()
                assert failed is not None
                assert not failed.answered
        found = await prober.probe()
    assert found is not None
    assert found.answered


async def test_whoever_stands_in_is_probed_the_same_way(local_exchange):
    """
    Binance's clock, through a client of its own.
    """
    venue = substitute(Market.SPOT)
    assert venue is not None
    async with opened_for(venue, HttpAddress(local_exchange.binance.address.rest_url("spot")), Budget()) as client:
        probe = await time_prober(client, within=60.0).probe()
    assert probe is not None
    assert probe.answered


async def test_a_process_that_stood_still_blames_nobody(monkeypatch):
    """
    The machine slept while the answer was on its way: the time limit has passed, and proves nothing.
    """
    monkeypatch.setattr(probe_module, "STOOD_STILL", 0.1)

    async def slept() -> int:
        stand_still(0.3)
        await asyncio.Event().wait()
        return 0

    prober = Prober(slept, within=0.1)
    assert await prober.probe() is None
    assert prober.withheld == "this process stood still"


async def test_every_listener_hears_of_each_probe_and_there_is_never_more_than_one_at_a_time():
    """
    Slow answers make probes rarer, not more.
    """
    at_once: list[int] = []
    now = 0

    async def ask() -> int:
        nonlocal now
        now += 1
        at_once.append(now)
        await asyncio.sleep(0.02)
        now -= 1
        return 5_000

    prober = Prober(ask, every=0.001, within=60.0, clock=lambda: 3_000)
    heard: list[Probe] = []
    again: list[Probe] = []
    prober.listeners += [heard.append, again.append]
    task = asyncio.create_task(prober.run())
    await until(lambda: len(heard) >= 3)
    task.cancel()
    assert set(at_once) == {1}
    assert heard == again
    assert {probe.skew for probe in heard} == {2.0}


async def test_what_is_withheld_ends_when_it_may_be_asked_again():
    """
    The reason goes with its cause.
    """
    closed = True

    async def permit() -> None:
        if closed:
            raise Withheld("not now")

    async def ask() -> int:
        return 1_000

    prober = Prober(ask, permit=permit, clock=lambda: 1_000)
    assert await prober.probe() is None
    assert prober.withheld == "not now"
    closed = False
    found = await prober.probe()
    assert found is not None
    assert (found.answered, found.skew, prober.withheld) == (True, 0.0, "")
