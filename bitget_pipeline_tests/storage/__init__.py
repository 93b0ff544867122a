"""Tests of bitget_pipeline.storage, on a real ClickHouse and a real Redis."""
