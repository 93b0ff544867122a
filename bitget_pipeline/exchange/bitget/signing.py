"""
Proof of who asks: Bitget's signature of a private request.

Pure: the time is given. Checked against worked values in the tests. Nothing here ever puts a secret into a text for
people.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from ..contract import Credentials


def prehash(*, timestamp_ms: int, method: str, path: str, query: str = "", body: str = "") -> str:
    """
    The text that is signed. `query` is the raw text, without question mark and without percent-encoding: the exchange
    verifies the decoded query. `body` is exactly what is sent, the empty string for GET.
    """
    return f"{timestamp_ms}{method.upper()}{path}{'?' + query if query else ''}{body}"


def sign(secret: str, text: str) -> str:
    """HMAC-SHA256 of the text, in Base64."""
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()


def headers(
    credentials: Credentials, *, timestamp_ms: int, method: str, path: str, query: str = "", body: str = ""
) -> dict[str, str]:
    """The headers of a private request. `timestamp_ms` must be within 30 s of the exchange's clock."""
    text = prehash(timestamp_ms=timestamp_ms, method=method, path=path, query=query, body=body)
    return {
        "ACCESS-KEY": credentials.key,
        "ACCESS-SIGN": sign(credentials.secret, text),
        "ACCESS-TIMESTAMP": str(timestamp_ms),
        "ACCESS-PASSPHRASE": credentials.passphrase,
        "Content-Type": "application/json",
        "locale": "en-US",
    }
