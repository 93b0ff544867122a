"""What the exchange says of a key, and what we make of it."""

from __future__ import annotations

import msgspec
import pytest

from bitget_pipeline.errors import CredentialsRefused, ExchangeBusy, MalformedPage
from bitget_pipeline.exchange.bitget.adapter import Bitget
from bitget_pipeline.exchange.contract import Family, KeyVerdict


def answer(data: object, code: str = "00000", message: str = "success") -> bytes:
    return msgspec.json.encode({"code": code, "msg": message, "requestTime": 1790358274804, "data": data})


def verdict(data: object) -> KeyVerdict:
    return Bitget().read_account_info(200, answer(data))


def test_a_key_that_reads_alone_is_accepted() -> None:
    """Classic rights that all end in r are reading rights."""
    told = verdict({"userId": "1", "ips": "203.0.113.7", "authorities": ["stor", "coor", "wtor"]})
    assert told == KeyVerdict(True, ("stor", "coor", "wtor"), True, Family.CLASSIC)


@pytest.mark.parametrize("rights", [["stor", "stow"], ["wwow"], ["transfer"], ["something_for"], []])
def test_a_key_that_may_do_more_or_unknown_things_is_not_read_only(rights: list[str]) -> None:
    """Trading, withdrawing, a word we do not know, or no word at all."""
    told = verdict({"authorities": rights, "ips": ""})
    assert not told.read_only
    assert not told.ip_restricted


@pytest.mark.parametrize(("kind", "reads"), [("read_only", True), ("read-only", True), ("read-and-write", False)])
def test_a_unified_account_says_it_in_one_word(kind: str, reads: bool) -> None:
    """`permType` decides on unified accounts."""
    told = verdict({"permType": kind, "permissions": ["uta_mgt"], "ips": ["203.0.113.7"]})
    assert told == KeyVerdict(reads, (kind, "uta_mgt"), True, Family.UNIFIED)


@pytest.mark.parametrize(("code", "family"), [("40085", Family.UNIFIED), ("40084", Family.CLASSIC)])
def test_an_account_of_the_other_family_says_where_to_ask(code: str, family: Family) -> None:
    """The key is recognised; its rights are to be asked for in the other family."""
    told = Bitget().read_account_info(400, answer(None, code, "wrong account mode"))
    assert told == KeyVerdict(False, (), False, family)


@pytest.mark.parametrize(
    "code", ["40001", "40006", "40009", "40012", "40036", "40037", "40008", "40018", "40038", "40014", "40099"]
)
def test_a_refused_key_says_what_to_change(code: str) -> None:
    """Each refusal of credentials is one line with a way out."""
    with pytest.raises(CredentialsRefused) as refusal:
        Bitget().read_account_info(400, answer(None, code, "no"))
    assert refusal.value.remedy
    assert "\n" not in str(refusal.value)


def test_a_busy_exchange_says_nothing_of_the_key() -> None:
    """429 is to be repeated, not a verdict."""
    with pytest.raises(ExchangeBusy):
        Bitget().read_account_info(429, answer(None, "429", "Too Many Requests"))


def test_an_account_without_sense_is_malformed() -> None:
    """Data of another shape is set aside."""
    with pytest.raises(MalformedPage):
        verdict({"authorities": "all"})
