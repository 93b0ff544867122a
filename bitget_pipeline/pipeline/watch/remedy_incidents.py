"""
What remediation did, as incidents: each deed with what was before and after it, and what it gave up.

Filled by remediation.py as it happens, written beside it; what a warehouse that is away cannot take waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...errors import PipelineError
from ...guard.remedy_rules import Deed, GaveUp, Judged, Over
from ...guard.remedy_table import ACTIONS
from ...guard.vitals import Vital
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import get_logger
from ..incidents import Incident, Severity, close_incident, report_incident
from ..live.hands import symbol_of

log = get_logger(__name__)

TELL_WITHIN = 10.0
"""Seconds for one row."""
MOST_WAITING = 500
KIND, GAVE_UP = "remediation", "remediation_gave_up"
"""Of incidents."""


class RemedyIncidents:
    """
    The incidents of one live run, or of its supervisor. `clock` is market time (Unix ms). The stores may be given later.
    """

    def __init__(
        self,
        warehouse: Warehouse | None = None,
        versions: Versions | None = None,
        *,
        run_id: str,
        clock: Callable[[], int],
    ) -> None:
        self.stores = None if warehouse is None or versions is None else (warehouse, versions)
        self._run_id = run_id
        self._clock = clock
        self.waiting: deque[Incident] = deque(maxlen=MOST_WAITING)
        self._open: dict[int, Incident] = {}  # by the deed's number
        self._given_up: dict[tuple[str, str], Incident] = {}

    def did(self, deed: Deed, *, ok: bool, said: str) -> None:
        """A deed opens an incident; the end of what lasted closes the one of its beginning."""
        if deed.undo:
            for number, one in list(self._open.items()):
                if ok and (one.details["action"], one.details["target"]) == (deed.action, deed.target):
                    self._close(number, {"undone": said, "after": as_words(deed.before)})
            return
        details = {
            "rule": deed.rule,
            "action": deed.action,
            "target": deed.target,
            "done": ok,
            "said": said,
            "before": as_words(deed.before),
        }
        what = f"{deed.before.reason or deed.before.name}: {said}"
        incident = self._incident(KIND, str(deed.number), Severity.NOTE, what, deed.before, details)
        self._open[deed.number] = incident
        self.waiting.append(incident)

    def judged(self, news: Judged) -> None:
        """What was after it; what lasts stays open until it is undone."""
        number, known = news.deed.number, {"helped": news.helped, "after": as_words(news.after)}
        if number not in self._open:
            return
        if ACTIONS[news.deed.action].lasting and news.done:
            incident = self._open[number]
            self._open[number] = replace(incident, details={**incident.details, **known})
            self.waiting.append(self._open[number])
        else:
            self._close(number, known)

    def gave_up(self, news: GaveUp) -> None:
        """Nothing more is done by itself: a person has to look."""
        target = f" ({news.target})" if news.target else ""
        what = f"{news.vital.reason or news.vital.name}{target}: {news.because}; a person has to look"
        details = {"rule": news.rule, "target": news.target, "vital": as_words(news.vital)}
        name = f"{news.rule}:{news.target}:{self._clock()}"
        incident = self._incident(GAVE_UP, name, Severity.CRITICAL, what, news.vital, details)
        self._given_up[news.rule, news.target] = incident
        self.waiting.append(incident)

    def over(self, news: Over) -> None:
        """What was given up is over all the same."""
        incident = self._given_up.pop((news.rule, news.target), None)
        if incident is not None:
            self._closed(incident, {"after": as_words(news.vital), "closed_because": "it is over"})

    async def write(self) -> None:
        """Write what waits, as far as the warehouse takes it."""
        while self.waiting and self.stores is not None:
            incident = self.waiting[0]
            try:
                async with asyncio.timeout(TELL_WITHIN):
                    await report_incident(*self.stores, incident, run_id=self._run_id)
            except (PipelineError, TimeoutError) as error:
                log.warning("remediation.not_told", problem=str(error) or "no answer", waiting=len(self.waiting))
                await asyncio.sleep(1.0)
                return
            if self.waiting and self.waiting[0] is incident:
                self.waiting.popleft()

    async def close_leftovers(self) -> None:
        """What a run before this one left open has ended with it."""
        if self.stores is None:
            return
        warehouse, versions = self.stores
        try:
            async with asyncio.timeout(TELL_WITHIN):
                for kind in (KIND, GAVE_UP):
                    for found in await asyncio.to_thread(warehouse.open_incidents, kind):
                        if f":{self._run_id}:" not in found.incident_id:
                            await close_incident(
                                warehouse,
                                versions,
                                found,
                                because="the live run it was about has ended",
                                at_ms=max(self._clock(), found.opened_ms),
                                run_id=self._run_id,
                            )
        except (PipelineError, TimeoutError) as error:
            log.warning("remediation.leftovers_stay", problem=str(error) or "no answer")

    def _incident(
        self, kind: str, name: str, severity: Severity, what: str, vital: Vital, details: dict[str, Any]
    ) -> Incident:
        place = symbol_of(vital.subject)
        market = None if place is None else place.market
        ident = f"{kind}:{self._run_id}:{name}"
        return Incident(ident, kind, severity, what, self._clock(), market=market, symbol=place, details=details)

    def _close(self, number: int, known: dict[str, Any]) -> None:
        self._closed(self._open.pop(number), known)

    def _closed(self, incident: Incident, known: dict[str, Any]) -> None:
        closed = max(self._clock(), incident.opened_ms)
        self.waiting.append(replace(incident, closed_ms=closed, details={**incident.details, **known}))


def as_words(vital: Vital) -> dict[str, Any]:
    """A vital in the details of an incident."""
    return {
        "vital": vital.name,
        "subject": vital.subject,
        "status": vital.status.value,
        "reason": vital.reason,
        "value": vital.value,
        "limit": vital.limit,
    }
