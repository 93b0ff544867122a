"""The Binance side of the local exchange: what it lists, answers, sends and limits; and that it lives by itself."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import numpy as np
import pytest

from bitget_pipeline.errors import PortTaken
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.local.exchange.binance.limits import PATIENCE, Verdict, Weights
from bitget_pipeline.local.exchange.binance.market import joined_counts, joins

from .binance import BinanceClient, events, quiet
from .client import Client

MINUTE = 60_000
BASES = {"spot": "/api/v3", "usdtm": "/fapi/v1"}


@pytest.fixture
def playing(small: ExchangeConfig) -> ExchangeConfig:
    """The small exchange, with Binance beside it."""
    return replace(small, binance=True)


@pytest.fixture
async def both(playing: ExchangeConfig) -> AsyncIterator[LocalExchange]:
    """It, running."""
    async with running(playing) as exchange:
        yield exchange


@pytest.fixture
async def binance(both: LocalExchange) -> AsyncIterator[BinanceClient]:
    """A bare client of its Binance side."""
    async with aiohttp.ClientSession() as session:
        yield BinanceClient(both, session)


# ---------------------------------------------------------------- the market


def test_joined_trades_can_be_counted_without_making_them() -> None:
    """For any number of trades in a minute."""
    counts = np.arange(3000)
    assert joined_counts(counts).tolist() == [count - len(joins(count)) for count in counts.tolist()]


async def test_it_lists_a_part_of_the_market_under_names_of_its_own(binance: BinanceClient):
    """By the thousand, renamed, lacking, and quoted in USDC among the futures."""
    spot = {row["symbol"]: row for row in (await binance.data("spot", "/api/v3/exchangeInfo"))["symbols"]}
    futures = {row["symbol"]: row for row in (await binance.data("usdtm", "/fapi/v1/exchangeInfo"))["symbols"]}
    assert {"BTCUSDT", "PEPEUSDT"} <= spot.keys()
    assert {"BTCUSDT", "1000PEPEUSDT", "BTCUSDC"} <= futures.keys()
    assert "BGBUSDT" not in spot
    assert "PEPEUSDT" not in futures
    assert spot["BTCUSDT"]["filters"][0]["tickSize"] == "0.01000000"
    assert futures["BTCUSDT"]["contractType"] == "PERPETUAL"


async def test_prices_are_close_but_trades_are_its_own(binance: BinanceClient):
    """The same hidden price within some basis points; other counts, sizes and ids, a thousandfold where it counts so."""
    bitget = Client(binance.exchange, binance.session)
    now = binance.exchange.now_ms()
    span = {"from": now - 10 * MINUTE, "to": now - 5 * MINUTE}
    for market, theirs, ours, factor in (
        ("spot", "BTCUSDT", "BTCUSDT", 1),
        ("usdtm", "PEPEUSDT", "1000PEPEUSDT", 1000),
    ):
        one = await bitget.truth("candles", market=market, symbol=theirs, **span)
        two = await binance.truth("candles", market=market, symbol=ours, **span)
        for a, b in zip(one, two, strict=True):
            assert a["open_ms"] == b["open_ms"]
            assert float(b["close"]) == pytest.approx(float(a["close"]) * factor, rel=0.01)
            assert a["base_volume"] != b["base_volume"] or a["base_volume"] == "0"


async def test_its_bars_are_its_trades_and_open_at_the_first(binance: BinanceClient):
    """Bars of one and of five minutes are sums of the trades; a bar opens at its first trade."""
    end = binance.exchange.now_ms() // (5 * MINUTE) * 5 * MINUTE
    place = {"market": "usdtm", "symbol": "ETHUSDT", "from": end - 15 * MINUTE, "to": end}
    trades = await binance.truth("trades", **place)
    for resolution, length in (("1m", MINUTE), ("5m", 5 * MINUTE)):
        bars = await binance.truth("candles", resolution=resolution, **place)
        assert len(bars) == 15 * MINUTE // length
        for bar in bars:
            inside = [t for t in trades if bar["open_ms"] <= t["ts_ms"] < bar["open_ms"] + length]
            prices = [float(t["price"]) for t in inside]
            assert [float(bar[k]) for k in ("open", "high", "low", "close")] == [
                prices[0],
                max(prices),
                min(prices),
                prices[-1],
            ]
            assert float(bar["base_volume"]) == pytest.approx(sum(float(t["size"]) for t in inside))


async def test_its_ids_have_no_holes_and_joined_trades_are_whole(binance: BinanceClient):
    """Single and joined ids grow by one; joined trades hold single ones of one price, time and side, each once."""
    now = binance.exchange.now_ms()
    place = {"market": "spot", "symbol": "BTCUSDT", "from": now - 3 * MINUTE, "to": now}
    singles = await binance.data("spot", "/api/v3/historicalTrades", symbol="BTCUSDT", limit=1000)
    first = singles[0]["id"]
    assert [row["id"] for row in singles] == list(range(first, first + len(singles)))
    told = {int(row["trade_id"]): row for row in await binance.truth("trades", **place)}
    joined = await binance.truth("trades", kind="joined", **place)
    numbers = [int(row["trade_id"]) for row in joined]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(joined) < len(told)
    rows = await binance.data("spot", "/api/v3/aggTrades", symbol="BTCUSDT", fromId=numbers[0], limit=50)
    assert rows[0]["f"] in told
    for row, after in itertools.pairwise(rows):
        assert after["f"] == row["l"] + 1
        inside = [told[number] for number in range(row["f"], row["l"] + 1)]
        assert {float(one["price"]) for one in inside} == {float(row["p"])}
        assert {one["ts_ms"] for one in inside} == {row["T"]}
        assert {one["side"] == "sell" for one in inside} == {row["m"]}
        assert sum(float(one["size"]) for one in inside) == pytest.approx(float(row["q"]))


async def test_a_restart_shows_the_same_trades(playing: ExchangeConfig):
    """Numbers too."""
    answers: list[Any] = []
    span: dict[str, int] = {}
    for _ in range(2):
        async with running(playing) as exchange, aiohttp.ClientSession() as session:
            client = BinanceClient(exchange, session)
            span = span or {"from": exchange.now_ms() - 2 * MINUTE, "to": exchange.now_ms()}
            answers.append(await client.truth("trades", market="usdtm", symbol="BTCUSDT", kind="joined", **span))
    assert answers[0]
    assert answers[0] == answers[1]


# ---------------------------------------------------------------- REST


@pytest.mark.parametrize("market", BASES)
async def test_klines_come_oldest_first_with_both_ends_included(binance: BinanceClient, market: str):
    """Twelve columns; `startTime` goes upward, `endTime` alone downward, neither gives the newest."""
    path = f"{BASES[market]}/klines"
    end = binance.exchange.now_ms() // MINUTE * MINUTE - 30 * MINUTE
    ask = {"symbol": "BTCUSDT", "interval": "1m"}
    upward = await binance.data(market, path, **ask, startTime=end - 9 * MINUTE, endTime=end, limit=5)
    downward = await binance.data(market, path, **ask, endTime=end, limit=5)
    before = binance.exchange.now_ms()
    newest = await binance.data(market, path, **ask, limit=2)
    assert [row[0] for row in upward] == [end - (9 - n) * MINUTE for n in range(5)]
    assert [row[0] for row in downward] == [end - (4 - n) * MINUTE for n in range(5)]
    assert all(len(row) == 12 and row[6] == row[0] + MINUTE - 1 for row in upward + downward)
    assert newest[-1][6] >= before - 1000


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("klines", {"symbol": "NOPEUSDT", "interval": "1m"}, -1121),
        ("klines", {"symbol": "btcusdt", "interval": "1m"}, -1121),
        ("klines", {"symbol": "BTCUSDT", "interval": "7m"}, -1120),
        ("klines", {"interval": "1m"}, -1102),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "x"}, -1100),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "0"}, -1130),
        ("aggTrades", {"symbol": "BTCUSDT", "fromId": ""}, -1105),
    ],
)
@pytest.mark.parametrize("market", BASES)
async def test_wrong_questions_get_their_code(
    binance: BinanceClient, market: str, path: str, params: dict[str, str], code: int
):
    """HTTP 400 and the body of an error, without an envelope."""
    status, body, _ = await binance.answer(market, f"{BASES[market]}/{path}", **params)
    assert (status, body["code"]) == (400, code)
    assert body["msg"]


async def test_futures_refuse_a_window_of_more_than_an_hour(binance: BinanceClient):
    """Spot does not."""
    now = binance.exchange.now_ms()
    span = {"symbol": "ETHUSDT", "startTime": now - 7_200_001, "endTime": now - 3_600_000, "limit": 1}
    assert (await binance.answer("usdtm", "/fapi/v1/aggTrades", **span))[0] == 400
    assert (await binance.answer("spot", "/api/v3/aggTrades", **span))[0] == 200


def test_weights_are_counted_refused_and_banned():
    """Within the minute 429 with the seconds to its end; who goes on is banned; the next minute starts anew."""
    weights = Weights(per_minute=100, ban_seconds=120.0)
    assert weights.take("a", 99, now=630.0) == (Verdict.SERVED, 99, 0)
    assert weights.take("b", 100, now=630.0)[0] is Verdict.SERVED
    assert weights.take("a", 2, now=640.0) == (Verdict.REFUSED, 101, 20)
    for _ in range(PATIENCE - 1):
        assert weights.take("a", 1, now=641.0)[0] is Verdict.REFUSED
    assert weights.take("a", 1, now=642.0)[0] is Verdict.BANNED
    assert weights.take("a", 1, now=700.0)[0] is Verdict.BANNED
    assert weights.take("a", 1, now=765.0) == (Verdict.SERVED, 1, 0)


async def test_the_used_weight_stands_in_a_header_and_its_end_is_429(playing: ExchangeConfig):
    """Then 418; each host has a budget of its own."""
    async with running(replace(playing, limits=True)) as exchange, aiohttp.ClientSession() as session:
        client = BinanceClient(exchange, session)
        seen: list[int] = []
        for _ in range(2000):  # the minute may end meanwhile
            status, body, headers = await client.answer("usdtm", "/fapi/v1/aggTrades", symbol="BTCUSDT", limit=1)
            seen.append(status)
            assert int(headers["X-MBX-USED-WEIGHT-1M"]) > 0
            if status != 200:
                assert int(headers["Retry-After"]) > 0
                assert body["code"] == -1003
            if status == 418:
                break
        assert set(seen) == {200, 429, 418}
        assert (await client.answer("spot", "/api/v3/ping"))[0] == 200


# ---------------------------------------------------------------- sockets


@pytest.mark.parametrize(("market", "path", "kind"), [("spot", "/ws", "trade"), ("usdtm", "/market/ws", "aggTrade")])
async def test_trades_flow_one_by_one_without_a_hole(binance: BinanceClient, market: str, path: str, kind: str):
    """Nothing on subscribing; then each id after the other, and the values of the truth."""
    number = "t" if kind == "trade" else "a"
    async with binance.socket(market, path) as socket:
        await socket.send({"method": "SUBSCRIBE", "params": [f"btcusdt@{kind}"], "id": 7})
        await socket.until(lambda frames: len(events(socket, kind)) > 20)
        got = events(socket, kind)
    assert socket.frames[0] == {"result": None, "id": 7}
    assert [row[number] for row in got] == list(range(got[0][number], got[0][number] + len(got)))
    span = {"from": got[0]["T"], "to": got[-1]["T"] + 1}
    what = {"kind": "joined"} if kind == "aggTrade" else {}
    told = {
        int(row["trade_id"]): row
        for row in await binance.truth("trades", market=market, symbol="BTCUSDT", **what, **span)
    }
    for row in got:
        true = told[row[number]]
        assert (float(row["p"]), float(row["q"]), row["T"]) == (
            float(true["price"]),
            float(true["size"]),
            true["ts_ms"],
        )
        assert row["m"] == (true["side"] == "sell")


async def test_bars_are_pushed_while_they_form_and_once_more_when_they_close(binance: BinanceClient):
    """The last push says so; it is the truth's bar."""
    binance.exchange.venue.clock.set(speed=60)
    async with binance.socket("usdtm", "/market/ws/btcusdt@kline_1m") as socket:
        await socket.until(lambda frames: any(event["k"]["x"] for event in events(socket, "kline")))
        final = next(event["k"] for event in events(socket, "kline") if event["k"]["x"])
    binance.exchange.venue.clock.set(speed=1)
    span = {"market": "usdtm", "symbol": "BTCUSDT", "from": final["t"], "to": final["t"] + MINUTE}
    (bar,) = await binance.truth("candles", **span)
    assert [float(final[k]) for k in "ohlcvq"] == [
        float(bar[k]) for k in ("open", "high", "low", "close", "base_volume", "quote_volume")
    ]


@pytest.mark.parametrize(
    ("market", "path", "stream"),
    [
        ("usdtm", "/ws", "btcusdt@aggTrade"),
        ("usdtm", "/public/ws", "btcusdt@kline_1m"),
        ("usdtm", "/market/ws", "btcusdt@trade"),
        ("usdtm", "/private/ws", "btcusdt@aggTrade"),
        ("spot", "/ws", "BTCUSDT@trade"),
        ("spot", "/ws", "nopeusdt@trade"),
    ],
)
async def test_a_stream_where_it_is_not_carried_is_acknowledged_and_silent(
    binance: BinanceClient, market: str, path: str, stream: str
):
    """The main trap: no error tells."""
    async with binance.socket(market, path) as socket:
        await socket.send({"method": "SUBSCRIBE", "params": [stream], "id": 1})
        await socket.until(lambda frames: {"result": None, "id": 1} in frames)
        await quiet(socket)


async def test_combined_connections_wrap_their_events(binance: BinanceClient):
    """With the stream's name; streams can stand in the address."""
    async with binance.socket("spot", "/stream?streams=btcusdt@trade/ethusdt@trade") as socket:
        await socket.until(lambda frames: len({frame["stream"] for frame in frames}) == 2)
    assert socket.frames[0]["data"]["e"] == "trade"


async def test_control_frames_are_answered_or_refused(binance: BinanceClient):
    """A text ping is an error like any other noise."""
    async with binance.socket("spot", "/ws") as socket:
        await socket.send("ping")
        await socket.send({"method": "DANCE", "id": 4})
        await socket.send({"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 5})
        await socket.until(lambda frames: len(frames) >= 3)
        await socket.send({"method": "LIST_SUBSCRIPTIONS", "id": 6})
        await socket.until(lambda frames: {"result": ["btcusdt@kline_1m"], "id": 6} in frames)
    assert [frame.get("code") for frame in socket.frames[:3]] == [3, 2, None]


async def test_too_many_messages_a_second_end_a_connection(playing: ExchangeConfig):
    """More than five on spot."""
    async with running(replace(playing, limits=True)) as exchange, aiohttp.ClientSession() as session:
        async with BinanceClient(exchange, session).socket("spot", "/ws") as socket:
            await socket.flood({"method": "LIST_SUBSCRIPTIONS", "id": 1})
            await socket.closed()
        assert exchange.binance.counters()["limit_violations"] == {"ws_messages": 1}


async def test_who_does_not_answer_pings_is_cut_off(playing: ExchangeConfig):
    """The server pings with ping frames; a client that answers stays, one that does not goes."""
    config = replace(playing, binance_ping_seconds=0.1, binance_pong_seconds=2.0)
    async with running(config) as exchange, aiohttp.ClientSession() as session:
        url = exchange.binance.address.ws_url("spot")
        async with BinanceClient(exchange, session).socket("spot", "/ws/btcusdt@trade") as answering:
            async with session.ws_connect(url, autoping=False) as deaf:
                message = await deaf.receive(timeout=60)
                while message.type is aiohttp.WSMsgType.PING:
                    message = await deaf.receive(timeout=60)
                assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            count = len(answering.frames)
            await answering.until(lambda frames: len(frames) > count + 3)
            assert None not in answering.frames


@pytest.mark.parametrize("standstill", [False, True])
async def test_the_end_of_a_connection_is_announced_on_spot(playing: ExchangeConfig, standstill: bool):
    """And comes; also when the exchange stood still over both moments."""
    config = replace(playing, connection_lifetime=0.6, binance_notice_seconds=0.4)
    async with (
        running(config) as exchange,
        aiohttp.ClientSession() as session,
        BinanceClient(exchange, session).socket("spot", "/stream?streams=btcusdt@trade") as socket,
    ):
        if standstill:
            time.sleep(1.0)  # noqa: ASYNC251 — that is what is tried
        await socket.closed()
    assert "!serverShutdown" in [frame["stream"] for frame in socket.frames if frame]


# ---------------------------------------------------------------- levers


async def test_one_side_is_dark_while_the_other_lives(binance: BinanceClient):
    """Requests are cut off, sockets too, new ones as well; beside it everything goes on, either way round."""
    bitget = Client(binance.exchange, binance.session)
    async with bitget.socket() as theirs, binance.socket("spot", "/ws/btcusdt@trade") as ours:
        await theirs.subscribe(("SPOT", "trade", "BTCUSDT"))
        await ours.until(lambda frames: len(frames) > 2)
        with binance.exchange.faulty("dark"):
            await theirs.closed()
            with pytest.raises(aiohttp.ClientError):
                await bitget.answer("/api/v2/public/time")
            with pytest.raises(aiohttp.ClientError):
                async with bitget.socket():
                    pass
            count = len(ours.frames)
            await ours.until(lambda frames: len(frames) > count + 5)
            assert (await binance.answer("spot", "/api/v3/time"))[0] == 200
        with binance.exchange.binance.faulty("dark"):
            await ours.closed()
            with pytest.raises(aiohttp.ClientError):
                await binance.answer("usdtm", "/fapi/v1/time")
            with pytest.raises(aiohttp.ClientError):
                async with binance.socket("usdtm", "/market/ws"):
                    pass
            assert (await bitget.answer("/api/v2/public/time"))[0] == 200
    assert (await binance.answer("usdtm", "/fapi/v1/time"))[0] == 200


async def test_its_levers_can_be_pulled_over_http(binance: BinanceClient):
    """`venue` says whose; a lever that this side lacks is refused with a sentence."""
    url = f"{binance.exchange.rest_url}/admin/faults"
    async with binance.session.post(url, json={"venue": "binance", "kind": "region_block"}) as response:
        assert response.status == 200
    assert (await binance.answer("spot", "/api/v3/time"))[0] == 451
    assert (await Client(binance.exchange, binance.session).answer("/api/v2/public/time"))[0] == 200
    async with binance.session.delete(url, params={"venue": "binance"}) as response:
        assert await response.json() == {"cleared": 1}
    async with binance.session.post(url, json={"venue": "binance", "kind": "pseq_gap"}) as response:
        assert response.status == 400
    async with binance.session.get(
        f"{binance.exchange.rest_url}/admin/counters", params={"venue": "binance"}
    ) as response:
        assert (await response.json())["requests"]["/api/v3/time"] == 1


@pytest.mark.parametrize(
    ("kind", "status"), [("rate_limit_storm", 429), ("html_502", 502), ("region_block", 451), ("error_code", 500)]
)
async def test_levers_of_rest_show_as_they_would_there(binance: BinanceClient, kind: str, status: int):
    """For the market that is aimed at alone."""
    with binance.exchange.binance.faulty(kind, "spot"):
        assert (await binance.answer("spot", "/api/v3/time"))[0] == status
        assert (await binance.answer("usdtm", "/fapi/v1/time"))[0] == 200


async def test_a_lost_trade_shows_as_a_hole_in_the_ids(binance: BinanceClient):
    """Unlike Bitget's."""
    async with binance.socket("spot", "/ws/btcusdt@trade") as socket:
        await socket.until(lambda frames: len(frames) > 3)
        with binance.exchange.binance.faulty("lose_trades"):
            await socket.until(lambda frames: binance.exchange.binance.counters()["frames_lost"] >= 2)
        count = len(socket.frames)
        await socket.until(lambda frames: len(frames) > count + 2)
    numbers = [event["t"] for event in events(socket, "trade")]
    assert max(b - a for a, b in itertools.pairwise(numbers)) > 1


async def test_an_exchange_that_does_not_play_it_says_so(client: Client):
    """With how to have it."""
    with pytest.raises(ValueError, match="binance=True"):
        client.exchange.binance  # noqa: B018
    async with client.session.get(
        f"{client.exchange.rest_url}/admin/counters", params={"venue": "binance"}
    ) as response:
        assert response.status == 400


async def test_a_taken_port_of_its_own_is_one_sentence(both: LocalExchange, playing: ExchangeConfig):
    """What, where, what to do."""
    taken = replace(playing, binance_spot_port=both.binance.address.spot_port)
    with pytest.raises(PortTaken, match="Binance side"):
        async with running(taken):
            pass
