"""
Where health draws its lines: every threshold in one place, the settings' among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...guard.vitals import Line


@dataclass(frozen=True, slots=True)
class HealthRules:
    """
    Ages, lags and times in seconds, shares of 1; each line is degraded and critical.

    `throughput` and `errors` are settings. How long a symbol may be silent follows from its own pace (feed/pace.py); it is
    critical after `critical_silence` times that. In the first `starting` seconds of a run what it cannot know yet is no trouble.
    `over` is the time that throughput, errors and reconnects are counted over, and throughput is told once `least_expected`
    arrivals were to be expected in it. A connection older than `renewal_due` should have been renewed.
    """

    throughput: Line = field(default=Line(0.70, 0.50))
    errors: Line = field(default=Line(0.10, 0.25))
    least_expected: float = 100.0
    over: float = 300.0
    starting: float = 60.0
    critical_silence: float = 4.0

    published: float = 10.0
    lease: float = 20.0
    lag_p50: Line = field(default=Line(3.0, 30.0))
    lag_p99: Line = field(default=Line(5.0, 60.0))
    traded_lag_p50: Line = field(default=Line(4.0, 31.0))
    traded_lag_p99: Line = field(default=Line(6.0, 61.0))
    backlog: Line = field(default=Line(15.0, 120.0))
    bound: Line = field(default=Line(0.5, 0.9))
    flush: Line = field(default=Line(15.0, 60.0))
    disk: Line = field(default=Line(0.12, 0.08))

    latency: Line = field(default=Line(1.0, 2.5))
    failed_probes: Line = field(default=Line(0.10, 0.25))
    probes_over: float = 60.0
    skew: Line = field(default=Line(2.0, 30.0))
    jumped: float = 2.0
    jump_told_for: float = 600.0
    reconnects: Line = field(default=Line(3.0, 12.0))
    renewal_due: float = 23.75 * 3600.0

    redis_memory: Line = field(default=Line(0.75, 0.90))
    parts: Line = field(default=Line(0.3, 1.0))
    merge: Line = field(default=Line(600.0, 3600.0))
    mutation: Line = field(default=Line(600.0, 7200.0))
    answers: Line = field(default=Line(5.0, 20.0))
    store_silent: float = 45.0

    stuck_run: float = 3600.0
    daemon: Line = field(default=Line(60.0, 180.0))
