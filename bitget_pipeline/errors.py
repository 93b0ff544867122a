"""
The error tree, sorted by what the caller does next.

`Transient`: wait and repeat. `Malformed`: set the thing aside and go on. `Refused`: stop and tell a person.
Each error is one line for a person: what happened, where, and what to do about it.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Everything this project raises on purpose."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(self.__str__())

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f" — {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}{advice}"


# ---------------------------------------------------------------- wait and repeat


class Transient(PipelineError):
    """It may work when repeated; `retry_after` is the least number of seconds to wait, if known."""

    exit_code = 75

    def __init__(self, what: str, *, where: str = "", remedy: str = "", retry_after: float = 0.0) -> None:
        self.retry_after = retry_after
        super().__init__(what, where=where, remedy=remedy)


class ExchangeBusy(Transient):
    """The exchange said 429: too many requests."""


class ExchangeUnavailable(Transient):
    """No usable answer from the exchange: refused, timed out, 5xx, an HTML page, a release window."""


class InstrumentResting(Transient):
    """The exchange is well and does not serve this one instrument now: in maintenance, or about to open."""


class Withheld(Transient):
    """We did not ask: our own request budget has no room for it now. It says nothing of the exchange."""


class StoreUnavailable(Transient):
    """ClickHouse or Redis cannot be reached or is not ready."""


class StreamFull(Transient):
    """The live stream has reached its bound: spill, or wait until it drains."""


class LeaseHeld(Transient):
    """Another live run holds the lease."""


class LeaseLost(Transient):
    """The lease went to a successor: this run must not write any more."""


class StillWaiting(Transient):
    """What was asked for goes on, and is not done in the time given."""


class AlertNotDelivered(Transient):
    """A channel did not take an alert; it waits. The text never holds the channel's address or password."""


class StageTimedOut(Transient):
    """A stage of a live run's start took longer than it may."""


class CannotBeDone(Transient):
    """What remediation wants to do is not possible as things stand."""


# ---------------------------------------------------------------- set aside


class Malformed(PipelineError):
    """Something we received is not what the protocol promises; it is counted and set aside."""

    exit_code = 65


class MalformedFrame(Malformed):
    """A websocket frame that cannot be understood. `about` is the subscription it belonged to, where that can be told."""

    about: object = None


class MalformedPage(Malformed):
    """An HTTP answer whose body cannot be understood, or whose rows contradict each other."""


class BookBroken(Malformed):
    """An order book that cannot be trusted any more: it is discarded, and a new snapshot asked for."""


class ForeignGeneration(Malformed):
    """A V1 or V3 message where V2 was expected."""


# ---------------------------------------------------------------- stop and tell


class Refused(PipelineError):
    """Repeating will not help; a person has to change something."""

    exit_code = 78


class SettingsInvalid(Refused):
    """A setting is missing, malformed or contradicts another."""


class RequestRefused(Refused):
    """The exchange refuses this request for good (wrong parameter, wrong path)."""


class UnknownInstrument(Refused):
    """The exchange, or our universe, does not know this symbol."""


class NothingSelected(Refused):
    """There is nothing to collect."""


class RegionBlocked(Refused):
    """The exchange does not serve this region."""


class CredentialsRefused(Refused):
    """
    The exchange or a store refuses the credentials, or they carry rights we do not accept. `code` is the exchange's own
    word for why, where it gave one.
    """

    code: str = ""


class PortTaken(Refused):
    """A port we were told to use is in use."""


class FolderTaken(Refused):
    """Another process owns this data folder."""


class WrongExchange(Refused):
    """A folder, database or Redis prefix belongs to the other exchange (real or local)."""


class StoreRefused(Refused):
    """ClickHouse or Redis answered, and refused: wrong settings, wrong schema, a bad statement."""


class DiskFull(Refused):
    """No room left for what must be written."""


class DayNotServed(Refused):
    """A day before the instrument was listed, or in the future."""
