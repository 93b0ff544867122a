"""The minute's health as Dagster's events: what the live run collects beside trades is told of its own assets."""

from __future__ import annotations

from typing import Any

import dagster as dg

from bitget_pipeline.defs.health import events
from bitget_pipeline.guard.vitals import Status
from bitget_pipeline.pipeline.watch.health import Health


def test_the_connections_of_the_live_run_are_observed():
    """
    An observation has figures that plot (frames a second, subscriptions that deliver) and a table of the connections.
    """
    socket = {"age": 12.0, "frames_per_second": 7.5, "live": 9, "asked": 0, "silent": 1, "refused": 0}
    socket |= {"opened": 2, "reconnects": 1, "last_reason": "no pong within 15 s", "frames": 100}
    facts = {"connections": {"socket-0": socket}, "frames_per_second": 7.5, "connected": 1}
    observation, *_ = events(Health(Status.HEALTHY, ["all is well"], facts=facts))
    assert isinstance(observation, dg.AssetObservation)
    metadata = observation.metadata
    assert (metadata["subscriptions live"].value, metadata["subscriptions silent"].value) == (9, 1)
    assert metadata["frames_per_second"].value == 7.5
    assert "| socket-0 | 12 | 7.5 | 9 | 0 | 1 | 2 | 1 | no pong within 15 s |" in metadata["connections"].value


def told(**facts: Any) -> dict[str, list[dg.AssetObservation | dg.AssetMaterialization]]:
    """The events of a healthy minute, by asset, checks left out."""
    found: dict[str, list[dg.AssetObservation | dg.AssetMaterialization]] = {}
    for event in events(Health(Status.HEALTHY, ["well"], facts=facts)):
        if not isinstance(event, dg.AssetCheckEvaluation):
            found.setdefault(event.asset_key.to_user_string(), []).append(event)
    return found


def test_books_and_tickers_are_observed_with_their_figures() -> None:
    """Numbers that plot, on the assets of the same names; books that are stored count as materialized."""
    books = {"usable": 60, "stored": 900, "waiting": 0, "set_aside": 2, "trouble": ""}
    found = told(order_books=books, tickers={"heard": 60, "stored": 60, "waiting": 0, "trouble": ""})
    observed, materialized = found["order_books"]
    assert isinstance(observed, dg.AssetObservation)
    assert observed.metadata["set_aside"].value == 2
    assert "trouble" not in observed.metadata
    assert isinstance(materialized, dg.AssetMaterialization)
    assert [type(one) for one in found["tickers"]] == [dg.AssetObservation]


def test_books_that_cannot_be_stored_are_observed_alone() -> None:
    """Freshness runs out then, and the observation says why; where none are collected there is nothing to tell."""
    books = {"usable": 60, "stored": 900, "waiting": 4000, "set_aside": 0, "trouble": "ClickHouse cannot be reached"}
    found = told(order_books=books)
    assert [type(one) for one in found["order_books"]] == [dg.AssetObservation]
    assert found["order_books"][0].metadata["trouble"].value == "ClickHouse cannot be reached"
    assert "order_books" not in told()


def test_the_agreement_with_the_exchange_is_told_of_the_candles() -> None:
    """The share of closed minutes that are the exchange's own plots on `candles_live`, and is not there before one closed."""
    said = {"minutes": 120, "match_rate": 0.975, "matched": 115, "repaired": 2, "unexplained": 3, "waiting": 0}
    observed = told(reconcile=said)["candles_live"][0]
    assert (observed.metadata["match rate"].value, observed.metadata["minutes unexplained"].value) == (0.975, 3)
    before = told(reconcile={"minutes": 0, "match_rate": None})["candles_live"][0]
    assert "match rate" not in before.metadata
