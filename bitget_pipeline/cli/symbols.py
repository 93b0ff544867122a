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
from ..market.stand_in import StandIn
from ..settings import Boot, Operational, load_operational, variable_of, warehouse_address
from .output import as_json, boot_for, console, meant_environment, print_json, where

if TYPE_CHECKING:
    from ..storage.warehouse import Warehouse

STAND_IN_VENUE = "binance"
WHEN = "the next selection takes it up (hourly, or materialize `universe` now)"


@click.group("symbols")
def symbols_command() -> None:
    """Which symbols are collected, and which of them always."""


@symbols_command.command("list")
@click.option("--stand-ins", is_flag=True, help="Who stands in for each while Bitget is dark, or why nobody does.")
@where
@as_json
def list_command(stand_ins: bool, demo: bool, home: Path | None, json_wanted: bool) -> None:
    """The selection that holds now, with rank, volume and reason, and the pins."""
    boot = boot_for(home=home, demo=demo)
    with _open(boot) as warehouse:
        members, pins = warehouse.current_universe(), warehouse.pins()
        decided = warehouse.stand_ins(venue=STAND_IN_VENUE) if stand_ins else []
    if stand_ins:
        _tell_stand_ins(boot, [member.symbol for member in members], decided, json_wanted)
        return
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


def _tell_stand_ins(boot: Boot, selected: list[Symbol], decided: list[StandIn], json_wanted: bool) -> None:
    known = {one.symbol: one for one in decided}
    if json_wanted:
        rows = [_stand_in_json(symbol, known.get(symbol)) for symbol in selected]
        print_json({"home": str(boot.home), "venue": STAND_IN_VENUE, "stand_ins": rows})
        return
    table = Table("symbol", "stands in", "unit", "apart", "why", "decided (UTC)", box=None)
    for symbol in selected:
        one = known.get(symbol)
        if one is None:
            table.add_row(str(symbol), "-", "", "", "undecided", "")
            continue
        apart = "" if one.apart is None else f"{one.apart:.2%}"
        unit = f"{one.factor:g}" if one.name else ""
        name = one.name if one.stands_in else "-"
        why = one.verdict.value.replace("_", " ") + (f" ({one.name})" if one.name and not one.stands_in else "")
        table.add_row(str(symbol), name, unit, apart, why, f"{from_ms(one.decided_ms):%m-%d %H:%M}")
    console().print(table if selected else "nothing is selected yet: the discovery job does it, hourly")
    matched = sum(symbol in known and known[symbol].stands_in for symbol in selected)
    console().print(
        f"{STAND_IN_VENUE} stands in for {matched} of {len(selected)}; the data lies in {_place(boot)}", markup=False
    )


def _stand_in_json(symbol: Symbol, one: StandIn | None) -> dict[str, object]:
    if one is None:
        return {"symbol": str(symbol), "verdict": None}
    return {
        "symbol": str(symbol),
        "verdict": one.verdict.value,
        "stand_in": one.name or None,
        "factor": one.factor,
        "price": one.price or None,
        "their_price": one.their_price or None,
        "apart": one.apart,
        "decided_at": from_ms(one.decided_ms).isoformat(),
    }


@symbols_command.command("accept-list")
@click.argument("market", type=click.Choice([market.value for market in Market]))
@where
@as_json
def accept_list_command(market: str, demo: bool, home: Path | None, json_wanted: bool) -> None:
    """
    Believe a list of instruments that lost more than 5 %. The exchange really delisted what it lacks: from the next
    discovery on these symbols count as gone. Data is never deleted, and a symbol that is listed again comes back.
    """
    from ..pipeline.universe.shrunken import KIND, doubt_of

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
