"""
The generation that is in force: the settings that hold now, or the last ones that were good.

Input: the settings file and what was kept of it; output: settings for every process of a running instance, and what is
wrong with the file, if it is. A file with a mistake, or one that is just being written, changes nothing: the old generation
stays until it is good again. What starts an instance or mends its settings reads strictly (boot.py, operational.py).

Kept in the instance's folder: the generation (no secrets are in it), and a copy of the file itself, for the places that a
new process has to know; it may hold what the file holds, and is for its owner alone.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsInvalid
from .boot import Boot, load_boot, settings_path
from .operational import Operational, load_operational

KEPT = "settings.in-force.json"
COPY = "settings.in-force.toml"
"""The files in the instance's folder."""
QUIET_FOR = 2.0
"""Seconds since its last change after which a settings file is taken for written."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What holds, and why the settings file does not (None: it does)."""

    settings: Operational
    problem: SettingsInvalid | None = None


def operational_in_force(
    boot: Boot,
    environ: Mapping[str, str] | None = None,
    *,
    looking: bool = False,
    now: Callable[[], float] = time.time,
) -> InForce:
    """
    The generation that holds; whoever is only `looking`, perhaps from another environment, leaves what is kept alone.

    Raises SettingsInvalid when the settings are wrong and none was good before.
    """
    kept = _kept(boot.home)
    if kept is not None and is_being_written(boot.settings_file, now()):
        return InForce(kept)
    try:
        found = load_operational(boot, environ)
    except SettingsInvalid as error:
        if kept is None:
            raise
        return InForce(kept, error)
    if found != kept and not looking:
        keep(boot, found)
    return InForce(found)


def boot_in_force(environ: Mapping[str, str] | None = None, *, looking: bool = False) -> Boot:
    """
    Where everything is, for a process that starts while the settings file may be wrong: then as the last good one says. A
    file is good as a whole or not at all.

    Raises SettingsInvalid when there is none, or what is wrong stands in the environment.
    """
    home, file, _ = settings_path(environ)
    copy = home / COPY
    if copy.exists() and is_being_written(file, time.time()):
        return load_boot(environ, read_instead=copy)
    try:
        boot = load_boot(environ)
        load_operational(boot, environ)
    except SettingsInvalid:
        if not copy.exists():
            raise
        return load_boot(environ, read_instead=copy)
    if not looking:
        _keep_copy(boot)
    return boot


def keep(boot: Boot, settings: Operational) -> None:
    """These were good."""
    content = settings.model_dump(mode="json", exclude={"generation", "fixed_for_a_live_run"})
    content |= {  # as they are written, because they are read that way
        "pinned": list(map(str, settings.pinned)),
        "history_targets": list(map(str, settings.history_targets)) or "none",
        "retention": list(map(str, settings.retention)),
    }
    _write(boot.home / KEPT, json.dumps(content, indent=1).encode())
    _keep_copy(boot)


def _kept(home: Path) -> Operational | None:
    """The last good generation; None when there is none, or one of another version of this program."""
    try:
        return Operational.model_validate_json((home / KEPT).read_bytes())
    except (OSError, ValueError, TypeError, SettingsInvalid):
        return None


def _keep_copy(boot: Boot) -> None:
    copy, file = boot.home / COPY, boot.settings_file
    content = b""
    with suppress(OSError):
        content = file.read_bytes() if file is not None else b""
    with suppress(OSError):
        if copy.read_bytes() == content:
            return
    _write(copy, content)


def is_being_written(file: Path | None, now: float) -> bool:
    """Whether a file changed so lately (`now` in Unix seconds) that it may be half of one."""
    if file is None:
        return False
    try:
        return 0 <= now - file.stat().st_mtime < QUIET_FOR
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    """As a whole or not at all, for its owner alone; a folder that cannot be written to keeps nothing."""
    with suppress(OSError):  # a folder that is not there, too: only `up` makes it
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
