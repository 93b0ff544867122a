"""What a failover says of itself, judged."""

from __future__ import annotations

import pytest

from bitget_pipeline.guard.vitals import Status
from bitget_pipeline.pipeline.watch.failover_vitals import failover_vitals

BINANCE = {"substitute": "binance", "reason": "all majors silent for 8 s", "silent_seconds": 9.0}


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ({"state": "ours", "silent_seconds": 0.4}, Status.HEALTHY, "Bitget delivers spot"),
        ({"state": "ours", "mode": "off", "majors": 0}, Status.HEALTHY, "switched off"),
        ({"state": "ours", "majors": 0}, Status.HEALTHY, "nobody stands in unless told to"),
        ({"state": "ours", "repairing": 1}, Status.DEGRADED, "repair is under way"),
        ({"state": "ours", "nobody": True, "silent_seconds": 20.0}, Status.CRITICAL, "nobody stands in"),
        ({"state": "none", "reason": "nobody stands in for it"}, Status.HEALTHY, "nobody stands in for it"),
        (
            {"state": "substituted", "feed": {"connected": 1}, **BINANCE},
            Status.DEGRADED,
            "binance stands in: all majors",
        ),
        ({"state": "returning", "feed": {"connected": 1}, **BINANCE}, Status.DEGRADED, "binance stands in"),
        ({"state": "substituted", "feed": {"connected": 0}, "trouble": "cut", **BINANCE}, Status.CRITICAL, "; cut"),
        ({}, Status.UNKNOWN, "says nothing"),
    ],
)
def test_each_state_has_its_verdict(said, status, words):
    """
    Standing in is degraded, standing in without a connection or not at all is critical.
    """
    (vital,) = failover_vitals({"spot": said})
    assert (vital.name, vital.status) == ("failover.spot", status)
    assert words in vital.reason


def test_each_market_is_told():
    """
    Also one that nobody stands in for.
    """
    found = failover_vitals({"usdtm": {"state": "ours"}, "coinm": {"state": "none", "reason": "nobody"}})
    assert [one.name for one in found] == ["failover.coinm", "failover.usdtm"]
