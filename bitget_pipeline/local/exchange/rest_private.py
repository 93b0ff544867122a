"""
The signed calls that validate a key (reference section 8): account info and assets, and their unified counterpart.

The keys known are those of the config. The order of checks is the exchange's as far as it is known: headers, timestamp,
key (before the signature), passphrase, address, signature, account family.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Any
from urllib.parse import unquote_plus

from .config import Credential
from .rest import ApiError, Call, Endpoint
from .venue import Venue

_HEADERS = (
    ("ACCESS-KEY", "40001"),
    ("ACCESS-SIGN", "40002"),
    ("ACCESS-TIMESTAMP", "40003"),
    ("ACCESS-PASSPHRASE", "40011"),
)
_TOLERANCE_MS = 30_000


def authenticated(venue: Venue, call: Call, *, family: str) -> Credential:
    """
    The key that signed this call.

    :raises ApiError: with the exchange's code for what is wrong.
    """
    for header, code in _HEADERS:
        if not call.headers.get(header):
            raise ApiError(code, f"{header} cannot be empty")
    stamp = call.headers["ACCESS-TIMESTAMP"]
    if not stamp.isdigit() or len(stamp) != 13:
        raise ApiError("40005", "Invalid ACCESS_TIMESTAMP")
    if abs(int(stamp) - time.time() * 1000) > _TOLERANCE_MS:
        raise ApiError("40008", "Request timestamp expired")
    key = next((k for k in venue.config.credentials if k.key == call.headers["ACCESS-KEY"]), None)
    if key is None:
        raise ApiError("40037", "Apikey does not exist")
    if not hmac.compare_digest(key.passphrase.encode(), call.headers["ACCESS-PASSPHRASE"].encode()):
        raise ApiError("40012", "apikey/password is incorrect")
    if key.allowed_ips and call.address not in key.allowed_ips:
        raise ApiError("40018", "Invalid IP")
    query = "?" + unquote_plus(call.query) if call.query else ""
    expected = base64.b64encode(
        hmac.new(key.secret.encode(), f"{stamp}GET{call.path}{query}".encode(), hashlib.sha256).digest()
    )
    if not hmac.compare_digest(expected, call.headers["ACCESS-SIGN"].encode()):
        raise ApiError("40009", "sign signature error")
    if key.family != family:
        if key.family == "unified":
            raise ApiError("40085", "You are in Unified Account mode, and the Classic Account API is not supported")
        raise ApiError("40084", "You are in Classic Account mode, and the Unified Account API is not supported")
    return key


def account_info(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/account/info`."""
    key = authenticated(venue, call, family="classic")
    return {
        "userId": "7000000001",
        "inviterId": "",
        "ips": ",".join(key.allowed_ips),
        "authorities": list(key.authorities),
        "parentId": 7000000001,
        "traderType": "not_trader",
        "channelCode": "",
        "channel": "",
        "regisTime": "1650000000000",
    }


def account_assets(venue: Venue, call: Call) -> Any:
    """`/api/v2/spot/account/assets`."""
    authenticated(venue, call, family="classic")
    coin = call.params.get("coin", "USDT")
    return [
        {"coin": coin, "available": "0", "frozen": "0", "locked": "0", "limitAvailable": "0", "uTime": "1650000000000"}
    ]


def unified_settings(venue: Venue, call: Call) -> Any:
    """`/api/v3/account/settings`."""
    authenticated(venue, call, family="unified")
    return {"uid": "7000000001", "accountMode": "unified", "assetMode": "single", "holdMode": "hedge_mode"}


def unified_info(venue: Venue, call: Call) -> Any:
    """
    `/api/v3/account/info`, which needs no permission and shows the key's: one word, and what for (as public client code
    reads it). A right of the config that does not end in r writes.
    """
    key = authenticated(venue, call, family="unified")
    reads = all(right.endswith("r") for right in key.authorities)
    return {
        "uid": "7000000001",
        "permType": "read-only" if reads else "read-and-write",
        "permissions": ["uta_mgt"] if reads else ["uta_mgt", "uta_trade"],
        "ips": ",".join(key.allowed_ips),
    }


ENDPOINTS: dict[str, Endpoint] = {
    "/api/v2/spot/account/info": Endpoint(1, account_info),
    "/api/v2/spot/account/assets": Endpoint(10, account_assets),
    "/api/v3/account/settings": Endpoint(20, unified_settings),
    "/api/v3/account/info": Endpoint(1, unified_info),
}
