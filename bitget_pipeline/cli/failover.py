"""
Who stands in for which market, and what a person wants of it: `bitget-pipeline failover on|off|auto|status`.

The wish goes to the live run through Redis, which heeds it within a second; it outlives the run until it is taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from ..errors import Refused
from ..market.instrument import Market
from ..settings import Boot, Operational, load_operational, redis_address
from .facts import SHARD
from .output import as_json, boot_for, console, meant_environment, print_json, where

if TYPE_CHECKING:
    import redis

HEEDED = "the live run heeds it within a second or two; `bitget-pipeline failover status` shows how it goes"

_markets = click.option(
    "--market",
    "markets",
    multiple=True,
    type=click.Choice(["spot", "usdtm"]),
    help="One market; may be given again [default: all that can be stood in for].",
)


@click.group("failover")
def failover_command() -> None:
    """Binance's trades and bars, labelled, while Bitget is dark."""


@failover_command.command("on")
@_markets
@where
@as_json
def on_command(markets: tuple[str, ...], demo: bool, home: Path | None, json_wanted: bool) -> None:
    """Let Binance stand in now, whatever Bitget does, until `off` or `auto`."""
    _want("on", markets, home=home, demo=demo, json_wanted=json_wanted)


@failover_command.command("off")
@_markets
@where
@as_json
def off_command(markets: tuple[str, ...], demo: bool, home: Path | None, json_wanted: bool) -> None:
    """Let nobody stand in, whatever Bitget does, until `on` or `auto`; one that stands in goes."""
    _want("off", markets, home=home, demo=demo, json_wanted=json_wanted)


@failover_command.command("auto")
@_markets
@where
@as_json
def auto_command(markets: tuple[str, ...], demo: bool, home: Path | None, json_wanted: bool) -> None:
    """Take `on` or `off` back: the evidence decides, as the settings say."""
    _want("auto", markets, home=home, demo=demo, json_wanted=json_wanted)


@failover_command.command("status")
@where
@as_json
def status_command(demo: bool, home: Path | None, json_wanted: bool) -> int:
    """
    Each market: who delivers, what is wanted, and the evidence. Exit code 0: Bitget delivers everywhere; 1: somebody stands in.
    """
    boot = boot_for(home=home, demo=demo)
    settings = load_operational(boot, meant_environment(home=home, demo=demo))
    found = collect(boot, settings)
    if json_wanted:
        print_json({"home": str(boot.home), **found})
    else:
        _print(boot, found)
    return 1 if any(one["state"] in ("substituted", "returning") for one in found["markets"].values()) else 0


def collect(boot: Boot, settings: Operational) -> dict[str, Any]:
    """How each collected market stands, for programs; figures come from the live run, if one is at work."""
    from ..storage.overview import Overview
    from ..storage.substitution import Wishes

    with _redis(boot) as client:
        overview = Overview(client, boot.redis_prefix, SHARD)
        asked = Wishes(client, boot.redis_prefix, SHARD)
        wishes, states = asked.wishes(), asked.states()
        lease, published = overview.lease(), overview.published()
    live = lease is not None and published is not None
    said = dict(published.overall.get("failover") or {}) if live and published is not None else {}
    markets: dict[str, dict[str, Any]] = {}
    for market in settings.markets:
        kept = states.get(market)
        one: dict[str, Any] = {"state": kept.state if kept is not None else "ours"}
        if kept is not None and kept.episode is not None:
            one |= {"since_ms": kept.episode.detected_ms, "reason": kept.episode.reason}
        one |= said.get(market.value, {})
        if market not in settings.failover_markets:
            one = {"state": "none", "reason": _why_none(market)}
        markets[market.value] = one | {"wanted": wishes.get(market, settings.failover)}
    return {"live_run": live, "markets": markets}


def _why_none(market: Market) -> str:
    if market in (Market.SPOT, Market.USDTM):
        return "BITGET_PIPELINE_FAILOVER_MARKETS leaves it out"
    return "nobody stands in for it"


def _want(wish: str, markets: tuple[str, ...], *, home: Path | None, demo: bool, json_wanted: bool) -> None:
    from ..storage.substitution import Wishes

    boot = boot_for(home=home, demo=demo)
    settings = load_operational(boot, meant_environment(home=home, demo=demo))
    served = [market for market in settings.markets if market in settings.failover_markets]
    chosen = [Market(name) for name in dict.fromkeys(markets)] or served
    for market in chosen:
        if market not in served:
            raise Refused(
                f"nobody stands in for {market}",
                remedy="collect it (BITGET_PIPELINE_MARKETS) and name it in BITGET_PIPELINE_FAILOVER_MARKETS",
            )
    with _redis(boot) as client:
        asked = Wishes(client, boot.redis_prefix, SHARD)
        for market in chosen:
            asked.want(market, wish)
    if json_wanted:
        print_json({"home": str(boot.home), "wanted": {market.value: wish for market in chosen}})
        return
    names = ", ".join(market.value for market in chosen) or "no market"
    console().print(f"{names}: {wish}; {HEEDED}", markup=False)


def _print(boot: Boot, found: dict[str, Any]) -> None:
    table = Table("market", "who delivers", "wanted", "stand-ins", "silent for", "probes failed", "why", box=None)
    for name, one in found["markets"].items():
        who = {"ours": "Bitget", "none": "Bitget, nobody stands in"}.get(one["state"], one.get("substitute", "Binance"))
        if one["state"] == "returning":
            who += ", Bitget is back"
        silent, stand_ins = one.get("silent_seconds"), one.get("stand_ins")
        table.add_row(
            name,
            who,
            str(one["wanted"]),
            "" if stand_ins is None else f"{stand_ins} of {one['symbols']}",
            "" if silent is None else f"{silent:.0f} s",
            str(one.get("probes_failing", "")),
            str(one.get("reason") or one.get("trouble") or ""),
        )
    out = console()
    out.print(table)
    if not found["live_run"]:
        out.print("no live run is at work: nobody watches", markup=False)
    out.print(f"the data lies in {boot.home}", markup=False)


@contextmanager
def _redis(boot: Boot) -> Iterator[redis.Redis]:
    from ..storage.redis_connection import connect_sync

    client = connect_sync(redis_address(boot))
    try:
        yield client
    finally:
        client.close()
