"""
The Bitget key: store it, try it, remove it, and see what it changes.

Input: a key from a prompt, a file or stdin, never from the command line, where other users and the shell's history would
see it; output: the encrypted file of settings/stored_key.py. A key is stored after a signed call accepted it; when
anything goes wrong, what was stored before is still there.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from dotenv import dotenv_values

from ..errors import PipelineError, SettingsInvalid
from ..exchange.contract import KeyVerdict
from ..settings import accepted, load_boot, load_operational, put_accepted, remember_acceptance, require_private
from .output import as_json, console, meant_environment, print_json, where
from .up import folder

QUESTIONS = {
    "BITGET_API_KEY": "Bitget API key",
    "BITGET_SECRET_KEY": "Secret",
    "BITGET_PASSPHRASE": "Passphrase",
}
"""What is asked for, by the variable that could hold it."""

GIVEN = "the key that was given"
TAKEN_UP = (
    "what runs takes it up within a minute; the history of further markets begins with the next `bitget-pipeline up`"
)


@click.group("credentials")
def credentials_command() -> None:
    """The Bitget key. Public data needs none: with one, more markets and symbols are collected (`limits`)."""


@credentials_command.command("set")
@click.option(
    "--file",
    "path",
    metavar="FILE",
    help="Lines BITGET_API_KEY=…, BITGET_SECRET_KEY=…, BITGET_PASSPHRASE=…; - reads them from stdin. [default: ask]",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
@where
@as_json
def set_command(path: str | None, arguments: tuple[str, ...], demo: bool, home: Path | None, json_wanted: bool) -> None:
    """
    Try a key by a signed call, and store it encrypted in the instance's folder.

    A key that may do more than read is refused, unless BITGET_PIPELINE_ALLOW_TRADING_KEY=true. A key that stands in the
    environment or the settings file wins over the stored one.
    """
    if arguments:  # said without repeating what may be the secret
        raise click.UsageError("a key never stands on the command line: leave it out and be asked, or use --file")
    from .reach import check_credentials

    environ = meant_environment(home=home, demo=demo)
    given = {**environ, **(_from_file(path) if path else _asked())}
    boot = load_boot(given, with_stored_key=False)
    folder.check_stamp(boot.home, boot.exchange)
    verdict = check_credentials(boot, where=GIVEN)
    assert boot.credentials is not None  # else they would have been refused
    store = boot.key_store
    load_operational(boot, given, with_stored_key=False)
    before, held = store.snapshot(), accepted(boot.home)
    store.write(boot.credentials)
    try:
        remember_acceptance(boot.home, boot.credentials)
        holds = load_boot(environ)
        tier = load_operational(holds, environ).tier
    except PipelineError:
        store.restore(before)
        put_accepted(boot.home, held)
        raise
    told = {"stored": str(store.path), "key_file": str(store.key_file), "tier": tier.value, **_as_json(verdict)}
    told["holds"] = holds.credentials_from == str(store.path)
    if json_wanted:
        print_json({"home": str(boot.home), **told})
        return
    _say(f"the key is good: {_words(verdict)}")
    _say(f"stored in {store.path}, readable with {store.key_file}")
    if told["holds"]:
        _say(f"tier {tier}; {TAKEN_UP}")
    else:
        _say(f"it does not hold: the one of {holds.credentials_from} wins over it")


@credentials_command.command("test")
@where
@as_json
def test_command(demo: bool, home: Path | None, json_wanted: bool) -> None:
    """Ask Bitget by a signed call whether it accepts the key that holds, and what the key may do."""
    from .reach import check_credentials

    environ = meant_environment(home=home, demo=demo)
    boot = load_boot(environ)
    verdict = check_credentials(boot)
    tier = load_operational(boot, environ).tier
    if json_wanted:
        print_json(
            {"home": str(boot.home), "from": boot.credentials_from, "tier": tier.value, **_as_json(verdict)},
        )
        return
    _say(f"the key is good: {_words(verdict)}")
    _say(f"it comes from {boot.credentials_from}; tier {tier}")


@credentials_command.command("clear")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Even when settings need the key; they have to be changed then.")
@where
@as_json
def clear_command(yes: bool, force: bool, demo: bool, home: Path | None, json_wanted: bool) -> None:
    """
    Remove the stored key. A key of the environment or the settings file stays; so does what was collected.

    Refused while settings need a key, for nothing could be started with them afterwards.
    """
    environ = meant_environment(home=home, demo=demo)
    boot = load_boot(environ, with_stored_key=False)
    store = boot.key_store
    if store.exists():
        if not force:
            _require_settings_without(environ)
        if not yes:
            click.confirm(f"Remove the stored key of the instance in {boot.home}?", abort=True, err=True)
    removed = store.remove()
    if json_wanted:
        print_json({"home": str(boot.home), "removed": removed, "remaining": boot.credentials_from})
        return
    _say(f"removed {store.path}" if removed else f"there is no stored key in {boot.home}")
    if boot.has_credentials:
        _say(f"the key of {boot.credentials_from} stays")
    elif removed:
        _say("tier public; what runs follows within a minute")


@credentials_command.command("limits")
@where
@as_json
def limits_command(demo: bool, home: Path | None, json_wanted: bool) -> None:
    """What is allowed without and with a key, what holds now, and the requests that are planned with."""
    from .limits import request_limits, request_table, tier_limits, tier_table

    environ = meant_environment(home=home, demo=demo)
    boot = load_boot(environ)
    operational = load_operational(boot, environ)
    tiers, requests = tier_limits(operational), request_limits(boot.exchange, operational)
    if json_wanted:
        print_json(
            {
                "home": str(boot.home),
                "tier": operational.tier.value,
                "from": boot.credentials_from,
                "tiers": tiers,
                "requests": requests,
            }
        )
        return
    source = f", by the key of {boot.credentials_from}" if boot.has_credentials else ""
    _say(f"tier {operational.tier}{source}; the data lies in {boot.home}")
    console().print(tier_table(tiers))
    _say("")
    _say("Requests a second, for all processes of this address together. They are the same with and without a key:")
    console().print(request_table(requests))
    _say("Binance is asked for public data alone: a key of Binance's changes nothing, and there is no setting for one.")


def _require_settings_without(environ: Mapping[str, str]) -> None:
    try:
        load_operational(load_boot(environ, with_stored_key=False), environ, with_stored_key=False)
    except SettingsInvalid as error:
        raise SettingsInvalid(
            f"without the key the settings do not hold: {error.what}",
            where=error.where,
            remedy="change that first, or remove the key anyway with --force",
        ) from None


def _asked() -> dict[str, str]:
    if not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask here: name a file with --file, or --file - for stdin")
    return {
        variable: click.prompt(f"{what} (not shown)", hide_input=True, err=True) for variable, what in QUESTIONS.items()
    }


def _from_file(name: str) -> dict[str, str]:
    if name == "-":
        return _parsed(sys.stdin.read(), "stdin")
    path = Path(name).expanduser()
    try:
        with open(path, encoding="utf-8") as file:
            require_private(file.fileno(), path)
            return _parsed(file.read(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsInvalid(f"the file cannot be read: {said}", where=str(path)) from None


def _parsed(text: str, place: str) -> dict[str, str]:
    written = dotenv_values(stream=io.StringIO(text), interpolate=False)
    found = {variable: (written.get(variable) or "").strip() for variable in QUESTIONS}
    missing = [variable for variable, value in found.items() if not value]
    if missing:
        raise SettingsInvalid(
            f"{' and '.join(missing)} not given",
            where=place,
            remedy=f"write a line each: {', '.join(f'{variable}=…' for variable in QUESTIONS)}",
        )
    return found


def _as_json(verdict: KeyVerdict) -> dict[str, Any]:
    return {
        "family": verdict.family.value,
        "read_only": verdict.read_only,
        "rights": list(verdict.rights),
        "ip_restricted": verdict.ip_restricted,
    }


def _words(verdict: KeyVerdict) -> str:
    may = "it may only read" if verdict.read_only else "it may do more than read, which is allowed by the settings"
    bound = "works from listed addresses alone" if verdict.ip_restricted else "works from every address"
    return f"{may} ({', '.join(verdict.rights)}); {verdict.family} account; {bound}"


def _say(line: str) -> None:
    console().print(line, markup=False)
