"""`bitget-pipeline scorecard`: what was stored, what holds now, and what is not known, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from bitget_pipeline.cli.main import main
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.market.scorecard import Figure
from bitget_pipeline.market.universe import Chosen, Reason
from bitget_pipeline.storage.warehouse import CoverageState, Evidence, Warehouse

DAY = date(2026, 3, 14)
Asked = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Asked:
    """Ask for the scorecard of an instance with the test's warehouse; the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BITGET_PIPELINE_EXCHANGE", "local")
    monkeypatch.setenv("CLICKHOUSE_HOST", warehouse.address.host)
    monkeypatch.setenv("CLICKHOUSE_PORT", str(warehouse.address.port))
    monkeypatch.setenv("CLICKHOUSE_DATABASE", warehouse.address.database)

    def ask(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["scorecard", *arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return ask


def test_a_stored_day_is_shown_by_market_with_its_promises(warehouse: Warehouse, ask: Asked) -> None:
    """
    A broken promise is exit code 1, what cannot be known is a question mark with its reason.
    """
    figures = [
        Figure("completeness", None, 0.99999),
        Figure("completeness", Market.SPOT, 1.0),
        Figure("lag_p99_seconds", None, None, "no trades of the day are stored"),
    ]
    warehouse.store_scorecard(DAY, figures, version=1, run_id="test")
    code, printed = ask("--day", str(DAY))

    assert code == 1
    assert "99.999 %" in printed
    assert "100 %" in printed
    assert "no trades of the day are stored" in printed
    assert "as stored" in printed
    assert max(map(len, printed.splitlines())) > 80, "a pipe bears long lines"


def test_a_day_that_was_not_computed_is_shown_as_it_stands_now(warehouse: Warehouse, ask: Asked) -> None:
    """
    Nothing is stored by looking.
    """
    btc = Symbol(Market.SPOT, "BTCUSDT")
    warehouse.store_universe(
        [Chosen(btc, 1, 1e9, Reason.VOLUME)], selected_at=datetime(2026, 1, 1, tzinfo=UTC), run_id="t"
    )
    whole = Evidence(btc, "candles_1m", Interval.of_day(DAY), CoverageState.COMPLETE, rows=1440)
    warehouse.store_evidence([whole], version=1, run_id="t")
    code, printed = ask("--day", str(DAY), "--json")
    told = json.loads(printed)
    values = {(one["metric"], one["market"]): one["value"] for one in told["figures"]}

    assert (code, told["stored"], told["day"]) == (0, False, str(DAY))
    assert values["completeness", "spot"] == 1.0
    assert values["lag_p99_seconds", None] is None
    assert warehouse.query("SELECT count() FROM scorecard") == [(0,)]


def test_a_day_to_come_is_refused(ask: Asked) -> None:
    """
    One line that says which days there are.
    """
    code, printed = ask("--day", "2999-01-01")

    assert code == 78
    assert "has not begun" in printed
