"""Tickers of symbols that hardly trade: modelled, not summed, and yet in agreement with the bars."""

from __future__ import annotations

from bitget_pipeline.local.exchange.bars import BarBuilder
from bitget_pipeline.local.exchange.config import ExchangeConfig
from bitget_pipeline.local.exchange.tape import Tape
from bitget_pipeline.local.exchange.tickers import Tickers
from bitget_pipeline.local.exchange.universe import Universe

NOW = 1_795_212_600_000
DAY_MINUTES = 1440


def test_the_last_price_of_a_quiet_symbol_is_the_close_of_its_last_bar():
    """For every quiet symbol that has traded for some days, at several moments."""
    universe = Universe(ExchangeConfig(spot_instruments=300, usdtm_instruments=20, active_per_market=20), now_ms=NOW)
    bars = BarBuilder(Tape())
    tickers = Tickers(bars, universe)
    for now in (NOW, NOW + 37 * 60_000, NOW + 700 * 60_000):
        minute = now // 60_000
        for instrument in universe.listed("spot", now_ms=now):
            if instrument.active or instrument.listed_minute > minute - 3 * DAY_MINUTES:
                continue
            until = min(minute, instrument.closed_minute or minute)
            bar = bars.bar(instrument, until - 1, until, until * 60_000)
            assert bar is not None
            assert tickers.figures(instrument, now).last == bar.close


def test_ranks_of_volume_follow_ranks_of_activity():
    """The busiest symbols have the most turnover, and the volumes of quiet ones fall off."""
    config = ExchangeConfig(spot_instruments=300, usdtm_instruments=20, active_per_market=20)
    universe = Universe(config, now_ms=NOW)
    tickers = Tickers(BarBuilder(Tape()), universe)
    old = [i for i in universe.listed("spot", now_ms=NOW) if i.quote == "USDT" and not i.status and i.index < 3100]
    volumes = [tickers.figures(i, NOW).turnover / 10 ** (i.price_decimals + i.size_decimals) for i in old]
    assert volumes[0] == max(volumes)
    assert min(volumes[:5]) > max(volumes[20:])
    assert volumes[19] > volumes[-1]
