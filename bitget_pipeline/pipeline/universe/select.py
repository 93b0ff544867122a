"""
Selection: which symbols are collected from now on.

From what discovery stored (instruments, tickers, pins, the selection before) through the pure rules of market/universe.py
into `universe`; called by the asset of that name. The selection drives the symbol partitions and the live shards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ...market.instrument import Symbol
from ...market.interval import from_ms
from ...market.universe import Chosen, SelectionRules, select
from ...storage.warehouse import Warehouse
from ...telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UniverseReport:
    """The selection, and how it differs from the one before. `refused_pins` say in a line why a pin is not followed."""

    chosen: list[Chosen]
    joined: list[Symbol]
    left: list[Symbol]
    refused_pins: dict[Symbol, str] = field(default_factory=dict)


def choose_universe(
    warehouse: Warehouse,
    rules: SelectionRules,
    *,
    run_id: str,
    now_ms: Callable[[], int],
    pinned: Collection[Symbol] = (),
) -> UniverseReport:
    """
    Choose, and store the choice as a whole. Blocks. `now_ms` is market time; `pinned` are those of the settings, beside
    the pins in the warehouse.

    Without any instrument known (the first discovery failed) the fallback of market/universe.py is chosen.
    """
    previous = [member.symbol for member in warehouse.current_universe()]
    pins = dict.fromkeys([*warehouse.pins(), *pinned])
    selection = select(warehouse.instruments(), warehouse.tickers(), previous, pins, rules)
    warehouse.store_universe(selection.chosen, selected_at=from_ms(now_ms()), run_id=run_id)
    for pin, reason in selection.refused_pins.items():
        log.warning("selection.pin_refused", symbol=str(pin), reason=reason)
    return UniverseReport(
        selection.chosen,
        joined=sorted(selection.symbols - set(previous), key=str),
        left=sorted(set(previous) - selection.symbols, key=str),
        refused_pins=selection.refused_pins,
    )
