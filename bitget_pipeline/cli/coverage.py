"""What is there of the history, what is proven empty, what is missing and when it is tried again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from ..errors import SettingsInvalid, UnknownInstrument
from ..market.coverage import CoverageState
from ..market.coverage_days import DayCoverage, by_day
from ..market.instrument import Market, Symbol
from ..market.interval import Interval, from_ms
from ..settings import EARLIEST_DAY, Boot, load_operational, warehouse_address
from .output import as_json, boot_for, console, meant_environment, print_json, where

if TYPE_CHECKING:
    from ..storage.warehouse import Warehouse

STREAM = "candles_1m"
OTHERS = (
    "candles_derived",
    "trades",
    "order_books",
    "mark_candles_1m",
    "index_candles_1m",
    "funding_rates",
    "open_interest",
)
"""Streams of which not every day is wanted: what nobody asked for, and the ledger says nothing of, does not lack."""
EVERY = "all"
DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.command("coverage")
@click.option("--market", type=click.Choice([market.value for market in Market]), help="One market only.")
@click.option("--symbol", "names", multiple=True, help="These symbols only, for example BTCUSDT or spot:BTCUSDT.")
@click.option(
    "--stream",
    type=click.Choice([STREAM, *OTHERS, EVERY]),
    default=STREAM,
    show_default=True,
    help="What is asked about; of all but candles_1m only the days of which the ledger says something.",
)
@click.option("--from", "first", type=DAY, help="First UTC day [default: as far back as the history is wanted].")
@click.option("--to", "last", type=DAY, help="Last UTC day, inclusive [default: yesterday].")
@where
@as_json
def coverage_command(
    market: str | None,
    names: tuple[str, ...],
    stream: str,
    first: datetime | None,
    last: datetime | None,
    demo: bool,
    home: Path | None,
    json_wanted: bool,
) -> int:
    """
    The ledger by symbol: complete days, days with holes, missing minutes and the next try; of one-minute candles, or of
    another stream.

    The columns count days: complete; partial, with minutes missing; absent, of which nothing is stored; empty, where there
    is nothing to store. Then the holes, the missing minutes and the next try.

    Exit code 0: nothing is missing; 1: something is.
    """
    boot = boot_for(home=home, demo=demo)
    operational = load_operational(boot, meant_environment(home=home, demo=demo))
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    end = last.date() if last else yesterday
    start = first.date() if first else max(EARLIEST_DAY, end - timedelta(days=operational.history_days - 1))
    if start > end:
        raise SettingsInvalid(f"{start} lies after {end}", where="--from, --to", remedy="give the earlier day first")
    days = [start + timedelta(days=n) for n in range((end - start).days + 1)]
    with _open(boot) as warehouse:
        symbols = _meant(warehouse, market, names)
        span = Interval(Interval.of_day(start).start_ms, Interval.of_day(end).end_ms)
        lines = [
            line
            for one in ((STREAM, *OTHERS) if stream == EVERY else (stream,))
            for line in _of_stream(warehouse, one, market, symbols, days, span)
        ]
    missing = sum(line["minutes_not_known"] for line in lines)
    if json_wanted:
        print_json(
            {"home": str(boot.home), "from": start, "to": end, "stream": stream, "symbols": lines}
        )  # fmt: skip
    else:
        _print(boot, lines, start, end, missing, stream)
    return 1 if missing or any(line["rows_lacking"] for line in lines) else 0


def _of_stream(
    warehouse: Warehouse,
    stream: str,
    market: str | None,
    symbols: Sequence[Symbol],
    days: Sequence[date],
    span: Interval,
) -> list[dict[str, Any]]:
    """A line for each symbol; of streams that are not wanted of every day, for those of which the ledger says something."""
    evidence = warehouse.coverage(stream, market=Market(market) if market else None, interval=span)
    found = by_day(evidence, symbols=symbols, days=days, now_ms=time.time_ns() // 1_000_000)
    lines = []
    for symbol in symbols:
        its = [found[symbol, day] for day in days]
        if stream != STREAM:
            its = [one for one in its if one.stored or one.without]
            for one in its:
                one.unseen = 0
        if its:
            lines.append({"stream": stream} | _line(symbol, its))
    return lines


def _meant(warehouse: Warehouse, market: str | None, names: Sequence[str]) -> list[Symbol]:
    """The symbols asked for: those of the selection, or by name any that the ledger or the selection knows."""
    selected = [member.symbol for member in warehouse.current_universe()]
    if not names:
        return [symbol for symbol in selected if market in (None, symbol.market.value)]
    rows = warehouse.query("SELECT DISTINCT market, symbol FROM coverage_evidence")
    known = sorted({*selected, *(Symbol(Market(row[0]), row[1]) for row in rows)}, key=str)
    meant: list[Symbol] = []
    for name in names:
        matches = [
            symbol for symbol in known if name in (symbol.name, str(symbol)) and market in (None, symbol.market.value)
        ]  # fmt: skip
        if not matches:
            raise UnknownInstrument(
                f"nothing is known of {name}",
                remedy="write it like BTCUSDT or spot:BTCUSDT; see `bitget-pipeline symbols list`",
            )
        meant += matches
    return list(dict.fromkeys(meant))


def _line(symbol: Symbol, days: Sequence[DayCoverage]) -> dict[str, Any]:
    retries = [one.next_retry for one in days if one.next_retry is not None]
    holes = [
        {"from": from_ms(part.start_ms), "to": from_ms(part.end_ms), "state": state.value, "reason": reason}
        for one in days
        for part, state, reason in one.holes
    ]
    open_states = (CoverageState.UNKNOWN.value, CoverageState.UNEXPLAINED.value)
    return {
        "symbol": str(symbol),
        "days": len(days),
        "complete": sum(one.state is CoverageState.COMPLETE for one in days),
        "settled_without_bars": sum(not one.open and not one.stored for one in days),
        "partial": sum(one.state is CoverageState.PARTIAL for one in days),
        "not_there": sum(bool(one.open) and one.state is not CoverageState.PARTIAL for one in days),
        "minutes_stored": sum(one.stored for one in days),
        "minutes_not_known": sum(one.open for one in days),
        "rows_lacking": sum(one.lacking for one in days),
        "holes": [hole for hole in holes if hole["state"] in open_states],
        "explained": [hole for hole in holes if hole["state"] not in open_states],
        "next_retry": min(retries, default=None),
    }


def _print(
    boot: Boot, lines: Sequence[dict[str, Any]], start: date, end: date, missing: int, stream: str
) -> None:  # fmt: skip
    for one in dict.fromkeys(line["stream"] for line in lines):
        if stream == EVERY:
            console().print(f"[bold]{one}[/bold]")
        console().print(_table([line for line in lines if line["stream"] == one]))
    if not lines:
        nothing = "nothing is selected yet: the discovery job does it, hourly"
        console().print(nothing if stream in (STREAM, EVERY) else f"the ledger says nothing of {stream}")
    said = f"{missing:,} minutes are not known" if missing else "nothing is missing"
    lacking = sum(line["rows_lacking"] for line in lines)
    if lacking:
        said = f"{said}, {lacking:,} longer bars lack" if missing else f"{lacking:,} longer bars lack"
    console().print(
        f"{start} to {end}: {said}; the ledger lies in ClickHouse at {warehouse_address(boot)}", markup=False
    )  # fmt: skip


def _table(lines: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("symbol", "complete", "partial", "absent", "empty", "holes", "missing", "next try (UTC)"):
        table.add_column(column, no_wrap=True)
    for line in lines:
        retry = line["next_retry"]
        table.add_row(
            line["symbol"],
            f"{line['complete']} of {line['days']}",
            str(line["partial"] or "-"),
            str(line["not_there"] or "-"),
            str(line["settled_without_bars"] or "-"),
            str(len(line["holes"]) or "-"),
            f"{line['minutes_not_known']:,}" if line["minutes_not_known"] else "-",
            f"{retry:%m-%d %H:%M}" if retry else "-",
        )
    return table


def _open(boot: Boot) -> Warehouse:
    from ..storage.migrations import migrate
    from ..storage.warehouse import Warehouse

    warehouse = Warehouse.open(warehouse_address(boot))
    migrate(warehouse)
    return warehouse
