"""Signatures, against the worked values of the protocol reference (computed with hmac, hashlib and base64)."""

from __future__ import annotations

import pytest

from bitget_pipeline.exchange.bitget.adapter import Bitget
from bitget_pipeline.exchange.bitget.signing import headers, prehash, sign
from bitget_pipeline.exchange.contract import Credentials, Family, Request

SECRET = "example_secret_0123456789abcdef"
AT = 1790358274804
ORDER = '{"symbol":"BTCUSDT","side":"buy","orderType":"limit","force":"gtc","price":"10000","size":"0.001"}'
US = Credentials(key="a-key", secret=SECRET, passphrase="a-phrase")


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "signature"),
    [
        ("GET", "/api/v2/spot/account/info", "", "", "b3n/OdmOD+CI0TXUCJyep/Y+/VeDj17S75EPbE0f49o="),
        (
            "get",
            "/api/v2/spot/account/assets",
            "assetType=hold_only&coin=USDT",
            "",
            "GCYcDLUMBVUblFiGJjypHD5OPeiKRKfMCWpXtUCw1oI=",
        ),
        ("POST", "/api/v2/spot/trade/place-order", "", ORDER, "vC9L0OPVi0Y0G1J9DrvUNIsG1lFbNuynfk7E/twQVM8="),
    ],
)
def test_the_worked_values_are_reproduced(method: str, path: str, query: str, body: str, signature: str) -> None:
    """The signature of each worked request is the reference's."""
    text = prehash(timestamp_ms=AT, method=method, path=path, query=query, body=body)
    assert sign(SECRET, text) == signature


@pytest.mark.parametrize(
    ("text", "signature"),
    [
        (
            f"{AT}GET/api/v2/spot/account/assetsassetType=hold_only&coin=USDT",
            "TPLv96C+6Mia/GMjEq0JbFxuzlmPo/vAAZ0z3V0Yic8=",
        ),
        ("1790358274GET/user/verify", "px4Ewkn9MxXqG2sxaJg0n0j7ynlWNQ+gf80mO07mrEE="),
    ],
)
def test_the_worked_texts_are_reproduced(text: str, signature: str) -> None:
    """The wrong text (without question mark) and the websocket's login text give the reference's values too."""
    assert sign(SECRET, text) == signature


def test_the_raw_text_of_a_query_is_signed_and_its_encoding_sent() -> None:
    """The exchange verifies the decoded query: a non-ASCII symbol is signed as it reads."""
    request = Request("/api/v2/x", (("symbol", "牛来USDT"),), "x", 1)
    signed = Bitget().signed_headers(request, US, now_ms=AT)
    assert request.url("https://api.bitget.com/") == "https://api.bitget.com/api/v2/x?symbol=%E7%89%9B%E6%9D%A5USDT"
    assert signed["ACCESS-SIGN"] == sign(SECRET, f"{AT}GET/api/v2/x?symbol=牛来USDT")


def test_the_headers_are_complete() -> None:
    """Key, signature, milliseconds as text, passphrase, type and locale."""
    made = headers(US, timestamp_ms=AT, method="GET", path=Bitget().account_info().path)
    assert made == {
        "ACCESS-KEY": "a-key",
        "ACCESS-SIGN": "b3n/OdmOD+CI0TXUCJyep/Y+/VeDj17S75EPbE0f49o=",
        "ACCESS-TIMESTAMP": "1790358274804",
        "ACCESS-PASSPHRASE": "a-phrase",
        "Content-Type": "application/json",
        "locale": "en-US",
    }


def test_credentials_do_not_show_themselves() -> None:
    """Neither text form of credentials holds any of the three secrets."""
    shown = repr(US) + str(US) + repr({"who": US})
    assert not any(secret in shown for secret in ("a-key", SECRET, "a-phrase"))


def test_each_family_has_its_own_account_call() -> None:
    """Classic accounts are asked under /api/v2/, unified ones under /api/v3/."""
    assert Bitget().account_info(Family.CLASSIC).path.startswith("/api/v2/")
    assert Bitget().account_info(Family.UNIFIED).path.startswith("/api/v3/")
