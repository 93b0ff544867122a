"""What an exchange should not send, over a real socket: counted, set aside to be looked at, never fatal, never silent."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import structlog.testing
from websockets.asyncio.server import ServerConnection, serve

from bitget_pipeline.errors import MalformedFrame
from bitget_pipeline.exchange.contract import Channel, Subscription
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.actions import Stage
from bitget_pipeline.feed.connection import Connection, SocketAddress
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Broke, TradeBatch
from bitget_pipeline.pipeline.live.intake import Intake
from bitget_pipeline.pipeline.live.state import LiveState
from bitget_pipeline.telemetry import Seldom

BTC = Symbol(Market.SPOT, "BTCUSDT")
NOW = 1_790_358_781_000
BIG = 1_487_438_024_626_143_232


def a_row(trade_id: Any = BIG, *, ts: Any = NOW, price: Any = "83715.7", size: Any = "0.5") -> dict[str, Any]:
    return {"ts": ts, "price": price, "size": size, "side": "buy", "tradeId": trade_id}


def a_push(*rows: dict[str, Any], name: str = "BTCUSDT", channel: str = "trade", product: str = "SPOT") -> bytes:
    about = {"instType": product, "channel": channel, "instId": name}
    return msgspec.json.encode({"action": "update", "arg": about, "data": rows, "ts": NOW})


class Line:
    """A connection to a scripted exchange, and what came of it."""

    def __init__(self) -> None:
        self.state = LiveState([BTC])
        self.intake = Intake(self.state)
        self.socket: ServerConnection | None = None
        self.connection: Connection | None = None
        self.asked = 0
        self.acknowledges = True

    async def answer(self, socket: ServerConnection) -> None:
        """Acknowledge what is asked, answer pings."""
        self.socket = socket
        async for text in socket:
            if text == "ping":
                await socket.send("pong")
                continue
            request = msgspec.json.decode(text)
            self.asked += request["op"] == "subscribe"
            for about in request["args"]:
                await socket.send(msgspec.json.encode({"event": request["op"], "arg": about}).decode())

    async def send(self, frame: bytes | str) -> None:
        assert self.socket is not None
        await self.socket.send(frame if isinstance(frame, str) else frame.decode("utf-8", "surrogateescape"))

    async def send_good(self, trade_id: int) -> None:
        """A good trade after what was sent before: it arrives, so the connection lives."""
        await self.send(a_push(a_row(str(trade_id))))
        await until(lambda: trade_id in self.ids(), "the good trade")

    def ids(self) -> list[int]:
        batches = [item for item in self.intake.items if isinstance(item, TradeBatch)]
        return [trade.trade_id for batch in batches for trade in batch.trades]

    def breaks(self) -> list[Broke]:
        return [item for item in self.intake.items if isinstance(item, Broke)]


async def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60.0
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def line(rules: SessionRules | None = None) -> AsyncIterator[Line]:
    line = Line()
    async with serve(line.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line.connection = Connection(
            "socket-0",
            get("bitget"),
            SocketAddress(f"ws://127.0.0.1:{port}", open_within=60.0),
            [Subscription(BTC, Channel.TRADE)],
            line.intake,
            clock=lambda: NOW,
            rules=rules or SessionRules(),
        )
        running = asyncio.create_task(line.connection.run())
        try:
            await until(lambda: line.asked, "the subscription")
            yield line
            assert not running.done(), "it was fatal"
        finally:
            line.connection.close()
            await asyncio.gather(running, return_exceptions=True)


GOOD = a_push(a_row())

SET_ASIDE = {
    "a truncated frame": (GOOD[:-20], "makes no sense"),
    "no JSON at all": (b"<html>502 Bad Gateway</html>", "makes no sense"),
    "an empty frame": (b"", "makes no sense"),
    "a number": (b"42", "makes no sense"),
    "an unknown channel": (a_push(a_row(), channel="trades_of_tomorrow"), "unknown stream"),
    "an unknown product": (a_push(a_row(), product="OPTIONS"), "unknown stream"),
    "a symbol nobody asked for": (a_push(a_row(), name="DOGEUSDT"), "did not ask for"),
    "a channel nobody asked for": (
        a_push({"instId": "BTCUSDT", "lastPr": "1", "ts": str(NOW)}, channel="ticker"),
        "ticker",
    ),
    "a negative size": (a_push(a_row(size="-0.5")), "none of its"),
    "a size of zero": (a_push(a_row(size="0")), "none of its"),
    "a negative price": (a_push(a_row(price="-1")), "none of its"),
    "a price that is no number": (a_push(a_row(price="much")), "none of its"),
    "an id beyond 2^63": (a_push(a_row(str(2**63))), "none of its"),
    "a time in the far future": (a_push(a_row(ts=str(NOW + 40 * 86_400_000))), "none of its"),
    "a time in the far past": (a_push(a_row(ts=str(NOW - 400 * 86_400_000))), "none of its"),
    "a time that is none": (a_push(a_row(ts="0")), "none of its"),
    "an event nobody knows": (b'{"event":"celebrate","arg":null}', "unknown event"),
    "an error without a subject, its code an int": (b'{"event":"error","code":30002,"msg":"Unrecognized"}', "30002"),
    "an error without a subject, its code a string": (
        b'{"event":"error","code":"30002","msg":"Unrecognized"}',
        "30002",
    ),
    "an error whose code is no number": (b'{"event":"error","code":"many","msg":"Unrecognized"}', "makes no sense"),
    "a frame of the first generation": (a_push(a_row(), product="sp"), ""),
}


@pytest.mark.parametrize("case", SET_ASIDE)
async def test_what_makes_no_sense_is_counted_and_set_aside(case: str) -> None:
    """
    One such frame: it is in the quarantine with its reason and its beginning, and the next good trade arrives.
    """
    frame, reason = SET_ASIDE[case]
    async with line() as there:
        await there.send_good(BIG + 1)
        await there.send(frame)
        await there.send_good(BIG + 2)
        assert there.state.set_aside == 1
        (kept,) = there.intake.quarantine
        assert reason in kept.problem
        assert kept.frame == frame.decode()
        assert kept.bytes == len(frame)
        assert there.ids() == [BIG + 1, BIG + 2]


@pytest.mark.parametrize("case", ["a truncated frame", "no JSON at all", "a negative size", "a time in the far future"])
async def test_what_may_have_held_trades_has_to_be_proven(case: str) -> None:
    """
    The symbol is marked: what it brings next must connect, else a gap is opened and repaired.
    """
    async with line() as there:
        await there.send_good(BIG + 1)
        there.intake.items.clear()
        await there.send(SET_ASIDE[case][0])
        await there.send_good(BIG + 2)
        assert there.breaks() == [Broke((BTC,))]


async def test_what_a_connection_brings_first_has_to_be_proven() -> None:
    """
    Whoever delivered until then may have gone deaf: the mark stands right before the first trades, and before no others.
    """
    async with line() as there:
        await there.send_good(BIG + 1)
        await there.send_good(BIG + 2)
        assert [type(item) for item in there.intake.items] == [Broke, TradeBatch, TradeBatch]


@pytest.mark.parametrize("number", [0.5, "0.5"])
@pytest.mark.parametrize("trade_id", [BIG, str(BIG), str(BIG + 4_194_303)])
async def test_numbers_come_as_numbers_or_as_text_and_ids_beyond_2_53_keep_every_digit(
    number: Any, trade_id: Any
) -> None:
    """
    Sizes, prices, times and ids in either form make the same trade.
    """
    async with line() as there:
        await there.send(a_push(a_row(trade_id, ts=NOW if isinstance(number, float) else str(NOW), size=number)))
        await until(lambda: there.ids(), "the trade")
        (batch,) = (item for item in there.intake.items if isinstance(item, TradeBatch))
        (trade,) = batch.trades
        assert (trade.trade_id, trade.ts_ms, trade.size) == (int(trade_id), NOW, 0.5)
        assert there.state.set_aside == 0


async def test_bad_rows_beside_good_ones_are_left_out_and_the_frame_is_kept_to_be_looked_at() -> None:
    """
    A frame with one good trade and one of negative size: the good one arrives, marked as incomplete.
    """
    async with line() as there:
        await there.send(a_push(a_row(str(BIG)), a_row(str(BIG + 1), size="-1")))
        await until(lambda: there.ids(), "the good trade")
        (batch,) = (item for item in there.intake.items if isinstance(item, TradeBatch))
        assert (len(batch.trades), batch.rejected) == (1, 1)
        (kept,) = there.intake.quarantine
        assert "1 trades make no sense" in kept.problem


async def test_an_acknowledgement_without_data_is_asked_again_and_reported() -> None:
    """
    The exchange confirms and sends nothing: after some requests the symbol is told as silent.
    """
    async with line(SessionRules(first_data_within=0.1)) as there:
        await until(lambda: there.state.of(BTC).silent, "the report")
        await until(lambda: there.asked >= 3, "the last request")
        assert there.asked == 3
        assert "acknowledged, no data after 3 requests" in there.state.of(BTC).silent


@pytest.mark.parametrize("code", [30001, "30001"])
async def test_a_refusal_of_a_subscription_is_reported_whatever_the_form_of_its_code(code: int | str) -> None:
    """
    An error event about our subscription, as an int or as text: it is refused, and told with its message.
    """
    async with line() as there:
        about = {"instType": "SPOT", "channel": "trade", "instId": "BTCUSDT"}
        await there.send(msgspec.json.encode({"event": "error", "arg": about, "code": code, "msg": "doesn't exist"}))
        await until(lambda: there.state.of(BTC).silent, "the report")
        assert there.state.of(BTC).silent == "refused with code 30001: doesn't exist"
        assert there.connection is not None
        assert there.connection.stages() == {Subscription(BTC, Channel.TRADE): Stage.REFUSED}


async def test_the_quarantine_is_bounded() -> None:
    """
    A thousand such frames, one of them long: the newest two hundred are kept, four thousand bytes of each, all are counted.
    """
    async with line() as there:
        for number in range(1000):
            await there.send(f"nonsense {number}")
        await there.send("x" * 100_000)
        await there.send_good(BIG)
        assert there.state.set_aside == 1001
        assert len(there.intake.quarantine) == 200
        last = there.intake.quarantine[-1]
        assert (len(last.frame), last.bytes) == (4096, 100_000)


def test_a_flood_of_bad_frames_leaves_one_mark_and_one_line() -> None:
    """
    A hundred thousand frames that make no sense, and not a good one among them: memory does not grow, whoever appends is
    woken, and the log says it once a minute with how often it happened.
    """
    intake = Intake(LiveState([BTC]))
    bad = MalformedFrame("a frame that makes no sense: torn", where="bitget websocket")
    with structlog.testing.capture_logs() as lines:
        for _ in range(100_000):
            intake.set_aside(b"{", bad, [Subscription(BTC, Channel.TRADE)])
    assert list(intake.items) == [Broke((BTC,))]
    assert intake.arrived.is_set()
    assert len(intake.quarantine) <= 200
    assert [line["times"] for line in lines] == [1]


def test_what_happens_over_and_over_is_said_once_a_minute_with_its_number() -> None:
    """Each thing for itself, and only so many things are remembered."""
    seldom = Seldom(every=60.0, most=2)
    assert [seldom.happened("torn", now=now) for now in (0.0, 1.0, 59.9, 60.0, 61.0)] == [1, 0, 0, 3, 0]
    assert seldom.happened("foreign", now=61.0) == 1
    assert seldom.happened("unknown", now=62.0) == 1
    assert seldom.happened("foreign", now=63.0) == 0


def test_what_makes_no_sense_to_a_companion_lies_beside_all_other_such_frames() -> None:
    """The command `quarantine` shows one list."""
    intake = Intake(LiveState([BTC]))
    intake.keep("a book of spot:BTCUSDT: crossed", "BookFrame(…)")
    (kept,) = intake.quarantine
    assert (kept.problem, kept.frame) == ("a book of spot:BTCUSDT: crossed", "BookFrame(…)")
    assert intake.items == deque()
