"""What a run is given follows the settings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bitget_pipeline.defs.resources import PipelineResource, boot
from bitget_pipeline.exchange.contract import Channel, Credentials
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.settings import Tier, load_boot


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
