"""What tests of the Dagster shell share: the pipeline's surroundings, with the tests' own stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitget_pipeline.defs import resources
from bitget_pipeline.defs.resources import PipelineResource
from bitget_pipeline.settings import load_boot
from bitget_pipeline.storage.redis_connection import RedisAddress
from bitget_pipeline.storage.warehouse import Warehouse


@pytest.fixture
def given() -> dict[str, str]:
    """Settings beside where everything is; files of tests have their own."""
    return {}


@pytest.fixture
def pipeline(
    given: dict[str, str],
    warehouse: Warehouse,
    redis_address: RedisAddress,
    redis_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> PipelineResource:
    """The resource that assets get; the exchange is not to be reached."""
    settings = {
        "BITGET_PIPELINE_EXCHANGE": "local",
        "BITGET_PIPELINE_HOME": str(tmp_path),
        "BITGET_REST_URL": "http://127.0.0.1:9",
        "BITGET_WS_URL": "ws://127.0.0.1:9",
        "CLICKHOUSE_HOST": warehouse.address.host,
        "CLICKHOUSE_PORT": str(warehouse.address.port),
        "CLICKHOUSE_DATABASE": warehouse.address.place.database,
        "REDIS_HOST": redis_address.host,
        "REDIS_PORT": str(redis_address.port),
        "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
        **given,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    boot = load_boot()
    monkeypatch.setattr(resources, "boot", lambda: boot)
    return PipelineResource()
