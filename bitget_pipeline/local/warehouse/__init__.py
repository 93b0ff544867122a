"""
ClickHouse's HTTP interface over chDB: the warehouse for a laptop.

Clients (clickhouse-connect, browsers of the data, Grafana) see a ClickHouse server on 127.0.0.1; the data live in one
folder. `python -m bitget_pipeline.local.warehouse --data FOLDER --port 0` starts it; `serve` is the same as a coroutine.
"""

from .config import WarehouseConfig
from .service import serve

__all__ = ["WarehouseConfig", "serve"]
