"""
What remediation did, as incidents: each deed with what was before and after it, and what it gave up.

Filled by remediation.py as it happens, written beside it; what a warehouse that is away cannot take waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ...errors import PipelineError
from ...guard.remedy import FORGOTTEN_AFTER, NOTHING_KNOWN
from ...guard.remedy_rules import Deed, GaveUp, Judged, Over, Rule
from ...guard.remedy_table import ACTIONS
from ...guard.vitals import Status, Vital
from ...storage.incident_rows import OpenIncident
from ...storage.versions import Versions
from ...storage.warehouse import Warehouse
from ...telemetry import get_logger
from ..incidents import Incident, Severity, close_incident, report_incident
from ..live.hands import symbol_of

log = get_logger(__name__)

TELL_WITHIN = 10.0
"""Seconds for one row."""
AGAIN_AFTER = 2.0
"""Seconds until leftovers that could not be looked through are looked for again."""
MOST_WAITING = 500
KIND, GAVE_UP = "remediation", "remediation_gave_up"
"""Of incidents."""
SUPERVISOR = "supervisor"
"""Whose incidents they are, where they are not those of the live runs of a shard."""
OUTLIVES = ("relaunch",)
"""Deeds that end whoever did them: what came of them is for the next one to see."""


class RemedyIncidents:
    """
    The incidents of one live run, or of its supervisor: `of` says of which shard's runs, or of the supervisor, and `run_id` is
    this one's alone. `clock` is market time (Unix ms). The stores may be given later.
    """

    def __init__(
        self,
        warehouse: Warehouse | None = None,
        versions: Versions | None = None,
        *,
        run_id: str,
        clock: Callable[[], int],
        of: str = "0",
    ) -> None:
        self.stores = None if warehouse is None or versions is None else (warehouse, versions)
        self.inherited = False
        """Whether what the one before this left open was looked through."""
        self._of = of
        self._run_id = run_id
        self._clock = clock
        self.waiting: deque[Incident] = deque(maxlen=MOST_WAITING)
        self._open: dict[int, Incident] = {}  # by the deed's number
        self._given_up: dict[tuple[str, str], Incident] = {}
        self._to_judge: list[OpenIncident] = []  # deeds of the one before this, which shows what came of them

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

    def end(self, because: str) -> None:
        """Everything that is open is over: nobody decides about it any more."""
        for number in list(self._open):
            self._close(number, {"closed_because": because})
        for key in list(self._given_up):
            self._closed(self._given_up.pop(key), {"closed_because": because})

    async def close_leftovers(self, *, because: str) -> None:
        """
        What one before this left open has ended with it; other shards' live runs and the supervisor have incidents of their own.
        What came of a deed that ended its doer is judged here (`look`).
        """
        if self.stores is None:
            return
        warehouse, versions = self.stores
        try:
            async with asyncio.timeout(TELL_WITHIN):
                for kind in (KIND, GAVE_UP):
                    for found in await asyncio.to_thread(warehouse.open_incidents, kind):
                        if _owner(found) != self._of or f":{self._run_id}:" in found.incident_id:
                            continue
                        if kind == KIND and found.details.get("action") in OUTLIVES:
                            self._to_judge.append(found)
                            continue
                        at_ms = max(self._clock(), found.opened_ms)
                        await close_incident(
                            warehouse, versions, found, because=because, at_ms=at_ms, run_id=self._run_id
                        )
        except (PipelineError, TimeoutError) as error:
            self._to_judge.clear()
            log.warning("remediation.leftovers_stay", problem=str(error) or "no answer")
            await asyncio.sleep(AGAIN_AFTER)
            return
        self.inherited = True

    def look(self, vitals: Iterable[Vital], rules: Sequence[Rule]) -> None:
        """Whether the deeds that ended the one before this have helped, once they had their time to."""
        if not self._to_judge:
            return
        seen = {(one.name, one.subject): one for one in vitals}
        by_name = {rule.name: rule for rule in rules}
        for found in list(self._to_judge):
            before, rule = found.details.get("before") or {}, by_name.get(str(found.details.get("rule")))
            name, subject = str(before.get("vital")), str(before.get("subject") or "")
            passed = (self._clock() - found.opened_ms) / 1000 - (0.0 if rule is None else rule.effect_within)
            vital = seen.get((name, subject), Vital(name, Status.UNKNOWN, NOTHING_KNOWN, subject=subject))
            holds = None if rule is None else rule.holds(vital)
            if passed < 0 or (holds is None and passed < FORGOTTEN_AFTER):
                continue
            self._to_judge.remove(found)
            self._closed(_as_incident(found), {"helped": holds is False, "after": as_words(vital)})

    def _incident(
        self, kind: str, name: str, severity: Severity, what: str, vital: Vital, details: dict[str, Any]
    ) -> Incident:
        place = symbol_of(vital.subject)
        market = None if place is None else place.market
        ident = f"{kind}:{self._run_id}:{name}"
        details = {"of": self._of, **details}
        return Incident(ident, kind, severity, what, self._clock(), market=market, symbol=place, details=details)

    def _close(self, number: int, known: dict[str, Any]) -> None:
        self._closed(self._open.pop(number), known)

    def _closed(self, incident: Incident, known: dict[str, Any]) -> None:
        closed = max(self._clock(), incident.opened_ms)
        self.waiting.append(replace(incident, closed_ms=closed, details={**incident.details, **known}))


def _owner(found: OpenIncident) -> str:
    """Whose it is: of which shard's live runs, or of the supervisor."""
    return str(found.details.get("of") or (SUPERVISOR if f":{SUPERVISOR}" in found.incident_id else "0"))


def _as_incident(found: OpenIncident) -> Incident:
    severity = Severity(found.severity)
    ident, kind, what, opened = found.incident_id, found.kind, found.what, found.opened_ms
    return Incident(ident, kind, severity, what, opened, None, found.market, found.symbol, found.details)


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
