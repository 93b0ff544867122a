"""
How old each asset may become before Dagster's page turns it amber, then red.

Dagster judges by the last materialization alone. What runs is materialized by its run; what the live run writes by the
heartbeat of the health sensor (health.py), which beats only while rows reach the table. What is made on demand has no age.
"""

from datetime import timedelta

import dagster as dg

LIVE = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=2), fail_window=timedelta(minutes=5))
"""A heartbeat a minute: one may be missed."""

EVERY_QUARTER = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=35), fail_window=timedelta(minutes=65))
"""Open interest: two of its moments may be missed, the fourth is one too many."""

EVERY_HOUR = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=80), fail_window=timedelta(hours=3))
"""Discovery and funding; a run may take a quarter of an hour."""

EVERY_DAY = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))
"""What happens by night: late by two hours, or missed twice."""
