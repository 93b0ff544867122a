"""Whether the exchange can be reached and accepts a key, asked of a local exchange with its levers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bitget_pipeline.cli.checks import Finding, State, exchange
from bitget_pipeline.cli.reach import check_credentials, reach, require_exchange
from bitget_pipeline.errors import CredentialsRefused, ExchangeUnavailable, RegionBlocked
from bitget_pipeline.local.exchange import Credential, ExchangeConfig, LocalExchange, running
from bitget_pipeline.settings import Boot, load_boot, load_operational

from .running import free_port

KEY = {"BITGET_API_KEY": "key", "BITGET_SECRET_KEY": "secret", "BITGET_PASSPHRASE": "phrase"}
READER = Credential("key", "secret", "phrase")
SMALL = ExchangeConfig(spot_instruments=5, usdtm_instruments=5, coinm=1, usdcm=1, active_per_market=1, limits=False)


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    """A small one that knows two keys, one that only reads and one that trades."""
    keys = (READER, replace(READER, key="trader", authorities=("coor", "stow")))
    async with running(replace(SMALL, credentials=keys)) as started:
        yield started


def boot_at(url: str, **environ: str) -> Boot:
    """Settings that point at an exchange on this machine."""
    addresses = {"BITGET_REST_URL": url, "BITGET_WS_URL": f"{url.replace('http', 'ws')}/v2/ws/public"}
    return load_boot({"BITGET_PIPELINE_EXCHANGE": "local", **addresses, **environ})


async def test_the_clock_of_a_reachable_exchange_is_compared(local_exchange: LocalExchange) -> None:
    """
    On one machine the clocks agree within the time of the answer.
    """
    reached = await asyncio.to_thread(reach, boot_at(local_exchange.rest_url))
    assert abs(reached.skew_ms) <= reached.took_ms + 50


async def test_doctor_finds_a_clock_that_is_off(local_exchange: LocalExchange) -> None:
    """
    More than a second is a problem, and what to do about it is said. How far it is off is known within half of the time that
    the answer took.
    """
    boot = boot_at(local_exchange.rest_url)
    with local_exchange.faulty("clock_skew", skew_ms=60_000):
        findings = await asyncio.to_thread(lambda: list(exchange(boot, load_operational(boot, {}))))

    clock = next(finding for finding in findings if finding.name == "clock")
    assert clock.state is State.PROBLEM
    said = re.fullmatch(r"our clock is ([0-9.]+) s behind the exchange's", clock.said)
    assert said is not None
    assert 50 < float(said[1]) < 70
    assert "timedatectl" in clock.remedy


async def test_doctor_tells_a_socket_that_answers_from_one_that_does_not(local_exchange: LocalExchange) -> None:
    """
    Requests may pass where websockets do not: each is tried by itself.
    """

    def websocket(boot: Boot) -> Finding:
        return next(one for one in exchange(boot, load_operational(boot, {})) if one.name == "websocket")

    found = await asyncio.to_thread(websocket, boot_at(local_exchange.rest_url))
    assert found.state is State.FINE
    assert "/v2/ws/public answers in" in found.said

    nobody = f"ws://127.0.0.1:{free_port()}/v2/ws/public"
    found = await asyncio.to_thread(websocket, boot_at(local_exchange.rest_url, BITGET_WS_URL=nobody))
    assert found.state is State.PROBLEM
    assert nobody in found.said
    assert "firewall" in found.remedy


async def test_a_blocked_region_is_one_sentence_that_names_the_demo(local_exchange: LocalExchange) -> None:
    """
    No retries and no riddles.
    """
    with local_exchange.faulty("region_block"), pytest.raises(RegionBlocked) as raised:
        await asyncio.to_thread(require_exchange, boot_at(local_exchange.rest_url))

    assert str(raised.value) == (
        f"Bitget does not serve this region ({local_exchange.rest_url}) — `make demo` runs everything on a local exchange"
    )


async def test_an_exchange_that_is_down_is_one_sentence_that_names_the_demo() -> None:
    """
    Whatever keeps the answer away, the way out is named.
    """
    with pytest.raises(ExchangeUnavailable) as raised:
        await asyncio.to_thread(require_exchange, boot_at(f"http://127.0.0.1:{free_port()}"))

    line = str(raised.value)
    assert line.startswith("Bitget cannot be reached: ")
    assert line.count("cannot be reached") == 1
    assert "\n" not in line
    assert line.endswith("`make demo` runs everything on a local exchange")


@pytest.mark.parametrize("kind", ["html_502", "bad_json", "empty_string"])
async def test_an_exchange_that_talks_nonsense_is_one_sentence_that_names_the_demo(
    local_exchange: LocalExchange, kind: str
) -> None:
    """
    A web page, half an answer or an empty string in it: nothing to start on.
    """
    with local_exchange.faulty(kind), pytest.raises(ExchangeUnavailable) as raised:
        await asyncio.to_thread(require_exchange, boot_at(local_exchange.rest_url))

    line = str(raised.value)
    assert line.startswith("Bitget cannot be reached: ")
    assert "\n" not in line
    assert line.endswith("`make demo` runs everything on a local exchange")


async def test_a_proxy_that_is_down_keeps_the_exchange_away(local_exchange: LocalExchange) -> None:
    """
    Requests really go through the proxy, and its password is in no error.
    """
    boot = boot_at(local_exchange.rest_url, BITGET_PIPELINE_PROXY=f"http://me:hush@127.0.0.1:{free_port()}")
    with pytest.raises(ExchangeUnavailable) as raised:
        await asyncio.to_thread(require_exchange, boot)
    assert "hush" not in str(raised.value)


async def test_a_reading_key_is_accepted(local_exchange: LocalExchange) -> None:
    """
    The exchange verifies our signature and shows what the key may do.
    """
    assert (await asyncio.to_thread(check_credentials, boot_at(local_exchange.rest_url, **KEY))).read_only


async def test_a_wrong_key_is_refused_without_being_shown(local_exchange: LocalExchange) -> None:
    """
    A wrong secret stops before anything is started.
    """
    boot = boot_at(local_exchange.rest_url, **{**KEY, "BITGET_SECRET_KEY": "wrong-one"})
    with pytest.raises(CredentialsRefused) as raised:
        await asyncio.to_thread(require_exchange, boot)
    assert "wrong-one" not in str(raised.value)


async def test_a_trading_key_needs_to_be_allowed(local_exchange: LocalExchange) -> None:
    """
    We read only; a key that may do more is refused, with its rights, unless a person allows it.
    """
    keys = {**KEY, "BITGET_API_KEY": "trader"}
    with pytest.raises(CredentialsRefused, match=r"may do more than read \(coor, stow\)"):
        await asyncio.to_thread(check_credentials, boot_at(local_exchange.rest_url, **keys))

    allowed = boot_at(local_exchange.rest_url, **keys, BITGET_PIPELINE_ALLOW_TRADING_KEY="true")
    assert not (await asyncio.to_thread(check_credentials, allowed)).read_only


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the checkout, whose .env a developer may have filled in."""
    monkeypatch.chdir(tmp_path)
