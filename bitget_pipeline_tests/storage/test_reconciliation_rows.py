"""From when on minutes can be compared."""

from bitget_pipeline.market.candle import Candle
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.trade import Trade, TradeBatch
from bitget_pipeline.storage.warehouse import Agreement, Reconciled, Warehouse

BTC = Symbol(Market.SPOT, "BTCUSDT")
MINUTE = 60_000
NOON = 1_790_337_600_000


def test_what_a_killed_run_collected_can_be_compared_by_its_successor(warehouse: Warehouse) -> None:
    """
    A run that ended before it compared any minute has left trades: the first whole minute after the first of them counts.
    """
    trade = Trade(1, NOON + 5_000, 1.0, 2.0, True)
    warehouse.store_trades([TradeBatch(BTC, [trade], NOON + 6_000)], source="local", run_id="run-1")

    assert warehouse.reconciled_since(source="local", recent_ms=NOON) == {BTC: NOON + MINUTE}
    assert warehouse.reconciled_since(source="bitget", recent_ms=NOON) == {}
    assert warehouse.reconciled_since(source="local", recent_ms=NOON + MINUTE) == {}


def test_the_first_minute_ever_compared_is_older_than_what_is_recent(warehouse: Warehouse) -> None:
    """
    Trades that were repaired an hour ago do not make the symbol younger than it is.
    """
    trade = Trade(1, NOON + 5_000, 1.0, 2.0, True)
    warehouse.store_trades([TradeBatch(BTC, [trade], NOON + 6_000)], source="local", run_id="run-1")
    bar = Candle(NOON - 5 * MINUTE, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0)
    stands = Reconciled(BTC, NOON - 5 * MINUTE, Agreement.MATCHED, (), "channel", bar, bar, 1)
    warehouse.store_reconciled([stands], source="local", version=1, run_id="run-1")

    assert warehouse.reconciled_since(source="local", recent_ms=NOON) == {BTC: NOON - 5 * MINUTE}
