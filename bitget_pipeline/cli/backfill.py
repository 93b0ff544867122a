"""
`bitget-pipeline backfill`: fetch a range of history now, as runs of the Dagster that runs.

Plans with pipeline/history/plan.py (or only tells the plan, with --dry-run), launches through dagster_backfills.py and
shows how far it is. Interrupted, it leaves the runs at work; what is stored stays, and the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import DayNotServed, PipelineError, RequestRefused, SettingsInvalid, UnknownInstrument
from ..market.candle import Resolution
from ..market.instrument import Market, Symbol
from ..market.interval import days_of_month
from ..settings import EARLIEST_DAY, Boot, Operational, load_operational, warehouse_address
from .dagster_backfills import Backfills, Standing, few_ranges
from .graphql import DagsterSilent
from .output import as_json, boot_for, console, meant_environment, print_json, where

if TYPE_CHECKING:
    from ..pipeline.history.plan import BackfillPlan
    from ..pipeline.history.report import Key
    from ..storage.warehouse import Warehouse

EVERY = 1.0  # seconds between two looks
SILENCES_BORNE = 30
PER_ENDPOINT = 20.0
"""Requests a second to `history-candles`, as published."""
MOST_KEYS = 50_000
INTERRUPTED = 130


@click.command("backfill")
@click.option("--market", required=True, type=click.Choice([market.value for market in Market]))
@click.option("--symbols", default="", help="Names separated by commas [default: the market's selection].")
@click.option("--from", "first", required=True, help="First UTC day, YYYY-MM-DD.")
@click.option("--to", "last", default="", help="Last UTC day, YYYY-MM-DD; it counts [default: yesterday].")
@click.option("--resolution", default="1m", show_default=True, help="Stored are 1m bars; longer ones are made of them.")
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and launch nothing.")
@click.option("--refresh", is_flag=True, help="Fetch days again that are complete.")
@where
@as_json
def backfill_command(
    market: str,
    symbols: str,
    first: str,
    last: str,
    resolution: str,
    dry_run: bool,
    refresh: bool,
    demo: bool,
    home: Path | None,
    json_wanted: bool,
) -> int:
    """
    Fetch the candles of a range of days, through Dagster.

    Complete days cost nothing. Ctrl-C leaves the runs at work. Exit code 0: all is stored; 1: something failed.
    """
    boot = boot_for(home=home, demo=demo)
    operational = load_operational(boot, meant_environment(home=home, demo=demo))
    _only_minutes(resolution)
    begin, end = _whole_months(*_range(first, last), operational.grid_start)
    with _open(boot) as warehouse:
        chosen = _symbols(warehouse, Market(market), symbols, operational)
        plan = _plan(warehouse, chosen, begin, end, operational, refresh=refresh)
        days, months = _partitions(plan.open, operational.grid_start)
        _require_not_too_many(len(days) + len(months))
        told = _told(plan, days, months, boot)
        if dry_run or not plan.open:
            _print_plan(plan, months, told, json_wanted=json_wanted, dry_run=dry_run)
            return 0
        if not json_wanted:
            _print_plan(plan, months, told, json_wanted=False, dry_run=False)
        dagster = Backfills.of(boot)
        order = dagster.ensure_symbols(Market(market), list(dict.fromkeys(symbol.name for symbol, _ in plan.open)))
        all_days, all_months = _partitions(plan.wanted, operational.grid_start)
        launched = [
            dagster.launch(
                Market(market), asset, few_ranges(todo, wanted, order=order, monthly=monthly), refresh=refresh
            )
            for asset, todo, wanted, monthly in (
                ("candles_1m", days, all_days, False),
                ("candles_1m_archive", months, all_months, True),
            )
            if todo
        ]
        try:
            standings = _watch(warehouse, dagster, launched, plan, refresh=refresh, quiet=json_wanted)
        except KeyboardInterrupt:
            return _interrupted(dagster, launched, told, json_wanted=json_wanted)
    return _over(dagster, launched, standings, told, json_wanted=json_wanted)


def _only_minutes(resolution: str) -> None:
    """Raises RequestRefused for what is not fetched."""
    if resolution == Resolution.M1.value:
        return
    if resolution not in set(Resolution):
        raise RequestRefused(f"there is no resolution {resolution!r}", remedy="write 1m")
    if Resolution(resolution).length < Resolution.M1.length:
        raise RequestRefused(
            f"the exchange serves no bars of {resolution}", remedy="shorter bars than 1m come from live trades alone"
        )
    raise RequestRefused(
        f"bars of {resolution} are not fetched: they are made of 1m bars", remedy="backfill 1m, and read them from it"
    )


def _range(first: str, last: str) -> tuple[date, date]:
    begin = _day(first, "--from")
    end = _day(last, "--to") if last else datetime.now(UTC).date() - timedelta(days=1)
    if begin < EARLIEST_DAY:
        raise DayNotServed(f"{begin} lies before Bitget existed", where="--from", remedy=f"begin on {EARLIEST_DAY}")
    return begin, end


def _whole_months(first: date, last: date, grid_start: date) -> tuple[date, date]:
    """What lies before the grid is fetched by the month, so the plan counts it by the month."""
    if first < grid_start:
        first = first.replace(day=1)
    if first <= last < grid_start:
        last = days_of_month(last.replace(day=1))[-1]
    return first, last


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DayNotServed(f"{text!r} is not a day", where=option, remedy="write YYYY-MM-DD") from None


def _open(boot: Boot) -> Warehouse:
    from ..storage.migrations import migrate
    from ..storage.warehouse import Warehouse

    warehouse = Warehouse.open(warehouse_address(boot))
    migrate(warehouse)
    return warehouse


def _symbols(warehouse: Warehouse, market: Market, names: str, operational: Operational) -> list[Symbol]:
    from ..pipeline.history.plan import selected_symbols

    if market not in operational.markets:
        raise SettingsInvalid(f"{market} is not collected", remedy=f"add {market} to BITGET_PIPELINE_MARKETS")
    if names.strip():
        words = [word.strip().removeprefix(f"{market}:") for word in names.split(",") if word.strip()]
        return [Symbol.parse(f"{market}:{word}") for word in dict.fromkeys(words)]
    found = selected_symbols(warehouse, market)
    if not found:
        raise UnknownInstrument(f"nothing of {market} is selected yet", remedy="name --symbols, or wait for discovery")
    return found


def _plan(
    warehouse: Warehouse, symbols: Sequence[Symbol], first: date, last: date, operational: Operational, *, refresh: bool
) -> BackfillPlan:
    from ..exchange import registry
    from ..pipeline.history.plan import plan_backfill

    if (keys := len(symbols) * ((last - first).days + 1)) > MOST_KEYS * 31:
        raise DayNotServed(f"{keys:,} symbol-days are too many at once", remedy="ask for fewer symbols or days")
    return plan_backfill(
        warehouse,
        symbols,
        first,
        last,
        today=datetime.now(UTC).date(),
        per_second=min(operational.historical_rps, operational.request_share * PER_ENDPOINT),
        page_size=registry.get("bitget").max_candles_per_page,
        refresh=refresh,
    )


def _partitions(keys: Sequence[Key], grid_start: date) -> tuple[list[tuple[str, date]], list[tuple[str, date]]]:
    """The partitions of `candles_1m`, and those of the archive: whole months before the grid, by their first day."""
    days = [(symbol.name, day) for symbol, day in keys if day >= grid_start]
    months = list(dict.fromkeys((symbol.name, day.replace(day=1)) for symbol, day in keys if day < grid_start))
    return days, months


def _require_not_too_many(count: int) -> None:
    if count > MOST_KEYS:
        raise DayNotServed(
            f"{count:,} partitions are too many at once", remedy=f"ask for at most {MOST_KEYS:,}: fewer symbols or days"
        )


def _told(
    plan: BackfillPlan, days: Sequence[tuple[str, date]], months: Sequence[tuple[str, date]], boot: Boot
) -> dict[str, Any]:
    figures = {name: value for name, value in asdict(plan).items() if name not in ("wanted", "open")}
    return {
        "home": str(boot.home),
        "symbol_days": len(plan.wanted),
        "complete": len(plan.wanted) - len(plan.open),
        "to_fetch": len(plan.open),
        "partitions": {"candles_1m": len(days), "candles_1m_archive": len(months)},
        **figures,
        "minutes": round(plan.seconds / 60, 1),
    }


def _print_plan(
    plan: BackfillPlan,
    months: Sequence[tuple[str, date]],
    told: dict[str, Any],
    *,
    json_wanted: bool,
    dry_run: bool,
) -> None:
    if json_wanted:
        print_json({**told, "dry_run": dry_run, "status": "planned" if plan.open else "complete"})
        return
    out = console()
    out.print(f"{told['symbol_days']:,} symbol-days, {told['complete']:,} of them complete already")
    if not plan.open:
        out.print(f"nothing is to be fetched (--refresh fetches again); the data lies in {told['home']}", markup=False)
        return
    by = "measured" if plan.measured else "as a rule"
    out.print(
        f"to fetch: {told['to_fetch']:,} symbol-days, at most {plan.requests:,} requests in about {_duration(plan.seconds)}, "
        f"{plan.rows:,} rows, {plan.bytes / 2**20:,.1f} MiB ({plan.bytes_per_row:g} bytes a row, {by})",
        markup=False,
    )
    if months:
        out.print(f"what lies before the grid is fetched by whole months: {len(months):,} of them, into the archive")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:,.0f} minutes"


def _watch(
    warehouse: Warehouse,
    dagster: Backfills,
    launched: Sequence[str],
    plan: BackfillPlan,
    *,
    refresh: bool,
    quiet: bool,
) -> list[Standing]:
    """
    Wait until all are over, with a bar on the terminal.

    The ledger tells each symbol-day as it is done, Dagster only whole runs; on refresh the ledger knew them before.
    """
    from ..pipeline.history.plan import settled_days

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    silences = 0
    with Progress(*columns, console=console(), disable=quiet) as bar:
        task = bar.add_task("symbol-days", total=len(plan.open))
        while True:
            try:
                standings = [dagster.standing(backfill) for backfill in launched]
                silences = 0
            except DagsterSilent:
                silences += 1
                if silences > SILENCES_BORNE:
                    raise
                time.sleep(EVERY)
                continue
            if refresh:
                targeted = max(1, sum(one.targeted for one in standings))
                done = len(plan.open) * sum(one.materialized for one in standings) // targeted
            else:
                done = settled_days(warehouse, plan.open)
            bar.update(task, completed=done)
            if all(one.over for one in standings):
                return standings
            time.sleep(EVERY)


def _interrupted(dagster: Backfills, launched: Sequence[str], told: dict[str, Any], *, json_wanted: bool) -> int:
    """The runs go on without us; say where they are."""
    pages = [dagster.page(backfill) for backfill in launched]
    if json_wanted:
        print_json({**told, "status": "interrupted", "backfills": list(launched), "pages": pages})
    else:
        click.echo(
            f"\nThe runs go on without this command. Watch or cancel them at {' and '.join(pages)}; what is stored stays, and "
            "the same command goes on with what is missing."
        )
    return INTERRUPTED


def _over(
    dagster: Backfills,
    launched: Sequence[str],
    standings: Sequence[Standing],
    told: dict[str, Any],
    *,
    json_wanted: bool,
) -> int:
    succeeded = all(one.succeeded for one in standings)
    pages = [dagster.page(backfill) for backfill in launched]
    if json_wanted:
        found = [{"id": backfill, **asdict(one)} for backfill, one in zip(launched, standings, strict=True)]
        status = "complete" if succeeded else "failed"
        print_json({**told, "status": status, "backfills": found, "pages": pages})
        return 0 if succeeded else 1
    if not succeeded:
        failed = sum(one.failed for one in standings)
        why = next((one.error for one in standings if one.error), "")
        raise BackfillFailed(
            f"the runs of {failed} partitions failed or were cancelled{f': {why}' if why else ''}",
            where=" and ".join(pages),
            remedy="read the runs there; the same command goes on with what is missing",
        )
    console().print(f"done; the data lies in {told['home']}, the runs at {' and '.join(pages)}", markup=False)
    return 0


class BackfillFailed(PipelineError):
    """The runs ended, and not all of them well."""
