"""Truth, counters, clock, keys, and the process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import signal
import sys
import time
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from bitget_pipeline.errors import PortTaken, SettingsInvalid
from bitget_pipeline.local.exchange import Address, Credential, ExchangeConfig, LocalExchange, running, serve

from .client import Client

MINUTE = 60_000


async def test_truth_candles_are_the_truth_trades(client: Client):
    """Closed bars are the aggregation of their trades, each opening at the close before."""
    end = client.exchange.now_ms() // MINUTE * MINUTE
    span = {"from": end - 15 * MINUTE, "to": end}
    bars = await client.truth("candles", market="usdtm", symbol="BTCUSDT", resolution="1m", **span)
    trades = await client.truth("trades", market="usdtm", symbol="BTCUSDT", **span)
    assert len(bars) == 15
    for before, bar in itertools.pairwise(bars):
        inside = [t for t in trades if bar["open_ms"] <= t["ts_ms"] < bar["open_ms"] + MINUTE]
        prices = [float(before["close"]), *(float(t["price"]) for t in inside)]
        assert [float(bar[k]) for k in ("open", "high", "low", "close")] == [
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
        ]
        assert float(bar["base_volume"]) == pytest.approx(sum(float(t["size"]) for t in inside))


async def test_truth_knows_no_future_and_no_open_bar(client: Client):
    """`to` in the future is cut at now."""
    now = client.exchange.now_ms()
    span = {"from": now - 2 * MINUTE, "to": now + 10 * MINUTE}
    trades = await client.truth("trades", market="spot", symbol="BTCUSDT", **span)
    bars = await client.truth("candles", market="spot", symbol="BTCUSDT", **span)
    assert max(t["ts_ms"] for t in trades) <= client.exchange.now_ms()
    assert all(bar["open_ms"] + MINUTE <= client.exchange.now_ms() for bar in bars)


async def test_truth_lists_instruments_of_every_market(client: Client):
    """With steps, listing times and status."""
    rows = await client.truth("instruments")
    assert {row["market"] for row in rows} == {"spot", "usdtm", "coinm", "usdcm"}
    assert len(await client.truth("instruments", market="spot")) == 40
    assert next(r for r in rows if r["symbol"] == "BTCUSDT")["price_step"] == "0.01"


@pytest.mark.parametrize(
    "query", ["truth/trades?market=moon&symbol=X", "truth/candles?market=spot&symbol=BTCUSDT&resolution=7m"]
)
async def test_wrong_admin_questions_are_answered_with_a_sentence(client: Client, query: str):
    """HTTP 400 and what is known."""
    async with client.session.get(f"{client.exchange.rest_url}/admin/{query}") as response:
        assert response.status == 400
        assert (await response.json())["error"]


async def test_a_restart_shows_the_same_market(small: ExchangeConfig):
    """Two servers of one seed tell the same trades and bars."""
    answers: list[Any] = []
    span: dict[str, int] = {}
    for _ in range(2):
        async with running(small) as exchange, aiohttp.ClientSession() as session:
            client = Client(exchange, session)
            span = span or {"from": exchange.now_ms() - 3 * MINUTE, "to": exchange.now_ms()}
            place = {"market": "usdtm", "symbol": "ETHUSDT"}
            answers.append(
                (await client.truth("trades", **place, **span), await client.truth("candles", **place, **span))
            )
    assert answers[0] == answers[1]
    assert answers[0][0]


async def test_market_time_can_run_faster(client: Client):
    """Speed and jumps forward; never back."""
    url = f"{client.exchange.rest_url}/admin/clock"
    now = client.exchange.now_ms()
    async with client.session.post(url, json={"speed": 600, "now_ms": now + 3_600_000}) as response:
        assert (await response.json())["speed"] == 600
    before = client.exchange.now_ms()
    assert before >= now + 3_600_000
    await asyncio.sleep(0.1)
    assert client.exchange.now_ms() - before > 50_000
    client.exchange.venue.clock.set(now_ms=now, speed=1)
    assert client.exchange.now_ms() > before
    async with client.session.post(url, json={"speed": -1}) as response:
        assert response.status == 400


KEY = Credential("bg_key", "example_secret_0123456789abcdef", "pass phrase")
UNIFIED = replace(KEY, key="bg_unified", family="unified")


def _signed(path: str, key: Credential, *, stamp: str | None = None) -> dict[str, str]:
    stamp = stamp or str(int(time.time() * 1000))
    digest = hmac.new(key.secret.encode(), f"{stamp}GET{path}".encode(), hashlib.sha256).digest()
    return {
        "ACCESS-KEY": key.key,
        "ACCESS-SIGN": base64.b64encode(digest).decode(),
        "ACCESS-TIMESTAMP": stamp,
        "ACCESS-PASSPHRASE": key.passphrase,
    }


async def test_keys_are_checked_as_the_exchange_checks_them(small: ExchangeConfig):
    """Good keys are told their rights; each kind of bad one gets its own code."""
    info, assets, settings = (
        "/api/v2/spot/account/info",
        "/api/v2/spot/account/assets?coin=USDT",
        "/api/v3/account/settings",
    )
    async with running(replace(small, credentials=(KEY, UNIFIED))) as exchange, aiohttp.ClientSession() as session:

        async def code(path: str, headers: dict[str, str]) -> tuple[str, Any]:
            async with session.get(exchange.rest_url + path, headers=headers) as response:
                body = await response.json()
                return body["code"], body["data"]

        good, data = await code(info, _signed(info, KEY))
        assert good == "00000"
        assert "authorities" in data
        assert (await code(assets, _signed(assets, KEY)))[0] == "00000"
        assert (await code(settings, _signed(settings, UNIFIED)))[0] == "00000"
        wrong = {
            "40037": _signed(info, replace(KEY, key="nobody")),
            "40012": _signed(info, replace(KEY, passphrase="guess")),
            "40009": _signed(info, replace(KEY, secret="guess")),
            "40005": _signed(info, KEY, stamp="1790358274"),
            "40008": _signed(info, KEY, stamp="1790358274804"),
            "40085": _signed(info, UNIFIED),
            "40001": {},
        }
        assert {(await code(info, headers))[0] for headers in wrong.values()} == set(wrong)
        assert (await code(settings, _signed(settings, KEY)))[0] == "40084"


async def test_a_taken_port_is_one_sentence(exchange: LocalExchange, small: ExchangeConfig):
    """What, where, what to do."""
    with pytest.raises(PortTaken, match=rf"port {exchange.address.port} is in use .+ — .+"):
        async with running(replace(small, port=exchange.address.port)):
            pass


@pytest.mark.parametrize("change", [{"host": "0.0.0.0"}, {"port": 70_000}, {"spot_instruments": 9000}, {"speed": -1.0}])
async def test_senseless_settings_are_refused(small: ExchangeConfig, change: dict[str, Any]):
    """Before anything is opened."""
    with pytest.raises(SettingsInvalid):
        async with running(replace(small, **change)):
            pass


async def test_serve_says_when_it_is_ready_and_stops_when_told(small: ExchangeConfig):
    """The command line's way to run it."""
    stop, ready = asyncio.Event(), asyncio.Queue[Address]()
    task = asyncio.create_task(serve(small, ready=ready.put_nowait, stop=stop))
    address = await ready.get()
    async with aiohttp.ClientSession() as session, session.get(address.rest_url + "/api/v2/public/time") as response:
        assert response.status == 200
    stop.set()
    await task


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_as_a_process_it_announces_itself_and_stops_on_a_signal(number: signal.Signals):
    """One JSON line, exit code 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bitget_pipeline.local.exchange", "--spot-instruments", "20", "--usdtm-instruments", "20"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        async with aiohttp.ClientSession() as session, session.ws_connect(line["ws_url"]) as ws:
            await ws.send_str("ping")
            assert (await ws.receive()).data == "pong"
            process.send_signal(number)
            assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
