"""The best bar known: whose it is, where it opens, and what has to be read for it."""

from __future__ import annotations

import re
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitget_pipeline.market.candle import Candle, Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.storage.warehouse import Agreement, Reconciled, Warehouse

START = 1_790_294_400_000  # 2026-09-25 00:00 UTC
MINUTE = 60_000
SOURCES = ("bitget", "binance_trade", "binance_agg")
RANKS = {
    (True, "bitget"): 1,
    (False, "bitget"): 2,
    (True, "binance_agg"): 4,
    (True, "binance_trade"): 5,
    (False, "binance_agg"): 6,
    (False, "binance_trade"): 7,
}

bars = st.dictionaries(
    st.tuples(
        st.booleans(),  # the exchange's own
        st.sampled_from(SOURCES),
        st.sampled_from([Resolution.M1, Resolution.M1, Resolution.M1, Resolution.M5]),
        st.integers(0, 11),
    ).map(lambda key: (*key[:3], key[3] // 5 * 5 if key[2] is Resolution.M5 else key[3])),
    st.tuples(st.integers(5, 20), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)).map(
        lambda four: (four[0] + four[1], four[0] + 4, four[0], four[0] + four[2])
    ),
    max_size=24,
)
flat_minutes = st.dictionaries(st.integers(0, 11), st.integers(5, 20), max_size=6)


def expected(stored, flat):
    """Open time in minutes, prices, source, origin and whether the open is known, by the rule in plain words."""
    best: dict = {}
    for (exchanges_own, source, resolution, minute), prices in stored.items():
        rank = RANKS[exchanges_own, source]
        key = (resolution.value, minute)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, prices, source, "exchange" if exchanges_own else "trades")
    for minute, price in flat.items():
        if best.get(("1m", minute), (9,))[0] > 3:
            best["1m", minute] = (3, (price,) * 4, "bitget", "trades")

    def close_before(minute):
        for own in (True, False):
            if prices := stored.get((own, "bitget", Resolution.M1, minute - 1)):
                return prices[3]
        return flat.get(minute - 1)

    rows = []
    for (resolution, minute), (rank, (opened, high, low, close), source, origin) in sorted(best.items()):
        before = close_before(minute) if rank == 2 else None
        if before is not None:
            opened, high, low = before, max(high, before), min(low, before)
        rows.append(
            (resolution, minute, opened, high, low, close, source, origin, int(rank != 2 or before is not None))
        )
    return rows


def store(warehouse: Warehouse, symbol: Symbol, stored, flat) -> None:
    for (own, source, resolution, minute), prices in stored.items():
        place = [[symbol.market.value], [symbol.name], [resolution.value], [source], [START + minute * MINUTE]]
        values = [[float(price)] for price in prices]
        key = ("market", "symbol", "resolution", "source", "open_time")
        if own:
            warehouse.insert_columns(
                "candles", (*key, "open", "high", "low", "close", "version"), [*place, *values, [1]]
            )
        else:
            names = (*key, "first", "high", "low", "last", "trades", "version")
            warehouse.insert_columns("candles_live", names, [*place, *values, [1], [1]])
    done = [
        Reconciled(symbol, at, Agreement.MATCHED, (), "channel", bar, bar, 0)
        for minute, price in flat.items()
        for at in [START + minute * MINUTE]
        for bar in [Candle(at, *[float(price)] * 4, 0.0, 0.0)]
    ]
    warehouse.store_reconciled(done, source="bitget", version=1, run_id="r")


def read(warehouse: Warehouse, symbol: Symbol, more: str = "") -> list[tuple[object, ...]]:
    return warehouse.query(
        "SELECT resolution, intDiv(toUnixTimestamp64Milli(open_time) - {start:Int64}, 60000) AS minute, open, high, low, "
        "close, source, origin, open_known FROM candles_unified "
        f"WHERE market = {{m:String}} AND symbol = {{s:String}} {more} ORDER BY resolution, minute",
        {"start": START, "m": symbol.market.value, "s": symbol.name},
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stored=bars, flat=flat_minutes, first=st.integers(0, 11), length=st.integers(1, 6))
def test_the_view_is_the_rule(warehouse: Warehouse, stored, flat, first: int, length: int) -> None:
    """
    Bars of the exchange, of our trades and of a failover, and minutes proven to be without trades, in any mixture: the
    view shows what the plain rule says, and a part of the time shows the same bars as the whole.
    """
    symbol = Symbol(Market.SPOT, f"U{uuid4().hex}")
    store(warehouse, symbol, stored, flat)
    rows = expected(stored, flat)
    assert read(warehouse, symbol) == rows

    part = (
        f"AND resolution = '1m' AND open_time >= fromUnixTimestamp64Milli({START + first * MINUTE}, 'UTC') "
        f"AND open_time < fromUnixTimestamp64Milli({START + (first + length) * MINUTE}, 'UTC')"
    )
    assert read(warehouse, symbol, part) == [row for row in rows if row[0] == "1m" and first <= row[1] < first + length]


def test_a_failover_lends_no_price_to_our_bars(warehouse: Warehouse) -> None:
    """
    A minute of Binance's before one of ours: ours opens at its first trade, and says that what was before is not known.
    """
    symbol = Symbol(Market.SPOT, "LENTUSDT")
    store(
        warehouse,
        symbol,
        {
            (True, "binance_trade", Resolution.M1, 0): (7, 8, 6, 7),
            (False, "bitget", Resolution.M1, 1): (9, 9, 9, 9),
        },
        {},
    )
    assert read(warehouse, symbol)[1] == ("1m", 1, 9, 9, 9, 9, "bitget", "trades", 0)


def test_asking_for_a_day_reads_a_day(warehouse: Warehouse) -> None:
    """
    The condition on the time reaches every table the view is made of, the lent closes included.
    """
    for table, first, last in (("candles", "open", "close"), ("candles_live", "first", "last")):
        warehouse.command(
            f"INSERT INTO {table} (market, symbol, resolution, source, open_time, {first}, high, low, {last}, version) "
            "SELECT 'spot', 'LONGUSDT', '1m', 'bitget', toDateTime64('2026-02-01 00:00:00', 3, 'UTC') + "
            "toIntervalMinute(number), 1, 1, 1, 1, 1 FROM numbers(200000)"
        )
        warehouse.command(f"OPTIMIZE TABLE {table} FINAL")
    plan = warehouse.query(
        "EXPLAIN indexes = 1 SELECT * FROM candles_unified WHERE market = 'spot' AND symbol = 'LONGUSDT' "
        "AND resolution = '1m' AND open_time >= '2026-03-05 00:00:00' AND open_time < '2026-03-06 00:00:00'"
    )
    text = "\n".join(row[0] for row in plan)
    read_parts = [int(found) for found in re.findall(r"Parts: \d+ \| Granules: (\d+)\n", text)]
    assert len(read_parts) == 4
    assert max(read_parts) <= 10, text
