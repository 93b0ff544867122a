"""What `up` shows while it runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.text import Text

from bitget_pipeline.cli.facts import Facts
from bitget_pipeline.cli.up.supervisor import Happened
from bitget_pipeline.cli.up.view import Panels, Watcher, rows


class NothingYet:
    """A watcher before its first look."""

    latest = None
    trades_per_second = None


def test_a_narrow_terminal_shows_every_program_and_event() -> None:
    """
    Eighty columns are enough: long lines go on in the next one instead of being cut.
    """
    names = ["exchange", "redis", "warehouse", "code-server", "dagster-webserver", "dagster-daemon"]
    shown = io.StringIO()
    view = Panels(
        Console(file=shown, width=80, height=40, force_terminal=True, soft_wrap=True), cast(Watcher, NothingYet())
    )
    place = {"host": "127.0.0.1", "port": 1, "database": "trading"}
    addresses = {
        "warehouse": place,
        "redis": place,
        "dagster": {"url": "http://a"},
        "exchange": {"rest_url": "http://b"},
    }
    view.opened(home=Path("/data"), addresses=addresses)
    view.happened(
        Happened("died", "warehouse", f"warehouse ended with code 1: {'long ' * 20}and the reason at the end")
    )
    view.refresh(dict.fromkeys(names, "ready"))
    view.closed("stopped")

    read = "".join(Text.from_ansi(shown.getvalue()).plain.replace("│", "").split())
    assert not [name for name in names if f"{name}ready" not in read]
    assert "thereasonattheend" in read


def test_what_the_live_run_collects_beside_trades_is_shown():
    """
    A line for each companion: how many symbols deliver, what is stored, and what went wrong; figures of nought are left out.
    """
    books = {
        "usable": 58,
        "symbols": 60,
        "stored": 12345,
        "waiting": 60,
        "dropped": 0,
        "broken": 2,
        "trouble": "it is away",
    }
    tickers = {"heard": 60, "symbols": 60, "stored": 120, "waiting": 0, "dropped": 0, "trouble": ""}
    shown = dict(rows(Facts(at=0.0, beside={"tickers": tickers, "order_books": books}), None))
    assert shown["order books"] == "58 of 60 symbols, 12,345 rows stored by this run, 60 waiting, 2 broken: it is away"
    assert shown["tickers"] == "60 of 60 symbols, 120 rows stored by this run"
