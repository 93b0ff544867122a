"""`bitget-pipeline failover`: what is wanted goes to Redis, and what stands there is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from bitget_pipeline.market.instrument import Market
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.substitution import Episode, Substitution, Substitutions

from .test_commands import Answer, Run, run

__all__ = ["run"]


@pytest.fixture
def failover(run: Run, redis_address: RedisAddress, redis_prefix: str) -> Callable[..., Answer]:
    """The command, on a Redis of its own."""
    where = {
        "REDIS_HOST": redis_address.host,
        "REDIS_PORT": str(redis_address.port),
        "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
    }
    return lambda *arguments, **more: run("failover", *arguments, **where, **more)


def told(answer: Answer) -> dict[str, dict[str, object]]:
    return dict(json.loads(answer.out)["markets"])


def test_a_wish_holds_until_it_is_taken_back(failover: Callable[..., Answer]) -> None:
    """
    Of one market or of all; the settings hold otherwise.
    """
    assert [one["wanted"] for one in told(failover("status", "--json")).values()] == ["auto", "auto"]
    assert json.loads(failover("on", "--market", "usdtm", "--json").out)["wanted"] == {"usdtm": "on"}
    assert {name: one["wanted"] for name, one in told(failover("status", "--json")).items()} == {
        "spot": "auto",
        "usdtm": "on",
    }
    assert failover("off").code == 0
    assert [one["wanted"] for one in told(failover("status", "--json")).values()] == ["off", "off"]
    assert "heeds it within" in failover("auto").out
    off = failover("status", "--json", BITGET_PIPELINE_FAILOVER="off")
    assert [one["wanted"] for one in told(off).values()] == ["off", "off"]


def test_a_market_that_nobody_stands_in_for_says_so(failover: Callable[..., Answer]) -> None:
    """
    In words, and refused with what to change.
    """
    settings = {"BITGET_PIPELINE_FAILOVER_MARKETS": "spot"}
    assert told(failover("status", "--json", **settings))["usdtm"]["state"] == "none"
    refused = failover("on", "--market", "usdtm", **settings)
    assert refused.code == 78
    assert refused.error.startswith("nobody stands in for usdtm")
    assert "spot" in failover("status").out


async def _stand_in(address: RedisAddress, prefix: str) -> None:
    client = connect(address)
    try:
        episode = Episode("failover:spot:1", Market.SPOT, "binance_trade", "all majors silent for 8 s", False, 1, 1, 2)
        await Substitutions(client, prefix, "0").store(Market.SPOT, Substitution("substituted", episode))
        fence = await Lease(client, prefix, "0").take("run-1", 600.0)
        words = {"state": "substituted", "substitute": "binance", "stand_ins": 3, "symbols": 4, "silent_seconds": 12.0}
        await LiveControl(client, prefix, "0").publish({"failover": {"spot": words}}, {}, fence=fence)
    finally:
        await client.aclose()


def test_who_stands_in_and_why_is_told(
    failover: Callable[..., Answer], redis_address: RedisAddress, redis_prefix: str
) -> None:
    """
    Exit code 1 while somebody does; what the live run says last counts.
    """
    quiet = failover("status")
    assert quiet.code == 0
    assert "nobody watches" in quiet.out
    asyncio.run(_stand_in(redis_address, redis_prefix))
    answer = failover("status", "--json")
    spot = told(answer)["spot"]
    assert answer.code == 1
    assert (spot["state"], spot["reason"], spot["stand_ins"]) == ("substituted", "all majors silent for 8 s", 3)
    shown = failover("status").out
    assert "binance" in shown
    assert "3 of 4" in shown
