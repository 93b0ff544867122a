"""
`bitget-pipeline backfill`: fetch a range of history now, as runs of the Dagster that runs.

Plans with pipeline/history/plan.py (or only tells the plan, with --dry-run), launches through dagster_backfills.py and
shows how far it is (backfill_watch.py). Interrupted, it leaves the runs at work; what is stored stays, and the same command goes
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import DayNotServed, RequestRefused, SettingsInvalid, UnknownInstrument
from ..market.candle import Resolution
from ..market.instrument import Market, Symbol
from ..market.interval import days_of_month
from ..settings import EARLIEST_DAY, Boot, Operational, load_operational, warehouse_address
from .backfill_watch import interrupted, left_at_work, over, watch
from .dagster_backfills import Backfills, few_ranges, new_name
from .graphql import DagsterSilent
from .output import as_json, boot_for, console, meant_environment, print_json, where

if TYPE_CHECKING:
    from ..pipeline.history.plan import BackfillPlan
    from ..pipeline.history.report import Key
    from ..storage.warehouse import Warehouse

PER_ENDPOINT = 20.0
"""Requests a second to `history-candles`, as published."""
MOST_KEYS = 50_000


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

    Complete days cost nothing. Ctrl-C leaves the runs at work.

    Exit code 0: all is stored, or proven to be empty; 75: the runs succeeded, but minutes are open, which are tried again by
    themselves; 1: a run failed; 130: interrupted.
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
        launched: list[str] = []
        try:
            for asset, todo, wanted, monthly in (
                ("candles_1m", days, all_days, False),
                ("candles_1m_archive", months, all_months, True),
            ):
                if todo:
                    ranges = few_ranges(todo, wanted, order=order, monthly=monthly)
                    launched.append(
                        new_name()
                    )  # known before the first run, so that no run is ever left without a name
                    dagster.launch(Market(market), asset, ranges, refresh=refresh, backfill=launched[-1])
            standings = watch(warehouse, dagster, launched, plan.open, refresh=refresh, quiet=json_wanted)
        except KeyboardInterrupt:
            return interrupted(dagster, launched, told, json_wanted=json_wanted)
        except DagsterSilent as silent:
            raise left_at_work(dagster, launched, silent) from silent
        return over(warehouse, dagster, launched, standings, plan.open, told, json_wanted=json_wanted)


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
