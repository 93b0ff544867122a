"""
What an operator can set: boot settings (where things are) and operational settings (what is collected, a generation).

Everything is read once at start, from the environment and the settings file; right of here values arrive as arguments.
To add a setting, add one field to `boot.py` or `operational.py`.
"""

from __future__ import annotations

from .addresses import (
    ExchangeAddress,
    exchange_address,
    redis_address,
    run_file,
    ssl_context,
    substitute_addresses,
    warehouse_address,
)
from .boot import NOT_IN_FILE, Boot, is_loopback, load_boot
from .in_force import InForce, boot_in_force, is_being_written, keep, operational_in_force
from .operational import EARLIEST_DAY, Operational, load_operational
from .reading import Documented, documented, variable_of
from .refused_key import (
    accepted,
    digest_of,
    forget_refusal,
    put_accepted,
    refused,
    remember_acceptance,
    remember_refusal,
)
from .stored_key import KeyStore, require_private
from .tiers import TIERS, Tier, TierRules, key_now

DERIVED = frozenset({"tier"})
"""Fields that follow from others and cannot be set."""

INTERNAL = frozenset({"BITGET_PIPELINE_INSTANCE"})
"""Variables with our prefix that are no settings: `up` marks its children with this one."""

__all__ = [
    "EARLIEST_DAY",
    "TIERS",
    "Boot",
    "Documented",
    "ExchangeAddress",
    "InForce",
    "KeyStore",
    "Operational",
    "Tier",
    "TierRules",
    "accepted",
    "all_settings",
    "boot_in_force",
    "digest_of",
    "exchange_address",
    "forget_refusal",
    "is_being_written",
    "is_loopback",
    "keep",
    "key_now",
    "known_keys",
    "known_variables",
    "load_boot",
    "load_operational",
    "operational_in_force",
    "put_accepted",
    "redis_address",
    "refused",
    "remember_acceptance",
    "remember_refusal",
    "require_private",
    "run_file",
    "ssl_context",
    "substitute_addresses",
    "variable_of",
    "warehouse_address",
]


def all_settings() -> list[Documented]:
    """Every setting there is, for the manual."""
    rows = [*documented(Boot, without_file=NOT_IN_FILE), *documented(Operational)]
    return [row for row in rows if row.key not in DERIVED]


def known_variables() -> set[str]:
    """The name of every environment variable that is a setting."""
    return {row.variable for row in all_settings()} | INTERNAL


def known_keys() -> set[str]:
    """Every key that may stand in the settings file."""
    return {row.key for row in all_settings() if row.key}
