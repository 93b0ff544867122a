"""
REST: one answer for every request, with the envelope, limits, faults and compression of the real exchange.

Input: an HTTP request; output: its answer. The endpoints themselves are in rest_spot.py, rest_mix.py and rest_private.py;
each is a row path -> (requests a second, handler). Besides the market data of reference sections 3 and 4 they hold what
somebody else's client (ccxt 4.5) asks for on the way: `/api/v2/spot/public/coins` (currencies), `/api/v2/margin/currencies`
(which pairs may be margined; its rows have no baseCoin) and the contracts of the departed demo products SUSDT-, SCOIN- and
SUSDC-FUTURES (an empty list). Its UTA (V3) calls are options that are off by default and are not served.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web

from .faults import Fault
from .instruments import MARKET_OF_PRODUCT
from .venue import Venue
from .wire import encode


class ApiError(Exception):
    """An answer with an error code."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Call(NamedTuple):
    """What a handler is told about a request."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    address: str
    query: str


Handler = Callable[[Venue, Call], Any]


class Endpoint(NamedTuple):
    """A path's limit in requests a second, and who answers it."""

    per_second: int
    handler: Handler


class Router:
    """All REST paths of one venue."""

    def __init__(self, venue: Venue, endpoints: Mapping[str, Endpoint]) -> None:
        self._venue = venue
        self._endpoints = endpoints

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Answer any request that is neither socket nor admin."""
        venue, path = self._venue, request.path
        arrived = venue.clock.now_ms()
        address = request.remote or "?"
        place = _place(path, request.query)
        endpoint = self._endpoints.get(path) if request.method == "GET" else None
        venue.counters.requests[path if endpoint else "(unknown)"] += 1
        remaining: int | None = None
        if venue.faults.strikes("dark", **place):
            return cut_off(request)
        if venue.faults.strikes("rate_limit_storm", **place):
            venue.counters.answered_429 += 1
            return self._answer(request, arrived, error=ApiError("429", "Too Many Requests", status=429))
        lowered = venue.faults.strikes("lower_limit", **place)
        if venue.config.limits or lowered:
            per_second = endpoint.per_second if endpoint else 20
            if lowered:
                per_second = min(per_second, int(lowered.params.get("per_second", 2)))
            allowed, remaining = venue.limiter.allow(address, path, per_second=per_second, now=time.monotonic())
            if not allowed:
                venue.counters.answered_429 += 1
                venue.counters.violations["rest"] += 1
                return self._answer(
                    request, arrived, error=ApiError("429", "Too Many Requests", status=429), remaining=0
                )
        slow = venue.faults.strikes("slow", **place)
        if slow:
            await asyncio.sleep(float(slow.params.get("delay", 5.0)))
        if venue.faults.strikes("html_502", **place):
            return web.Response(status=502, text=HTML_502, content_type="text/html")
        blocked = venue.faults.strikes("region_block", **place)
        if blocked and blocked.params.get("html"):
            return web.Response(status=403, text=HTML_403, content_type="text/html")
        try:
            if blocked:
                raise ApiError("40000", "Service is not available in your region")
            self._refuse(place)
            if endpoint is None:
                raise _unknown_path(path)
            call = Call(path, request.query, request.headers, address, request.rel_url.raw_query_string)
            data = endpoint.handler(venue, call)
        except ApiError as error:
            return self._answer(request, arrived, error=error, remaining=remaining)
        if venue.faults.strikes("empty_string", **place):
            data = ""
        cut = venue.faults.strikes("bad_json", **place)
        return self._answer(request, arrived, data=data, remaining=remaining, cut=cut)

    def _refuse(self, place: dict[str, str]) -> None:
        faults = self._venue.faults
        if faults.strikes("release_window", **place):
            raise ApiError("45001", "Unknown error", status=500)
        wrong = faults.strikes("error_code", **place)
        if wrong:
            code = str(wrong.params.get("code", "40010"))
            raise ApiError(code, str(wrong.params.get("msg", "Request timed out")), status=200)

    def _answer(
        self,
        request: web.Request,
        arrived: int,
        *,
        data: Any = None,
        error: ApiError | None = None,
        remaining: int | None = None,
        cut: Fault | None = None,
    ) -> web.Response:
        skew = self._venue.faults.strikes("clock_skew", path=request.path)
        stamp = arrived + (int(skew.params.get("skew_ms", 120_000)) if skew else 0)
        if skew and isinstance(data, dict) and "serverTime" in data:
            data = {"serverTime": str(stamp)}
        code, message = (error.code, error.message) if error else ("00000", "success")
        body = encode({"code": code, "msg": message, "requestTime": stamp, "data": data})
        if cut:
            body = body[: len(body) // 2]
        headers = {"Content-Type": "application/json;charset=UTF-8"}
        if remaining is not None:
            headers["x-mbx-used-remain-limit"] = str(remaining)
        if len(body) > 1400 and "gzip" in request.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        return web.Response(status=error.status if error else 200, body=body, headers=headers)


def cut_off(request: web.Request) -> web.Response:
    """End the connection without an answer; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


HTML_403 = (
    "<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n"
    "<p>This service is not available in your region.</p>\r\n</body>\r\n</html>\r\n"
)
HTML_502 = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    "<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)


def _unknown_path(path: str) -> ApiError:
    if path.startswith(("/api/spot/v1/", "/api/mix/v1/", "/api/margin/v1/", "/api/user/v1/", "/api/p2p/v1/")):
        return ApiError("30032", "The V1 API has been decommissioned. Please migrate to a newer version.")
    return ApiError("40404", "Request URL NOT FOUND")


def _place(path: str, query: Mapping[str, str]) -> dict[str, str]:
    """Where a request is, in the words of a fault's target."""
    market = MARKET_OF_PRODUCT.get(query.get("productType", "").upper(), "spot" if "/spot/" in path else "")
    return {"path": path, "market": market, "symbol": query.get("symbol", "")}
