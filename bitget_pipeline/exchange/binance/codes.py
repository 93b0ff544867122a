"""
Binance's error codes as data: what each means for us and what a person can do.

Read by answers.py, which raises the error. Codes and meanings: reference 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import ExchangeBusy, ExchangeUnavailable, PipelineError, RequestRefused, Transient, UnknownInstrument


@dataclass(frozen=True, slots=True)
class Meaning:
    """What to raise, why, and the way out; `wait` is the least number of seconds before a repeat."""

    error: type[PipelineError]
    what: str
    remedy: str
    wait: float = 0.0

    def raised(self, said: str, *, where: str) -> PipelineError:
        """The error, with what the exchange said."""
        what = f"{self.what} ({said})"
        if issubclass(self.error, Transient):
            return self.error(what, where=where, remedy=self.remedy, retry_after=self.wait)
        return self.error(what, where=where, remedy=self.remedy)


_WAIT = "it is tried again"
_PARAMETER = "correct the parameter; the message names it where the exchange does"
MINUTE = 60.0  # weights are counted by the minute: without a better word this is how long to wait
BAN = 120.0  # the shortest ban
FIREWALL = 300.0

CODES: dict[int, Meaning] = {
    -1000: Meaning(ExchangeUnavailable, "the exchange failed", _WAIT, 1.0),
    -1001: Meaning(ExchangeUnavailable, "the exchange lost a connection inside", _WAIT, 1.0),
    -1003: Meaning(ExchangeBusy, "too many requests", _WAIT, MINUTE),
    -1007: Meaning(ExchangeUnavailable, "the exchange timed out", _WAIT, 1.0),
    -1034: Meaning(ExchangeBusy, "too many connections", _WAIT, MINUTE),
    -1100: Meaning(RequestRefused, "a parameter holds forbidden characters", _PARAMETER),
    -1102: Meaning(RequestRefused, "a parameter is missing", _PARAMETER),
    -1105: Meaning(RequestRefused, "a parameter is empty", _PARAMETER),
    -1120: Meaning(RequestRefused, "the exchange has no such interval", _PARAMETER),
    -1121: Meaning(UnknownInstrument, "the exchange does not know this symbol", "check market and symbol"),
    -1127: Meaning(RequestRefused, "the time window is too long", "ask for a shorter window"),
    -1130: Meaning(RequestRefused, "a parameter is wrong", _PARAMETER),
}
"""Error code → meaning. A new code is a row here."""
