"""The generation in force: a settings file with a mistake changes nothing, in no process, until it is right again."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bitget_pipeline.errors import SettingsInvalid
from bitget_pipeline.exchange.contract import Credentials
from bitget_pipeline.market.instrument import Market
from bitget_pipeline.settings import (
    Tier,
    boot_in_force,
    forget_refusal,
    load_boot,
    operational_in_force,
    refused,
    remember_acceptance,
    remember_refusal,
)

KEY = {"BITGET_API_KEY": "bg_key_17", "BITGET_SECRET_KEY": "very-secret-18", "BITGET_PASSPHRASE": "phrase-19"}


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An instance's folder, and nothing else set."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    return {
        "BITGET_PIPELINE_HOME": str(home),
        "BITGET_PIPELINE_CREDENTIALS_KEY_FILE": str(tmp_path / "credentials.key"),
    }


@pytest.fixture
def write(environ: dict[str, str]) -> Callable[[str], Path]:
    """Writes the settings file, some time ago."""

    def written(text: str, *, ago: float = 60.0) -> Path:
        file = Path(environ["BITGET_PIPELINE_HOME"]) / "settings.toml"
        file.write_text(text, encoding="utf-8")
        then = file.stat().st_mtime - ago
        os.utime(file, (then, then))
        return file

    return written


WRONG = [
    (
        "symbols_per_markt = 5",
        "there is no setting symbols_per_markt ({file} line 1) — did you mean symbols_per_market?",
    ),
    ("\nsymbols_per_market = 'five'", "symbols_per_market is 'five': Input should be a valid integer"),
    ("symbols_per_market = 5\nhistory_days", "not TOML at history_days"),
    ("symbols_per_market = [5", "not TOML at symbols_per_market"),
    ("markets = ['coinm']", "BITGET_PIPELINE_MARKETS has coinm, which needs credentials ({file} line 1)"),
    (
        "symbols_per_market = 8\n[remedies.many_parts]\nhold = 40\n[remedies.backlog]\nhold = 500\n",
        "before anybody can know whether it is over (hold 500 s, gone 60 s) ({file} line 5)",
    ),
    ("\x00\xff", "not TOML"),
]


@pytest.mark.parametrize(("text", "problem"), WRONG, ids=[problem[:30] for _, problem in WRONG])
def test_a_wrong_file_changes_nothing_in_processes_old_and_new(environ, write, text, problem):
    """
    Those that run keep the generation, those that start take it from what was kept; and each says what is wrong, and where.
    """
    write("symbols_per_market = 7\nclickhouse_port = 9999\n")
    boot = boot_in_force(environ)
    before = operational_in_force(boot, environ)
    file = write(text)

    for process in (boot, boot_in_force(environ)):
        assert process.clickhouse_port == 9999
        in_force = operational_in_force(process, environ)
        assert in_force.settings == before.settings
        assert in_force.settings.generation == before.settings.generation
        assert problem.format(file=file) in str(in_force.problem)
    with pytest.raises(SettingsInvalid):  # whoever starts an instance with it is told at once
        operational_in_force(
            load_boot(environ | {"BITGET_PIPELINE_HOME": "elsewhere", "BITGET_PIPELINE_SETTINGS": str(file)})
        )

    write("symbols_per_market = 8\n")
    mended = operational_in_force(boot, environ)
    assert (mended.settings.symbols_per_market, mended.problem) == (8, None)


def test_a_file_that_is_being_written_waits_until_it_is_whole(environ, write):
    """
    Half a file may well be good TOML: what changed a moment ago is not believed yet.
    """
    write("symbols_per_market = 7\nhistory_days = 3\n")
    boot = boot_in_force(environ)
    operational_in_force(boot, environ)
    file = write("symbols_per_market = 9\n", ago=0.0)  # the second line is still to come
    now = file.stat().st_mtime

    assert operational_in_force(boot, environ, now=lambda: now + 1.0).settings.symbols_per_market == 7
    assert operational_in_force(boot, environ, now=lambda: now + 3.0).settings.symbols_per_market == 9


def test_every_setting_is_kept_as_it_was(environ, write):
    """
    Symbols, targets, days and lists come back as they were, so that the generation is the same one.
    """
    for text in (
        'pinned = ["spot:BTCUSDT", "usdtm:ETHUSDT"]\nhistory_targets = "none"\ngrid_start = "2026-01-01"\n',
        'history_targets = "spot:SOLUSDT=2022-06-01,BTCUSDT=2020-01-01"\nlive_resolutions = ["1h"]\nbooks = false\n',
        'retention = "order_books=3,trades=365"\nfailover_markets = "none"\n[remedies.backlog]\noff = true\n',
    ):
        write(text)
        before = operational_in_force(boot_in_force(environ), environ).settings
        write("nonsense")
        assert operational_in_force(boot_in_force(environ), environ).settings == before


def test_whoever_only_looks_leaves_what_is_kept_alone(environ, write):
    """
    A command in another environment must not decide what a running instance falls back to.
    """
    write("symbols_per_market = 7\n")
    boot = boot_in_force(environ)
    operational_in_force(boot, environ)
    operational_in_force(boot, environ | {"BITGET_PIPELINE_SYMBOLS_PER_MARKET": "3"}, looking=True)
    write("nonsense")
    assert operational_in_force(boot, environ).settings.symbols_per_market == 7


def test_what_is_kept_is_for_the_owner_alone_and_the_generation_holds_no_secret(environ, write):
    """
    The copy of the settings file may hold what the file holds; nobody else reads it.
    """
    write("".join(f'{name.lower()} = "{value}"\n' for name, value in KEY.items()))
    boot = boot_in_force(environ)
    assert operational_in_force(boot, environ).settings.tier is Tier.CREDENTIALED
    kept = sorted(boot.home.glob("settings.in-force.*"))
    assert [one.suffix for one in kept] == [".json", ".toml"]
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in kept)
    assert not any(secret in kept[0].read_text(encoding="utf-8") for secret in KEY.values())


def test_a_refused_key_lowers_the_tier_until_it_is_good_again_or_another_one_holds(environ):
    """
    In every process, also for a key of the environment; what is remembered does not tell the key.
    """
    environ = environ | KEY
    boot = boot_in_force(environ)
    credentials = Credentials(*KEY.values())
    assert operational_in_force(boot, environ).settings.tier is Tier.CREDENTIALED
    remember_refusal(boot.home, credentials, "the key does not exist")
    lowered = operational_in_force(boot, environ)
    assert (lowered.settings.tier, lowered.settings.markets) == (Tier.PUBLIC, (Market.SPOT, Market.USDTM))
    assert refused(boot.home, credentials) == "the key does not exist"
    assert not any(value in (boot.home / "key-refused.json").read_text(encoding="utf-8") for value in KEY.values())
    other = environ | {"BITGET_API_KEY": "another"}
    assert operational_in_force(boot_in_force(other), other).settings.tier is Tier.CREDENTIALED
    assert forget_refusal(boot.home)
    assert operational_in_force(boot, environ).settings.tier is Tier.CREDENTIALED


def test_a_new_key_in_the_file_changes_nothing_before_it_was_asked_for(environ, write):
    """
    Put, replaced or half written while everything runs; taken out it counts no more at once. One without a mistake counts
    when the exchange accepted it, in every process.
    """
    text = "".join(f'{name.lower()} = "{value}"\n' for name, value in KEY.items())
    write("")
    boot = boot_in_force(environ)

    def tier() -> Tier:
        return operational_in_force(boot, environ).settings.tier

    remember_acceptance(boot.home, None)
    write(text)
    assert tier() is Tier.PUBLIC
    remember_acceptance(boot.home, Credentials(*KEY.values()))
    assert tier() is Tier.CREDENTIALED
    write(text.replace("phrase-19", "phrase-20"))
    assert tier() is Tier.CREDENTIALED
    remember_refusal(boot.home, Credentials("bg_key_17", "very-secret-18", "phrase-20"), "wrong passphrase")
    assert tier() is Tier.CREDENTIALED  # by the key before
    write(text.replace("bitget_passphrase", "# bitget_passphrase"))
    halved = operational_in_force(boot, environ)
    assert (halved.settings.tier, "bitget_passphrase not set" in str(halved.problem)) == (Tier.CREDENTIALED, True)
    write("")
    assert tier() is Tier.PUBLIC


def test_settings_that_need_the_key_stay_in_force_when_it_is_refused(environ, write):
    """
    What was written cannot hold without the key: nothing changes, and it is said.
    """
    write('markets = ["spot", "coinm"]\n')
    environ = environ | KEY
    boot = boot_in_force(environ)
    before = operational_in_force(boot, environ).settings
    remember_refusal(boot.home, Credentials(*KEY.values()), "the key does not exist")
    after = operational_in_force(boot, environ)
    assert after.settings == before
    assert "has coinm, which needs credentials" in str(after.problem)
