"""What a run is given follows the settings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bitget_pipeline.defs.resources import PipelineResource, boot
from bitget_pipeline.exchange.contract import Channel, Credentials
from bitget_pipeline.guard.rate_limit import Priority
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.settings import Tier, load_boot
from bitget_pipeline.storage.keys import egress_key
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.warehouse import Warehouse


@pytest.mark.parametrize(
    ("said", "channels"),
    [
        ({}, [(Channel.BOOKS_15,), (Channel.TICKER,)]),
        ({"BITGET_PIPELINE_BOOKS": "false"}, [(Channel.TICKER,)]),
        ({"BITGET_PIPELINE_TICKERS": "false", "BITGET_PIPELINE_BOOK_LEVELS": "5"}, [(Channel.BOOKS_15,)]),
        ({"BITGET_PIPELINE_TICKERS": "false", "BITGET_PIPELINE_BOOKS": "false"}, []),
    ],
)
def test_books_and_tickers_are_collected_as_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], channels: list[tuple[Channel, ...]]
) -> None:
    """Each can be switched off by itself; nothing is subscribed to for what is off."""
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    nothing = cast(Any, SimpleNamespace(redis=None))
    found = PipelineResource().companions((Symbol(Market.SPOT, "BTCUSDT"),), nothing, nothing, clock=lambda: 0)
    assert [one.channels for one in found] == channels


@pytest.mark.parametrize(("key", "seconds"), [(False, 30.0), (True, 60.0)])
async def test_a_request_gets_the_time_of_the_tier_and_the_budget_its_part_for_each_process(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    warehouse: Warehouse,
    redis_address: RedisAddress,
    redis_prefix: str,
    key: bool,
    seconds: float,
) -> None:
    """30 s in public, 60 s with a key, lists of a whole market too; share, processes and egress are those of the settings."""
    surroundings = {
        "BITGET_PIPELINE_EXCHANGE": "local",
        "BITGET_PIPELINE_HOME": str(tmp_path / "home"),
        "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
        "BITGET_PIPELINE_REQUEST_PROCESSES": "20",
        "BITGET_PIPELINE_EGRESS": "tokyo-1",
        "BITGET_REST_URL": "http://127.0.0.1:1",
        "BITGET_WS_URL": "ws://127.0.0.1:1",
        "REDIS_HOST": redis_address.host,
        "REDIS_PORT": str(redis_address.port),
        **dict.fromkeys(("BITGET_API_KEY", "BITGET_SECRET_KEY", "BITGET_PASSPHRASE"), "given" if key else ""),
    }
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    boot.cache_clear()
    try:
        async with PipelineResource().history(warehouse) as history:
            assert history.client.address.answer_within == seconds
            assert await history.client.budget.reserve("spot.tickers", 20, Priority.DISCOVERY) == 0.0
            assert await history.redis.exists(egress_key(redis_prefix, "tokyo-1", "budget"))
            budget = PipelineResource().budget_of(history.redis, PipelineResource().operational(), venue="binance-spot")
            assert (budget.alone.processes, budget.alone.share) == (20, 0.045)
            assert await budget.reserve("binance.spot.time", 1, Priority.HEALTH) == 0.0
            assert await history.redis.exists(egress_key(redis_prefix, "binance-spot:tokyo-1", "budget"))
    finally:
        boot.cache_clear()


def test_a_key_that_is_stored_or_removed_replaces_the_live_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The supervisor's process read its boot settings before, and wants another generation all the same."""
    monkeypatch.setenv("BITGET_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BITGET_PIPELINE_CREDENTIALS_KEY_FILE", str(tmp_path / "credentials.key"))
    for name in ("BITGET_API_KEY", "BITGET_SECRET_KEY", "BITGET_PASSPHRASE"):
        monkeypatch.setenv(name, "")
    boot.cache_clear()
    try:
        pipeline, symbols = PipelineResource(), [Symbol(Market.SPOT, "BTCUSDT")]
        before = pipeline.live_generation(symbols, pipeline.operational())
        load_boot().key_store.write(Credentials("key", "secret", "phrase"))
        with_key = pipeline.live_generation(symbols, pipeline.operational())
        tier = pipeline.operational().tier
        load_boot().key_store.remove()
        after = pipeline.live_generation(symbols, pipeline.operational())
    finally:
        boot.cache_clear()

    assert tier is Tier.CREDENTIALED
    assert before == after != with_key
