"""What `bitget-pipeline backfill` launches: few runs, in a real Dagster that carries them out."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from bitget_pipeline.cli import backfill_watch as watch_module
from bitget_pipeline.cli.backfill_watch import Pace, left_at_work, over, watch
from bitget_pipeline.cli.dagster_backfills import Backfills, Standing, few_ranges
from bitget_pipeline.cli.graphql import DagsterSilent
from bitget_pipeline.cli.up import folder
from bitget_pipeline.local.exchange import LocalExchange, running
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval, from_ms
from bitget_pipeline.pipeline.history import plan as plan_module
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.warehouse import CoverageState, Evidence, Warehouse

from ..dagster_processes import Running, dagster_running
from ..pipeline.conftest import SMALL, true_candles, until

ORDER = [f"S{n}USDT" for n in range(30)]
FIRST = date(2026, 1, 1)


def keys(names: list[str], days: int) -> list[tuple[str, date]]:
    return [(name, FIRST + timedelta(days=n)) for name in names for n in range(days)]


def test_a_quarter_of_thirty_symbols_is_a_handful_of_runs() -> None:
    """
    Dagster's own backfill would make thirty of it, one for each symbol.
    """
    wanted = keys(ORDER, 90)
    ranges = few_ranges(wanted, wanted, order=ORDER, monthly=False)
    assert len(ranges) == 8
    assert sum(one.keys for one in ranges) == len(wanted)


def test_scattered_holes_are_covered_by_the_whole_range() -> None:
    """
    Every other day is missing: not a run for each, but the range that was asked for.
    """
    wanted = keys(ORDER, 90)
    holes = [(name, day) for name, day in wanted if day.toordinal() % 2]
    assert len(few_ranges(holes, wanted, order=ORDER, monthly=False)) == 8

    one = [(ORDER[3], FIRST)]
    (alone,) = few_ranges(one, wanted, order=ORDER, monthly=False)
    assert alone.keys == 1


class Told:
    """A Dagster whose runs of a backfill are these."""

    def __init__(self, *standings: Standing | DagsterSilent, runs: int | DagsterSilent = 1) -> None:
        self._standings = list(standings)
        self._runs = runs

    def standing(self, backfill: str) -> Standing:
        """The next of them, the last one again and again."""
        now = self._standings.pop(0) if len(self._standings) > 1 else self._standings[0]
        if isinstance(now, DagsterSilent):
            raise now
        return now

    def runs(self, backfill: str) -> int:
        if isinstance(self._runs, DagsterSilent):
            raise self._runs
        return self._runs

    def page(self, backfill: str) -> str:
        return f"http://dagster/runs?{backfill}"


def as_dagster(told: Told) -> Backfills:
    return cast(Backfills, told)


BTC, ETH = Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.SPOT, "ETHUSDT")
DONE = Standing(runs=1, ended=1, targeted=3, materialized=3, failed=0)


def test_runs_that_succeeded_are_not_done_while_a_day_has_a_hole(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A day is green with some rows: the ledger is asked, what is open is named with its next try, and the code is 75.
    """
    day = Interval.of_day(FIRST)
    hole = Interval(day.start_ms, day.start_ms + 3 * 60_000)
    retry = datetime(2026, 1, 2, 3, tzinfo=UTC)
    said = [
        Evidence(BTC, "candles_1m", day, CoverageState.PARTIAL),
        Evidence(ETH, "candles_1m", day, CoverageState.COMPLETE),
    ]
    warehouse.store_evidence(said, version=1, run_id="t")
    missing = Evidence(BTC, "candles_1m", hole, CoverageState.UNKNOWN, reason="the answers lack it", retry_at=retry)
    warehouse.store_evidence([missing], version=2, run_id="t")
    told, keys = {"home": "/data"}, [(BTC, FIRST), (ETH, FIRST)]
    dagster = as_dagster(Told(DONE))

    assert over(warehouse, dagster, ["b"], [DONE], keys, told, json_wanted=True) == 75
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["open_symbol_days"]) == ("incomplete", 1)
    assert answer["open"][0] | {"next_retry": ""} == {
        "symbol": "spot:BTCUSDT",
        "day": "2026-01-01",
        "state": "partial",
        "minutes": 3,
        "reason": "the answers lack it",
        "next_retry": "",
    }
    assert over(warehouse, dagster, ["b"], [DONE], keys, told, json_wanted=False) == 75
    text = " ".join(capsys.readouterr().out.split())
    assert "of 1 symbol-days 3 minutes are open" in text
    assert "spot:BTCUSDT 2026-01-01: 3 minutes, the answers lack it; tried again 01-02 03:00 UTC" in text

    assert over(warehouse, dagster, ["b"], [DONE], keys[1:], told, json_wanted=False) == 0
    assert "done; all is stored" in capsys.readouterr().out


def test_a_question_is_asked_the_more_seldom_the_longer_it_takes() -> None:
    """
    A ledger of 50,000 symbol-days that takes two seconds is asked every forty: a twentieth of the time, at least each minute.
    """
    pace = Pace()
    assert pace.due(now=0.0)
    pace.asked(0.01, now=0.0)
    assert [pace.due(now=moment) for moment in (0.9, 1.0)] == [False, True]
    pace.asked(2.0, now=10.0)
    assert [pace.due(now=moment) for moment in (49.0, 50.0)] == [False, True]
    pace.asked(30.0, now=100.0)
    assert [pace.due(now=moment) for moment in (159.0, 160.0)] == [False, True]


def test_a_watched_backfill_asks_the_ledger_only_about_what_is_not_done(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What was settled once is not asked for again; a Dagster that is silent for a moment is borne.
    """
    warehouse.store_evidence(
        [Evidence(BTC, "candles_1m", Interval.of_day(FIRST), CoverageState.COMPLETE)], version=1, run_id="t"
    )
    asked: list[list[Any]] = []
    unsettled = plan_module.unsettled

    def noted(warehouse: Warehouse, keys: Sequence[Any]) -> list[Any]:
        asked.append(list(keys))
        return unsettled(warehouse, keys)

    monkeypatch.setattr(plan_module, "unsettled", noted)
    monkeypatch.setattr(watch_module, "EVERY", 0.0)
    monkeypatch.setattr(watch_module, "Pace", lambda: Pace(every=0.0, share=1e9))
    working = Standing(runs=1, ended=0, targeted=2, materialized=0, failed=0)
    dagster = as_dagster(Told(working, DagsterSilent("no answer"), working, DONE))
    keys = [(BTC, FIRST), (ETH, FIRST)]
    assert watch(warehouse, dagster, ["b"], keys, refresh=False, quiet=False) == [DONE]
    assert asked == [keys, keys[1:]]


def test_runs_that_were_launched_before_a_refusal_are_named() -> None:
    """
    The second batch is refused: what is at work says where it is; when nothing is, the refusal says what there is to say.
    """
    refused = DagsterSilent("a run was not launched: too many")
    error = left_at_work(as_dagster(Told(DONE, runs=10)), ["b17"], refused)
    assert str(error).startswith("a run was not launched: too many; 10 runs that were launched before go on")
    assert "http://dagster/runs?b17" in str(error)
    assert "go on" in str(left_at_work(as_dagster(Told(DONE, runs=refused)), ["b17"], refused))
    assert left_at_work(as_dagster(Told(DONE, runs=0)), ["b17"], refused) is refused


@pytest.mark.timeout(900)
async def test_a_range_is_one_run_that_is_watched_to_its_end(
    warehouse: Warehouse,
    warehouse_address: WarehouseAddress,
    redis_address: RedisAddress,
    redis_prefix: str,
    tmp_path: Path,
) -> None:
    """
    Two symbols × two days: symbols become partitions, one run carries the tag, its days are stored and green. The command is
    interrupted meanwhile, and leaves the run at work; the same command again waits for the end, and nothing is fetched twice.
    On refresh the run fetches them again.
    """
    async with running(SMALL) as exchange:
        environment = {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_PIPELINE_HOME": str(tmp_path),
            "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
            "BITGET_REST_URL": exchange.rest_url,
            "BITGET_WS_URL": exchange.ws_url,
            "CLICKHOUSE_HOST": warehouse_address.host,
            "CLICKHOUSE_PORT": str(warehouse_address.port),
            "CLICKHOUSE_DATABASE": warehouse_address.database,
            "REDIS_HOST": redis_address.host,
            "REDIS_PORT": str(redis_address.port),
        }
        place = dagster_running(tmp_path, environment, module="bitget_pipeline_tests.chaos.history_definitions")
        with folder.taken(tmp_path, "local"):
            dagster = await asyncio.to_thread(place.__enter__)
            address = urlsplit(dagster.url)
            folder.write_run(tmp_path, {"addresses": {"dagster": {"host": address.hostname, "port": address.port}}})
            try:
                await _backfilled(dagster, exchange, warehouse)
            finally:
                await asyncio.to_thread(place.__exit__, None, None, None)


async def _backfilled(running: Running, exchange: LocalExchange, warehouse: Warehouse) -> None:
    ask = asyncio.to_thread
    discovery = await ask(running.dagster.launch_run, "discovery", {})

    async def discovered() -> bool:
        return await ask(running.dagster.run_status, discovery) == "SUCCESS"

    await until(discovered, within=240.0, what="discovery")
    address = urlsplit(running.url)
    backfills = Backfills(str(address.hostname), int(address.port or 0))
    names = ["BTCUSDT", "ETHUSDT"]
    order = await ask(backfills.ensure_symbols, Market.USDTM, names)
    assert set(names) <= set(order)
    today = from_ms(exchange.now_ms()).date()
    span = [today - timedelta(days=n) for n in (1, 2)]
    wanted = [(name, day) for name in names for day in span]
    await _interrupted_and_done(running, exchange, names, span)
    ranges = few_ranges(wanted, wanted, order=order, monthly=False)
    before = _candle_requests(exchange)
    backfill = await ask(backfills.launch, Market.USDTM, "candles_1m", ranges, refresh=True)

    async def is_over() -> bool:
        return (await ask(backfills.standing, backfill)).over

    await until(is_over, within=240.0, what="the runs of the backfill")
    standing = await ask(backfills.standing, backfill)
    assert (standing.runs, standing.succeeded, standing.targeted) == (len(ranges), True, 4)
    assert _candle_requests(exchange) - before == 8 * len(wanted)
    assert backfill in backfills.page(backfill)
    for name, day in wanted:
        within = Interval.of_day(day)
        symbol = Symbol(Market.USDTM, name)
        assert warehouse.candles(symbol, Resolution.M1, within) == await true_candles(exchange, symbol, within)
    green = await ask(running.dagster.partitions, ["usdtm", "candles_1m"])
    assert green["numMaterialized"] == 4


async def _interrupted_and_done(running: Running, exchange: LocalExchange, names: list[str], span: list[date]) -> None:
    """
    Ctrl-C while the run is on its way: exit code 130, the run named, and the same command brings the rest. The exchange is slow
    until then, so that the run is not over before.
    """
    asked = [
        "backfill",
        "--market",
        "usdtm",
        "--symbols",
        ",".join(names),
        "--from",
        str(min(span)),
        "--to",
        str(max(span)),
    ]
    command = [sys.executable, "-m", "bitget_pipeline.cli.main", *asked, "--json"]
    before = _candle_requests(exchange)

    async def launched() -> bool:
        return sum((await asyncio.to_thread(running.dagster.runs_by_status)).values()) > 1  # discovery was the first

    with exchange.faulty("slow", "/history-candles", delay=10.0):
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(running.environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        await until(launched, within=120.0, what="the run of the command")
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 130, err
    interrupted = json.loads(out)
    assert (interrupted["status"], len(interrupted["backfills"])) == ("interrupted", 1)
    assert interrupted["backfills"][0] in interrupted["pages"][0]

    again = await asyncio.create_subprocess_exec(*command, env=dict(running.environment), stdout=subprocess.PIPE)
    out, _ = await asyncio.wait_for(again.communicate(), 300)
    done = json.loads(out)
    assert (again.returncode, done["status"]) == (0, "complete")
    assert done.get("open_symbol_days", 0) == 0
    assert _candle_requests(exchange) - before == 8 * len(names) * len(span)


def _candle_requests(server: LocalExchange) -> int:
    """
    Pages of bars that were asked for. Requests that a machine lets go at once after it stood still may be too many for a second:
    what was refused for that is asked for again, and is no second fetching.
    """
    counted = server.counters()
    return sum(count for path, count in counted["requests"].items() if "history-candles" in path) - int(counted["429"])
