"""The public socket, as section 6 of the protocol reference says it behaves."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running

from .client import Client, Socket

BTC = ("SPOT", "trade", "BTCUSDT")


async def test_snapshot_and_updates_carry_every_trade_once(client: Client):
    """The snapshot ends where the updates begin; rows are newest first; together they are the truth."""
    async with client.socket() as socket:
        await socket.subscribe(BTC)
        await socket.until(lambda _: len(socket.data("trade", "update")) > 40)
        assert socket.frames[0] == {
            "event": "subscribe",
            "arg": {"instType": "SPOT", "channel": "trade", "instId": "BTCUSDT"},
        }
        assert socket.data_frames("trade")[0]["action"] == "snapshot"
        rows = [row for frame in socket.data_frames("trade") for row in reversed(frame["data"])]
    ids = [int(row["tradeId"]) for row in rows]
    assert ids == sorted(set(ids))
    span = {"from": int(rows[0]["ts"]), "to": int(rows[-1]["ts"]) + 1}
    truth = await client.truth("trades", market="spot", symbol="BTCUSDT", **span)
    wire = {(r["tradeId"], int(r["ts"]), r["price"], r["size"], r["side"]) for r in rows}
    told = {(t["trade_id"], t["ts_ms"], t["price"], t["size"], t["side"]) for t in truth}
    assert wire <= told
    assert all(int(t[0]) < ids[0] or int(t[0]) > ids[-1] for t in told - wire)
    counted = client.exchange.counters()["trades_sent"]["spot"]
    assert counted >= len(rows)


async def test_candles_come_as_snapshot_and_then_as_the_forming_bar(client: Client):
    """Hundreds of bars of eight columns, then one row at most once a second, equal to REST's."""
    async with client.socket() as socket:
        await socket.subscribe(("USDT-FUTURES", "candle1m", "BTCUSDT"))
        await socket.until(lambda _: len(socket.data_frames("candle1m", "update")) >= 3)
        snapshot, *updates = socket.data_frames("candle1m")
        assert len(snapshot["data"]) == 500
        assert all(len(row) == 8 for row in snapshot["data"])
        assert all(len(frame["data"]) == 1 for frame in updates)
        stamps = [frame["ts"] for frame in updates]
        opens = [frame["data"][0][0] for frame in updates]
        gaps = [b - a for a, b, o, p in zip(stamps, stamps[1:], opens, opens[1:], strict=False) if o == p]
        assert all(gap >= 950 for gap in gaps)
        closed = snapshot["data"][-2]
    rows = await client.data(
        "/api/v2/mix/market/history-candles",
        productType="USDT-FUTURES",
        symbol="BTCUSDT",
        granularity="1m",
        endTime=int(closed[0]) + 60_000,
        limit=1,
    )
    assert rows == [closed[:7]]


async def test_a_closed_bar_is_pushed_in_its_final_form(small: ExchangeConfig):
    """With market time sixty times as fast, the last row of each passed minute equals the truth."""
    async with running(replace(small, speed=60.0)) as exchange, aiohttp.ClientSession() as session:
        client = Client(exchange, session)
        async with client.socket() as socket:
            await socket.subscribe(("SPOT", "candle1m", "BTCUSDT"))
            await socket.until(lambda _: len({row[0] for row in socket.data("candle1m", "update")}) >= 3)
            last: dict[str, Any] = {row[0]: row for row in socket.data("candle1m", "update")}
        opens = sorted(last)[:-1]
        span = {"from": opens[0], "to": int(opens[-1]) + 60_000}
        truth = await client.truth("candles", market="spot", symbol="BTCUSDT", **span)
        words = ("open", "high", "low", "close", "base_volume", "quote_volume")
        assert [last[o][1:7] for o in opens] == [[row[w] for w in words] for row in truth]


async def test_books_follow_their_sequence(client: Client):
    """pseq of each update is the seq before; applied, the book never crosses and matches the fixed-depth channel."""
    async with client.socket() as socket:
        await socket.subscribe(("USDT-FUTURES", "books", "BTCUSDT"), ("USDT-FUTURES", "books5", "BTCUSDT"))
        await socket.until(lambda _: len(socket.data_frames("books", "update")) >= 8)
        frames = [f for f in socket.frames if isinstance(f, dict) and "action" in f]
    sides: dict[str, dict[str, str]] = {"asks": {}, "bids": {}}
    seq = None
    for frame in frames:
        data = frame["data"][0]
        if frame["arg"]["channel"] == "books5":
            if seq == data["seq"]:
                assert data["asks"] == _best(sides["asks"], False)
                assert data["bids"] == _best(sides["bids"], True)
            continue
        assert data["pseq"] == (0 if frame["action"] == "snapshot" else seq)
        seq = data["seq"]
        for name, levels in sides.items():
            for price, size in data[name]:
                if float(size) == 0:
                    levels.pop(price)
                else:
                    levels[price] = size
        assert float(_best(sides["bids"], True)[0][0]) < float(_best(sides["asks"], False)[0][0])
    assert "checksum" not in frames[0]["data"][0]


def _best(levels: dict[str, str], descending: bool) -> list[list[str]]:
    return [[p, levels[p]] for p in sorted(levels, key=float, reverse=descending)[:5]]


async def test_ticker_is_always_a_snapshot(client: Client):
    """Every 300 ms, even when nothing changed; futures carry funding and mark."""
    async with client.socket() as socket:
        await socket.subscribe(("USDT-FUTURES", "ticker", "ETHUSDT"), ("SPOT", "ticker", "ETHUSDT"))
        await socket.until(lambda _: len(socket.data_frames("ticker")) >= 8)
        assert {f["action"] for f in socket.data_frames("ticker")} == {"snapshot"}
        rows = {f["arg"]["instType"]: f["data"][0] for f in socket.data_frames("ticker")}
    assert {"fundingRate", "nextFundingTime", "markPrice", "holdingAmount"} <= rows["USDT-FUTURES"].keys()
    assert "fundingRate" not in rows["SPOT"]
    assert "open24h" in rows["SPOT"]


async def test_errors_are_integers_and_spare_the_other_args(client: Client):
    """One bad arg does not cancel the rest."""
    async with client.socket() as socket:
        await socket.subscribe(("SPOT", "candle1h", "BTCUSDT"), ("USDT-FUTURES", "trade", "NOPEUSDT"), BTC)
        await socket.send("hello")
        await socket.send({"op": "dance", "args": []})
        await socket.send({"op": "subscribe", "args": [{"instType": "sp", "channel": "trade", "instId": "BTCUSDT"}]})
        await socket.send({"op": "subscribe", "args": [{"instType": "spot", "topic": "publicTrade", "symbol": "X"}]})
        await socket.until(lambda fs: sum(isinstance(f, dict) and f.get("event") == "error" for f in fs) == 6)
        await socket.until(lambda _: socket.data("trade"))
        errors = [f for f in socket.frames if isinstance(f, dict) and f.get("event") == "error"]
    assert [e["code"] for e in errors] == [30016, 30001, 30002, 30003, 30016, 30016]
    assert errors[1]["msg"] == "instType:USDT-FUTURES,channel:trade,instId:NOPEUSDT,precision:null doesn't exist"
    assert errors[2] == {"event": "error", "code": 30002, "msg": "Unrecognized request:hello"}


async def test_a_symbol_under_the_wrong_type_is_acknowledged_and_silent(client: Client):
    """BTCPERP under USDT-FUTURES: an ack proves nothing."""
    async with client.socket() as socket:
        await socket.subscribe(("USDT-FUTURES", "trade", "BTCPERP"), ("USDT-FUTURES", "trade", "BTCUSDT"))
        await socket.until(lambda _: len(socket.data_frames("trade")) > 3)
        acks = [f["arg"]["instId"] for f in socket.frames if isinstance(f, dict) and f.get("event") == "subscribe"]
        assert acks == ["BTCPERP", "BTCUSDT"]
        assert {f["arg"]["instId"] for f in socket.data_frames("trade")} == {"BTCUSDT"}


async def test_lower_case_and_twice_and_unsubscribed(client: Client):
    """Ids are echoed upper-case; a second subscription brings a fresh snapshot, no doubled stream; then it ends."""
    async with client.socket() as socket:
        await socket.subscribe(("SPOT", "trade", "btcusdt"))
        await socket.subscribe(BTC)
        await socket.until(lambda _: len(socket.data("trade", "update")) > 10)
        assert len(socket.data_frames("trade", "snapshot")) == 2
        ids = [row["tradeId"] for row in socket.data("trade", "update")]
        assert len(ids) == len(set(ids))
        arg = {"instType": "SPOT", "channel": "trade", "instId": "BTCUSDT"}
        await socket.send({"op": "unsubscribe", "args": [arg]})
        await socket.until(lambda fs: {"event": "unsubscribe", "arg": arg} in fs)
        seen = len(socket.data_frames("trade"))
        await socket.send("ping")
        await socket.until(lambda fs: fs[-1] == "pong")
        await asyncio.sleep(0.3)
        assert len(socket.data_frames("trade")) == seen


async def test_without_ping_the_line_goes_dead(small: ExchangeConfig):
    """No close frame, although data flows; a text ping keeps it."""
    async with running(replace(small, ping_timeout=2.0)) as exchange, aiohttp.ClientSession() as session:
        client = Client(exchange, session)
        async with client.socket() as quiet, client.socket() as pinging:
            await quiet.subscribe(BTC)
            keeping = asyncio.create_task(_ping_on(pinging))
            await quiet.closed()
            assert quiet.ws.close_code in (None, 1006)
            count = len(pinging.frames)
            await pinging.until(lambda frames: len(frames) > count + 6)
            assert set(pinging.frames) == {"pong"}
            keeping.cancel()


async def _ping_on(socket: Socket) -> None:
    while True:
        await socket.send("ping")
        await asyncio.sleep(0.1)


async def test_an_exchange_that_stood_still_hears_who_pings_before_it_cuts(small: ExchangeConfig):
    """The time without a ping was its own."""
    async with (
        running(replace(small, ping_timeout=0.5)) as exchange,
        aiohttp.ClientSession() as session,
        Client(exchange, session).socket() as socket,
    ):
        await socket.send("ping")
        await socket.until(lambda frames: "pong" in frames)
        time.sleep(1.0)  # noqa: ASYNC251 — that is what is tried
        for _ in range(3):  # it has looked once by then
            await asyncio.sleep(0)
        await socket.send("ping")
        await socket.until(lambda frames: len(frames) == 2)
        assert socket.frames == ["pong", "pong"]


async def test_a_connection_has_a_longest_life(small: ExchangeConfig):
    """The daily drop, scaled."""
    async with (
        running(replace(small, connection_lifetime=0.3)) as exchange,
        aiohttp.ClientSession() as session,
        Client(exchange, session).socket() as socket,
    ):
        await socket.closed()


@pytest.fixture
async def strict(small: ExchangeConfig):
    """A client of an exchange that enforces its limits."""
    async with running(replace(small, limits=True)) as exchange, aiohttp.ClientSession() as session:
        yield Client(exchange, session)


async def test_more_than_ten_messages_a_second_end_the_connection(strict: Client):
    """Pings count too."""
    async with strict.socket() as socket:
        await socket.flood("ping")
        await socket.closed()
    assert strict.exchange.counters()["limit_violations"] == {"ws_messages": 1}


async def test_a_frame_over_4096_bytes_is_refused(strict: Client):
    """Nothing of it is subscribed; the encoded length counts."""
    async with strict.socket() as socket:
        await socket.subscribe(*[("SPOT", "trade", "BTCUSDT")] * 70)
        await socket.until(lambda fs: fs)
        assert socket.frames[0]["code"] == 30002
    assert strict.exchange.counters()["limit_violations"] == {"ws_frame_size": 1}


async def test_the_241st_subscribe_request_of_an_hour_ends_the_connection(strict: Client, monkeypatch):
    """Counted by frame."""
    monkeypatch.setattr("bitget_pipeline.local.exchange.sockets.SUBSCRIBES_PER_HOUR", 5)
    async with strict.socket() as socket:
        for _ in range(6):
            await socket.subscribe(BTC)
        await socket.closed()
        assert 30007 in [f.get("code") for f in socket.frames if isinstance(f, dict)]


async def test_too_many_channels_and_too_many_connections(strict: Client, monkeypatch):
    """The thousand-and-first channel ends the connection, the hundred-and-first connection is not opened."""
    monkeypatch.setattr("bitget_pipeline.local.exchange.sockets.MAX_CHANNELS", 2)
    monkeypatch.setattr("bitget_pipeline.local.exchange.sockets.OPEN_PER_ADDRESS", 1)
    async with strict.socket() as socket:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
            async with strict.socket():
                pass
        await socket.subscribe(*[("SPOT", name, "BTCUSDT") for name in ("trade", "ticker", "books5")])
        await socket.closed()
    counted = strict.exchange.counters()["limit_violations"]
    assert counted == {"ws_channels": 1, "ws_connections": 1}


async def test_old_and_new_generations_are_not_served(exchange: LocalExchange, client: Client):
    """V1 sockets say so; the V3 path does not exist."""
    for path in ("/spot/v1/stream", "/mix/v1/stream", "/v3/ws/public"):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
            async with client.session.ws_connect(exchange.ws_url.replace("/v2/ws/public", path)):
                pass
