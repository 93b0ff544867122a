"""Reconfiguration through Dagster: the live run becomes another generation while it goes on, or is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import dagster as dg
import pytest

from bitget_pipeline.defs.jobs import LIVE_GENERATION, LIVE_SHARD, LIVE_SUCCEEDS
from bitget_pipeline.defs.live import SHARD, run_live_shard
from bitget_pipeline.defs.live_supervisor import live_supervisor
from bitget_pipeline.defs.reconfiguration import reconfiguration
from bitget_pipeline.defs.resources import PipelineResource, boot
from bitget_pipeline.exchange.credentials import Credentials
from bitget_pipeline.local.exchange import Credential
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.settings import Tier, accepted, digest_of
from bitget_pipeline.storage.overview import Overview
from bitget_pipeline.storage.redis_connection import connect_sync

from ..pipeline.conftest import until
from .test_history_assets import BTC, placed  # noqa: F401

pytestmark = pytest.mark.timeout(600)

ETH = Symbol(Market.USDTM, "ETHUSDT")


@pytest.fixture(autouse=True)
def _answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """ClickHouse says what is selected, however slow the machine is."""
    monkeypatch.setattr(import_module("bitget_pipeline.defs.live_supervisor"), "SELECTED_WITHIN", 60.0)


def tick(instance: dg.DagsterInstance) -> list[dg.RunRequest | dg.SkipReason]:
    """One look of the supervisor."""
    context = dg.build_sensor_context(instance=instance, resources={"pipeline": PipelineResource()})
    data = live_supervisor.evaluate_tick(context)
    return [*data.run_requests, *([data.skip_message] if data.skip_message else [])]


@contextlib.asynccontextmanager
async def running_op(instance: dg.DagsterInstance, overview: Overview) -> AsyncIterator[str]:
    """The live op in a thread; the id of its run."""

    @dg.job(resource_defs={"pipeline": PipelineResource()})
    def live() -> None:
        run_live_shard()

    op = asyncio.create_task(asyncio.to_thread(live.execute_in_process, instance=instance))
    await until(lambda: (p := overview.published()) and p.overall["stored"] > 0, within=120, what="trades")
    run_id = str(overview.published().overall["run_id"])
    try:
        yield run_id
    finally:
        overview.ask_to_stop(run_id, "the test is over")
        await asyncio.wait_for(op, 180)


def sockets_opened(overview: Overview) -> list[int]:
    """How often each connection of the live run was opened so far."""
    return [one["opened"] for one in overview.published().overall["connections"].values()]


def select(warehouse, *symbols: Symbol) -> None:
    chosen = [Chosen(symbol, rank, 1e9, Reason.VOLUME) for rank, symbol in enumerate(symbols, 1)]
    warehouse.store_universe(chosen, selected_at=datetime.now(UTC), run_id="test")


def write(file: Path, text: str) -> None:
    """Change the settings file, a while ago."""
    file.write_text(text, encoding="utf-8")
    os.utime(file, (time.time() - 60, time.time() - 60))


async def test_another_selection_is_taken_by_the_run_that_is_there(
    placed,  # noqa: F811
    redis_address,
    redis_prefix,
    warehouse,
):
    """
    The supervisor asks, the run takes the symbol without closing its socket, and Dagster shows the generation it has become.
    """
    overview = Overview(connect_sync(redis_address), redis_prefix, SHARD)
    with dg.DagsterInstance.ephemeral() as instance:
        async with running_op(instance, overview) as run_id:
            assert "generation" in str(await asyncio.to_thread(tick, instance))
            before, opened = overview.published().overall["generation"], sockets_opened(overview)
            await asyncio.to_thread(select, warehouse, BTC, ETH)
            (said,) = await asyncio.to_thread(tick, instance)
            assert "asked to change" in said
            await until(
                lambda: overview.published().overall["generation"] != before, within=60, what="the new generation"
            )
            published = overview.published()
            assert set(published.symbols) == {BTC, ETH}
            assert len(opened) == 1
            assert sockets_opened(overview) == opened
            (said,) = await asyncio.to_thread(tick, instance)
            assert said.startswith("running since")
            tags = instance.get_run_by_id(run_id).tags
            assert tags[LIVE_GENERATION] == published.overall["generation"]


async def test_what_a_run_reads_at_its_start_alone_takes_another_run(
    placed,  # noqa: F811
    redis_address,
    redis_prefix,
    tmp_path: Path,
):
    """
    Fewer symbols a connection are taken in the run that is there; flushing at other times needs another run, which is
    launched beside it, in a slot of its own, to take over.
    """
    overview = Overview(connect_sync(redis_address), redis_prefix, SHARD)
    settings = tmp_path / "settings.toml"
    with dg.DagsterInstance.ephemeral() as instance:
        async with running_op(instance, overview) as run_id:
            before = overview.published().overall["generation"]
            write(settings, "symbols_per_connection = 3\n")
            (said,) = await asyncio.to_thread(tick, instance)
            assert "asked to change" in said
            await until(
                lambda: overview.published().overall["generation"] != before, within=60, what="the new generation"
            )
            write(settings, "flush_max_seconds = 0.5\n")
            (heir,) = await asyncio.to_thread(tick, instance)
            assert isinstance(heir, dg.RunRequest)
            assert (heir.tags[LIVE_SUCCEEDS], heir.tags[LIVE_SHARD]) == (run_id, f"{SHARD}/b")
            assert heir.run_config["ops"]["run_live_shard"]["config"]["succeeds"] == run_id
            assert overview.stop_request() is None


def looked(instance: dg.DagsterInstance, cursor: str | None = None) -> tuple[str, str]:
    """One tick of the sensor: what it says, and its cursor."""
    context = dg.build_sensor_context(instance=instance, resources={"pipeline": PipelineResource()}, cursor=cursor)
    data = reconfiguration.evaluate_tick(context)
    return str(data.skip_message), str(data.cursor)


def incidents(warehouse, kind: str) -> list[tuple[str, bool]]:
    """What the incidents of a kind say, and whether they are over."""
    rows = warehouse.query(
        "SELECT what, closed_at IS NOT NULL FROM incidents_final WHERE kind = {kind:String} ORDER BY opened_at",
        {"kind": kind},
    )
    return [(what, bool(over)) for what, over in rows]


async def test_a_settings_file_with_a_mistake_is_told_and_changes_nothing(
    placed,  # noqa: F811
    warehouse,
    tmp_path: Path,
):
    """
    The tick says the line and what would be right, one incident is open as long as it is so, and the supervisor wants what
    it wanted before.
    """
    settings = tmp_path / "settings.toml"
    with dg.DagsterInstance.ephemeral() as instance:
        said, cursor = await asyncio.to_thread(looked, instance)
        assert said.endswith("is in force")
        pipeline = PipelineResource()
        before = pipeline.live_generation([BTC], pipeline.operational())
        write(settings, "\nsymbols_per_markt = 5\n")
        for _ in range(2):
            said, cursor = await asyncio.to_thread(looked, instance, cursor)
            assert (
                said == f"there is no setting symbols_per_markt ({settings} line 2) — did you mean symbols_per_market?"
            )
        assert incidents(warehouse, "settings_invalid") == [(said, False)]
        assert pipeline.live_generation([BTC], pipeline.operational()) == before
        write(settings, "symbols_per_market = 'many'\n")
        said, cursor = await asyncio.to_thread(looked, instance, cursor)
        assert "symbols_per_market is 'many'" in said
        assert incidents(warehouse, "settings_invalid") == [(said, False)]
        write(settings, "symbols_per_market = 5\n")
        said, cursor = await asyncio.to_thread(looked, instance, cursor)
        assert said.endswith("is in force")
        assert [over for _, over in incidents(warehouse, "settings_invalid")] == [True]
        assert pipeline.live_generation([BTC], pipeline.operational()) != before


async def test_a_key_that_is_withdrawn_at_the_exchange_lowers_the_tier(
    placed,  # noqa: F811
    warehouse,
    monkeypatch: pytest.MonkeyPatch,
):
    """
    Refused twice, half a minute apart, it is believed: the public tier, and an incident; good again, it counts again. An
    exchange that does not answer, or a wrong clock, says nothing of the key.
    """
    key = Credential("bg_reader", "secret_of_reader", "phrase of reader")
    placed.venue.config = replace(placed.venue.config, credentials=(key,))
    for name, value in zip(("API_KEY", "SECRET_KEY", "PASSPHRASE"), (key.key, key.secret, key.passphrase), strict=True):
        monkeypatch.setenv(f"BITGET_{name}", value)
    boot.cache_clear()
    pipeline = PipelineResource()
    with dg.DagsterInstance.ephemeral() as instance:

        async def look(cursor: str | None = None) -> tuple[str, str]:
            """When the key is asked for again."""
            known = json.loads(cursor) if cursor else {}
            return await asyncio.to_thread(looked, instance, json.dumps(known | {"ask_key_at": 0.0}))

        said, cursor = await look()
        assert said.endswith("is in force")
        for fault, wrong in (("html_502", {}), ("error_code", {"code": "40008"})):
            with placed.faulty(fault, "/account/info", **wrong):
                said, cursor = await look(cursor)
                said, cursor = await look(cursor)
            assert said.endswith("is in force")
        with placed.faulty("error_code", "/account/info", code="40037"):
            said, cursor = await look(cursor)
            assert said.endswith("is in force")
            assert 0 < json.loads(cursor)["ask_key_at"] - time.time() <= 30
            said, cursor = await look(cursor)
        assert "the key does not exist" in said
        assert pipeline.operational().tier is Tier.PUBLIC
        assert incidents(warehouse, "key_refused") == [(said, False)]
        said, cursor = await look(cursor)
        assert pipeline.operational().tier is Tier.CREDENTIALED
        assert [over for _, over in incidents(warehouse, "key_refused")] == [True]
        assert not any(secret in said + cursor for secret in (key.key, key.secret, key.passphrase))


READER = Credential("bg_reader", "secret_of_reader", "phrase of reader")
SECOND = Credential("bg_second", "secret_of_second", "phrase of second")
TRADER = Credential("bg_trader", "secret_of_trader", "phrase of trader", authorities=("stor", "stow"))
SECOND_TEXTS = (SECOND.key, SECOND.secret, SECOND.passphrase)
MISTYPED = replace(SECOND, passphrase="phrase of secnod")


def with_key(key: Credential | None, *others: str) -> str:
    """The text of a settings file with this key in it."""
    texts = {"api_key": key.key, "secret_key": key.secret, "passphrase": key.passphrase} if key else {}
    lines = [f'bitget_{word} = "{text}"' for word, text in texts.items()]
    return "\n".join([*lines, *others, ""])


async def test_a_key_in_the_settings_file_counts_once_it_was_asked_for(
    placed,  # noqa: F811
    warehouse,
    tmp_path: Path,
):
    """
    Put, rotated, mistyped, with rights, put back and taken out while everything runs: the tick that sees it asks, only what is
    accepted changes the tier and so the generation, and what is refused leaves the tier of the key before.
    """
    placed.venue.config = replace(placed.venue.config, credentials=(READER, SECOND, TRADER))
    settings, pipeline = tmp_path / "settings.toml", PipelineResource()
    said, cursor = "", None

    def stands() -> tuple[Tier, str]:
        now = pipeline.operational()
        return now.tier, now.generation

    with dg.DagsterInstance.ephemeral() as instance:

        async def look() -> None:
            nonlocal said, cursor
            said, cursor = await asyncio.to_thread(looked, instance, cursor)

        await look()
        public = stands()
        write(settings, with_key(TRADER))
        await look()
        assert "may do more than read" in said
        assert stands() == public
        assert incidents(warehouse, "key_refused") == [(said, False)]

        write(settings, with_key(READER))
        assert stands() == public  # nobody has asked for it yet
        await look()
        credentialed = stands()
        assert (credentialed[0], credentialed[1] != public[1]) == (Tier.CREDENTIALED, True)
        assert [over for _, over in incidents(warehouse, "key_refused")] == [True]

        write(settings, with_key(SECOND))
        await look()
        assert said.endswith("is in force")
        assert (stands(), accepted(tmp_path)) == (credentialed, digest_of(Credentials(*SECOND_TEXTS)))

        for key, looks in ((MISTYPED, 2), (TRADER, 1)):
            write(settings, with_key(key))
            for _ in range(looks):
                await look()
                cursor = json.dumps(json.loads(cursor) | {"ask_key_at": 0.0})
            assert stands() == credentialed
            assert [over for _, over in incidents(warehouse, "key_refused")][-1:] == [False]
            assert accepted(tmp_path) == digest_of(Credentials(*SECOND_TEXTS))

        write(settings, with_key(SECOND))
        await look()
        assert all(over for _, over in incidents(warehouse, "key_refused"))
        write(settings, with_key(None))
        assert stands() == public
        await look()
        write(settings, with_key(READER))
        assert stands() == public
    assert not any(text in str(cursor) for key in (READER, SECOND, TRADER) for text in (key.key, key.secret))
