"""
A key that the exchange does not accept any more: remembered in the instance's folder, so that every process lowers its tier.

Written by whoever asked the exchange (defs/reconfiguration.py), read with the settings (operational.py). It names the key by
a digest; another key is another matter, and the same one counts again once the exchange accepts it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..errors import DiskFull
from ..exchange.contract import Credentials

FILE = "key-refused.json"


def refused(home: Path, credentials: Credentials) -> str:
    """Why this key is not used, empty when nothing is known against it."""
    try:
        said = json.loads((home / FILE).read_bytes())
        return str(said["because"]) if said["key"] == digest_of(credentials) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def remember_refusal(home: Path, credentials: Credentials, because: str) -> None:
    """The exchange refuses it. Raises DiskFull."""
    content = json.dumps({"key": digest_of(credentials), "because": because})
    part = home / f".{FILE}"
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(home / FILE)
    except OSError as error:
        raise DiskFull(f"cannot write: {error.strerror}", where=str(part), remedy="make room on the disk") from None


def forget_refusal(home: Path) -> bool:
    """The exchange accepts our key; whether it did not before."""
    try:
        (home / FILE).unlink()
    except OSError:
        return False
    return True


def digest_of(credentials: Credentials) -> str:
    """A name of a key that does not tell it."""
    text = "\0".join((credentials.key, credentials.secret, credentials.passphrase))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
