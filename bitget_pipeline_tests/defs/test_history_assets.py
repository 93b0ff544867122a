"""History through Dagster: assets run against real stores and the local exchange, and say what they did."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import pytest

from bitget_pipeline.defs.assets import candles_assets, derivative_assets, derived_assets, trades_history_assets
from bitget_pipeline.defs.assets.history import Talk
from bitget_pipeline.defs.check_scope import last_week
from bitget_pipeline.defs.checks import CHECKS, asset_checks
from bitget_pipeline.defs.history_launcher import derivations
from bitget_pipeline.defs.resources import PipelineResource, boot
from bitget_pipeline.defs.sensors import archive_derivation_launchers, derivation_launchers
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.derivatives import FundingRate, OpenInterest, PriceKind
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.pipeline.history.backfill import Progress, backfill_candles
from bitget_pipeline.pipeline.history.rectangles import RANGE_END, RANGE_START
from bitget_pipeline.pipeline.universe.discover import discover
from bitget_pipeline.storage.stamp import stamp_database

MARKETS = (Market.SPOT, Market.USDTM)
BTC = Symbol(Market.USDTM, "BTCUSDT")
GRID = date(2025, 11, 1)
KEY = dg.AssetKey(["usdtm", "candles_1m"])
CALM = ExchangeConfig(
    spot_instruments=8, usdtm_instruments=8, coinm=1, usdcm=1, active_per_market=4, trades_per_second=0.5
)
HISTORY = [
    *candles_assets(MARKETS, grid_starts=GRID),
    *derived_assets(MARKETS, grid_starts=GRID),
    *trades_history_assets(MARKETS, grid_starts=GRID),
    *derivative_assets(MARKETS, grid_starts=GRID),
]


@pytest.fixture
async def placed(
    warehouse, warehouse_address, redis_address, redis_prefix, tmp_path, monkeypatch
) -> Iterator[LocalExchange]:
    """The settings of this process point at the stores of the test and at a local exchange; BTC is selected."""
    async with running(CALM) as server:
        place = {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_PIPELINE_HOME": str(tmp_path),
            "BITGET_REST_URL": server.rest_url,
            "BITGET_WS_URL": server.ws_url,
            "CLICKHOUSE_HOST": warehouse_address.host,
            "CLICKHOUSE_PORT": str(warehouse_address.port),
            "CLICKHOUSE_DATABASE": warehouse_address.database,
            "REDIS_HOST": redis_address.host,
            "REDIS_PORT": str(redis_address.port),
            "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
        }
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        boot.cache_clear()
        stamp_database(warehouse, "local")
        chosen = [Chosen(BTC, 1, 1e9, Reason.VOLUME)]
        warehouse.store_universe(chosen, selected_at=datetime.now(UTC), run_id="test")
        yield server
    boot.cache_clear()


async def materialized(instance, *names, day=None, until=None, raising=True):
    """Run these assets of the futures market for BTC, in a thread of its own as in a process of its own."""
    tags = {RANGE_START: f"{day}|BTCUSDT", RANGE_END: f"{until or day}|BTCUSDT"} if day else {}
    return await asyncio.to_thread(
        dg.materialize,
        HISTORY,
        selection=dg.AssetSelection.assets(*(dg.AssetKey(["usdtm", name]) for name in names)),
        instance=instance,
        tags=tags,
        resources={"pipeline": PipelineResource()},
        raise_on_error=raising,
    )


def metadata_of(result, name):
    """The metadata of the one materialization of an asset."""
    (event,) = result.asset_materializations_for_node(f"usdtm__{name}")
    return {key: value.value for key, value in event.metadata.items()}


def test_a_run_at_work_is_observed_once_a_minute_with_its_end_in_sight():
    """How far, of how much, and the seconds left plot on the asset's page; the log has a line every ten seconds."""
    now, lines = [0.0], []
    asset = dg.AssetKey(["spot", "candles_1m"])
    with dg.DagsterInstance.ephemeral() as instance:
        log = SimpleNamespace(info=lines.append)
        context = SimpleNamespace(instance=instance, asset_key=asset, run=SimpleNamespace(run_id="run-17"), log=log)
        talk = Talk(context, clock=lambda: now[0])
        for second in range(1, 131):
            now[0] = float(second)
            talk.progress(Progress(second, 130, 1440 * second, 8 * second, float(second), 130.0 - second))
        records = instance.fetch_observations(asset, limit=10).records

    newest, oldest = (record.asset_observation.metadata for record in records)
    assert {name: one.value for name, one in oldest.items()} == {
        "run": "run-17",
        "symbol-days done": 60,
        "symbol-days of the run": 130,
        "candles so far": 86_400,
        "requests so far": 480,
        "seconds left": 70.0,
    }
    assert (newest["symbol-days done"].value, newest["seconds left"].value) == (120, 10.0)
    assert len(lines) == 13
    assert lines[0] == "10 of 130 symbol-days, 14,400 candles, 80 requests, about 120 s left"


@pytest.mark.parametrize(
    ("name", "path"),
    [("candles_1m", "/history-candles"), ("mark_candles", "/history-mark-candles"), ("trades_history", "/fills")],
)
async def test_empty_answers_turn_no_day_green_and_take_nothing_from_the_others(placed, warehouse, name, path):
    """
    An empty answer proves nothing: that day stays missing, while the day beside it is reported with what it has.
    """
    await _known_instruments(warehouse)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    before, key = yesterday - timedelta(days=1), dg.AssetKey(["usdtm", name])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("usdtm_symbols", ["BTCUSDT"])
        assert (await materialized(instance, name, day=yesterday)).success
        events = instance.fetch_materializations(key, limit=9)
        assert [event.partition_key for event in events.records] == [f"{yesterday}|BTCUSDT"]
        with placed.faulty("empty_string", path):
            failed = await materialized(instance, name, day=before, until=yesterday, raising=False)
        events = instance.fetch_materializations(key, limit=9)

    assert not failed.success
    assert [event.partition_key for event in events.records] == 2 * [f"{yesterday}|BTCUSDT"]
    metadata = events.records[0].asset_materialization.metadata
    assert metadata["dagster/partition_row_count"].value > 1000
    assert {"state", "holes", "requests", "seconds"} <= set(metadata)


async def test_a_run_evaluates_the_checks_of_its_days(placed, warehouse):
    """
    Through Dagster: each check of the asset says its verdict about the run's day, and how often bars open at the close before.
    """
    await _known_instruments(warehouse)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    tags = {RANGE_START: f"{yesterday}|BTCUSDT", RANGE_END: f"{yesterday}|BTCUSDT"}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("usdtm_symbols", ["BTCUSDT"])
        done = await asyncio.to_thread(
            dg.materialize,
            [
                *HISTORY,
                *(
                    check
                    for check in asset_checks((Market.USDTM,), grid_starts=GRID)
                    if KEY in check.keys_by_input_name.values()
                ),
            ],
            selection=dg.AssetSelection.assets(KEY),
            instance=instance,
            tags=tags,
            resources={"pipeline": PipelineResource()},
        )
    verdicts = {one.check_name: one for one in done.get_asset_check_evaluations()}
    assert {name for name, one in verdicts.items() if not one.passed} == set()
    assert {check.name for check in CHECKS if check.asset == "*/candles_1m"} < set(verdicts)
    opens = verdicts["opens_at_previous_close"].metadata
    assert (opens["bars compared"].value, opens["rate"].value > 0.99) == (1439, True)
    assert verdicts["keys_fit"].metadata["partitions"].value == (yesterday - GRID).days + 1


async def test_the_months_of_the_archive_get_longer_candles_too(placed, warehouse):
    """
    Two days on both sides of a month's border, stored long ago: the sensor asks for both months, one run makes their bars
    and finds them equal to the exchange's.
    """
    await _known_instruments(warehouse)
    await _stored_days(placed, warehouse, [date(2025, 9, 30), date(2025, 10, 1)])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("usdtm_symbols", ["BTCUSDT"])
        launcher = archive_derivation_launchers(MARKETS, grid_starts=GRID)[1]

        def tick():
            return launcher(dg.build_sensor_context(instance), pipeline=PipelineResource())

        (request,) = tick().run_requests
        assert request.tags == {RANGE_START: "2025-09-01|BTCUSDT", RANGE_END: "2025-10-01|BTCUSDT"}
        result = await materialized(instance, "candles_derived_archive", day="2025-09-01", until="2025-10-01")
        events = {event.partition: event.metadata for event in result.asset_materializations_for_node(
            "usdtm__candles_derived_archive"
        )}  # fmt: skip
        assert tick().skip_message == "nothing is missing"

    assert set(events) == {"2025-09-01|BTCUSDT", "2025-10-01|BTCUSDT"}
    for metadata in events.values():
        assert metadata["dagster/partition_row_count"].value == 415
        assert (metadata["candles stored"].value, metadata["differences"].value) == (830, 0)
        assert metadata["bars compared with the exchange's"].value > 0


async def test_every_asset_of_a_futures_market_fills_its_table(placed, warehouse):
    """
    A day of minutes, the longer bars that the launcher asks for, its trades, prices, funding, and the open interest now.
    """
    await _known_instruments(warehouse)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("usdtm_symbols", ["BTCUSDT"])
        minutes = await materialized(instance, "candles_1m", day=yesterday)
        assert metadata_of(minutes, "candles_1m")["candles stored"] == 1440

        (rectangle,) = derivations(warehouse, instance, Market.USDTM, days=[yesterday])
        assert (rectangle.first_day, rectangle.first, rectangle.keys) == (yesterday, "BTCUSDT", 1)
        launcher = derivation_launchers(MARKETS, grid_starts=GRID)[1]

        def tick(cursor=None):
            return launcher(dg.build_sensor_context(instance, cursor=cursor), pipeline=PipelineResource())

        launched = tick()
        assert [request.tags for request in launched.run_requests] == [rectangle.tags]
        assert "rest" in tick(launched.cursor).skip_message

        derived = metadata_of(await materialized(instance, "candles_derived", day=yesterday), "candles_derived")
        assert (derived["candles stored"], derived["differences"], derived["samples that could not be had"]) == (
            415,
            0,
            0,
        )
        assert derived["bars compared with the exchange's"] > 0
        assert tick().skip_message == "nothing is missing"

        trades = metadata_of(await materialized(instance, "trades_history", day=yesterday), "trades_history")
        within = Interval.of_day(yesterday)
        assert trades["trades stored"] == len(warehouse.trades(BTC, within, source="local")) > 0
        assert trades["minutes that do not add up"] == 0

        for name in ("mark_candles", "index_candles"):
            assert metadata_of(await materialized(instance, name, day=yesterday), name)["bars stored"] == 1440

        both = await materialized(instance, "funding_rates", "open_interest")
        assert metadata_of(both, "funding_rates")["new settlements"] in (90, 91)
        assert metadata_of(both, "open_interest")["symbols"] == 1
    for check in CHECKS:
        if check.asset.startswith(("*/", "futures/")):
            assert offenders(warehouse, check) == [], check.name


async def test_with_credentials_the_other_futures_markets_fill_their_tables_too(placed, warehouse, monkeypatch):
    """
    A key brings coin- and USDC-margined futures: their funding, open interest, prices and minutes, in assets of their own.
    """
    for name in ("BITGET_API_KEY", "BITGET_SECRET_KEY", "BITGET_PASSPHRASE"):
        monkeypatch.setenv(name, "for-a-test-only")
    boot.cache_clear()
    settings = PipelineResource().operational()
    assert settings.markets == tuple(Market)
    others = (Market.COINM, Market.USDCM)
    await _known_instruments(warehouse, settings.markets)
    chosen = [
        Chosen(
            next(one.symbol for one in warehouse.instruments(market) if one.kind == "perpetual"), 1, 1e9, Reason.VOLUME
        )
        for market in others
    ]
    warehouse.store_universe(chosen, selected_at=datetime.now(UTC) + timedelta(seconds=1), run_id="test")
    assets = [*candles_assets(others, grid_starts=GRID), *derivative_assets(others, grid_starts=GRID)]
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with dg.DagsterInstance.ephemeral() as instance:
        for one in chosen:
            symbol = one.symbol
            instance.add_dynamic_partitions(f"{symbol.market}_symbols", [symbol.name])
            day = f"{yesterday}|{symbol.name}"
            for names, tags in (
                (("funding_rates", "open_interest"), {}),
                (("candles_1m", "mark_candles", "index_candles"), {RANGE_START: day, RANGE_END: day}),
            ):
                done = await asyncio.to_thread(
                    dg.materialize,
                    assets,
                    selection=dg.AssetSelection.assets(*(dg.AssetKey([symbol.market.value, name]) for name in names)),
                    instance=instance,
                    tags=tags,
                    resources={"pipeline": PipelineResource()},
                )
                assert done.success
            assert len(warehouse.funding(symbol, source="local")) > 300
            assert len(warehouse.open_interest(symbol, source="local")) == 1
            within = Interval.of_day(yesterday)
            assert len(warehouse.candles(symbol, Resolution.M1, within)) == 1440
            for kind in PriceKind:
                assert len(warehouse.price_candles(symbol, kind, Resolution.M1, within, source="local")) == 1440


def test_checks_find_their_offenders(warehouse):
    """A day that is not its minutes, a settlement that is missing, a negative holding, an impossible price: each is found."""
    midnight = Interval.of_day(datetime.now(UTC).date() - timedelta(days=2)).start_ms
    bar = Candle(midnight, 2.0, 1.0, 2.0, 2.0, 7.0, 14.0)
    place = {"version": 1, "run_id": "test", "source": "local"}
    warehouse.store_candles(BTC, Resolution.M1, [bar], **place)
    warehouse.store_candles(BTC, Resolution.D1, [bar._replace(base_volume=8.0)], **place)
    for kind in PriceKind:
        warehouse.store_price_candles(BTC, kind, Resolution.M1, [bar], **place)
    rates = [FundingRate(midnight + hours * 3_600_000, 0.0001) for hours in (0, 8, 24)]
    warehouse.store_funding(BTC, rates, **place)
    warehouse.store_open_interest([(BTC, OpenInterest(midnight, -1.0), None)], **place)

    found = [
        (check.asset, check.name)
        for check in CHECKS
        if check.asset.startswith(("*/", "futures/")) and len(offenders(warehouse, check)) == 1
    ]
    assert sorted(found) == [
        ("*/candles_1m", "bars_are_possible"),
        ("*/candles_1m", "every_gap_is_listed"),
        ("*/candles_1m_archive", "bars_are_possible"),
        ("*/candles_1m_archive", "every_gap_is_listed"),
        ("*/candles_derived", "bars_are_possible"),
        ("*/candles_derived", "derived_bars_hold_their_minutes"),
        ("*/candles_derived_archive", "bars_are_possible"),
        ("futures/funding_rates", "funding_has_no_gap"),
        ("futures/index_candles", "every_gap_is_listed"),
        ("futures/index_candles", "prices_are_possible"),
        ("futures/mark_candles", "every_gap_is_listed"),
        ("futures/mark_candles", "prices_are_possible"),
        ("futures/open_interest", "open_interest_is_possible"),
    ]


def offenders(warehouse, check):
    """What a check of a futures market finds in the last week."""
    known = {"market": "usdtm", **last_week(datetime.now(UTC)).parameters}
    return warehouse.query(
        check.offenders, {name: value for name, value in known.items() if f"{{{name}:" in check.offenders}
    )


async def _known_instruments(warehouse, markets=MARKETS) -> None:
    """What discovery would have stored."""
    async with PipelineResource().history(warehouse) as history:
        await discover(
            history.client,
            history.client.exchange,
            warehouse,
            history.versions,
            markets=markets,
            run_id="test",
            now_ms=lambda: int(datetime.now(UTC).timestamp() * 1000),
        )


async def _stored_days(server: LocalExchange, warehouse, days) -> None:
    """What the archive's runs would have stored of BTC."""
    async with PipelineResource().history(warehouse) as history:
        report = await backfill_candles(
            history.client,
            history.client.exchange,
            warehouse,
            history.versions,
            [(BTC, day) for day in days],
            source="local",
            run_id="test",
            now_ms=server.now_ms,
        )
    assert report.rows == 1440 * len(days)
