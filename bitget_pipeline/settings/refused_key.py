"""
Which key the exchange accepted last, and which it does not accept: remembered in the instance's folder, so that every process
has the same tier.

Written by whoever asked the exchange (defs/reconfiguration.py, `up`, `credentials set`), read with the settings (tiers.py).
Keys are named by a digest. Another key than the accepted one is another matter: it changes nothing before it was asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import DiskFull
from ..exchange.credentials import Credentials

FILE = "key-refused.json"
ACCEPTED = "key-accepted.json"


def refused(home: Path, credentials: Credentials) -> str:
    """Why this key is not used, empty when nothing is known against it."""
    try:
        said = json.loads((home / FILE).read_bytes())
        return str(said["because"]) if said["key"] == digest_of(credentials) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def remember_refusal(home: Path, credentials: Credentials, because: str) -> None:
    """The exchange refuses it; was it the accepted one, none is any more. Raises DiskFull."""
    _write(home / FILE, {"key": digest_of(credentials), "because": because})
    if accepted(home) == digest_of(credentials):
        put_accepted(home, "")


def forget_refusal(home: Path) -> bool:
    """Nothing is known against any key; whether something was."""
    try:
        (home / FILE).unlink()
    except OSError:
        return False
    return True


def accepted(home: Path) -> str | None:
    """The digest of the key that was accepted last; empty when none holds, None when nobody has asked yet."""
    try:
        return str(json.loads((home / ACCEPTED).read_bytes())["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_acceptance(home: Path, credentials: Credentials | None) -> None:
    """The exchange accepts this key, or there is none. Raises DiskFull."""
    name = digest_of(credentials) if credentials is not None else ""
    if accepted(home) != name:
        put_accepted(home, name)
    forget_refusal(home)


def put_accepted(home: Path, name: str | None) -> None:
    """The key of this digest is the accepted one: none for an empty one, nobody knows for None. Raises DiskFull."""
    if name is None:
        (home / ACCEPTED).unlink(missing_ok=True)
    else:
        _write(home / ACCEPTED, {"key": name})


def _write(path: Path, content: Mapping[str, str]) -> None:
    part = path.with_name(f".{path.name}")
    try:
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DiskFull(f"cannot write: {error.strerror}", where=str(part), remedy="make room on the disk") from None


def digest_of(credentials: Credentials) -> str:
    """A name of a key that does not tell it."""
    text = "\0".join((credentials.key, credentials.secret, credentials.passphrase))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
