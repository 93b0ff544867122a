"""
The admin paths, for loopback only: ground truth, counters, faults and the clock.

`market` is spot, usdtm, coinm or usdcm. Times are Unix ms, `from` inclusive, `to` exclusive. Truth is what happened, up to
the market's present, whatever the levers made of it on the wire; candles are closed bars only. `venue=binance` in the
query (in the body of a fault) asks, or strikes, the Binance side instead.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from .bars import MIX_GRANULARITIES, Granularity
from .binance import BinanceSide
from .binance.truth import Truth
from .config import MARKETS
from .faults import BINANCE_KINDS, KINDS
from .instruments import MINUTE_MS, Instrument
from .levers import Levers
from .venue import Venue
from .wire import encode, text, truth_candle, truth_trade

# Our resolution words: aligned to UTC throughout.
_RESOLUTIONS: dict[str, Granularity] = {
    "1m": MIX_GRANULARITIES["1m"],
    "3m": MIX_GRANULARITIES["3m"],
    "5m": MIX_GRANULARITIES["5m"],
    "15m": MIX_GRANULARITIES["15m"],
    "30m": MIX_GRANULARITIES["30m"],
    "1h": MIX_GRANULARITIES["1H"],
    "4h": MIX_GRANULARITIES["4H"],
    "6h": MIX_GRANULARITIES["6Hutc"],
    "12h": MIX_GRANULARITIES["12Hutc"],
    "1d": MIX_GRANULARITIES["1Dutc"],
    "3d": MIX_GRANULARITIES["3Dutc"],
    "1w": MIX_GRANULARITIES["1Wutc"],
    "1mo": MIX_GRANULARITIES["1Mutc"],
}


class Admin:
    """The admin paths of one venue."""

    def __init__(self, venue: Venue, levers: Levers, binance: BinanceSide | None = None) -> None:
        self._venue = venue
        self._levers = levers
        self._binance = binance

    def routes(self) -> list[web.RouteDef]:
        """All admin routes; each refuses callers that are not on this machine."""
        get, post = web.get, web.post
        return [
            get("/admin/truth/trades", self._guarded(self.truth_trades)),
            get("/admin/truth/candles", self._guarded(self.truth_candles)),
            get("/admin/truth/instruments", self._guarded(self.truth_instruments)),
            get("/admin/counters", self._guarded(self.counters)),
            get("/admin/faults", self._guarded(self.list_faults)),
            post("/admin/faults", self._guarded(self.add_fault)),
            web.delete("/admin/faults", self._guarded(self.clear_faults)),
            get("/admin/clock", self._guarded(self.clock)),
            post("/admin/clock", self._guarded(self.set_clock)),
        ]

    def _guarded(self, handler: Any) -> Any:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not _on_this_machine(request.remote):
                return web.json_response({"error": "admin paths answer this machine only"}, status=403)
            try:
                answer: web.StreamResponse = await handler(request)
            except (ValueError, msgspec.DecodeError) as error:
                return web.json_response({"error": str(error)}, status=400)
            return answer

        return guarded

    async def truth_trades(self, request: web.Request) -> web.StreamResponse:
        """JSON lines of all trades that happened in [from, to), oldest first."""
        if other := self._other(request.query.get("venue")):
            return await _told(request, Truth(other.side).trades(request.query, *self._span(request)))
        instrument = self._instrument(request)
        begin, end = self._span(request)
        begin, end = max(begin, instrument.listed_minute * MINUTE_MS), min(end, self._venue.clock.now_ms() + 1)
        response = await _lines(request)
        minute, last = begin // MINUTE_MS, -(-end // MINUTE_MS)
        while minute < last:
            until = min(minute + 30, last)
            rows = (t for t in self._venue.tape.trades(instrument, minute, until) if begin <= t.ts < end)
            await response.write(b"".join(encode(truth_trade(instrument, row)) + b"\n" for row in rows))
            minute = until
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def truth_candles(self, request: web.Request) -> web.StreamResponse:
        """JSON lines of all closed bars opening in [from, to), oldest first; `resolution` defaults to 1m."""
        if other := self._other(request.query.get("venue")):
            bars = Truth(other.side).candles(request.query, self._resolution(request), *self._span(request))
            return await _told(request, bars)
        instrument, granularity = self._instrument(request), self._resolution(request)
        begin, end = self._span(request)
        now = self._venue.clock.now_ms()
        begin = max(begin, granularity.open_of(instrument.listed_minute) * MINUTE_MS)
        response = await _lines(request)
        opened = granularity.open_of(begin // MINUTE_MS)
        if opened * MINUTE_MS < begin:
            opened = granularity.next_of(opened)
        while opened * MINUTE_MS < end and granularity.next_of(opened) * MINUTE_MS <= now:
            until = opened
            for _ in range(720):
                until = granularity.next_of(until)
            stop = min(until * MINUTE_MS, end, now + 1)
            page = self._venue.bars.page(instrument, granularity, end_ms=stop, limit=720, now_ms=now, closed=True)
            rows = (bar for bar in page if bar.open_ms >= opened * MINUTE_MS)
            await response.write(b"".join(encode(truth_candle(instrument, bar)) + b"\n" for bar in rows))
            opened = until
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def truth_instruments(self, request: web.Request) -> web.StreamResponse:
        """JSON lines of everything listed now (all markets, or `market`)."""
        if other := self._other(request.query.get("venue")):
            return await _told(request, Truth(other.side).instruments(request.query))
        wanted = request.query.get("market")
        if wanted is not None and wanted not in MARKETS:
            raise ValueError(f"unknown market {wanted!r}; known: {', '.join(MARKETS)}")
        response = await _lines(request)
        now = self._venue.clock.now_ms()
        for market in (wanted,) if wanted else MARKETS:
            rows = [encode(self._describe(i)) + b"\n" for i in self._venue.universe.listed(market, now_ms=now)]
            await response.write(b"".join(rows))
        await response.write_eof()
        return response

    async def counters(self, request: web.Request) -> web.StreamResponse:
        """What this exchange has answered and sent since it started."""
        if other := self._other(request.query.get("venue")):
            return _json(other.counters())
        return _json(self._venue.counters.as_json())

    async def list_faults(self, request: web.Request) -> web.StreamResponse:
        """The active faults, and all kinds there are."""
        if other := self._other(request.query.get("venue")):
            kinds = {kind: KINDS[kind] for kind in sorted(BINANCE_KINDS)}
            return _json({"active": [fault.describe() for fault in other.side.faults.active()], "kinds": kinds})
        return _json({"active": [fault.describe() for fault in self._venue.faults.active()], "kinds": KINDS})

    async def add_fault(self, request: web.Request) -> web.StreamResponse:
        """Start a fault: `{"kind", "target", "seconds", "probability", …}`, or end all with `{"clear": true}`."""
        body = msgspec.json.decode(await request.read(), type=dict[str, Any])
        other = self._other(str(body.pop("venue", "bitget")))
        if body.pop("clear", False):
            faults = other.side.faults if other else self._venue.faults
            return _json({"cleared": faults.clear(kind=body.get("kind"))})
        kind = str(body.pop("kind", ""))
        if kind not in KINDS:
            return _json({"error": f"unknown kind {kind!r}", "kinds": list(KINDS)}, status=400)
        seconds = body.pop("seconds", None)
        probability = float(body.pop("probability", 1.0))
        target = str(body.pop("target", "") or "*")
        limit = None if seconds is None else float(seconds)
        pull = other.fault if other else self._levers.fault
        return _json(pull(kind, target=target, seconds=limit, probability=probability, **body))

    async def clear_faults(self, request: web.Request) -> web.StreamResponse:
        """End the faults named by `kind` or `id`, or all."""
        ident = request.query.get("id")
        other = self._other(request.query.get("venue"))
        faults = other.side.faults if other else self._venue.faults
        cleared = faults.clear(kind=request.query.get("kind"), ident=int(ident) if ident else None)
        return _json({"cleared": cleared})

    async def clock(self, request: web.Request) -> web.StreamResponse:
        """Market time and speed."""
        return _json({"now_ms": self._venue.clock.now_ms(), "speed": self._venue.clock.speed})

    async def set_clock(self, request: web.Request) -> web.StreamResponse:
        """`{"speed": 10, "now_ms": …}`; time only moves forward."""
        body = msgspec.json.decode(await request.read(), type=dict[str, float])
        speed, now = body.get("speed"), body.get("now_ms")
        if speed is not None and not 0 <= speed <= 3600:
            raise ValueError("speed must be between 0 and 3600")
        self._venue.clock.set(speed=speed, now_ms=None if now is None else int(now))
        return await self.clock(request)

    def _other(self, venue: str | None) -> BinanceSide | None:
        """The Binance side if that is meant, None for the Bitget side. Raises ValueError when it is not played."""
        if venue in (None, "bitget"):
            return None
        if venue != "binance" or self._binance is None:
            raise ValueError(f"no venue {venue!r} is played here; start the exchange with Binance to have it")
        return self._binance

    def _instrument(self, request: web.Request) -> Instrument:
        market, symbol = request.query.get("market", ""), request.query.get("symbol", "")
        instrument = self._venue.universe.find(market, symbol)
        if instrument is None:
            raise ValueError(f"no instrument {market}:{symbol}; market is one of {', '.join(MARKETS)}")
        return instrument

    def _resolution(self, request: web.Request) -> Granularity:
        name = request.query.get("resolution", "1m")
        granularity = _RESOLUTIONS.get(name.lower())
        if granularity is None:
            raise ValueError(f"unknown resolution {name!r}; known: {', '.join(_RESOLUTIONS)}")
        return granularity

    def _span(self, request: web.Request) -> tuple[int, int]:
        now = self._venue.clock.now_ms()
        return int(request.query.get("from", now - 3_600_000)), int(request.query.get("to", now))

    def _describe(self, i: Instrument) -> dict[str, Any]:
        return {
            "market": i.market,
            "symbol": i.symbol,
            "base": i.base,
            "quote": i.quote,
            "status": self._venue.status_of(i),
            "active": i.active,
            "price_step": text(i.tick, i.price_decimals),
            "size_step": text(1, i.size_decimals),
            "listed_ms": i.listed_minute * MINUTE_MS,
            "closed_ms": None if i.closed_minute is None else i.closed_minute * MINUTE_MS,
            "recorded": i.recorded,
        }


async def _lines(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    return response


async def _told(request: web.Request, lines: AsyncIterator[bytes]) -> web.StreamResponse:
    """Stream bunches of lines; what is wrong with the question shows before the answer has begun."""
    first = await anext(lines, b"")
    response = await _lines(request)
    await response.write(first)
    async for bunch in lines:
        await response.write(bunch)
    await response.write_eof()
    return response


def _json(body: Any, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=encode(body), content_type="application/json")


def _on_this_machine(remote: str | None) -> bool:
    try:
        return ipaddress.ip_address(remote or "").is_loopback
    except ValueError:
        return False
