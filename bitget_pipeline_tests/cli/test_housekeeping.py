"""The command that looks at what may be deleted, and deletes it when told to."""

from __future__ import annotations

import json
import time
from pathlib import Path

from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.warehouse import Warehouse

from .test_commands import Run, instance_on
from .test_commands import run as run

DAY_MS = 86_400_000


def test_it_looks_first_and_deletes_when_told(
    run: Run, warehouse: Warehouse, redis_address: RedisAddress, redis_prefix: str, tmp_path: Path
) -> None:
    """
    Without --now nothing is touched and the same figures are shown; the setting says how long.
    """
    now, symbol = round(time.time() * 1000), Symbol(Market.SPOT, "BTCUSDT")
    batches = [TradeBatch(symbol, [Trade(at, at, 1.0, 2.0, True)], at) for at in (now, now - 20 * DAY_MS)]
    warehouse.store_trades(batches, source="local", run_id="run-1")
    environ = instance_on(warehouse, redis_address, redis_prefix, tmp_path)
    environ |= {"BITGET_PIPELINE_RETENTION": "trades=10"}

    looked = run("housekeeping", **environ)
    assert looked.code == 0
    assert "would go" in looked.out
    assert "10 days" in looked.out
    assert "delete it with --now" in looked.out
    content = json.loads(run("housekeeping", "--dry-run", "--json", **environ).out)
    trades = next(one for one in content["freed"] if one["what"] == "trades")
    assert (content["dry"], trades["items"], trades["rows"]) == (True, 1, 1)
    assert warehouse.query("SELECT count() FROM trades")[0][0] == 2

    done = run("housekeeping", "--now", **environ)
    assert done.code == 0
    assert "1 statements added to the ledger" in done.out
    assert warehouse.query("SELECT count() FROM trades")[0][0] == 1


def test_looking_and_deleting_at_once_is_refused(run: Run) -> None:
    """
    Nobody has to guess which of the two wins.
    """
    answer = run("housekeeping", "--now", "--dry-run")
    assert answer.code == 2
    assert "choose one" in answer.error


def test_bars_that_are_wanted_cannot_be_thrown_away(run: Run) -> None:
    """
    Candles that expire before their history is complete would be fetched again and again.
    """
    answer = run("housekeeping", BITGET_PIPELINE_RETENTION="candles=400")
    assert answer.code == 78
    assert "BITGET_PIPELINE_HISTORY_TARGETS" in answer.error
    answer = run("housekeeping", BITGET_PIPELINE_RETENTION="books=3")
    assert answer.code == 78
    assert "'books' is not among order_books" in answer.error
