"""Tests of bitget_pipeline.pipeline.metrics."""
