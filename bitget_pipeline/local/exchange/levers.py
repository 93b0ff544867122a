"""
Pulling a lever: a fault for the places that ask for it, or an act on the universe at once.
"""

from __future__ import annotations

from typing import Any

from .faults import Target
from .instruments import Instrument
from .sockets import Sockets
from .venue import Venue


class Levers:
    """What `POST /admin/faults` and LocalExchange can do to a venue."""

    def __init__(self, venue: Venue, sockets: Sockets) -> None:
        self._venue = venue
        self._sockets = sockets

    def fault(
        self, kind: str, *, target: str = "*", seconds: float | None = None, probability: float = 1.0, **params: Any
    ) -> dict[str, Any]:
        """
        Start a fault and describe it. `drop` and `half_open` without `seconds`, and `deaf`, act once, on what is open now.

        :raises ValueError: an unknown kind, or a target the kind cannot act on.
        """
        if kind in ("listing", "delisting", "halt", "status"):
            return self._universe(kind, Target.parse(target), params)
        if kind in ("drop", "half_open") and seconds is None:
            struck = self._sockets.strike_once(kind, Target.parse(target))
            return {"kind": kind, "target": target, "connections": struck}
        if kind == "deaf":
            deaf = self._sockets.deafen(Target.parse(target), stubborn=bool(params.get("stubborn")))
            return {"kind": kind, "target": target, "subscriptions": deaf}
        fault = self._venue.faults.add(kind, target=target, seconds=seconds, probability=probability, **params)
        if kind == "release_window":
            self._sockets.strike_once("drop", Target())
        return fault.describe()

    def _universe(self, kind: str, target: Target, params: dict[str, Any]) -> dict[str, Any]:
        venue, now = self._venue, self._venue.clock.now_ms()
        if "*" in (target.market, target.symbol):
            raise ValueError(f"{kind} needs a target market:SYMBOL")
        if kind == "listing":
            if venue.universe.find(target.market, target.symbol) is not None:
                raise ValueError(f"{target.market}:{target.symbol} exists already")
            instrument = venue.universe.list_now(target.market, target.symbol, now_ms=now, **params)
            return {"kind": kind, "symbol": instrument.name, "listed_ms": instrument.listed_minute * 60_000}
        instrument = self._known(target)
        if kind == "delisting":
            venue.universe.delist_now(instrument, now_ms=now)
            venue.bars.forget(instrument)
            return {"kind": kind, "symbol": instrument.name, "closed_ms": (instrument.closed_minute or 0) * 60_000}
        if kind == "halt":
            first, end = (int(params[name]) // 60_000 for name in ("from_ms", "to_ms"))
            venue.bars.tape.halt(instrument, first, end)
            venue.bars.forget(instrument)
            return {"kind": kind, "symbol": instrument.name, "minutes": end - first}
        venue.statuses[instrument.name] = str(params.get("status", ""))
        return {"kind": kind, "symbol": instrument.name, "status": venue.status_of(instrument)}

    def _known(self, target: Target) -> Instrument:
        instrument = self._venue.universe.find(target.market, target.symbol)
        if instrument is None:
            raise ValueError(f"no instrument {target.market}:{target.symbol}")
        return instrument
