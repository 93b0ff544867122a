"""What `up` shows while it runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.text import Text

from bitget_pipeline.cli.facts import Facts
from bitget_pipeline.cli.status import health_table, socket_table
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


def test_the_sockets_the_disk_and_a_start_that_failed_are_told() -> None:
    """
    What troubles a live run stands in the figures: silent subscriptions, trades on disk, channels given up, the stage.
    """
    socket = {"age": 12.0, "frames_per_second": 7.5, "live": 9, "asked": 0, "silent": 1, "refused": 0}
    facts = Facts(
        at=0.0,
        connections={"socket-0": socket, "socket-1": socket | {"age": None, "live": 0, "asked": 10, "silent": 0}},
        spill_bytes=3 * 2**20,
        set_aside=4,
        shed={"books": "the disk is nearly full (8% free)"},
        starting={"run_id": "abc", "stage": "lease", "failed": "", "age": 3.0},
    )
    told = dict(rows(facts, None))
    assert told["sockets"] == "1 of 2 open, 9 live, 10 asked, 1 silent, 0 refused, 15 frames/s"
    assert told["set aside"].startswith("4 frames; `bitget-pipeline quarantine`")
    assert told["on disk"].startswith("3.0 MiB")
    assert told["books"] == "not collected: the disk is nearly full (8% free)"
    assert told["live start"] == "run abc in the stage lease since 3 s"
    facts.starting = {"run_id": "abc", "stage": "sockets", "failed": "stage `sockets`: not done", "age": 9.0}
    assert "failed 9 s ago: stage `sockets`: not done" in dict(rows(facts, None))["live start"]


def test_of_many_sockets_those_that_trouble_most_are_shown() -> None:
    """
    A table of twelve: the ones that are not open come first, and the others are counted.
    """
    good = {"age": 3700.0, "frames_per_second": 1.0, "live": 5, "asked": 0, "silent": 0, "refused": 2}
    good |= {"resting": 7, "paced": 6, "opened": 1, "renewed": 3, "reconnects": 0}
    every = {f"socket-{number}": good | {"last_reason": ""} for number in range(20)}
    every["socket-17"] |= {"age": None, "reconnects": 4, "last_reason": "no pong within 15 s"}
    shown = io.StringIO()
    Console(file=shown, width=140).print(socket_table(every))
    lines = shown.getvalue().splitlines()
    assert "socket-17" in lines[1]
    assert "no pong within 15 s" in lines[1]
    assert "1:01:40" in lines[2]
    assert lines[0].split()[4:] == [
        *("live", "asked", "silent", "refused", "resting", "paced", "opened", "renewed", "reconnects", "ended", "last")
    ]
    assert lines[2].split()[3:] == ["5", "0", "0", "2", "7", "6", "1", "3", "0"]
    assert "and 8 more" in lines[-1]


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


def test_the_agreement_with_the_exchange_is_one_line():
    """
    How many closed minutes are the exchange's own, and what became of the others; nothing before a minute has closed.
    """
    said = {"minutes": 1200, "matched": 1190, "repaired": 8, "unexplained": 2, "waiting": 0, "match_rate": 0.998}
    shown = dict(rows(Facts(at=0.0, agreement=said), None))
    assert shown["agreement"] == "1,198 of 1,200 minutes are the exchange's own, 8 repaired, 2 unexplained"
    assert "agreement" not in dict(rows(Facts(at=0.0), None))


def test_what_is_not_well_is_shown_worst_first_with_its_reason():
    """
    Each with its name, whose it is and why; what is well is a number.
    """
    vitals = [
        {"name": "redis.memory", "status": "healthy", "reason": "enough"},
        {
            "name": "lag.p99",
            "status": "degraded",
            "reason": "99 of 100 trades are in the table 8.0 s after they arrived",
        },
        {"name": "connection.open", "status": "critical", "reason": "socket-0 is not open", "subject": "socket-0"},
    ]
    shown = io.StringIO()
    Console(file=shown, width=140).print(health_table(vitals))
    lines = [line.split() for line in shown.getvalue().splitlines()]
    assert [line[:2] for line in lines[1:]] == [
        ["critical", "connection.open"],
        ["degraded", "lag.p99"],
        ["healthy", "1"],
    ]
    assert "8.0 s after they arrived" in shown.getvalue()


def test_settings_that_are_not_in_force_and_a_change_under_way_are_told():
    """
    What is wrong with the settings file, and what the live run is just becoming.
    """
    problem = "there is no setting symbols_per_markt (settings.toml line 2) — did you mean symbols_per_market?"
    change = {"generation": "abc", "seconds": 4.2, "waiting": 12}
    facts = Facts(at=0.0, settings_problems=[problem], reconfiguration={"changing": change})
    told = dict(rows(facts, None))
    assert told["settings"] == f"not in force: {problem}"
    assert told["changing"] == "to generation abc for 4 s, 12 subscriptions to come"
    assert not {"settings", "changing"} & dict(rows(Facts(at=0.0), None)).keys()
