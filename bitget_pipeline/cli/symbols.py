"""The symbols that are collected: which, why, which of them whatever their volume; and lists that lost many at once."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from ..errors import Refused, UnknownInstrument
from ..market.instrument import Market, Symbol
from ..market.interval import from_ms
from ..settings import Boot, Operational, load_operational, variable_of, warehouse_address
from .output import as_json, boot_for, console, meant_environment, print_json, where

if TYPE_CHECKING:
    from ..storage.warehouse import Warehouse

WHEN = "the next selection takes it up (hourly, or materialize `universe` now)"


@click.group("symbols")
def symbols_command() -> None:
    """Which symbols are collected, and which of them always."""


@symbols_command.command("list")
@where
@as_json
def list_command(demo: bool, home: Path | None, json_wanted: bool) -> None:
    """The selection that holds now, with rank, volume and reason, and the pins."""
    boot = boot_for(home=home, demo=demo)
    with _open(boot) as warehouse:
        members, pins = warehouse.current_universe(), warehouse.pins()
    if json_wanted:
        selected = [
            {
                "symbol": str(member.symbol),
                "rank": member.rank,
                "usdt_volume_24h": member.volume,
                "reason": str(member.reason),
                "selected_at": member.selected_at.isoformat(),
            }
            for member in members
        ]
        print_json({"home": str(boot.home), "selected": selected, "pinned": [str(symbol) for symbol in pins]})
        return
    table = Table("market", "rank", "symbol", "24h volume (USDT)", "reason", box=None)
    for member in members:
        symbol = member.symbol
        table.add_row(symbol.market.value, str(member.rank), symbol.name, f"{member.volume:,.0f}", str(member.reason))
    console().print(table if members else "nothing is selected yet: the discovery job does it, hourly")
    console().print(f"pinned: {', '.join(map(str, pins)) or 'none'}; the data lies in {_place(boot)}", markup=False)


@symbols_command.command("pin")
@click.argument("symbols", nargs=-1, required=True)
@where
@as_json
def pin_command(symbols: tuple[str, ...], demo: bool, home: Path | None, json_wanted: bool) -> None:
    """Collect these symbols whatever their volume. SYMBOLS are written market:SYMBOL, for example spot:BTCUSDT."""
    boot = boot_for(home=home, demo=demo)
    operational = load_operational(boot, meant_environment(home=home, demo=demo))
    wanted = [Symbol.parse(text) for text in symbols]
    with _open(boot) as warehouse:
        for symbol in wanted:
            _must_be_known(symbol, warehouse, operational)
        for symbol in wanted:
            warehouse.pin(symbol)
        pins = warehouse.pins()
    _tell(boot, f"pinned {', '.join(map(str, wanted))}; {WHEN}", pins, json_wanted)


@symbols_command.command("unpin")
@click.argument("symbols", nargs=-1, required=True)
@where
@as_json
def unpin_command(symbols: tuple[str, ...], demo: bool, home: Path | None, json_wanted: bool) -> None:
    """Collect these symbols by their volume only, as any other."""
    boot = boot_for(home=home, demo=demo)
    wanted = [Symbol.parse(text) for text in symbols]
    with _open(boot) as warehouse:
        pinned = warehouse.pins()
        for symbol in wanted:
            if symbol not in pinned:
                raise UnknownInstrument(
                    f"{symbol} is not pinned", remedy=f"pinned are: {', '.join(map(str, pinned)) or 'none'}"
                )
        for symbol in wanted:
            warehouse.unpin(symbol)
        pins = warehouse.pins()
    _tell(boot, f"unpinned {', '.join(map(str, wanted))}; {WHEN}", pins, json_wanted)


@symbols_command.command("accept-list")
@click.argument("market", type=click.Choice([market.value for market in Market]))
@where
@as_json
def accept_list_command(market: str, demo: bool, home: Path | None, json_wanted: bool) -> None:
    """
    Believe a list of instruments that lost more than 5 %. The exchange really delisted what it lacks: from the next
    discovery on these symbols count as gone. Data is never deleted, and a symbol that is listed again comes back.
    """
    from ..pipeline.shrunken import KIND, doubt_of

    boot = boot_for(home=home, demo=demo)
    with _open(boot) as warehouse:
        waiting = warehouse.open_incidents(KIND, market=Market(market))
        if not waiting:
            raise Refused(
                f"no list of {market} waits to be accepted",
                where=_place(boot),
                remedy=f"open incidents of the kind {KIND} in the table `incidents` are such lists",
            )
        found = waiting[0]
        doubted = doubt_of(found)
        warehouse.note_on_incident(found, {"accepted": True})
    missing, since = sorted(doubted.missing), from_ms(doubted.since_ms)
    if json_wanted:
        print_json(
            {"home": str(boot.home), "market": market, "accepted": True, "missing": missing, "since": since.isoformat()}
        )
        return
    shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
    console().print(
        f"accepted: the list of {market} without {shown}, short since {since:%Y-%m-%d %H:%M} UTC; the next discovery takes it "
        f"(hourly, or materialize `instruments` now); the incident lies in {_place(boot)}",
        markup=False,
    )


def _open(boot: Boot) -> Warehouse:
    from ..storage.migrations import migrate
    from ..storage.warehouse import Warehouse

    warehouse = Warehouse.open(warehouse_address(boot))
    migrate(warehouse)  # a database that nothing was written to yet has no pins table
    return warehouse


def _must_be_known(symbol: Symbol, warehouse: Warehouse, operational: Operational) -> None:
    """Raises UnknownInstrument for a symbol that a pin would wait for in vain."""
    if symbol.market not in operational.markets:
        variable = variable_of("markets", Operational.model_fields["markets"])
        raise UnknownInstrument(
            f"{symbol} would not be collected: {symbol.market} is not among the markets",
            where=variable,
            remedy=f"add it to {variable}",
        )
    rows = warehouse.query(
        "SELECT symbol FROM instruments_now WHERE market = {market:String}", {"market": symbol.market.value}
    )
    names = [str(row[0]) for row in rows]
    if not names:
        raise UnknownInstrument(
            f"the instruments of {symbol.market} are not known yet", remedy="wait for the first discovery, then pin"
        )
    if symbol.name not in names:
        near = difflib.get_close_matches(symbol.name, names, n=3)
        remedy = f"did you mean {', '.join(near)}?" if near else "look it up in the table `instruments_now`"
        raise UnknownInstrument(f"the exchange does not know {symbol}", remedy=remedy)


def _tell(boot: Boot, text: str, pins: list[Symbol], json_wanted: bool) -> None:
    if json_wanted:
        print_json({"home": str(boot.home), "pinned": [str(symbol) for symbol in pins]})
    else:
        console().print(f"{text}; pins lie in {_place(boot)}", markup=False)


def _place(boot: Boot) -> str:
    return f"ClickHouse at {warehouse_address(boot)}"
