"""
What a key may do, as the exchange says it: the answer of the account call in, a verdict out.

The call is made once before a key is used. Which rights are acceptable is for the caller to decide.
"""

from __future__ import annotations

import msgspec

from ...errors import MalformedPage
from ..contract import Family, KeyVerdict
from . import answers
from .codes import CODES, Verdict

READS = frozenset({"readonly", "read_only"})
RIGHT_LENGTH = (
    4  # classic rights are four letters: what for, `o`, and r or w (`stor` reads spot orders, `wwow` withdraws)
)
_OTHER_FAMILY = {"40084": Family.CLASSIC, "40085": Family.UNIFIED}


class WireAccount(msgspec.Struct):
    """The account call's data: `authorities` on classic accounts, `permType` and `permissions` on unified ones."""

    authorities: list[str] | None = None
    permType: str | None = None
    permissions: list[str] | None = None
    ips: str | list[str] | None = None


def read(status: int, body: bytes) -> KeyVerdict:
    """
    The verdict. An account that answers to the other family of calls gets that family and no rights: ask again there.

    Raises CredentialsRefused when the exchange refuses the key, and what answers.data raises.
    """
    where = "bitget credentials"
    envelope = answers.opened(status, body, where=where)
    code = str(envelope.code)
    if code in CODES and CODES[code].verdict is Verdict.OTHER_FAMILY:
        return KeyVerdict(read_only=False, rights=(), ip_restricted=False, family=_OTHER_FAMILY[code])
    raw = answers.data(status, body, where=where)
    try:
        account = msgspec.json.decode(raw or b"{}", type=WireAccount)
    except (ValueError, RecursionError) as error:
        raise MalformedPage(
            f"the account's data makes no sense: {error}", where=where, remedy="it is set aside"
        ) from None
    restricted = bool(account.ips)
    if account.permType is not None:
        rights = (account.permType, *(account.permissions or ()))
        return KeyVerdict(account.permType.replace("-", "_") in READS, rights, restricted, Family.UNIFIED)
    rights = tuple(account.authorities or ())
    return KeyVerdict(bool(rights) and all(_reads(right) for right in rights), rights, restricted, Family.CLASSIC)


def _reads(right: str) -> bool:
    """Whether a right is known to read alone. The old word `transfer` ends in r too, hence the length."""
    return right in READS or (len(right) == RIGHT_LENGTH and right.endswith("r"))
