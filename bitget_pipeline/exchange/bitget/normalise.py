"""
From Bitget's words to ours: rows of wire.py in, values of market/ out. The only place where the two meet.

Numbers are float64, steps exact decimals, times Unix milliseconds UTC. A row that cannot be true raises ValueError
here; the callers set it aside and keep the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from itertools import chain

import numpy as np

from ...market.candle import Candle, Candles, Numbers, Resolution
from ...market.derivatives import FundingRate
from ...market.instrument import FORBIDDEN_IN_SYMBOLS, Instrument, Market, Status, Symbol, Ticker
from ...market.interval import from_ms
from ...market.trade import Trade
from ..rows import each
from .requests import TRADE_ID_EPOCH_MS, contradicts, trade_time_ms, upper
from .wire import LATEST_MS, LooseNumber, WireContract, WireFunding, WireSpotSymbol, WireTicker, WireTrade

SPOT_STATUS = {
    "online": Status.TRADING,
    "gray": Status.RESTRICTED,  # limited trading; data flows
    "halt": Status.HALTED,
    "offline": Status.RETIRED,
}
CONTRACT_STATUS = {
    "listed": Status.ANNOUNCED,
    "normal": Status.TRADING,
    "maintain": Status.HALTED,
    "limit_open": Status.RESTRICTED,
    "restrictedAPI": Status.RESTRICTED,
    "off": Status.RETIRED,
}
# A word not in the tables reads as RESTRICTED: rather a silent subscription than an instrument overlooked.

BUYS = {"buy": True, "Buy": True, "sell": False, "Sell": False}
MOST_DECIMALS = 30
VOLUME_TOLERANCE = 0.01  # how far quote volume / base volume may lie outside a bar's range


@lru_cache(maxsize=16_384)
def symbol(market: Market, name: str) -> Symbol:
    """Our symbol for an exchange's name. Raises ValueError for a name no other part could carry."""
    if not name or FORBIDDEN_IN_SYMBOLS & set(name) or any(c.isspace() for c in name):
        raise ValueError(f"{name!r} cannot be the name of an instrument")
    return Symbol(market, upper(name))


def trade(row: WireTrade) -> Trade:
    """
    A row of an HTTP answer. `fills-history` cuts times to the second: the milliseconds come back from the id, if id
    and time agree.

    `exact_ms` is false when a time looks cut and the id cannot prove its milliseconds. Raises ValueError where they are more
    than a day apart.
    """
    ts_ms, exact = row.ts, True
    if contradicts(row.tradeId, ts_ms):
        raise ValueError(f"trade {row.tradeId} of {ts_ms} ms: its id says {trade_time_ms(row.tradeId)} ms")
    if ts_ms % 1000 == 0:
        carried = trade_time_ms(row.tradeId)
        exact = carried - carried % 1000 == ts_ms
        ts_ms = carried if exact else ts_ms
    return Trade(row.tradeId, ts_ms, row.price, row.size, BUYS[row.side], exact)


def candle(row: list[float], market: Market, resolution: Resolution) -> Candle:
    """
    A row of 7 or 8 columns. Raises ValueError for a bar that cannot be true.

    An open or close outside of high and low is kept as served: the exchange's bar is the record, and a check reports
    it.
    """
    if len(row) < 7:
        raise ValueError(f"a bar has 7 or 8 columns, this one {len(row)}")
    open_ms = int(row[0])
    if not TRADE_ID_EPOCH_MS <= open_ms < LATEST_MS:
        raise ValueError(f"a bar cannot open at {row[0]:.0f} ms")
    if open_ms % resolution.ms:
        raise ValueError(f"a {resolution.value} bar cannot open at {open_ms} ms: not aligned to UTC")
    opened, high, low, close = row[1:5]
    if min(opened, low, close) <= 0 or high < low:
        raise ValueError(f"the bar of {open_ms} ms has impossible prices {row[1:5]}")
    base, quote = _volumes(row, market)
    return Candle(open_ms, opened, high, low, close, base, quote)


def _volumes(row: list[float], market: Market) -> tuple[float, float]:
    """
    Base and quote volume. The documents disagree on the columns, so the prices decide: quote / base lies within the
    bar's range.

    Column 5 is base and 6 quote; on spot the documents swap 6 and 7 (one of them in USDT); coin-margined futures swap
    5 and 6 (sdk). When no reading fits, the first one stands.
    """
    least, most = row[3] * (1 - VOLUME_TOLERANCE), row[2] * (1 + VOLUME_TOLERANCE)
    first = (row[6], row[5]) if market is Market.COINM else (row[5], row[6])
    if least * first[0] <= first[1] <= most * first[0]:
        return first  # nearly always
    readings = [first, (row[5], row[6])] if market is Market.COINM else [first]
    if len(row) > 7:
        readings.append((row[5], row[7]))
    fitting = (reading for reading in readings if least * reading[0] <= reading[1] <= most * reading[0])
    return next(fitting, readings[0])


def candles(rows: Sequence[list[float]], market: Market, resolution: Resolution, rejected: list[str]) -> Candles:
    """
    The rows of a page that can be true, in their order; why others cannot is added to `rejected`.

    What `candle` checks of a row is checked here of whole columns. Where one check fails, each row is looked at by
    itself: it says which one it is and why.
    """
    columns = _columns(rows)
    if columns is None or not _possible(columns, resolution):
        return Candles.of(each(rows, lambda row: candle(row, market, resolution), rejected))
    values = np.empty((len(Candles.VALUES), len(rows)))
    values[:4] = columns[1:5]
    base, quote = values[4:]
    base[:], quote[:] = (columns[6], columns[5]) if market is Market.COINM else (columns[5], columns[6])
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the greatest float is infinity, as for one number
        least, most = columns[3] * (1 - VOLUME_TOLERANCE), columns[2] * (1 + VOLUME_TOLERANCE)
        fits = (least * base <= quote) & (quote <= most * base)
    for place in np.flatnonzero(~fits).tolist():
        base[place], quote[place] = _volumes(rows[place], market)
    return Candles(columns[0].astype(np.int64), values)


def _columns(rows: Sequence[list[float]]) -> Numbers | None:
    """Rows of equal length, turned; None where they have no such form."""
    lengths = set(map(len, rows))
    if len(lengths) != 1 or lengths.isdisjoint((7, 8)):
        return None
    (length,) = lengths
    flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * length)
    return np.ascontiguousarray(flat.reshape(len(rows), length).T)


def _possible(columns: Numbers, resolution: Resolution) -> bool:
    """Whether every bar can be true, by the rules of `candle`."""
    moments, opened, high, low, close = columns[:5]
    if moments.min() < TRADE_ID_EPOCH_MS or moments.max() >= LATEST_MS:
        return False
    aligned = not (moments.astype(np.int64) % resolution.ms).any()
    return bool(aligned and min(opened.min(), low.min(), close.min()) > 0 and (high >= low).all())


def ticker(row: WireTicker, market: Market) -> Ticker:
    """
    A ticker. Prices are 0.0 where the exchange gives none (an instrument that never traded, an empty book side).

    USDT volume is the exchange's own where given. Else: quote volume on USDT- and USDC-quoted instruments, base
    volume × last price on coin-margined ones (quoted in USD), and 0.0 on spot pairs quoted in anything else.
    """
    name = symbol(market, row.symbol or row.instId)
    at = _moment(row.ts)
    if at is None:
        raise ValueError(f"the ticker of {name} has no time")
    last, base, quote = _amount(row.lastPr), _amount(row.baseVolume), _amount(row.quoteVolume)
    return Ticker(
        symbol=name,
        at=at,
        last=last,
        bid=_amount(row.bidPr),
        ask=_amount(row.askPr),
        high_24h=_amount(row.high24h),
        low_24h=_amount(row.low24h),
        base_volume_24h=base,
        quote_volume_24h=quote,
        usdt_volume_24h=_amount(row.usdtVolume) or _usdt_volume(name, last=last, base=base, quote=quote),
        change_24h=_number(row.change24h) or 0.0,
        open_interest=None if market is Market.SPOT else _number(row.holdingAmount),
        funding_rate=None if market is Market.SPOT else _number(row.fundingRate),
    )


def funding(row: WireFunding) -> FundingRate:
    """A settlement. Raises ValueError for a rate that no exchange has charged (more than the whole position)."""
    if not -1 < row.fundingRate < 1:
        raise ValueError(f"a funding rate of {row.fundingRate} cannot be")
    return FundingRate(row.fundingTime, row.fundingRate)


def _usdt_volume(name: Symbol, *, last: float, base: float, quote: float) -> float:
    if name.market is Market.COINM:
        return base * last
    quoted_in_dollars = name.market in (Market.USDTM, Market.USDCM) or name.name.endswith(("USDT", "USDC"))
    return quote if quoted_in_dollars else 0.0


def spot_instrument(row: WireSpotSymbol) -> Instrument:
    """A spot pair."""
    return Instrument(
        symbol=symbol(Market.SPOT, row.symbol),
        base=row.baseCoin,
        quote=row.quoteCoin,
        status=SPOT_STATUS.get(row.status, Status.RESTRICTED),
        exchange_status=row.status,
        price_step=_decimals(row.pricePrecision),
        size_step=_decimals(row.quantityPrecision),
        kind="spot",
        listed_at=_moment(row.openTime),
        delists_at=_moment(row.offTime),
    )


def contract(row: WireContract, market: Market) -> Instrument:
    """A future, perpetual or delivery. A delivery contract ends at its delivery time."""
    return Instrument(
        symbol=symbol(market, row.symbol),
        base=row.baseCoin,
        quote=row.quoteCoin,
        status=CONTRACT_STATUS.get(row.symbolStatus, Status.RESTRICTED),
        exchange_status=row.symbolStatus,
        price_step=_step(row.priceEndStep) * _decimals(row.pricePlace),
        size_step=_step(row.sizeMultiplier),
        kind=row.symbolType,
        listed_at=_moment(row.launchTime) or _moment(row.openTime),
        delists_at=_moment(row.offTime) or _moment(row.deliveryTime),
    )


def _decimals(places: int) -> Decimal:
    if not 0 <= places <= MOST_DECIMALS:
        raise ValueError(f"{places} decimals cannot be")
    return Decimal(1).scaleb(-places)


def _step(text: str | float) -> Decimal:
    try:
        step = Decimal(str(text))
    except InvalidOperation:
        raise ValueError(f"{text!r} is no step") from None
    if not step.is_finite() or step <= 0:
        raise ValueError(f"{text!r} is no step")
    return step


def _number(value: LooseNumber) -> float | None:
    """A finite number, None when there is none. Raises ValueError when it is something else."""
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no number")
    return number


def _amount(value: LooseNumber) -> float:
    """A number that cannot be negative, 0.0 when there is none."""
    number = _number(value) or 0.0
    if number < 0:
        raise ValueError(f"{value!r} cannot be negative")
    return number


def _moment(value: LooseNumber) -> datetime | None:
    """A time; the exchange writes "" or "-1" (and 0) when there is none."""
    ms = _number(value)
    if ms is None or ms <= 0:
        return None
    if ms >= LATEST_MS:
        raise ValueError(f"{value!r} is no time in ms")
    return from_ms(int(ms))
