"""
What commands share: where they read their settings from, and how they print for people and for programs.

Input: the options `--home` and `--demo`; output: a `Boot`, and lines on stdout (JSON with `--json`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from ..settings import Boot, boot_in_force
from ..settings.reading import environment
from .up import folder

Function = TypeVar("Function", bound=Callable[..., Any])

NOT_IN_A_DEMO = (
    "BITGET_REST_URL",
    "BITGET_WS_URL",
    "BINANCE_SPOT_REST_URL",
    "BINANCE_SPOT_WS_URL",
    "BINANCE_FUTURES_REST_URL",
    "BINANCE_FUTURES_WS_URL",
    "BITGET_API_KEY",
    "BITGET_SECRET_KEY",
    "BITGET_PASSPHRASE",
    "BITGET_PIPELINE_PROXY",
    "BITGET_PIPELINE_ALERT_WEBHOOK",
    "BITGET_PIPELINE_SMTP_HOST",
    "BITGET_PIPELINE_ALERT_EMAIL_FROM",
    "BITGET_PIPELINE_ALERT_EMAIL_TO",
)
"""
A demo needs no way out, a real key is not shown to a simulated exchange, and nobody is woken by its outages; what its
own settings file says holds.
"""


def where(function: Function) -> Function:
    """The options that say which instance is meant."""
    demo = click.option("--demo", is_flag=True, help="The instance on the local exchange (home ./data/local).")
    home = click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        help="The instance's folder [default: BITGET_PIPELINE_HOME, or ./data/bitget, or ./data/local with --demo].",
    )
    return demo(home(function))


def as_json(function: Function) -> Function:
    """The option for programs."""
    return click.option("--json", "json_wanted", is_flag=True, help="Print JSON, for programs.")(function)


def environment_for(*, home: Path | None, demo: bool) -> dict[str, str]:
    """The environment as the options change it."""
    environ = environment()
    if demo:
        environ.update(dict.fromkeys(NOT_IN_A_DEMO, ""))
        environ["BITGET_PIPELINE_EXCHANGE"] = "local"
    if home is not None:
        environ["BITGET_PIPELINE_HOME"] = str(home)
    return environ


def meant_environment(*, home: Path | None, demo: bool) -> dict[str, str]:
    """
    The environment of the instance that is meant by a command which looks at one.

    Without `--demo` a folder's stamp says which exchange it is of; without any folder named, the one instance below
    ./data that runs is meant, or the only one there is.
    """
    environ = environment_for(home=home, demo=demo)
    if demo or environ.get("BITGET_PIPELINE_EXCHANGE"):
        return environ
    named = environ.get("BITGET_PIPELINE_HOME")
    candidates = [Path(named)] if named else [Path("data") / exchange for exchange in ("bitget", "local")]
    stamped = {path: exchange for path in candidates if (exchange := folder.stamped_exchange(path))}
    running = [path for path in stamped if folder.owner(path) is not None]
    chosen = running if len(running) == 1 else list(stamped)
    if len(chosen) == 1 and stamped[chosen[0]] == "local":
        environ |= dict.fromkeys(NOT_IN_A_DEMO, "")
        environ |= {"BITGET_PIPELINE_EXCHANGE": "local", "BITGET_PIPELINE_HOME": str(chosen[0])}
    return environ


def boot_for(*, home: Path | None, demo: bool) -> Boot:
    """
    The boot settings of the instance that is meant, while its settings file is wrong those it was started with. Raises
    SettingsInvalid.
    """
    return boot_in_force(meant_environment(home=home, demo=demo), looking=True)


def console() -> Console:
    """Where people read."""
    return Console(highlight=False, soft_wrap=True)


def print_json(content: Mapping[str, Any]) -> None:
    """One line of JSON on stdout."""
    click.echo(json.dumps(content, default=str, ensure_ascii=False))
