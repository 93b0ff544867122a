"""
Bitget's error codes as data: what each means for us and what a person can do.

Read by answers.py, which raises the error. Codes and meanings: Bitget's V2 documentation and recorded answers;
`(sdk)` marks those known from public client libraries only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Verdict(Enum):
    """What an error code means for whoever asked."""

    SUCCESS = auto()
    BUSY = auto()  # too many requests: wait
    UNAVAILABLE = auto()  # not now: repeat later
    RESTING = auto()  # the same for one instrument; the others are served
    REFUSED = auto()  # this request will never be answered
    UNKNOWN_INSTRUMENT = auto()
    REGION = auto()
    NO_DATA = auto()  # a refusal in form, an empty answer in substance
    CREDENTIALS = auto()
    OTHER_FAMILY = auto()  # the key belongs to the other generation of private calls


@dataclass(frozen=True, slots=True)
class Meaning:
    """A verdict, why, and the way out; `wait` is the least number of seconds before a repeat."""

    verdict: Verdict
    what: str
    remedy: str = ""
    wait: float = 0.0


_PARAMETER = "correct the parameter; the message names it where the exchange does"
_WAIT = "it is tried again"
_GONE = "take the symbol out of the selection; its history stays"
_NEW_KEY = "copy the key again from the exchange's API management page"
_ADDRESS = "add this machine's public address to the key's list on the API management page"

CODES: dict[str, Meaning] = {
    "00000": Meaning(Verdict.SUCCESS, "success"),
    "0": Meaning(Verdict.SUCCESS, "success"),
    "429": Meaning(Verdict.BUSY, "too many requests", _WAIT, 1.0),
    "30006": Meaning(Verdict.BUSY, "too many requests", _WAIT, 1.0),
    "30007": Meaning(Verdict.BUSY, "over the request limit", _WAIT, 1.0),
    "40010": Meaning(Verdict.UNAVAILABLE, "the exchange timed out", _WAIT, 1.0),
    "40015": Meaning(Verdict.UNAVAILABLE, "the exchange's service failed", _WAIT, 1.0),
    "40725": Meaning(Verdict.UNAVAILABLE, "the exchange's service failed", _WAIT, 1.0),
    "40808": Meaning(Verdict.UNAVAILABLE, "the exchange refused for the moment, as in its release windows", _WAIT, 1.0),
    "45001": Meaning(Verdict.UNAVAILABLE, "the exchange's service failed", _WAIT, 1.0),
    "40308": Meaning(Verdict.RESTING, "the contract is in maintenance (sdk)", _WAIT, 60.0),
    "41114": Meaning(Verdict.RESTING, "the pair is in maintenance", _WAIT, 60.0),
    "43115": Meaning(Verdict.RESTING, "the pair opens soon (sdk)", _WAIT, 60.0),
    "00001": Meaning(Verdict.REFUSED, "the time window is too long", "ask for a shorter window"),
    "00171": Meaning(Verdict.REFUSED, "a parameter is wrong", _PARAMETER),
    "00172": Meaning(Verdict.REFUSED, "a parameter is wrong", _PARAMETER),
    "400172": Meaning(
        Verdict.REFUSED,
        "a parameter is wrong",
        "check the symbol (spot answers this for unknown ones) and the parameters",
    ),
    "30032": Meaning(Verdict.REFUSED, "the V1 interface is gone", "use addresses of /api/v2/"),
    "40017": Meaning(Verdict.REFUSED, "a parameter is wrong", _PARAMETER),
    "40019": Meaning(Verdict.REFUSED, "a parameter is empty or its product type unknown", _PARAMETER),
    "40020": Meaning(Verdict.REFUSED, "a parameter is wrong", _PARAMETER),
    "40404": Meaning(Verdict.REFUSED, "the exchange has no such address", "check the base address and the generation"),
    "40704": Meaning(Verdict.REFUSED, "only three months are served", "ask for a later time"),
    "40705": Meaning(Verdict.REFUSED, "the window is longer than 90 days", "ask for a shorter window"),
    "40707": Meaning(Verdict.REFUSED, "the window starts after its end", "swap start and end"),
    "40034": Meaning(Verdict.UNKNOWN_INSTRUMENT, "the exchange does not know this symbol", "check market and symbol"),
    "40102": Meaning(Verdict.UNKNOWN_INSTRUMENT, "the exchange does not know this symbol", "check market and symbol"),
    "42016": Meaning(Verdict.UNKNOWN_INSTRUMENT, "the exchange does not know this symbol", "check market and symbol"),
    "25100": Meaning(Verdict.UNKNOWN_INSTRUMENT, "the exchange does not know this symbol", "check market and symbol"),
    "40309": Meaning(Verdict.UNKNOWN_INSTRUMENT, "the contract was removed", _GONE),
    "41113": Meaning(Verdict.UNKNOWN_INSTRUMENT, "the symbol is offline", _GONE),
    "40054": Meaning(Verdict.NO_DATA, "no data"),
    "40000": Meaning(
        Verdict.REGION, "the exchange does not serve this region", "use a network it serves, or the local exchange"
    ),
    # ---- private calls (only made to validate credentials)
    "40001": Meaning(Verdict.CREDENTIALS, "the key is empty", "give the key (BITGET_API_KEY)"),
    "40002": Meaning(Verdict.CREDENTIALS, "the signature is empty", "give the key's secret (BITGET_SECRET_KEY)"),
    "40003": Meaning(Verdict.CREDENTIALS, "the request has no signature or time", "report this as a defect"),
    "40011": Meaning(Verdict.CREDENTIALS, "the passphrase is empty", "give the key's passphrase (BITGET_PASSPHRASE)"),
    "40004": Meaning(Verdict.CREDENTIALS, "the request's time has expired", "set this machine's clock"),
    "40005": Meaning(Verdict.CREDENTIALS, "the request's time is not in milliseconds", "report this as a defect"),
    "40008": Meaning(Verdict.CREDENTIALS, "the request's time has expired", "set this machine's clock"),
    "40006": Meaning(Verdict.CREDENTIALS, "the key is wrong", _NEW_KEY),
    "40037": Meaning(Verdict.CREDENTIALS, "the key does not exist", f"{_NEW_KEY}; it may have been deleted there"),
    "40009": Meaning(
        Verdict.CREDENTIALS,
        "the signature is wrong: the secret does not belong to the key",
        "copy the secret again (BITGET_SECRET_KEY); it is shown once, so perhaps a new key is needed",
    ),
    "40012": Meaning(
        Verdict.CREDENTIALS,
        "the key or the passphrase is wrong",
        "give the passphrase that was chosen with this key (BITGET_PASSPHRASE), not the account's password",
    ),
    "40036": Meaning(
        Verdict.CREDENTIALS,
        "the passphrase is wrong",
        "give the passphrase that was chosen with this key (BITGET_PASSPHRASE), not the account's password",
    ),
    "40014": Meaning(
        Verdict.CREDENTIALS, "the key lacks a permission", "grant it the permission to read on the API management page"
    ),
    "40018": Meaning(Verdict.CREDENTIALS, "this address may not use the key", _ADDRESS),
    "40038": Meaning(Verdict.CREDENTIALS, "this address may not use the key", _ADDRESS),
    "40099": Meaning(
        Verdict.CREDENTIALS, "the key is for demo trading, or the other way round", "use a key of the real exchange"
    ),
    "40084": Meaning(Verdict.OTHER_FAMILY, "the account is classic"),
    "40085": Meaning(Verdict.OTHER_FAMILY, "the account is unified"),
}
"""Error code → meaning. A new code is a row here."""
