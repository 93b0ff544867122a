"""`bitget-pipeline credentials` as a person or a program calls it, against a local exchange that knows some keys."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bitget_pipeline.cli.main import main
from bitget_pipeline.exchange.contract import Credentials
from bitget_pipeline.local.exchange import Credential, ExchangeConfig, LocalExchange, running
from bitget_pipeline.settings import load_boot

from .running import COMMAND, free_port

READER = Credential("bg_reader", "secret_of_reader", "phrase of reader")
UNIFIED = replace(READER, key="bg_unified", family="unified")
KEYS = (
    READER,
    replace(READER, key="bg_second"),
    replace(READER, key="bg_trader", authorities=("stor", "stow")),
    replace(READER, key="bg_withdrawer", authorities=("stor", "wwow")),
    replace(READER, key="bg_nameless", authorities=()),
    replace(READER, key="bg_elsewhere", allowed_ips=("203.0.113.7",)),
    UNIFIED,
    replace(UNIFIED, key="bg_unified_trader", authorities=("stow",)),
)
SMALL = ExchangeConfig(
    spot_instruments=5, usdtm_instruments=5, coinm=1, usdcm=1, active_per_market=1, limits=False, credentials=KEYS
)


@dataclass
class Answer:
    """How a command ended and what it printed."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> dict[str, Any]:
        """What it told a program."""
        content: dict[str, Any] = json.loads(self.out)
        return content


@dataclass
class Instance:
    """The commands on an instance at a local exchange."""

    exchange: LocalExchange
    environ: dict[str, str]
    folder: Path
    call: Callable[..., Answer]

    async def run(self, *arguments: object, **environ: str) -> Answer:
        """`bitget-pipeline credentials ...`; what it prints never holds a secret."""
        answer = await asyncio.to_thread(self.call, *arguments, **{**self.environ, **environ})
        for credential in KEYS:
            for secret in (credential.key, credential.secret, credential.passphrase):
                assert secret not in answer.out + answer.error
        assert answer.error.count("\n") <= 5
        return answer

    async def set(self, key: Credential, *arguments: object, **environ: str) -> Answer:
        """`credentials set` with a file that holds this key."""
        return await self.run("set", "--file", self.file(key), *arguments, **environ)

    def file(self, key: Credential) -> Path:
        """A file with a key in it, for its owner alone."""
        path = self.folder / "key.txt"
        path.touch(0o600)
        path.write_text(
            f"BITGET_API_KEY={key.key}\nBITGET_SECRET_KEY='{key.secret}'\nBITGET_PASSPHRASE='{key.passphrase}'\n",
            encoding="utf-8",
        )
        return path

    def holds(self) -> Credentials | None:
        """What the settings of another process would have."""
        return load_boot(self.environ).credentials


@pytest.fixture
async def instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Instance]:
    """An instance without a key, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BITGET_", "CLICKHOUSE_", "REDIS_", "SSL_")):
            monkeypatch.delenv(name)

    def call(*arguments: object, **environ: str) -> Answer:
        with monkeypatch.context() as patched:
            for name, value in environ.items():
                patched.setenv(name, value)
            capsys.readouterr()
            with pytest.raises(SystemExit) as exited:
                main(["credentials", *map(str, arguments)])
        printed = capsys.readouterr()
        return Answer(int(exited.value.code or 0), printed.out, printed.err)

    async with running(SMALL) as exchange:
        environ = {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_PIPELINE_HOME": str(tmp_path / "home"),
            "BITGET_PIPELINE_CREDENTIALS_KEY_FILE": str(tmp_path / "keys" / "credentials.key"),
            "BITGET_REST_URL": exchange.rest_url,
            "BITGET_WS_URL": exchange.ws_url,
        }
        yield Instance(exchange, environ, tmp_path, call)


def as_credentials(key: Credential) -> Credentials:
    """The same in the client's words."""
    return Credentials(key.key, key.secret, key.passphrase)


# ---------------------------------------------------------------- what is done


async def test_a_good_key_is_tried_stored_tested_and_removed(instance: Instance) -> None:
    """
    From the first day to the last, as a person does it.
    """
    assert (await instance.run("test")).code == 78
    told = await instance.set(READER)
    assert told.code == 0
    assert told.out.startswith(
        "the key is good: it may only read (coor, cpor, wtor); classic account; works from every"
    )
    assert f"stored in {instance.folder / 'home' / 'credentials.enc'}" in told.out
    assert "tier credentialed" in told.out
    assert instance.holds() == as_credentials(READER)

    tested = await instance.run("test")
    assert tested.code == 0
    assert f"it comes from {instance.folder / 'home' / 'credentials.enc'}; tier credentialed" in tested.out

    cleared = await instance.run("clear", "--yes")
    assert cleared.code == 0
    assert "tier public" in cleared.out
    assert instance.holds() is None
    assert "there is no stored key" in (await instance.run("clear", "--yes")).out


async def test_programs_read_the_same_as_json(instance: Instance) -> None:
    """
    One line each.
    """
    home, stored = str(instance.folder / "home"), str(instance.folder / "home" / "credentials.enc")
    verdict = {"family": "unified", "read_only": True, "rights": ["read-only", "uta_mgt"], "ip_restricted": False}

    assert (await instance.set(UNIFIED, "--json")).json == {
        "home": home,
        "stored": stored,
        "key_file": instance.environ["BITGET_PIPELINE_CREDENTIALS_KEY_FILE"],
        "tier": "credentialed",
        "holds": True,
        **verdict,
    }
    assert (await instance.run("test", "--json")).json == {
        "home": home,
        "from": stored,
        "tier": "credentialed",
        **verdict,
    }
    assert (await instance.run("clear", "--yes", "--json")).json == {"home": home, "removed": True, "remaining": ""}


async def test_a_key_is_typed_without_being_shown(instance: Instance) -> None:
    """
    A real terminal: three questions, no echo.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "credentials", "set"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, **instance.environ},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""

    def answer(question: bytes, text: str) -> None:
        nonlocal shown
        while question not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, f"{text}\n".encode())

    def talk() -> tuple[int, str]:
        answer(b"API key (not shown)", READER.key)
        answer(b"Secret (not shown)", READER.secret)
        answer(b"Passphrase (not shown)", READER.passphrase)
        out, _ = process.communicate(timeout=120)
        return process.returncode, out.decode()

    try:
        code, out = await asyncio.to_thread(talk)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
    assert code == 0
    assert out.startswith("the key is good")
    for secret in (READER.key, READER.secret, READER.passphrase):
        assert secret.encode() not in shown + out.encode()
    assert instance.holds() == as_credentials(READER)


async def test_a_key_of_the_environment_wins_and_it_is_said(instance: Instance) -> None:
    """
    The new one is stored all the same.
    """
    given = {
        "BITGET_API_KEY": "bg_second",
        "BITGET_SECRET_KEY": READER.secret,
        "BITGET_PASSPHRASE": READER.passphrase,
    }
    told = await instance.set(READER, **given)
    assert told.code == 0
    assert "it does not hold: the one of BITGET_API_KEY wins over it" in told.out
    assert instance.holds() == as_credentials(READER)
    assert "the key of BITGET_API_KEY stays" in (await instance.run("clear", "--yes", **given)).out


# ---------------------------------------------------------------- what is refused


WRONG = [
    (replace(READER, key="bg_nobody"), "40037", "the key does not exist", "copy the key again"),
    (replace(READER, passphrase="guess"), "40012", "the key or the passphrase is wrong", "give the passphrase"),
    (replace(READER, secret="guess"), "40009", "the secret does not belong to the key", "copy the secret again"),
    (
        replace(READER, key="bg_elsewhere"),
        "40018",
        "this address may not use the key",
        "add this machine's public address",
    ),
]


@pytest.mark.parametrize(("key", "code", "what", "remedy"), WRONG, ids=[code for _, code, _, _ in WRONG])
async def test_a_wrong_key_is_refused_and_the_old_one_stays(
    instance: Instance, key: Credential, code: str, what: str, remedy: str
) -> None:
    """
    What is wrong with it, where it came from, what to do.
    """
    await instance.set(READER)
    before = (instance.folder / "home" / "credentials.enc").read_bytes()
    answer = await instance.set(key)

    assert (answer.code, answer.out) == (78, "")
    assert what in answer.error
    assert f"code {code}" in answer.error
    assert "(the key that was given)" in answer.error
    assert f"— {remedy}" in answer.error
    assert (instance.folder / "home" / "credentials.enc").read_bytes() == before
    assert instance.holds() == as_credentials(READER)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("40001", "give the key (BITGET_API_KEY)"),
        ("40002", "give the key's secret (BITGET_SECRET_KEY)"),
        ("40003", "report this as a defect"),
        ("40011", "give the key's passphrase (BITGET_PASSPHRASE)"),
        ("40006", "copy the key again"),
        ("40036", "give the passphrase that was chosen with this key"),
        ("40005", "report this as a defect"),
        ("40008", "set this machine's clock"),
        ("40004", "set this machine's clock"),
        ("40038", "add this machine's public address"),
        ("40014", "grant it the permission to read"),
        ("40099", "use a key of the real exchange"),
    ],
)
async def test_every_refusal_of_the_exchange_has_its_way_out(instance: Instance, code: str, remedy: str) -> None:
    """
    The codes that a good request does not provoke, answered all the same: for a key that holds, with its place.
    """
    await instance.set(READER)
    with instance.exchange.faulty("error_code", "/account/info", code=code, msg="no"):
        answer = await instance.run("test")

    assert (answer.code, answer.out) == (78, "")
    assert f"(code {code}: no) ({instance.folder / 'home' / 'credentials.enc'}) — {remedy}" in answer.error


@pytest.mark.parametrize(
    ("key", "rights"),
    [
        ("bg_trader", "may do more than read (stor, stow)"),
        ("bg_withdrawer", "may do more than read (stor, wwow)"),
        ("bg_unified_trader", "may do more than read (read-and-write, uta_mgt, uta_trade)"),
        ("bg_nameless", "the exchange names no rights"),
    ],
)
async def test_a_key_that_may_do_more_than_read_has_to_be_allowed(instance: Instance, key: str, rights: str) -> None:
    """
    Classic and unified, trading and withdrawing, or nobody knows.
    """
    dangerous = next(one for one in KEYS if one.key == key)
    refused = await instance.set(dangerous)
    assert refused.code == 78
    assert rights in refused.error
    assert "BITGET_PIPELINE_ALLOW_TRADING_KEY=true" in refused.error
    assert instance.holds() is None

    allowed = await instance.set(dangerous, BITGET_PIPELINE_ALLOW_TRADING_KEY="true")
    assert allowed.code == 0
    assert "it may do more than read, which is allowed by the settings" in allowed.out
    assert instance.holds() == as_credentials(dangerous)


async def test_an_exchange_that_cannot_be_asked_changes_nothing(instance: Instance) -> None:
    """
    No verdict, no new key; try again later.
    """
    await instance.set(READER)
    nowhere = f"http://127.0.0.1:{free_port()}"
    answer = await instance.set(replace(READER, key="bg_second"), BITGET_REST_URL=nowhere)
    assert answer.code == 75
    assert instance.holds() == as_credentials(READER)


async def test_a_key_that_does_not_fit_the_settings_is_taken_back(instance: Instance) -> None:
    """
    Half a key in the environment spoils every start: the old file is put back, and what is wrong is said.
    """
    await instance.set(READER)
    before = (instance.folder / "home" / "credentials.enc").read_bytes()
    answer = await instance.set(replace(READER, key="bg_second"), BITGET_PASSPHRASE="half")

    assert answer.code == 78
    assert "BITGET_API_KEY and BITGET_SECRET_KEY not set, but BITGET_PASSPHRASE is" in answer.error
    assert (instance.folder / "home" / "credentials.enc").read_bytes() == before


async def test_a_key_on_the_command_line_is_refused_without_being_repeated(instance: Instance) -> None:
    """
    Other users and the shell's history would have it; the screen need not.
    """
    answer = await instance.run("set", READER.key, READER.secret, READER.passphrase)
    assert answer.code == 2
    assert "never stands on the command line" in answer.error


async def test_a_file_with_a_key_is_private_and_whole(instance: Instance) -> None:
    """
    Else it is not used.
    """
    path = instance.file(READER)
    path.chmod(0o644)
    answer = await instance.run("set", "--file", path)
    assert (answer.code, answer.out) == (78, "")
    assert f"chmod 600 {path}" in answer.error

    path.chmod(0o600)
    path.write_text("BITGET_API_KEY=k\nBITGET_SECRET_KEY=\n", encoding="utf-8")
    answer = await instance.run("set", "--file", path)
    assert answer.code == 78
    assert "BITGET_SECRET_KEY and BITGET_PASSPHRASE not given" in answer.error

    answer = await instance.run("set", "--file", instance.folder / "nowhere")
    assert answer.code == 78
    assert "cannot be read: No such file" in answer.error


async def test_a_store_that_cannot_be_read_is_mended_by_storing_or_clearing(instance: Instance) -> None:
    """
    These two commands work where every other one stops.
    """
    await instance.set(READER)
    Path(instance.environ["BITGET_PIPELINE_CREDENTIALS_KEY_FILE"]).unlink()
    assert (await instance.run("test")).code == 78
    assert (await instance.set(READER)).code == 0
    assert (await instance.run("test")).code == 0

    (instance.folder / "home" / "credentials.enc").write_bytes(b"noise")
    assert (await instance.run("test")).code == 78
    assert (await instance.run("clear", "--yes")).code == 0
    assert instance.holds() is None


async def test_a_key_that_settings_need_is_not_removed_by_mistake(instance: Instance) -> None:
    """
    Nothing could be started afterwards; a key that was stolen goes all the same.
    """
    await instance.set(READER)
    (instance.folder / "home" / "settings.toml").write_text('markets = ["coinm"]\n', encoding="utf-8")
    answer = await instance.run("clear", "--yes")
    assert answer.code == 78
    assert "without the key the settings do not hold: BITGET_PIPELINE_MARKETS has coinm" in answer.error
    assert instance.holds() == as_credentials(READER)

    assert (await instance.run("clear", "--yes", "--force")).code == 0
    assert instance.holds() is None


# ---------------------------------------------------------------- what it changes


async def test_limits_show_what_a_key_changes_and_what_it_does_not(instance: Instance) -> None:
    """
    Markets and symbols, not requests; and what is planned follows the settings.
    """
    before = (await instance.run("limits", "--json", BITGET_PIPELINE_REQUEST_SHARE="0.5")).json
    await instance.set(READER)
    after = (await instance.run("limits", "--json", BITGET_PIPELINE_REQUEST_SHARE="0.5")).json

    rows = {row["what"]: row for row in after["tiers"]}
    assert rows["symbols a market"] == {"what": "symbols a market", "without_key": 30, "with_key": 150, "now": 150}
    assert rows["markets"]["now"] == "spot, usdtm, coinm, usdcm"
    assert {row["what"]: row["now"] for row in before["tiers"]}["symbols a market"] == 30
    assert (before["tier"], after["tier"]) == ("public", "credentialed")
    assert before["requests"] == after["requests"]
    planned = {row["endpoint"]: (row["published"], row["planned"]) for row in after["requests"]}
    assert planned["spot.history-candles"] == (20, 10)
    assert planned["everything together"] == (100, 50)
    assert planned["backfills together"] == (None, 40)

    text = (await instance.run("limits")).out
    assert "a key of Binance's changes nothing" in text
