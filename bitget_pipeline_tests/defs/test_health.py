"""The minute's health as Dagster's events: what the live run collects beside trades is told of its own assets."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from bitget_pipeline.defs.health import FAMILIES, budget_events, evaluations, events
from bitget_pipeline.guard.vitals import Status, Vital, worst
from bitget_pipeline.market.instrument import Market
from bitget_pipeline.pipeline.watch.health import Health
from bitget_pipeline.storage.breaker_board import Resting
from bitget_pipeline.storage.budget import EndpointUse


def test_the_connections_of_the_live_run_are_observed():
    """
    An observation has figures that plot (frames a second, subscriptions that deliver) and a table of the connections.
    """
    socket = {"age": 12.0, "frames_per_second": 7.5, "live": 9, "asked": 0, "silent": 1, "refused": 3, "resting": 4}
    socket |= {
        "paced": 8,
        "opened": 2,
        "renewed": 5,
        "reconnects": 1,
        "last_reason": "no pong within 15 s",
        "frames": 100,
    }
    facts = {"connections": {"socket-0": socket}, "frames_per_second": 7.5, "connected": 1}
    observation, *_ = events(Health(Status.HEALTHY, ["all is well"], facts=facts))
    assert isinstance(observation, dg.AssetObservation)
    metadata = observation.metadata
    assert (metadata["subscriptions live"].value, metadata["subscriptions silent"].value) == (9, 1)
    assert metadata["frames_per_second"].value == 7.5
    assert (metadata["subscriptions refused"].value, metadata["subscriptions paced"].value) == (3, 8)
    assert (
        "| socket-0 | 12 | 7.5 | 9 | 0 | 1 | 3 | 4 | 8 | 2 | 5 | 1 | no pong within 15 s |"
        in metadata["connections"].value
    )


def told(**facts: Any) -> dict[str, list[dg.AssetObservation | dg.AssetMaterialization]]:
    """The events of a healthy minute, by asset, checks left out."""
    found: dict[str, list[dg.AssetObservation | dg.AssetMaterialization]] = {}
    for event in events(Health(Status.HEALTHY, ["well"], facts=facts)):
        if not isinstance(event, dg.AssetCheckEvaluation):
            found.setdefault(event.asset_key.to_user_string(), []).append(event)
    return found


def test_books_and_tickers_are_observed_with_their_figures() -> None:
    """Numbers that plot, on the assets of the same names; books that are stored count as materialized."""
    books = {"usable": 60, "stored": 900, "stored_ago": 4.0, "waiting": 0, "set_aside": 2, "trouble": ""}
    found = told(order_books=books, tickers={"heard": 60, "stored": 60, "waiting": 0, "trouble": ""})
    observed, materialized = found["order_books"]
    assert isinstance(observed, dg.AssetObservation)
    assert observed.metadata["set_aside"].value == 2
    assert "trouble" not in observed.metadata
    assert isinstance(materialized, dg.AssetMaterialization)
    assert [type(one) for one in found["tickers"]] == [dg.AssetObservation]


def test_books_that_cannot_be_stored_are_observed_alone() -> None:
    """Freshness runs out then, and the observation says why; where none are collected there is nothing to tell."""
    books = {"usable": 60, "stored": 900, "stored_ago": 4.0, "waiting": 4000, "set_aside": 0}
    books |= {"trouble": "ClickHouse cannot be reached"}
    found = told(order_books=books)
    assert [type(one) for one in found["order_books"]] == [dg.AssetObservation]
    assert found["order_books"][0].metadata["trouble"].value == "ClickHouse cannot be reached"
    assert "order_books" not in told()


@pytest.mark.parametrize(("age", "beats"), [(5.0, True), (60.9, False), (None, False)])
def test_the_heartbeat_of_the_live_assets_beats_only_while_trades_reach_the_table(
    age: float | None, beats: bool
) -> None:
    """Freshness goes by it: trades and the candles made of them are materialized by a trade of this minute, by nothing else."""
    seen = Health(Status.HEALTHY, ["well"], newest_stored_age=age)
    beaten = {one.asset_key.to_user_string() for one in events(seen) if isinstance(one, dg.AssetMaterialization)}
    assert beaten == ({"trades", "candles_live", "candles_unified"} if beats else set())


@pytest.mark.parametrize(("ago", "published", "beats"), [(5.0, 1.0, True), (61.0, 0.0, False), (5.0, 90.0, False)])
def test_the_heartbeat_of_books_is_a_book_stored_just_now(ago: float, published: float, beats: bool) -> None:
    """Books that are held and were stored once, on a feed that is mute or by a run that is gone, keep nothing fresh."""
    books = {"usable": 60, "stored": 900, "stored_ago": ago, "waiting": 0, "set_aside": 0, "trouble": ""}
    found = told(order_books=books, published_age_s=published)["order_books"]
    assert any(isinstance(one, dg.AssetMaterialization) for one in found) is beats


def test_the_agreement_with_the_exchange_is_told_of_the_candles() -> None:
    """The share of closed minutes that are the exchange's own plots on `candles_live`, and is not there before one closed."""
    said = {"minutes": 120, "match_rate": 0.975, "matched": 115, "repaired": 2, "unexplained": 3, "waiting": 0}
    observed = told(reconcile=said)["candles_live"][0]
    assert (observed.metadata["match rate"].value, observed.metadata["minutes unexplained"].value) == (0.975, 3)
    before = told(reconcile={"minutes": 0, "match_rate": None})["candles_live"][0]
    assert "match rate" not in before.metadata


def test_the_budget_is_observed_with_its_figures_and_with_whose_breaker_is_open() -> None:
    """On the history of each market, of its own endpoints; a worker's breaker shows though it is that process's own."""
    used = [
        EndpointUse("spot.history-candles", 1.0, 0.5, 4.0, 700, 3),
        EndpointUse("spot.tickers", 1.0, 1.0, 0.0, 30, 0),
    ]
    used.append(EndpointUse("mix.history-candles", 1.0, 1.0, 0.0, 90, 0))
    resting = [Resting("spot", "host:17", 5.0), Resting("spot", "host:18", 0.0), Resting("public", "host:17", 9.0)]
    spot, usdtm = budget_events(used, 0.0, (Market.SPOT, Market.USDTM), resting)
    assert (spot.asset_key, usdtm.asset_key) == (
        dg.AssetKey(["spot", "candles_1m"]),
        dg.AssetKey(["usdtm", "candles_1m"]),
    )
    figures = {name: one.value for name, one in spot.metadata.items()}
    assert (figures["requests granted"], figures["requests refused (429)"], figures["slowest pace"]) == (730, 3, 0.5)
    assert figures["budget closed for (s)"] == 4.0
    assert "| spot.history-candles | 700 | 3 | 0.5 |" in figures["endpoints"]
    assert (figures["processes whose breaker is open"], figures["rests"]) == (2, "host:17 for 5 s, host:18 for 0 s")
    assert usdtm.metadata["processes whose breaker is open"].value == 0
    assert usdtm.metadata["rests"].value == "nobody"


def judged(*vitals: Vital) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    """The checks of a minute in which these were seen, by asset and name."""
    seen = Health(worst(vitals), [], vitals=list(vitals))
    return {(one.asset_key.to_user_string(), one.check_name): one for one in evaluations(seen, (Market.SPOT,))}


def test_each_family_of_vitals_has_its_check_on_the_asset_that_it_concerns() -> None:
    """What is critical is red on its own asset, and nobody else's check is touched by it."""
    found = judged(
        Vital("exchange.rest", Status.CRITICAL, "the exchange does not answer"),
        Vital("connection.open", Status.DEGRADED, "socket-0 is not open", subject="socket-0"),
        Vital("redis.memory", Status.HEALTHY, "enough"),
        Vital("budget.use", Status.HEALTHY, "open"),
        Vital("dagster.daemon", Status.HEALTHY, "alive"),
        Vital("symbols", Status.HEALTHY, "all deliver"),
    )
    assert {key: one.passed for key, one in found.items()} == {
        ("trades", "data_arrives"): True,
        ("trades", "exchange_answers"): False,
        ("trades", "sockets_are_open"): False,
        ("candles_live", "stores_are_well"): True,
        ("spot/candles_1m", "budget_is_kept"): True,
        ("coverage", "dagster_is_well"): True,
    }
    red, amber = found["trades", "exchange_answers"], found["trades", "sockets_are_open"]
    assert (red.severity, amber.severity) == (dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN)
    assert red.description == "the exchange does not answer"
    assert "| connection.open socket-0 | degraded |" in amber.metadata["watched"].value


def test_a_family_that_nobody_could_evaluate_passes_no_check() -> None:
    """Nothing was seen: amber and unknown, never green."""
    for check in judged().values():
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert check.metadata["status"].value == "unknown"


def test_every_vital_belongs_to_one_family() -> None:
    """A name that no check shows would be watched by nobody."""
    attention = {
        *(
            "exchange.rest",
            "exchange.clock",
            "connection.open",
            "connection.reconnects",
            "connection.renewed",
            "lag.traded_p99",
            "throughput",
            "errors",
            "lag.p99",
        ),
        *("symbols", "subscription.silence", "subscription.gap", "companion", "channel.shed", "spill", "live.trouble"),
        *("stream.backlog", "flush.progress", "redis.policy", "clickhouse.parts", "budget.use", "budget.breaker"),
        *("disk.free", "clock.steady", "live.run", "live.lease", "dagster.daemon", "dagster.runs", "failover.spot"),
    }
    for name in attention:
        assert sum(name.startswith(family.names) for family in FAMILIES) == 1, name
