"""
Who may speak to the server at all, before any statement is read.

The port is on the loopback address, and without a password by default. Two kinds of stranger can still reach it: a web page
in a browser on this machine (by a request to 127.0.0.1, or to a name that it lets point there, "DNS rebinding"), and other
accounts of the machine. Pages are refused here, by what browsers cannot leave out: the Host they asked for, the Origin they
come from and Sec-Fetch-Site. Other accounts can only be kept out by a password (CLICKHOUSE_PASSWORD); without one they can
read and change the market data, and nothing else (see `outside.py`).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web

from .refusals import Refusal, refusal


def is_loopback(host: str) -> bool:
    """Whether this name or address is this machine itself."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def stranger(request: web.Request) -> Refusal | None:
    """The refusal of a request that a browser sends for a page of another origin, or None."""
    host = request.headers.get("Host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = "?"
    if host and not is_loopback(name):
        return refusal(497, "This server answers to localhost only, and was asked under another name.")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return refusal(497, "This server does not answer to web pages of another origin.")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return refusal(497, "This server does not answer to web pages of another origin.")
    return None
