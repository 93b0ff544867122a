"""The one object Dagster loads."""

import warnings

import dagster as dg

# Dagster marks `backfill_policy` as beta and warns at every load (of `owners` of sensors too, which its own decorator
# passes on); the behaviour we rely on is tested in bitget_pipeline_tests/defs/test_partitions.py.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*(backfill_policy|owners).*")

from .defs import build  # noqa: E402  (the filter must stand before the assets are made)

defs = build()
