"""What a run is given follows the settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.exchange.contract import Channel
from bitget_pipeline.market.instrument import Market, Symbol


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
