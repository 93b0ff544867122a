"""The key in the instance's folder: sealed, private, read by the settings, and never mistaken for another."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bitget_pipeline.errors import SettingsInvalid
from bitget_pipeline.exchange.contract import Credentials
from bitget_pipeline.settings import Boot, KeyStore, Tier, load_boot, load_operational

SECRETS = ("bg_key_17", "very-secret-18", "phrase 19")
CREDENTIALS = Credentials(*SECRETS)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the checkout, whose .env a developer may have filled in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An instance with a key file of its own."""
    return {
        "BITGET_PIPELINE_HOME": str(tmp_path / "home"),
        "BITGET_PIPELINE_CREDENTIALS_KEY_FILE": str(tmp_path / "keys" / "credentials.key"),
    }


@pytest.fixture
def store(environ: dict[str, str]) -> KeyStore:
    """Its store, with a key in it."""
    store = load_boot(environ).key_store
    store.write(CREDENTIALS)
    return store


def test_what_is_stored_is_sealed_and_private(store: KeyStore) -> None:
    """
    Neither file shows a secret, and nobody else may open them.
    """
    for path in (store.path, store.key_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()]
    assert stat.S_IMODE(store.key_file.parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in store.home.iterdir()) == ["credentials.enc"]
    assert store.read() == CREDENTIALS
    assert not [secret for secret in SECRETS if secret in repr(store) + repr(store.read())]


def test_settings_read_the_stored_key(store: KeyStore, environ: dict[str, str]) -> None:
    """
    Everything that loads settings has it, as if it were set.
    """
    boot = load_boot(environ)

    assert boot.credentials == CREDENTIALS
    assert boot.credentials_from == str(store.path)
    assert load_operational(boot, environ).tier is Tier.CREDENTIALED
    assert not [secret for secret in SECRETS if secret in repr(boot) + boot.model_dump_json()]


def test_environment_and_settings_file_win_over_the_stored_key(store: KeyStore, environ: dict[str, str]) -> None:
    """
    As a whole: halves of two keys are never mixed.
    """
    others = {"BITGET_API_KEY": "other", "BITGET_SECRET_KEY": "others", "BITGET_PASSPHRASE": "others'"}
    boot = load_boot({**environ, **others})
    assert boot.credentials == Credentials("other", "others", "others'")
    assert boot.credentials_from == "BITGET_API_KEY"

    with pytest.raises(SettingsInvalid, match="BITGET_API_KEY and BITGET_SECRET_KEY not set"):
        load_boot({**environ, "BITGET_PASSPHRASE": "others'"})

    lines = [f'{name.lower()} = "{value}"' for name, value in others.items()]
    (store.home / "settings.toml").write_text("\n".join(lines), encoding="utf-8")
    boot = load_boot(environ)
    assert boot.credentials == Credentials("other", "others", "others'")
    assert boot.credentials_from.endswith("settings.toml line 1")


def test_a_key_that_comes_and_goes_is_another_generation_for_what_runs(environ: dict[str, str]) -> None:
    """
    A process that read its boot settings long ago sees both, and the live run is replaced.
    """
    boot = load_boot(environ)
    without = load_operational(boot, environ)
    boot.key_store.write(CREDENTIALS)
    with_key = load_operational(boot, environ)
    later_boot = load_boot(environ)
    boot.key_store.remove()

    assert (without.tier, with_key.tier) == (Tier.PUBLIC, Tier.CREDENTIALED)
    assert with_key.generation != without.generation
    for process in (boot, later_boot):
        assert load_operational(process, environ) == without


def complaint(environ: dict[str, str]) -> str:
    """The one line that a person reads."""
    with pytest.raises(SettingsInvalid) as raised:
        load_boot(environ)
    line = str(raised.value)
    assert "\n" not in line
    assert not [secret for secret in SECRETS if secret in line]
    return line


@pytest.mark.parametrize("which", ["path", "key_file"])
def test_a_file_that_others_can_read_is_refused(store: KeyStore, environ: dict[str, str], which: str) -> None:
    """
    With the command that mends it.
    """
    path: Path = getattr(store, which)
    path.chmod(0o640)
    assert complaint(environ) == (
        f"others on this machine may read or change this file (mode 0640) ({path}) — chmod 600 {path}"
    )


def test_without_its_key_file_the_stored_key_is_worth_nothing(store: KeyStore, environ: dict[str, str]) -> None:
    """
    A copy of the folder alone cannot be read; what to do about a lost key file is said.
    """
    store.key_file.unlink()
    line = complaint(environ)
    assert line.startswith(
        f"the stored Bitget key cannot be read: the file that decrypts it is missing ({store.key_file})"
    )
    assert "credentials set" in line

    store.write(CREDENTIALS)
    assert store.read() == CREDENTIALS


@pytest.mark.parametrize("content", [b"", b"not a key at all", b"\xff" * 44])
def test_a_damaged_key_file_is_named(store: KeyStore, environ: dict[str, str], content: bytes) -> None:
    """
    And not replaced by the way: other folders may need the right one.
    """
    store.key_file.write_bytes(content)
    assert complaint(environ).startswith(f"the file that decrypts stored keys is damaged ({store.key_file})")
    with pytest.raises(SettingsInvalid, match="damaged"):
        store.write(CREDENTIALS)


def test_a_damaged_or_foreign_store_is_named(store: KeyStore, environ: dict[str, str], tmp_path: Path) -> None:
    """
    Bytes that were changed, and bytes that another key file sealed.
    """
    sealed = store.path.read_bytes()
    store.path.write_bytes(sealed[:40] + (b"B" if sealed[40:41] == b"A" else b"A") + sealed[41:])
    assert "cannot be decrypted with" in complaint(environ)

    KeyStore(store.home, tmp_path / "another.key", store.exchange).write(CREDENTIALS)
    assert "cannot be decrypted with" in complaint(environ)


def test_a_real_key_is_not_shown_to_the_local_exchange(store: KeyStore, environ: dict[str, str]) -> None:
    """
    A key is sealed together with the exchange that accepted it.
    """
    line = complaint({**environ, "BITGET_PIPELINE_EXCHANGE": "local"})
    assert line.startswith(f"the stored key is for the exchange 'bitget', not 'local' ({store.path})")


def test_the_key_file_does_not_lie_beside_what_it_opens(environ: dict[str, str], tmp_path: Path) -> None:
    """
    A copy of the folder would carry both.
    """
    inside = {**environ, "BITGET_PIPELINE_CREDENTIALS_KEY_FILE": str(tmp_path / "home" / "credentials.key")}
    with pytest.raises(SettingsInvalid, match="should not be in"):
        load_boot(inside).key_store.write(CREDENTIALS)
    assert not (tmp_path / "home").exists()


def test_the_key_file_is_by_default_the_users(tmp_path: Path) -> None:
    """
    In the folder for configuration, which XDG_CONFIG_HOME may move.
    """
    moved: Boot = load_boot({"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert moved.key_store.key_file == tmp_path / "config" / "bitget_pipeline" / "credentials.key"
    assert load_boot({}).key_store.key_file == Path.home() / ".config" / "bitget_pipeline" / "credentials.key"


@pytest.mark.parametrize("text", ["line\nbreak", "schlüssel"])
def test_a_key_that_fits_in_no_request_is_refused_without_being_shown(text: str) -> None:
    """
    Before it reaches a header.
    """
    with pytest.raises(SettingsInvalid, match=r"BITGET_SECRET_KEY: it holds a line break, or a character") as raised:
        load_boot({"BITGET_API_KEY": "k", "BITGET_SECRET_KEY": text, "BITGET_PASSPHRASE": "p"})
    assert text not in str(raised.value)
