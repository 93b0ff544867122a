"""REST answers, as section 2 to 5 of the protocol reference says they look."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import replace

import aiohttp
import pytest

from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running

from .client import ONE_MOMENT, Client

SPOT, MIX = "/api/v2/spot/market", "/api/v2/mix/market"
FUTURES = {"productType": "USDT-FUTURES", "symbol": "BTCUSDT"}
MINUTE = 60_000


async def test_envelope_and_server_time(client: Client):
    """Code and message are texts, requestTime a number, the time a text equal to it."""
    before = client.exchange.now_ms()
    status, body = await client.answer("/api/v2/public/time")
    assert status == 200
    assert (body["code"], body["msg"]) == ("00000", "success")
    assert before <= body["requestTime"] <= int(body["data"]["serverTime"]) <= client.exchange.now_ms()


async def test_symbols_and_contracts_spell_their_status_differently(client: Client):
    """Spot has `status` and decimals, futures `symbolStatus`, places and steps; everything is text."""
    symbols = {row["symbol"]: row for row in await client.data("/api/v2/spot/public/symbols")}
    assert len(symbols) == 40
    assert symbols["BTCUSDT"]["status"] == "online"
    assert symbols["BTCUSDT"]["pricePrecision"] == "2"
    contracts = await client.data(f"{MIX}/contracts", productType="USDT-FUTURES")
    assert len(contracts) == 40
    row = next(c for c in contracts if c["symbol"] == "BTCUSDT")
    assert row["symbolStatus"] == "normal"
    assert row["sizeMultiplier"] == "0.0001"
    assert row["supportMarginCoins"] == ["USDT"]
    assert all(isinstance(v, str) for k, v in row.items() if k != "supportMarginCoins")
    deliveries = await client.data(f"{MIX}/contracts", productType="COIN-FUTURES")
    assert {r["deliveryPeriod"] for r in deliveries} == {"", "this_quarter", "next_quarter"}


async def test_candle_rows_have_eight_columns_on_spot_and_seven_on_futures(client: Client):
    """All texts, ascending, one minute apart."""
    now = client.exchange.now_ms()
    spot = await client.data(f"{SPOT}/history-candles", symbol="BTCUSDT", granularity="1min", endTime=now, limit=200)
    mix = await client.data(f"{MIX}/history-candles", **FUTURES, granularity="1m", endTime=now, limit=200)
    for rows, columns in ((spot, 8), (mix, 7)):
        assert len(rows) == 200
        assert all(len(row) == columns and all(isinstance(v, str) for v in row) for row in rows)
        opens = [int(row[0]) for row in rows]
        assert opens == list(range(opens[0], opens[0] + 200 * MINUTE, MINUTE))
        assert all(a[4] == b[1] for a, b in itertools.pairwise(rows))
        assert all(not any(v.endswith("0") and "." in v for v in row) for row in rows)


async def test_history_ends_before_its_end_time_and_candles_show_the_forming_bar(client: Client):
    """endTime is exclusive on the open time; history has closed bars only; `candles` ends with the open one."""
    now = client.exchange.now_ms()
    edge = now // MINUTE * MINUTE
    for end, last in ((edge, edge - MINUTE), (edge - MINUTE, edge - 2 * MINUTE), (edge - 1, edge - MINUTE)):
        rows = await client.data(f"{MIX}/history-candles", **FUTURES, granularity="1m", endTime=end, limit=3)
        assert [int(row[0]) for row in rows] == [last - 2 * MINUTE, last - MINUTE, last]
    before = client.exchange.now_ms()
    rows = await client.data(f"{SPOT}/candles", symbol="BTCUSDT", granularity="1min", limit=5)
    assert before // MINUTE <= int(rows[-1][0]) // MINUTE <= client.exchange.now_ms() // MINUTE


async def test_candles_forget_and_history_remembers(client: Client):
    """Older than 30 days `candles` is empty with success; history-candles has it."""
    old = client.exchange.now_ms() - 40 * 86_400_000
    assert await client.data(f"{SPOT}/candles", symbol="BTCUSDT", granularity="1min", endTime=old) == []
    assert await client.data(f"{MIX}/candles", **FUTURES, granularity="1m", endTime=old) == []
    rows = await client.data(f"{SPOT}/history-candles", symbol="BTCUSDT", granularity="1min", endTime=old, limit=1)
    assert len(rows) == 1


async def test_before_listing_there_are_no_bars(client: Client):
    """A page across the listing has only what came after; one before it is empty."""
    young = [i for i in client.exchange.venue.universe.instruments("spot") if i.index >= 3100][-1]
    listed = young.listed_minute * MINUTE
    name = {"symbol": young.symbol, "granularity": "1min"}
    across = await client.data(f"{SPOT}/history-candles", **name, endTime=listed + 3 * MINUTE, limit=10)
    assert [int(row[0]) for row in across] == [listed, listed + MINUTE, listed + 2 * MINUTE]
    assert await client.data(f"{SPOT}/history-candles", **name, endTime=listed, limit=10) == []


async def test_fills_are_newest_first_and_agree_with_the_truth(client: Client):
    """Spot up to 500, futures up to 100, lower-case side, milliseconds, the ids of the truth."""
    for path, params, most in ((SPOT, {"symbol": "BTCUSDT"}, 500), (MIX, FUTURES, 100)):
        rows = await client.data(f"{path}/fills", **params, limit=9999)
        assert len(rows) == most
        ids = [int(row["tradeId"]) for row in rows]
        assert ids == sorted(ids, reverse=True)
        market = "spot" if path == SPOT else "usdtm"
        span = {"from": int(rows[-1]["ts"]), "to": int(rows[0]["ts"]) + 1}
        truth = await client.truth("trades", market=market, symbol="BTCUSDT", **span)
        known = {row["trade_id"]: (str(row["ts_ms"]), row["price"], row["size"], row["side"]) for row in truth}
        assert all(known[r["tradeId"]] == (r["ts"], r["price"], r["size"], r["side"]) for r in rows)


async def test_fills_history_pages_by_id_down_to_the_start(client: Client):
    """Paging with idLessThan gives every trade once; sides are capitalised, times cut to the second."""
    now = client.exchange.now_ms()
    start = now - 3 * MINUTE
    truth = await client.truth("trades", market="usdtm", symbol="BTCUSDT", **{"from": start, "to": now})
    got: list[str] = []
    below = (now - 1_435_725_920_677) << 22
    while True:
        rows = await client.data(f"{MIX}/fills-history", **FUTURES, limit=1000, idLessThan=below)
        assert all(row["side"] in ("Buy", "Sell") and row["ts"].endswith("000") for row in rows)
        got.extend(row["tradeId"] for row in rows)
        below = int(rows[-1]["tradeId"])
        if int(rows[-1]["ts"]) < start - 1000:
            break
    wanted = [row["trade_id"] for row in reversed(truth)]
    assert got[: len(wanted)] == wanted


async def test_fills_history_windows(client: Client):
    """More than seven days is refused, older than ninety is empty, a window holds what happened in it."""
    now = client.exchange.now_ms()
    path, day = f"{SPOT}/fills-history", 86_400_000
    assert await client.code(path, symbol="BTCUSDT", startTime=now - 8 * day, endTime=now) == (400, "00001")
    assert await client.code(path, symbol="BTCUSDT", startTime=now, endTime=now - 1) == (400, "40707")
    assert await client.data(path, symbol="BTCUSDT", startTime=now - 95 * day, endTime=now - 91 * day) == []
    begin = now - 30 * day
    rows = await client.data(path, symbol="ETHUSDT", startTime=begin, endTime=begin + 5_000, limit=1000)
    truth = await client.truth("trades", market="spot", symbol="ETHUSDT", **{"from": begin, "to": begin + 5_001})
    assert [row["tradeId"] for row in rows] == [row["trade_id"] for row in reversed(truth)]
    assert rows


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        (f"{SPOT}/fills", {"symbol": "NOPEUSDT"}, (400, "400172")),
        (f"{SPOT}/tickers", {"symbol": "NOPEUSDT"}, (400, "42016")),
        (f"{SPOT}/orderbook", {"symbol": "NOPEUSDT"}, (400, "40034")),
        (f"{SPOT}/candles", {"symbol": "BTCUSDT", "granularity": "1m"}, (400, "400172")),
        (f"{SPOT}/history-candles", {"symbol": "BTCUSDT", "granularity": "1min"}, (400, "400172")),
        (f"{MIX}/candles", {**FUTURES, "granularity": "1min"}, (400, "400172")),
        (f"{MIX}/fills", {**FUTURES, "symbol": "NOPEUSDT"}, (400, "40034")),
        (f"{MIX}/tickers", {"productType": "NOPE-FUTURES"}, (400, "40019")),
        (f"{MIX}/tickers", {}, (400, "40019")),
        (f"{MIX}/candles", {**FUTURES, "granularity": "1m", "startTime": 1, "endTime": 8_000_000_000}, (400, "40705")),
        (f"{SPOT}/fills", {"symbol": "BTCUSDT", "limit": "many"}, (400, "400172")),
        ("/api/v2/spot/market/nothing", {}, (400, "40404")),
        ("/api/v3/market/tickers", {}, (400, "40404")),
        ("/api/spot/v1/market/tickers", {}, (400, "30032")),
        ("/api/mix/v1/market/contracts", {}, (400, "30032")),
    ],
)
async def test_bad_requests_get_the_codes_of_reality(
    client: Client, path: str, params: dict[str, str], expected: tuple[int, str]
):
    """Codes differ between spot and futures, and unknown paths are HTTP 400."""
    assert await client.code(path, **params) == expected


async def test_a_limit_over_the_maximum_is_clamped_or_refused(small: ExchangeConfig):
    """The real behaviour is unknown, so it is a switch."""
    for choice, expected in (("clamp", (200, "00000")), ("refuse", (400, "400172"))):
        async with running(replace(small, oversized_limit=choice)) as exchange, aiohttp.ClientSession() as session:
            client, now = Client(exchange, session), exchange.now_ms()
            params = {"symbol": "BTCUSDT", "granularity": "1min", "endTime": now, "limit": 201}
            assert await client.code(f"{SPOT}/history-candles", **params) == expected


async def test_non_ascii_symbols_are_served(client: Client):
    """A percent-encoded Chinese name finds its contract."""
    client.exchange.fault("listing", "usdtm:龙马USDT")
    universe = client.exchange.venue.universe
    listed = universe.find("usdtm", "龙马USDT")
    assert listed is not None
    universe.find("usdtm", "龙马USDT").listed_minute -= 10  # type: ignore[union-attr]
    client.exchange.venue.bars.forget(listed)
    rows = await client.data(f"{MIX}/fills", productType="USDT-FUTURES", symbol="龙马USDT")
    assert rows[0]["symbol"] == "龙马USDT"


async def test_depth_is_text_on_spot_and_numbers_on_futures(client: Client):
    """Asks ascend, bids descend, and they do not cross."""
    spot = await client.data(f"{SPOT}/orderbook", symbol="BTCUSDT", limit=20)
    mix = await client.data(f"{MIX}/merge-depth", **FUTURES, precision="scale1", limit="max")
    assert isinstance(spot["asks"][0][0], str)
    assert isinstance(mix["asks"][0][0], int | float)
    assert (mix["scale"], mix["precision"], mix["isMaxPrecision"]) == ("1", "scale1", "NO")
    for book in (spot, mix):
        asks, bids = [float(p) for p, _ in book["asks"]], [float(p) for p, _ in book["bids"]]
        assert asks == sorted(asks)
        assert bids == sorted(bids, reverse=True)
        assert bids[0] < asks[0]


async def test_tickers_are_summed_from_the_bars_of_active_symbols(client: Client):
    """24 hours of an active symbol equal the sum of its 1,440 closed minutes."""
    end = 0
    while end != client.exchange.now_ms() // MINUTE * MINUTE:  # again, if a minute ended while we asked
        end = client.exchange.now_ms() // MINUTE * MINUTE
        row = (await client.data(f"{SPOT}/tickers", symbol="BTCUSDT"))[0]
    bars = await client.truth("candles", market="spot", symbol="BTCUSDT", **{"from": end - 86_400_000, "to": end})
    assert len(bars) == 1440
    assert float(row["quoteVolume"]) == pytest.approx(sum(float(b["quote_volume"]) for b in bars), rel=1e-9)
    assert row["open"] == bars[0]["open"]


async def test_funding_and_open_interest(client: Client):
    """Shapes of reference 4.8; the settled rate is the one that was current."""
    current = await client.data(f"{MIX}/current-fund-rate", **FUTURES)
    assert current[0]["fundingRateInterval"] == "8"
    history = await client.data(f"{MIX}/history-fund-rate", **FUTURES, pageSize=100, pageNo=2)
    assert len(history) == 100
    times = [int(row["fundingTime"]) for row in history]
    assert all(a - b == 8 * 3_600_000 for a, b in itertools.pairwise(times))
    interest = await client.data(f"{MIX}/open-interest", **FUTURES)
    assert interest["openInterestList"][0]["symbol"] == "BTCUSDT"
    assert len(await client.data(f"{MIX}/history-mark-candles", **FUTURES, granularity="1m")) == 100


async def test_bodies_are_compressed_when_offered(client: Client):
    """gzip on request, plain otherwise; the same JSON."""
    url = f"{client.exchange.rest_url}/api/v2/spot/public/symbols"
    async with client.session.get(url, headers={"Accept-Encoding": "gzip"}, auto_decompress=False) as response:  # type: ignore[call-arg]
        assert response.headers["Content-Encoding"] == "gzip"
    async with client.session.get(url, headers={"Accept-Encoding": "identity"}) as response:
        assert "Content-Encoding" not in response.headers
        assert json.loads(await response.text())["code"] == "00000"


@pytest.mark.parametrize("window", ["fixed", "sliding"])
async def test_over_the_limit_is_429_and_counted(small: ExchangeConfig, window: str, monkeypatch: pytest.MonkeyPatch):
    """Sixty at once: 20 a window pass, the header counts down, the rest get the body of reality."""
    monkeypatch.setattr("bitget_pipeline.local.exchange.rest.time", ONE_MOMENT)
    config = replace(small, limits=True, window=window)
    async with running(config) as exchange, aiohttp.ClientSession() as session:

        async def once() -> tuple[int, str, object]:
            async with session.get(exchange.rest_url + "/api/v2/public/time") as response:
                return response.status, response.headers["x-mbx-used-remain-limit"], await response.json()

        answers = await asyncio.gather(*(once() for _ in range(60)))
        refused = [body for status, _, body in answers if status == 429]
        assert len(refused) == 40
        assert refused[0]["code"] == "429"  # type: ignore[index]
        assert refused[0]["data"] is None  # type: ignore[index]
        assert {left for _, left, _ in answers} == {str(left) for left in range(20)}
        assert exchange.counters()["429"] == len(refused)
        assert exchange.counters()["limit_violations"] == {"rest": len(refused)}


async def exchange_instruments(session: aiohttp.ClientSession, exchange: LocalExchange) -> dict[str, set[str]]:
    """The symbols that are listed now, by market, as the ground truth has them."""
    listed: dict[str, set[str]] = {}
    async with session.get(f"{exchange.rest_url}/admin/truth/instruments") as answer:
        for line in (await answer.text()).splitlines():
            row = json.loads(line)
            listed.setdefault(row["market"], set()).add(row["symbol"])
    return listed


async def test_real_counts_are_served(small: ExchangeConfig):
    """As many symbols as in reality but for the few delisted by now, at least 60 of them over a million a market."""
    async with running(replace(small, **_REAL)) as exchange, aiohttp.ClientSession() as session:
        client = Client(exchange, session)
        spot = await client.data(f"{SPOT}/tickers")
        mix = await client.data(f"{MIX}/tickers", productType="USDT-FUTURES")
        truth = await exchange_instruments(session, exchange)
        for market, rows, configured in (("spot", spot, 3169), ("usdtm", mix, 805)):
            assert {row["symbol"] for row in rows} == truth[market]
            assert len(rows) == len(truth[market])
            assert 0.99 * configured <= len(rows) <= configured
            assert sum(float(row["usdtVolume"]) >= 1_000_000 for row in rows) >= 60
        assert {row["symbol"] for row in await client.data("/api/v2/spot/public/symbols")} == truth["spot"]
        top = sorted(spot, key=lambda row: -float(row["usdtVolume"]))
        assert [row["symbol"] for row in top[:2]] == ["BTCUSDT", "ETHUSDT"]
        assert len({row["ts"] for row in mix}) == 1


_REAL = {"spot_instruments": 3169, "usdtm_instruments": 805, "usdcm": 49, "active_per_market": 60}


async def test_loopback_only(exchange: LocalExchange):
    """The server listens on 127.0.0.1."""
    assert exchange.rest_url.startswith("http://127.0.0.1:")
