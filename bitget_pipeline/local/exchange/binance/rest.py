"""
REST of the Binance side: bare JSON, the weight used so far in a header, 429 with Retry-After, 418 when that is ignored.

Input: an HTTP request to one of the two hosts; output: its answer. The endpoints are in endpoints.py.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from ..rest import HTML_502, cut_off
from ..wire import encode
from .endpoints import ENDPOINTS, WEIGHTS, BinanceError, Call
from .limits import Verdict, Weights
from .side import Side

USED = "X-MBX-USED-WEIGHT-1M"
BAN_SECONDS = 120.0
REGION = (
    "Service unavailable from a restricted location according to 'b. Eligibility' in https://www.binance.com/en/terms."
)


class Router:
    """All REST paths of one host: of spot or of usdtm."""

    def __init__(self, side: Side, market: str) -> None:
        self._side = side
        self._market = market
        self.weights = Weights(per_minute=WEIGHTS[market], ban_seconds=BAN_SECONDS)

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Answer any request that is no stream."""
        side, path = self._side, request.path
        endpoint = ENDPOINTS[self._market].get(path) if request.method == "GET" else None
        side.counters.requests[path if endpoint else "(unknown)"] += 1
        place = {"path": path, "market": self._market, "symbol": request.query.get("symbol", "")}
        if side.faults.strikes("dark", **place):
            return cut_off(request)
        if side.faults.strikes("rate_limit_storm", **place):
            return self._refused(429, {}, retry_after=1)
        headers: dict[str, str] = {}
        if side.config.limits:
            weight = endpoint.weight(request.query) if endpoint else 1
            verdict, used, wait = self.weights.take(request.remote or "?", weight, now=time.time())
            headers[USED] = str(used)
            if verdict is not Verdict.SERVED:
                side.counters.violations["weight" if verdict is Verdict.REFUSED else "banned"] += 1
                return self._refused(429 if verdict is Verdict.REFUSED else 418, headers, retry_after=wait)
        slow = side.faults.strikes("slow", **place)
        if slow:
            await asyncio.sleep(float(slow.params.get("delay", 5.0)))
        if side.faults.strikes("html_502", **place):
            return web.Response(status=502, text=HTML_502, content_type="text/html")
        try:
            if side.faults.strikes("region_block", **place):
                raise BinanceError(0, REGION, status=451)
            wrong = side.faults.strikes("error_code", **place)
            if wrong:
                code, status = int(wrong.params.get("code", -1001)), int(wrong.params.get("status", 500))
                raise BinanceError(
                    code, "Internal error; unable to process your request. Please try again.", status=status
                )
            if endpoint is None:
                return web.Response(status=404, text="<html><h2>404 Not found</h2></html>", content_type="text/html")
            body = encode(endpoint.handler(side.market, Call(self._market, request.query, self._now(place))))
        except BinanceError as error:
            return _json(error.status, {"code": error.code, "msg": error.message}, headers)
        if side.faults.strikes("bad_json", **place):
            body = body[: len(body) // 2]
        return web.Response(body=body, content_type="application/json", headers=headers)

    def _now(self, place: dict[str, str]) -> int:
        skew = self._side.faults.strikes("clock_skew", **place) if place["path"].endswith("/time") else None
        return self._side.clock.now_ms() + (int(skew.params.get("skew_ms", 120_000)) if skew else 0)

    def _refused(self, status: int, headers: dict[str, str], *, retry_after: int) -> web.Response:
        self._side.counters.answered_429 += 1
        text = f"Too many requests; current limit of IP is {WEIGHTS[self._market]} request weight per minute."
        if status == 418:
            text = f"Way too many requests; IP banned until {int((time.time() + retry_after) * 1000)}."
        return _json(status, {"code": -1003, "msg": text}, headers | {"Retry-After": str(retry_after)})


def _json(status: int, body: Any, headers: dict[str, str]) -> web.Response:
    return web.Response(status=status, body=encode(body), content_type="application/json", headers=headers)
