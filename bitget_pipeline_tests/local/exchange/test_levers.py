"""Each lever does what it says, and the truth stays the truth."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import aiohttp
import pytest

from bitget_pipeline.local.exchange import LocalExchange
from bitget_pipeline.local.exchange.faults import KINDS, Target

from .client import ONE_MOMENT, Client, Socket

MINUTE = 60_000
SPOT = "/api/v2/spot/market"
BTC = ("SPOT", "trade", "BTCUSDT")
ETH = ("SPOT", "trade", "ETHUSDT")


async def _flowing(socket: Socket, *subscriptions: tuple[str, str, str]) -> None:
    await socket.subscribe(*subscriptions)
    await socket.until(lambda _: len(socket.data_frames("trade", "update")) >= 2)


async def _pull(client: Client, **body: Any) -> tuple[int, Any]:
    async with client.session.post(f"{client.exchange.rest_url}/admin/faults", json=body) as response:
        return response.status, await response.json()


async def test_faults_are_pulled_listed_and_cleared_over_http(client: Client):
    """An unknown kind gets the list of kinds; a known one is listed until cleared or its seconds are over."""
    status, body = await _pull(client, kind="earthquake")
    assert status == 400
    assert body["kinds"] == list(KINDS)
    status, body = await _pull(client, kind="slow", target=SPOT, seconds=60, delay=0.2)
    assert status == 200
    url = f"{client.exchange.rest_url}/admin/faults"
    async with client.session.get(url) as response:
        active = (await response.json())["active"]
    assert [fault["kind"] for fault in active] == ["slow"]
    began = time.monotonic()
    await client.data(f"{SPOT}/fills", symbol="BTCUSDT")
    assert time.monotonic() - began >= 0.2
    async with client.session.delete(url, params={"kind": "slow"}) as response:
        assert await response.json() == {"cleared": 1}
    await _pull(client, kind="html_502", seconds=0.05)
    await asyncio.sleep(0.06)
    assert await client.data(f"{SPOT}/fills", symbol="BTCUSDT")


async def test_a_storm_of_429_without_a_cause(client: Client):
    """Only where it is aimed."""
    with client.exchange.faulty("rate_limit_storm", f"{SPOT}/fills"):
        assert await client.code(f"{SPOT}/fills", symbol="BTCUSDT") == (429, "429")
        assert await client.code("/api/v2/public/time") == (200, "00000")
    assert client.exchange.counters()["429"] == 1
    assert client.exchange.counters()["limit_violations_total"] == 0


async def test_bodies_that_are_no_answer(client: Client):
    """Cut JSON, an HTML page, an empty string as data, a refusal with HTTP 200."""
    url = client.exchange.rest_url + "/api/v2/public/time"
    with client.exchange.faulty("bad_json"):
        async with client.session.get(url) as response:
            assert response.status == 200
            with pytest.raises(ValueError, match=r".+"):
                await response.json()
    with client.exchange.faulty("html_502"):
        async with client.session.get(url) as response:
            assert (response.status, response.content_type) == (502, "text/html")
    with client.exchange.faulty("empty_string", "spot:BTCUSDT"):
        assert await client.data(f"{SPOT}/fills", symbol="BTCUSDT") == ""
        assert await client.data(f"{SPOT}/fills", symbol="ETHUSDT") != ""
    with client.exchange.faulty("error_code", code="40725"):
        assert await client.code("/api/v2/public/time") == (200, "40725")
    with client.exchange.faulty("region_block"):
        assert await client.code("/api/v2/public/time") == (400, "40000")
    with client.exchange.faulty("region_block", html=True):
        async with client.session.get(url) as response:
            assert (response.status, response.content_type) == (403, "text/html")
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            async with client.socket():
                pass
    with client.exchange.faulty("clock_skew", skew_ms=90_000):
        before = client.exchange.now_ms()
        _, body = await client.answer("/api/v2/public/time")
        assert int(body["data"]["serverTime"]) == body["requestTime"] >= before + 90_000


async def test_probability_is_a_share(client: Client):
    """Half of the requests, roughly."""
    with client.exchange.faulty("html_502", probability=0.5):
        url = client.exchange.rest_url + "/api/v2/public/time"
        statuses = []
        for _ in range(60):
            async with client.session.get(url) as response:
                statuses.append(response.status)
    assert 10 < statuses.count(502) < 50


async def test_a_truncated_instrument_list(client: Client):
    """Success, and half of the symbols."""
    with client.exchange.faulty("truncated_instruments", "spot", keep=0.5):
        assert len(await client.data("/api/v2/spot/public/symbols")) == 20
        assert len(await client.data("/api/v2/mix/market/contracts", productType="USDT-FUTURES")) == 40


async def test_bars_that_are_missing_or_changed(client: Client):
    """The page lies, the truth does not."""
    end = client.exchange.now_ms() // MINUTE * MINUTE
    ask = {"symbol": "BTCUSDT", "granularity": "1min", "endTime": end, "limit": 5}
    honest = await client.data(f"{SPOT}/history-candles", **ask)
    with client.exchange.faulty("missing_bar", "spot:BTCUSDT", open_ms=end - 3 * MINUTE):
        rows = await client.data(f"{SPOT}/history-candles", **ask)
        assert [row for row in honest if row not in rows] == [honest[2]]
    with client.exchange.faulty("changed_bar", "spot:BTCUSDT", open_ms=end - 2 * MINUTE):
        rows = await client.data(f"{SPOT}/history-candles", **ask)
        assert [a == b for a, b in zip(rows, honest, strict=True)] == [True, True, True, False, True]
        span = {"from": end - 2 * MINUTE, "to": end - MINUTE}
        truth = await client.truth("candles", market="spot", symbol="BTCUSDT", **span)
        assert truth[0]["high"] == honest[3][2]


async def test_fills_history_lags_behind(client: Client):
    """The last seconds are not there yet; fills has them."""
    with client.exchange.faulty("fills_history_lag", lag_seconds=30):
        rows = await client.data(f"{SPOT}/fills-history", symbol="BTCUSDT", limit=1)
        assert int(rows[0]["ts"]) <= client.exchange.now_ms() - 30_000
        assert int((await client.data(f"{SPOT}/fills", symbol="BTCUSDT"))[0]["ts"]) > int(rows[0]["ts"])


async def test_sockets_are_cut_without_a_close_frame(client: Client):
    """All, or those that carry a symbol; and a new one may connect again."""
    async with client.socket() as one, client.socket() as two:
        await _flowing(one, BTC)
        await _flowing(two, ETH)
        client.exchange.fault("drop", "spot:BTCUSDT")
        await one.closed()
        assert two.frames[-1] is not None
        assert client.exchange.drop() >= 1
        await two.closed()
    async with client.socket() as again:
        await _flowing(again, BTC)


async def test_connections_can_be_refused(client: Client):
    """The handshake fails while it lasts."""
    with client.exchange.faulty("refuse_connections"), pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
        async with client.socket():
            pass


async def test_a_muted_exchange_answers_pings_and_nothing_else(client: Client):
    """Health is data arriving, not a socket being open."""
    async with client.socket() as socket:
        await _flowing(socket, BTC)
        with client.exchange.muted():
            await socket.send("ping")
            await socket.until(lambda fs: "pong" in fs)  # and so all that was sent before
            seen = len(socket.data_frames("trade"))
            await socket.subscribe(ETH)
            await asyncio.sleep(0.4)
            await socket.send("ping")
            await socket.until(lambda fs: fs.count("pong") == 2)
            assert len(socket.data_frames("trade")) == seen
        await socket.until(lambda _: len(socket.data_frames("trade")) > seen)


async def test_a_half_open_socket_takes_everything_and_gives_nothing(client: Client):
    """No pong either."""
    async with client.socket() as socket:
        await _flowing(socket, BTC)
        client.exchange.fault("half_open")
        await socket.settled()
        seen = len(socket.frames)
        await socket.send("ping")
        await asyncio.sleep(0.4)
        assert len(socket.frames) == seen


async def test_single_trade_frames_are_lost_while_the_socket_stays_up(client: Client):
    """A share of the truth never arrives, and the ids do not show it."""
    with client.exchange.faulty("lose_trades", "spot:BTCUSDT", probability=0.5):
        async with client.socket() as socket:
            await socket.subscribe(BTC)
            await socket.until(lambda _: len(socket.data_frames("trade", "update")) > 10)
            rows = [row for frame in socket.data_frames("trade", "update") for row in reversed(frame["data"])]
    span = {"from": int(rows[0]["ts"]), "to": int(rows[-1]["ts"]) + 1}
    truth = await client.truth("trades", market="spot", symbol="BTCUSDT", **span)
    assert {row["tradeId"] for row in rows} < {row["trade_id"] for row in truth}
    assert client.exchange.counters()["frames_lost"] > 0


async def test_frames_come_twice_or_in_the_wrong_order(client: Client):
    """Everything still arrives."""
    async with client.socket() as socket:
        with client.exchange.faulty("duplicate"):
            await _flowing(socket, BTC)
            await socket.until(lambda _: len(socket.data_frames("trade", "update")) >= 6)
            ids = [row["tradeId"] for row in socket.data("trade", "update")]
            assert len(set(ids)) < len(ids)
    async with client.socket() as socket:
        with client.exchange.faulty("reorder"):
            await _flowing(socket, BTC)
            await socket.until(lambda _: len(socket.data_frames("trade", "update")) >= 6)
            ids = [int(row["tradeId"]) for frame in socket.data_frames("trade") for row in reversed(frame["data"])]
            assert ids != sorted(ids)
            assert len(set(ids)) == len(ids)


async def test_a_gap_in_pseq_and_broken_frames(client: Client):
    """A lost books update shows in pseq; cut frames are no JSON."""
    async with client.socket() as socket:
        await socket.subscribe(("SPOT", "books", "BTCUSDT"))
        await socket.until(lambda _: len(socket.data_frames("books")) >= 2)
        with client.exchange.faulty("pseq_gap"):
            await socket.until(lambda _: any(fault.hits for fault in client.exchange.venue.faults.active()))
        seen = len(socket.data_frames("books"))
        await socket.until(lambda _: len(socket.data_frames("books")) >= seen + 2)
        chain = [frame["data"][0] for frame in socket.data_frames("books")]
        assert any(b["pseq"] != a["seq"] for a, b in itertools.pairwise(chain))
        with client.exchange.faulty("bad_frame"):
            await socket.until(lambda fs: isinstance(fs[-1], str) and fs[-1].startswith('{"action"'))


async def test_a_symbol_appears_and_another_leaves(client: Client, exchange: LocalExchange):
    """The lists follow; a new symbol trades from the next minute, a delisted one is unknown at once."""
    exchange.fault("listing", "spot:FRESHUSDT", price=2.5, rate=900.0)
    exchange.venue.clock.set(now_ms=exchange.now_ms() + 2 * MINUTE)
    names = {row["symbol"]: row for row in await client.data("/api/v2/spot/public/symbols")}
    assert names["FRESHUSDT"]["status"] == "online"
    async with client.socket() as socket:
        await _flowing(socket, ("SPOT", "trade", "FRESHUSDT"))
    exchange.fault("delisting", "spot:ETHUSDT")
    assert "ETHUSDT" not in {row["symbol"] for row in await client.data("/api/v2/spot/public/symbols")}
    assert await client.code(f"{SPOT}/fills", symbol="ETHUSDT") == (400, "400172")
    exchange.fault("status", "usdtm:BTCUSDT", status="maintain")
    rows = await client.data("/api/v2/mix/market/contracts", productType="USDT-FUTURES", symbol="BTCUSDT")
    assert rows[0]["symbolStatus"] == "maintain"
    with pytest.raises(ValueError, match="exists already"):
        exchange.fault("listing", "spot:BTCUSDT")


async def test_a_release_window(client: Client):
    """45001 from REST, and the sockets drop once."""
    async with client.socket() as socket:
        await _flowing(socket, BTC)
        client.exchange.fault("release_window", seconds=300)
        assert await client.code("/api/v2/public/time") == (500, "45001")
        await socket.closed()
    client.exchange.clear()
    assert await client.data("/api/v2/public/time")


async def test_a_deaf_subscription_hears_again_when_it_is_begun_again(client: Client):
    """The socket and its other subscriptions go on; a stubborn one needs another socket."""
    async with client.socket() as socket:
        await _flowing(socket, BTC, ETH)
        for stubborn in (False, True):
            since = client.exchange.now_ms()
            assert client.exchange.fault("deaf", "spot:BTCUSDT:trade", stubborn=stubborn)["subscriptions"] == 1
            await socket.until(lambda frames, t=since: _count("ETHUSDT", frames, t) >= 3)
            assert _count("BTCUSDT", socket.frames, since) == 0
            await socket.send(
                {"op": "unsubscribe", "args": [{"instType": "SPOT", "channel": "trade", "instId": "BTCUSDT"}]}
            )
            await socket.subscribe(BTC)
            if stubborn:
                await socket.until(lambda frames, t=since: _count("ETHUSDT", frames, t) >= 9)
                assert _count("BTCUSDT", socket.frames, since) == 0
            else:
                await socket.until(lambda frames, t=since: _count("BTCUSDT", frames, t) >= 2)
    async with client.socket() as socket:
        await _flowing(socket, BTC)


def _count(symbol: str, frames: list[Any], since_ms: int) -> int:
    """How many frames with data of a symbol were made after a moment."""
    data = (frame for frame in frames if isinstance(frame, dict) and "action" in frame and frame["ts"] > since_ms)
    return sum(frame["arg"]["instId"] == symbol for frame in data)


async def test_a_limit_that_falls_is_told_and_enforced(client: Client, monkeypatch: pytest.MonkeyPatch):
    """Two a second instead of twenty on one path, and the header counts down from there."""
    monkeypatch.setattr("bitget_pipeline.local.exchange.rest.time", ONE_MOMENT)
    with client.exchange.faulty("lower_limit", f"{SPOT}/fills-history", per_second=2):
        url = f"{client.exchange.rest_url}{SPOT}/fills-history"
        left = []
        for _ in range(3):
            async with client.session.get(url, params={"symbol": "BTCUSDT", "limit": 1}) as response:
                left.append((response.status, response.headers["x-mbx-used-remain-limit"]))
        assert left == [(200, "1"), (200, "0"), (429, "0")]
        assert await client.code(f"{SPOT}/fills", symbol="BTCUSDT") == (200, "00000")


@pytest.mark.parametrize(
    ("text", "place", "covered"),
    [
        ("*", {}, True),
        ("/fills", {"path": "/api/v2/spot/market/fills-history"}, True),
        ("/fills", {"path": "/api/v2/spot/market/candles"}, False),
        ("spot", {"market": "spot", "symbol": "BTCUSDT"}, True),
        ("spot:BTCUSDT", {"market": "spot", "symbol": "ETHUSDT"}, False),
        ("*:BTCUSDT:trade", {"market": "usdtm", "symbol": "BTCUSDT", "channel": "trade"}, True),
        ("*:*:trade", {"market": "usdtm", "symbol": "BTCUSDT", "channel": "books"}, False),
    ],
)
def test_targets_aim(text: str, place: dict[str, str], covered: bool):
    """Everywhere, a path, or market:symbol:channel."""
    assert Target.parse(text).covers(**place) is covered
