"""Stores of one test alone, as processes that can be killed and started again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bitget_pipeline.local import redis as local_redis
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.redis_connection import RedisAddress


class Stores:
    """A Redis and a ClickHouse that can be killed, and started again at the same port on the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._redis_config = local_redis.with_port(local_redis.RedisConfig(data=folder / "redis"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.warehouse_port = 0
        self.start("redis")
        self.start("clickhouse")

    @property
    def redis_address(self) -> RedisAddress:
        """Where Redis is, also while it is away."""
        return RedisAddress(self._redis_config.host, self._redis_config.port)

    @property
    def warehouse_address(self) -> WarehouseAddress:
        """Where ClickHouse is, also while it is away; the database need not exist."""
        return WarehouseAddress("127.0.0.1", self.warehouse_port, database="t")

    def start(self, name: str) -> None:
        """Start `redis` or `clickhouse`, and wait until it answers."""
        if name == "redis":
            self._processes[name] = local_redis.start(self._redis_config)
            return
        command = [sys.executable, "-m", "bitget_pipeline.local.warehouse", "--data", str(self._folder / "clickhouse")]
        process = subprocess.Popen([*command, "--port", str(self.warehouse_port)], stdout=subprocess.PIPE)
        self._processes[name] = process
        assert process.stdout is not None
        self.warehouse_port = int(json.loads(process.stdout.readline())["port"])

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def end(self) -> None:
        """Kill what runs still."""
        for name in list(self._processes):
            self.kill(name)
