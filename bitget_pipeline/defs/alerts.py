"""
What is wrong, told to people: runs that failed, critical health, incidents.

Here it is noticed; what is told, and when, is decided in pipeline/watch/alerts.py, and how in alert_senders.py
there. Only the sensor `alerts` waits for a channel, so a webhook that hangs holds up nothing else.
"""

import time
from collections.abc import Sequence
from functools import cache

import dagster as dg

from ..errors import PipelineError
from ..guard.vitals import Status
from ..pipeline.incidents import Severity
from ..pipeline.watch.alerting import Alerting
from ..pipeline.watch.alerts import Alert, AlertRules
from ..pipeline.watch.health import Health, told_reasons
from ..settings.channels import alert_channels
from ..storage.incident_rows import IncidentGroup
from .jobs import live
from .resources import PipelineResource, boot

HEALTH, UNSEEN, RUN, INCIDENT = "health", "unseen", "run", "incident"

HEALTH_HOLD = 45.0
"""Seconds: two looks of the health sensor. The live run needs one to start."""

UNSEEN_HOLD = 300.0
"""Seconds for which something has to be unknown until that is told: a live run that begins has to look first."""

CLOSED_WITHIN = 300
"""Seconds: an incident that opened and closed between two looks is told all the same."""

LIVE_STEADY = 60.0
"""Seconds for which the next live run has to live until the failure of the last one is over."""

MOST_LETTERS = 400
"""Of what a failed run said."""


@cache
def alerting() -> Alerting:
    """The alerts of this process."""
    place = boot()
    rules = AlertRules(repeat_every=place.alert_repeat_hours * 3600)
    return Alerting(PipelineResource().alert_book, alert_channels(place), rules)


def notice_health(seen: Health) -> None:
    """
    Critical is an alert, all else is its end; unknown is neither. What is unknown for long is an alert of its own, unless
    something critical says already why nobody can look.
    """
    critical = [Alert(HEALTH, Severity.CRITICAL, "; ".join(seen.reasons[:5]))] if seen.status is Status.CRITICAL else []
    if seen.status is not Status.UNKNOWN:
        alerting().looked(HEALTH, critical, hold=HEALTH_HOLD)
    if not critical:
        alerting().looked(UNSEEN, unseen_alerts(seen), hold=UNSEEN_HOLD)


def unseen_alerts(seen: Health) -> list[Alert]:
    """All that nobody could evaluate, as one alert; a symbol or a connection alone is none."""
    dark = [one for one in seen.vitals if one.status is Status.UNKNOWN and not one.subject]
    if not dark and seen.status is not Status.UNKNOWN:
        return []
    reasons = told_reasons(dark) or seen.reasons[:1]
    return [Alert(UNSEEN, Severity.DEGRADED, f"it is not known how it stands: {'; '.join(reasons)}")]


def incident_alert(group: IncidentGroup) -> Alert:
    """Incidents of one kind and market are one alert: thousands of bars that differ are one thing to look into."""
    more = f" (and {group.count - 1} more)" if group.count > 1 else ""
    key = ":".join((INCIDENT, group.kind, *([group.market] if group.market else [])))
    return Alert(key, Severity(group.severity), f"{group.what}{more}")


@dg.run_failure_sensor(
    name="run_failures",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Notes every run that failed; the sensor `alerts` tells it, once for each job.",
)
def run_failures(context: dg.RunFailureSensorContext) -> None:
    """Failed runs of one job are one alert, which ends with its next run that succeeds."""
    run = context.dagster_run
    severity = Severity.CRITICAL if run.job_name == live.name else Severity.DEGRADED
    alerting().happened(Alert(f"{RUN}:{run.job_name}", severity, f"run {run.run_id[:8]} failed: {_why(context)}"))


def _why(context: dg.RunFailureSensorContext) -> str:
    """The innermost error of the step that failed, or what Dagster says of the run; one line."""
    said = context.failure_event.message or "no reason was given"
    for event in context.get_step_failure_events()[:1]:
        error = event.step_failure_data.error
        while error is not None:
            said, error = error.message, error.cause
    line = " ".join(said.split())
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]}..."


def still_failing(instance: dg.DagsterInstance, job_name: str, *, now: float) -> bool:
    """Whether the newest run of a job that came to an end failed, and no live run has lived for a while since."""
    statuses = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    if job_name == live.name:
        statuses.append(dg.DagsterRunStatus.STARTED)
    records: Sequence[dg.RunRecord] = instance.get_run_records(
        dg.RunsFilter(job_name=job_name, statuses=statuses), limit=1
    )
    if not records:
        return False
    status = records[0].dagster_run.status
    if status is dg.DagsterRunStatus.STARTED:
        return now - (records[0].start_time or now) < LIVE_STEADY
    return status is dg.DagsterRunStatus.FAILURE


@dg.sensor(
    minimum_interval_seconds=20,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Tells people what is wrong and when it is over: to `logs/alerts.log`, and to a webhook and by e-mail where these are "
        "configured. What a channel does not take is tried again, ever more rarely."
    ),
)
def alerts(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SkipReason:
    """Looks whether failed jobs succeed again and at the incidents, and delivers what waits."""
    told, now = alerting(), time.time()
    failing = [
        Alert(key, one.severity, one.what)
        for key, one in told.known(RUN).items()
        if still_failing(context.instance, key.removeprefix(f"{RUN}:"), now=now)
    ]
    told.looked(RUN, failing)
    try:
        with pipeline.warehouse() as warehouse:
            groups = warehouse.incident_groups(closed_within=CLOSED_WITHIN)
        told.looked(INCIDENT, map(incident_alert, groups))
    except PipelineError as error:  # the health sensor tells that; nothing is over because nobody can look
        context.log.info(f"the incidents cannot be read: {error}")
    said = told.deliver()
    return dg.SkipReason("; ".join(f"{name}: {what}" for name, what in said.items()) or "nothing new to tell")
