"""
What may be written where alerts go: addresses of people, and of a webhook.

Asked by the boot settings; answers with the value as it holds, or ValueError that says what is wrong. No text holds a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from pydantic import SecretStr

_ADDRESS = re.compile(r"[^\s@,;<>\"()\[\]\\]+@[^\s@,;<>\"()\[\]\\]+")


def addresses(text: str) -> list[str]:
    """The e-mail addresses of a list with commas. Raises ValueError."""
    found = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    wrong = next((word for word in found if not _ADDRESS.fullmatch(word) or not word.isascii()), None)
    if wrong is not None or not found:
        raise ValueError(f"{wrong or text!r} is not an e-mail address")
    return found


def checked_webhook(value: SecretStr, *, is_loopback: Callable[[str], bool]) -> SecretStr:
    """The address of a webhook: https, or http on this machine. Raises ValueError."""
    url = value.get_secret_value()
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("that is not an address") from None
    if parts.scheme not in ("https", "http") or not host or any(mark.isspace() for mark in url):
        raise ValueError("that is not an https:// address")
    if parts.scheme == "http" and not is_loopback(url):
        raise ValueError("http:// is not encrypted and allowed to this machine only")
    return value
