"""
How long Bitget is dark until Binance stands in, and what the way back costs, with the rules of production.

    python -m bench.failover [--dark 60] [--rounds 1]

Promised: 30 seconds, and back without a hole. The local exchange plays both venues beside a live run in this process, which
collects three symbols of each market. Printed is what the incidents say; only the steady time before the way back is shorter
(20 s instead of three minutes).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from typing import Any

from bitget_pipeline.local.exchange import ExchangeConfig, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.market.interval import Interval
from bitget_pipeline.pipeline.watch.failover import FailoverRules
from bitget_pipeline.storage.warehouse import Warehouse
from bitget_pipeline_tests.pipeline.conftest import SMALL, true_trades, until
from bitget_pipeline_tests.pipeline.failover_runner import Running, pair_of, running_pair, stand_in_for_itself
from bitget_pipeline_tests.pipeline.live_runner import Where

from .surroundings import Surroundings, surroundings

MARKETS = ("spot", "usdtm")
SYMBOLS = tuple(Symbol(Market(market), f"{coin}USDT") for market in MARKETS for coin in ("BTC", "ETH", "SOL"))
RULES = FailoverRules(steady_for=20.0)
CONFIG: ExchangeConfig = replace(SMALL, binance=True, trades_per_second=200.0)
PROMISED = 30.0
WITHIN = 300.0


def _are(run: Running, state: str) -> bool:
    return all(run.state(market) == state for market in MARKETS)


async def measure(where: Surroundings, *, dark: float, rounds: int) -> list[dict[str, Any]]:
    """The figures of each round's incidents, and how many trades of ours are missing or too many afterwards."""
    with Warehouse.open(where.address) as warehouse:
        async with running(CONFIG) as server:
            stand_in_for_itself(warehouse, SYMBOLS)
            names = tuple(map(str, SYMBOLS))
            stores = (where.redis_port, "failover:", where.warehouse_port, where.database)
            place = Where(server.rest_url, server.ws_url, *stores, names, "bench", lease_ttl=15.0)
            async with running_pair(pair_of(place, server), server.now_ms, rules=RULES) as run:
                await until(lambda: run.stored() > 50 and _are(run, "ours"), within=WITHIN)
                start = server.now_ms()
                for _ in range(rounds):
                    with server.faulty("dark"):
                        await until(lambda: _are(run, "substituted"), within=WITHIN)
                        await asyncio.sleep(dark)
                    await until(lambda: _are(run, "ours"), within=WITHIN)
                    await until(lambda: all(run.said(market)["repairing"] == 0 for market in MARKETS), within=WITHIN)
                end = server.now_ms()
                await until(lambda: run.overview.backlog().pending == 0, within=WITHIN)
                differ = 0
                for symbol in SYMBOLS:
                    truth = await true_trades(server, symbol, Interval(start, end - 2_000))
                    stored = warehouse.trades(symbol, Interval(start, end - 2_000), source="local")
                    differ += len({one.trade_id for one in truth} ^ {one.trade_id for one in stored})
                    differ += len(stored) - len({one.trade_id for one in stored})
        rows = warehouse.query("SELECT market, details FROM incidents_final WHERE kind = 'failover' ORDER BY opened_at")
    return [{"market": row[0], **json.loads(row[1]), "trades_that_differ": differ} for row in rows]


def main() -> int:
    """Measure, print, and say whether it is as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dark", type=float, default=60.0, help="seconds for which it stays dark once somebody stands in"
    )
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    with surroundings() as where:
        found = asyncio.run(measure(where, dark=chosen.dark, rounds=chosen.rounds))
    for one in found:
        print(json.dumps({"bench": "failover", **one}), flush=True)
    good = bool(found) and all(one["switched_after_seconds"] <= PROMISED for one in found)
    good &= all(one["trades_that_differ"] == 0 for one in found)
    print("as promised" if good else "NOT as promised", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
