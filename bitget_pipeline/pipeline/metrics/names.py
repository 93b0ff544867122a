"""
Every metric: its name, kind, labels and meaning. Pure.

samples.py makes samples of these alone, and docs/metrics.md is printed from here: none can be without a line of text. Names
follow Prometheus's conventions: base units (seconds, bytes, ratios from 0 to 1), `_total` for counters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "bitget_pipeline_"


class Kind(StrEnum):
    """How Prometheus treats it."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Spec:
    """A metric; `name` is without the prefix. A counter's begins anew with the live run, unless its text says otherwise."""

    name: str
    about: str
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """By its name."""
        return Kind.COUNTER if self.name.endswith("_total") else Kind.GAUGE

    @property
    def full_name(self) -> str:
        """As Prometheus knows it."""
        return PREFIX + self.name


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics that have one source, and are missing together when it is away."""

    title: str
    source: str
    specs: tuple[Spec, ...]


_SYMBOL = ("market", "symbol")
_CONNECTION = ("connection",)

GROUPS: tuple[Group, ...] = (
    Group(
        "The endpoint itself",
        "",
        (
            Spec(
                "source_up",
                "1: the source answered within its time; 0: its figures are missing from this answer",
                ("source",),
            ),
            Spec("source_last_success_timestamp_seconds", "when the source answered last, Unix time", ("source",)),
            Spec("source_answer_seconds", "how long its last answer took", ("source",)),
            Spec("series_left_out", "symbols and connections beyond what one answer holds", ("what",)),
        ),
    ),
    Group(
        "Health",
        "redis",
        (
            Spec(
                "health",
                "1 for the status that holds of the whole: healthy, degraded, critical or unknown",
                ("status",),
            ),
            Spec(
                "vital",
                "1 for the status that holds of one thing that is watched, the worst of its symbols or connections",
                ("vital", "status"),
            ),
            Spec("vital_subjects", "symbols or connections for which a watched thing is not healthy", ("vital",)),
            Spec(
                "remedy_open",
                "symbols, connections or stores that a rule of remediation is at work on; by the live run or its supervisor",
                ("rule", "by"),
            ),
            Spec("remedy_actions_last_hour", "what the rule has done within the last hour", ("rule", "action", "by")),
            Spec(
                "failover_state",
                "1 for the state of a market: ours, substituted, returning; none where nobody can stand in",
                ("market", "state"),
            ),
        ),
    ),
    Group(
        "The live run",
        "redis",
        (
            Spec(
                "live_info",
                "always 1; the run, its generation, its stage",
                ("run_id", "generation", "stage"),
            ),
            Spec("live_lease_held", "1: a run holds the lease and may write"),
            Spec("live_lease_age_seconds", "since the lease was renewed"),
            Spec("live_lease_fence", "the fencing number of the lease; grows with every run that took it"),
            Spec("live_published_age_seconds", "since the run spoke; it does every second"),
            Spec("live_uptime_seconds", "how long the run has lived"),
            Spec("live_trouble", "1: the run says that something is wrong"),
            Spec("live_trades_received_total", "trades that the run took on, live and repaired ones"),
            Spec("live_trades_stored_total", "trades that the run brought into ClickHouse"),
            Spec("live_trades_repaired_total", "trades fetched from the exchange's history to close a break"),
            Spec("live_trades_spilled_total", "trades that went by way of the local disk"),
            Spec("live_frames_set_aside_total", "frames that made no sense"),
            Spec("live_reconnects_total", "connections that ended without being planned to"),
            Spec(
                "live_silences_mended_total",
                "subscriptions that were silent although their symbol traded, and brought it when they were begun anew",
            ),
            Spec(
                "live_lag_seconds",
                "within which this share of the last minute's trades came from arrival to row, at least as long as the oldest "
                "waits when none was stored since; missing when nothing was traded",
                ("share",),
            ),
            Spec(
                "live_traded_lag_seconds",
                "the same from the exchange's own time of a trade to its row, by the exchange's clock; snapshots and repairs "
                "are left out",
                ("share",),
            ),
            Spec("live_trades_waiting", "trades received and not yet in Redis"),
            Spec("live_spill_bytes", "trades that wait on the local disk"),
            Spec("live_disk_free_ratio", "free part of the disk with the home folder"),
            Spec("live_shed", "1: the channel is given up for want of room", ("channel",)),
            Spec("live_gaps_open", "breaks in the trades that are not repaired"),
            Spec("live_repair_remaining_seconds", "until no break is open, at the pace so far"),
            Spec(
                "live_reconciled_bars_total",
                "bars of a minute beside the exchange's own, by how they stand",
                ("state",),
            ),
            Spec("live_reconcile_waiting_bars", "bars that differ and are being looked into"),
            Spec(
                "companion_rows_stored_total",
                "rows of order books, tickers and the like in ClickHouse",
                ("companion",),
            ),
            Spec("companion_rows_dropped_total", "rows of them given up while ClickHouse was away", ("companion",)),
            Spec("companion_rows_waiting", "rows of them that wait for ClickHouse", ("companion",)),
        ),
    ),
    Group(
        "Each symbol of the live run",
        "redis",
        (
            Spec("symbol_trades_received_total", "trades taken on", _SYMBOL),
            Spec("symbol_trades_stored_total", "trades brought into ClickHouse", _SYMBOL),
            Spec("symbol_data_age_seconds", "since something of it arrived; missing before the first", _SYMBOL),
            Spec("symbol_trades_per_second", "trades a second, smoothed over three minutes", _SYMBOL),
            Spec(
                "symbol_arrivals_per_second",
                "how often something arrives of it, as learned; missing until it is known. A silence of 14 of its usual "
                "pauses has a chance of one in a million",
                _SYMBOL,
            ),
            Spec("symbol_silent", "1: its subscription does not deliver although asked several times", _SYMBOL),
            Spec(
                "symbol_overdue",
                "1: health calls it silent: longer without a word than its own pace makes likely, and its subscription, begun "
                "anew because of that, brought nothing; missing until its pace is known, and while a break of it is repaired",
                _SYMBOL,
            ),
            Spec("symbol_gap_open", "1: a break in its trades is not repaired", _SYMBOL),
        ),
    ),
    Group(
        "Each connection of the live run",
        "redis",
        (
            Spec("connection_open", "1: it is open", _CONNECTION),
            Spec("connection_age_seconds", "how long the one that is open has been", _CONNECTION),
            Spec("connection_opened_total", "connections opened in its place", _CONNECTION),
            Spec("connection_reconnects_total", "those after an end that was not planned", _CONNECTION),
            Spec("connection_renewed_total", "those that took over before the one before them was closed", _CONNECTION),
            Spec("connection_frames_total", "frames that came", _CONNECTION),
            Spec(
                "connection_subscriptions",
                "its subscriptions: live, asked (nothing came yet), silent, refused, resting (not asked for at present); of "
                "paced the usual silence is known",
                ("connection", "state"),
            ),
        ),
    ),
    Group(
        "What waits in Redis, and the request budget",
        "redis",
        (
            Spec("stream_entries", "batches of trades in Redis"),
            Spec("stream_pending_entries", "of these: read and not acknowledged"),
            Spec("stream_oldest_age_seconds", "age of the oldest that is not acknowledged; missing when there is none"),
            Spec("stream_capacity_entries", "batches that Redis may hold before trades go to disk"),
            Spec("budget_requests_granted_total", "requests granted; begins anew after an idle day", ("endpoint",)),
            Spec(
                "budget_requests_refused_total", "requests that the exchange answered with 429; the same", ("endpoint",)
            ),
            Spec(
                "budget_pace_ratio",
                "part of its rate at which the endpoint is asked, 1 unless a 429 slowed it",
                ("endpoint",),
            ),
            Spec("budget_closed_seconds", "until the endpoint may be asked again", ("endpoint",)),
            Spec("budget_all_closed_seconds", "for which the exchange asked for silence"),
        ),
    ),
    Group(
        "What is stored",
        "clickhouse",
        (
            Spec("table_rows", "rows of a table, all versions", ("table",)),
            Spec("table_bytes", "its size on disk", ("table",)),
            Spec("table_parts", "its active parts; too many slow inserts down", ("table",)),
            Spec("newest_trade_age_seconds", "age of the newest stored trade of the last hour", ("market",)),
            Spec(
                "holes",
                "stretches of the ledger that are not stored, by what is known of them",
                ("market", "stream", "state"),
            ),
            Spec("holes_seconds", "their length together", ("market", "stream", "state")),
            Spec("incidents_open", "incidents that are not over", ("kind", "severity")),
            Spec(
                "scorecard_value",
                "a figure of the scorecard's newest day, of all markets, where known",
                ("metric",),
            ),
            Spec("scorecard_day_timestamp_seconds", "the beginning of that day, Unix time"),
        ),
    ),
)

SPECS = {spec.name: spec for group in GROUPS for spec in group.specs}
"""Every metric by its name without the prefix."""


def as_markdown() -> str:
    """docs/metrics.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield (
        "What `bitget-pipeline metrics` serves for Prometheus at `/metrics`, printed by `bitget-pipeline metrics --markdown`. "
        "`up` runs it; `status` says where."
    )
    yield ""
    yield (
        "Nothing is kept between two scrapes: each asks Redis and ClickHouse (ClickHouse at most every ten seconds, the ledger "
        "every minute). A source that does not answer within a second is `0` in `bitget_pipeline_source_up`, and its metrics are "
        "missing from the answer rather than old. Counters of the live run begin anew with it, as Prometheus "
        "expects of a process."
    )
    for group in GROUPS:
        yield ""
        yield f"## {group.title}"
        yield ""
        if group.source:
            yield f"From {'Redis' if group.source == 'redis' else 'ClickHouse'}."
            yield ""
        yield "| metric | kind | labels | what it is |"
        yield "| --- | --- | --- | --- |"
        for spec in group.specs:
            labels = ", ".join(f"`{label}`" for label in spec.labels) or "-"
            yield f"| `{spec.full_name}` | {spec.kind} | {labels} | {spec.about} |"
