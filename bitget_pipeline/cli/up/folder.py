"""
The folder of an instance: who owns it, whose data it holds, and where its processes are.

`instance.lock` is locked by the running `up`; `stamp.json` says real or local, for ever; `run.json` has addresses, ports
and processes while `up` runs, and only the ports after it stopped.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...errors import DiskFull, FolderTaken, SettingsInvalid, WrongExchange
from ...settings import run_file

LOCK = "instance.lock"
STAMP = "stamp.json"
OWN_FILES = ("settings.toml", ".env", "credentials.enc")
"""What a person may put into the folder before the first start, and what `reset` leaves there."""

CONTENTS = (
    "dagster",
    "warehouse",
    "redis",
    "exchange",
    "spill",
    "logs",
    "workspace.yaml",
    "run.json",
    "settings.in-force.json",
    "settings.in-force.toml",
    "key-refused.json",
    "key-accepted.json",
    STAMP,
    LOCK,
)
"""Everything an instance writes into its folder."""

LEAST_FREE_BYTES = 500 * 1024 * 1024


@contextmanager
def taken(home: Path, exchange: str) -> Iterator[None]:
    """
    Own the folder for as long as this lasts, creating and stamping it at first.

    Raises FolderTaken, WrongExchange, DiskFull or SettingsInvalid, and then has written nothing.
    """
    check_stamp(home, exchange)
    _make(home)
    lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderTaken(
                f"another `bitget-pipeline up` runs in this folder (process {owner(home) or 'unknown'})",
                where=str(home),
                remedy="stop it with `bitget-pipeline down`, or choose another folder with --home",
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        if not (home / STAMP).exists():
            write_json(
                home / STAMP,
                {"project": "bitget_pipeline", "exchange": exchange, "created": datetime.now(UTC).isoformat()},
            )
        yield
    finally:
        os.close(lock)


def check_stamp(home: Path, exchange: str) -> None:
    """Raises WrongExchange when the folder holds the other exchange's data, FolderTaken when it is not ours at all."""
    stamp = read_json(home / STAMP)
    if stamp is None:
        foreign = sorted(entry.name for entry in _entries(home) if entry.name not in (*OWN_FILES, *CONTENTS))
        if foreign:
            raise FolderTaken(
                f"the folder is not empty and not ours (it holds {foreign[0]})",
                where=str(home),
                remedy="choose an empty or new folder with --home",
            )
    elif stamp.get("exchange") != exchange:
        raise WrongExchange(
            f"the folder holds data of the exchange {stamp.get('exchange')!r}, not {exchange!r}",
            where=str(home),
            remedy="choose another folder with --home, or "
            + ("leave --demo out" if exchange == "local" else "use --demo"),
        )


def stamped_exchange(home: Path) -> str | None:
    """The exchange whose data the folder holds, None when it is not an instance's."""
    stamp = read_json(home / STAMP)
    exchange = stamp.get("exchange") if stamp else None
    return exchange if isinstance(exchange, str) else None


def owner(home: Path) -> int | None:
    """The process that owns the folder, as it wrote itself into the lock; None when nobody does."""
    try:
        lock = os.open(home / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(lock, 32).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(lock)
    return None


def clear(home: Path) -> list[str]:
    """
    Remove what an instance wrote, and the folder itself when nothing else is in it. Returns what was removed.

    Raises FolderTaken when it runs, or when the folder was never ours.
    """
    running = owner(home)
    if running is not None:
        raise FolderTaken(
            f"the instance runs (process {running})", where=str(home), remedy="stop it first: `bitget-pipeline down`"
        )
    if (read_json(home / STAMP) or {}).get("project") != "bitget_pipeline":
        raise FolderTaken(
            "there is no instance of ours in this folder, nothing was removed",
            where=str(home),
            remedy="name the right one with --home",
        )
    removed = []
    for name in sorted(
        CONTENTS, key=lambda name: name == STAMP
    ):  # the stamp last: an interrupted reset can be repeated
        path = home / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        else:
            continue
        removed.append(name)
    if not _entries(home):
        home.rmdir()
    return removed


def read_run(home: Path) -> dict[str, Any]:
    """What `run.json` says; empty when there is none."""
    return read_json(run_file(home)) or {}


def write_run(home: Path, content: Mapping[str, Any]) -> None:
    """Replace `run.json` as a whole."""
    write_json(run_file(home), content)


def read_json(path: Path) -> dict[str, Any] | None:
    """A file of ours, or None when it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file in one step; only its owner may read it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, default=str)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise DiskFull(f"cannot write: {error.strerror}", where=str(path), remedy="make room on the disk") from error


def require_room(home: Path) -> None:
    """Raises DiskFull when less is free than an instance needs; the folder need not exist yet."""
    there = next(place for place in (home, *home.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < LEAST_FREE_BYTES:
        raise DiskFull(
            f"only {free // 1024**2} MiB are free on the disk",
            where=str(home),
            remedy=f"make room ({LEAST_FREE_BYTES // 1024**2} MiB at least), or choose another disk with --home",
        )


def _make(home: Path) -> None:
    """Make the folder, if it can be used: nothing is created on a disk that is full."""
    try:
        require_room(home)
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(
            f"the folder cannot be used: {error.strerror}",
            where=str(home),
            remedy="choose another with --home or BITGET_PIPELINE_HOME",
        ) from None
    if not os.access(home, os.W_OK):
        raise SettingsInvalid(
            "the folder cannot be written", where=str(home), remedy="choose another with --home or BITGET_PIPELINE_HOME"
        )


def _entries(home: Path) -> list[Path]:
    try:
        return list(home.iterdir())
    except OSError:
        return []
