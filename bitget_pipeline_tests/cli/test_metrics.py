"""`bitget-pipeline metrics` over real HTTP, with a real Redis and a real ClickHouse, and with both of them away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bitget_pipeline.cli.main import main
from bitget_pipeline.cli.metrics import collector_for, listening
from bitget_pipeline.errors import PortTaken
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.pipeline.metrics.names import PREFIX, SPECS
from bitget_pipeline.settings import Boot, load_boot
from bitget_pipeline.storage.control import LiveControl
from bitget_pipeline.storage.lease import Lease
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.warehouse import Warehouse

from .running import wait_until

BTC = Symbol(Market.SPOT, "BTCUSDT")
Got = dict[tuple[str, ...], float]


@contextmanager
def served(boot: Boot) -> Iterator[Callable[[str], tuple[int, str]]]:
    """The endpoint of an instance on a free port, and a way to get a page."""
    collector = collector_for(boot)
    with listening(collector, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()

        def get(path: str) -> tuple[int, str]:
            connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            finally:
                connection.close()

        try:
            yield get
        finally:
            server.shutdown()
            thread.join()
            collector.close()


def parsed(text: str) -> Got:
    """Values by name and labels."""
    return {
        (
            name := sample.name.removeprefix(PREFIX),
            *(sample.labels[label] for label in SPECS[name].labels),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def boot_of(home: Path, **environ: Any) -> Boot:
    """Boot settings of an instance on the local exchange."""
    given = {"BITGET_PIPELINE_EXCHANGE": "local", "BITGET_PIPELINE_HOME": str(home)}
    return load_boot(given | {name: str(value) for name, value in environ.items()})


async def test_a_scrape_shows_what_both_stores_know(
    tmp_path: Path, warehouse: Warehouse, redis_address: RedisAddress, redis_prefix: str
) -> None:
    """
    What a live run published a moment ago, and an incident that is open; every name is documented.
    """
    client = connect(redis_address)
    try:
        fence = await Lease(client, redis_prefix, "0").take("run-1", 600.0)
        said = {
            "trades": 5,
            "last_data_ms": 1,
            "stored_trades": 4,
            "pace": 1.0,
            "rate": 1.0,
            "silent": "",
            "gap": False,
        }
        await LiveControl(client, redis_prefix, "0").publish(
            {"stage": "live", "appended": 5, "uptime": 100.0}, {BTC: said}, fence=fence
        )
    finally:
        await client.aclose()
    row = {"incident_id": "one", "opened_at": 1_700_000_000_000, "kind": "gap", "severity": "degraded", "version": 1}
    warehouse.insert_columns("incidents", tuple(row), [[value] for value in row.values()])
    boot = boot_of(
        tmp_path,
        CLICKHOUSE_HOST=warehouse.address.host,
        CLICKHOUSE_PORT=warehouse.address.port,
        CLICKHOUSE_DATABASE=warehouse.address.database,
        REDIS_HOST=redis_address.host,
        REDIS_PORT=redis_address.port,
        BITGET_PIPELINE_REDIS_PREFIX=redis_prefix,
    )
    with served(boot) as get:

        def scraped() -> Got | None:
            """The first question of a cold store may take longer than a scrape waits."""
            status, text = get("/metrics")
            assert status == 200
            got = parsed(text)
            return got if got["source_up", "redis"] and got["source_up", "clickhouse"] else None

        got = wait_until(scraped, "both stores answer a scrape in time")

    assert got["symbol_trades_received_total", "spot", "BTCUSDT"] == 5
    assert got["live_lease_held",] == 1
    assert got["incidents_open", "gap", "degraded"] == 1
    assert got["table_rows", "incidents"] == 1
    assert {key[0] for key in got} <= set(SPECS)


def test_without_any_store_it_answers_and_says_which_is_away(tmp_path: Path) -> None:
    """
    Nothing listens there, and the sign of life asks nobody.
    """
    boot = boot_of(tmp_path, CLICKHOUSE_HOST="127.0.0.1", CLICKHOUSE_PORT=1, REDIS_HOST="127.0.0.1", REDIS_PORT=1)
    with served(boot) as get:
        status, text = get("/metrics")
        alive, root, nowhere = get("/-/healthy"), get("/"), get("/favicon.ico")

    assert status == 200
    assert parsed(text) == {("source_up", "redis"): 0, ("source_up", "clickhouse"): 0}
    assert (alive[0], root[0], nowhere[0]) == (200, 200, 404)
    assert "/metrics" in root[1]


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    """
    It names the way out.
    """
    collector = collector_for(boot_of(tmp_path))
    with listening(collector, "127.0.0.1", 0) as first, pytest.raises(PortTaken, match="METRICS_PORT"):
        listening(collector, "127.0.0.1", first.server_port)
    collector.close()


def test_the_manual_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """
    docs/metrics.md comes from here.
    """
    with pytest.raises(SystemExit):
        main(["metrics", "--markdown"])

    assert "| `bitget_pipeline_source_up` | gauge | `source` |" in capsys.readouterr().out
