"""What can be done to a live run while it runs, and undone; nothing is lost by any of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from bitget_pipeline.errors import CannotBeDone
from bitget_pipeline.exchange.contract import TickerFrame
from bitget_pipeline.guard.rate_limit import Priority
from bitget_pipeline.guard.remedy_table import ACTIONS
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.live import append
from bitget_pipeline.pipeline.live.hands import Hands, symbol_of
from bitget_pipeline.storage.spill import Spill

from ..conftest import SYMBOLS, until
from ..live_runner import Where
from .test_run import Tickers, assert_stored_is_true, closed, live, passed

BTC = "usdtm/BTCUSDT"


@pytest.fixture
def where(where: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Where:
    """With a folder for trades, and patience for the last call to Redis."""
    monkeypatch.setattr(append, "LAST_APPEND_WITHIN", 60.0)
    return msgspec.structs.replace(where, spill=str(tmp_path / "spill"))


def socket_of(run) -> dict[str, object]:
    return run.overview.published().overall["connections"]["socket-0"]


async def appended(run, server) -> int:
    """Trades that went into the stream, as the run says of now: what it said a moment ago tells nothing of what came since."""
    asked = server.now_ms()
    await until(lambda: run.overview.published().overall["at_ms"] > asked, what="the run's next word")
    return run.overview.published().overall["appended"]


def no_gap(run) -> bool:
    return not any(anchor.gap for anchor in run.overview.anchors().values())


def test_there_is_a_hand_for_every_action_and_one_to_undo_what_lasts() -> None:
    """The table of actions and what can be done are the same."""
    hands = Hands()
    assert hands.actions.keys() == ACTIONS.keys()
    assert hands.undoing.keys() == {action.name for action in ACTIONS.values() if action.lasting}
    assert symbol_of("spot/BTCUSDT") == SYMBOLS[0]
    assert symbol_of("socket-0") is None


async def test_before_the_run_writes_and_for_what_is_not_there_it_says_so() -> None:
    """One sentence, and nothing happens."""
    hands = Hands()
    for action, target in (("relaunch", ""), ("widen_flush", ""), ("move_connection", "socket-9"), ("dance", "")):
        with pytest.raises(CannotBeDone):
            await hands.do(action, target, "a test")


async def test_a_connection_is_moved_and_one_is_closed_without_a_lost_trade(where, local_exchange, warehouse):
    """
    Moved: the successor is there before the old one goes. Reconnected: it is cut. A subscription is begun anew. All that
    was traded is stored.
    """
    hands = Hands()
    async with live(where, local_exchange, hands=hands) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        assert hands.connection_of(BTC) == "socket-0" == hands.connection_of("socket-0")
        start = local_exchange.now_ms()
        await hands.do("move_connection", "socket-0", "a test")
        await until(lambda: "closed on request" in str(socket_of(run)["last_reason"]), what="a successor")
        assert (socket_of(run)["opened"], socket_of(run)["reconnects"]) == (2, 0)
        await hands.do("reconnect", "socket-0", "a test")
        await until(lambda: socket_of(run)["opened"] == 3 and socket_of(run)["live"] == len(SYMBOLS), what="another")
        assert "asked for" in await hands.do("restart_subscription", BTC, "a test")
        with pytest.raises(CannotBeDone, match="is asking for"):
            await hands.do("restart_subscription", BTC, "a test")
        seen = run.stored()
        await until(lambda: run.stored() > seen + 20, what="trades after it")
        end = await closed(local_exchange, run.overview)
        await until(lambda: no_gap(run), what="closed gaps")
        await run.end()
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 30


async def test_trades_wait_on_disk_for_as_long_as_somebody_wants_it(where, local_exchange, warehouse):
    """
    Redis would take them, but is to be spared: they queue on disk, and go into the stream in order afterwards; batches are
    widened and become as they were.
    """
    hands = Hands()
    async with live(where, local_exchange, hands=hands) as run:
        await until(lambda: run.stored() > 20, what="the first trades")
        start = local_exchange.now_ms()
        assert "0.8 s" in await hands.do("widen_flush", "", "a test")
        await hands.do("spill", "", "a test")
        await until(lambda: Spill(Path(where.spill)).state().bytes > 3_000, what="trades on disk")
        held = await appended(run, local_exchange)
        await passed(local_exchange, 500)
        assert await appended(run, local_exchange) == held
        await hands.do("spill", "", "a test", undo=True)
        assert "0.2 s" in await hands.do("widen_flush", "", "a test", undo=True)
        await until(lambda: Spill(Path(where.spill)).state().bytes == 0, what="an empty disk")
        end = await closed(local_exchange, run.overview)
        report = await run.end()
    assert report.spilled > 0
    assert report.repaired == 0
    assert await assert_stored_is_true(warehouse, local_exchange, Interval(start, end)) > 30


async def test_a_channel_is_given_up_with_a_row_in_the_ledger_and_comes_back(where, local_exchange, warehouse):
    """There is room, but somebody wants it so: it stays away until it may come back."""
    hands, tickers = Hands(), Tickers(frames=(TickerFrame,))
    async with live(where, local_exchange, companions=(tickers,), hands=hands) as run:
        await until(lambda: run.stored() > 0 and tickers.seen, what="trades and tickers")
        assert await hands.do("shed_channel", "", "ClickHouse is behind") == "tickers are not collected"
        with pytest.raises(CannotBeDone, match="nothing but trades"):
            await hands.do("shed_channel", "", "ClickHouse is behind")
        await until(lambda: warehouse.coverage("tickers", symbol=SYMBOLS[0]), what="a row in the ledger")
        told = len(tickers.seen)
        await passed(local_exchange, 500)
        assert len(tickers.seen) == told
        await hands.do("shed_channel", "", "it is over", undo=True)
        await until(lambda: len(tickers.seen) > told, what="tickers again")
        await run.end()
    (row,) = warehouse.coverage("tickers", symbol=SYMBOLS[0])
    assert "ClickHouse is behind" in row.reason


async def test_history_is_slowed_and_stopped_for_all_processes(where, local_exchange, client):
    """The stricter of what is wanted holds, and when nothing is wanted any more all is as ever."""
    hands = Hands()
    async with live(where, local_exchange, hands=hands) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        budget = run.stores.client.budget
        assert "2 requests" in await hands.do("slow_backfills", "", "a test")
        assert await hands.do("stop_backfills", "", "a test") == "history makes no requests"
        assert await budget.reserve("an.endpoint", 20, Priority.BACKFILL) > 0
        await hands.sustain()
        assert "2 requests" in await hands.do("stop_backfills", "", "a test", undo=True)
        assert await budget.reserve("an.endpoint", 20, Priority.BACKFILL) == 0.0
        assert "as ever" in await hands.do("slow_backfills", "", "a test", undo=True)
        await run.end()


async def test_the_run_ends_so_that_another_takes_its_place(where, local_exchange):
    """Cooperatively, with everything written; the supervisor finds no run and launches one."""
    hands = Hands()
    async with live(where, local_exchange, hands=hands) as run:
        await until(lambda: run.stored() > 0, what="the first trades")
        await hands.do("relaunch", "", "a test")
        report = await asyncio.wait_for(run.task, 60)
    assert report.because == "asked to stop through Redis"
    assert not report.left_in_stream
