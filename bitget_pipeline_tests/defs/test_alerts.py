"""Alerts through the sensors: runs that fail, critical health, incidents; against real stores and a real webhook."""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from bitget_pipeline.defs.alerts import LIVE_STEADY, alerting, alerts, notice_health, run_failures, still_failing
from bitget_pipeline.defs.resources import PipelineResource, boot
from bitget_pipeline.defs.sensors import health
from bitget_pipeline.guard.vitals import Status, Vital, worst
from bitget_pipeline.pipeline.incidents import Incident, Severity, report_incident
from bitget_pipeline.pipeline.watch.alert_senders import Webhook
from bitget_pipeline.pipeline.watch.health import Health, told_reasons
from bitget_pipeline.settings import load_boot
from bitget_pipeline.settings.channels import alert_channels
from bitget_pipeline.storage.connection import WarehouseAddress
from bitget_pipeline.storage.redis_connection import RedisAddress, connect
from bitget_pipeline.storage.stamp import stamp_database
from bitget_pipeline.storage.versions import Versions
from bitget_pipeline.storage.warehouse import Warehouse

from ..pipeline.watch.alert_servers import Hook, a_webhook


@dataclass
class Place:
    """An instance whose alerts go to a file and to a webhook; its clock is set by hand."""

    hook: Hook
    log: Path
    instance: dg.DagsterInstance
    now: float

    def tick(self, *, after: float = 0.0, with_health: bool = False) -> dg.SensorResult | None:
        """One tick of the sensors, so many seconds later; what the health sensor said if it was asked."""
        self.now += after
        said = None
        if with_health:
            said = health(dg.build_sensor_context(self.instance), pipeline=PipelineResource())
        told = alerts(dg.build_sensor_context(self.instance), pipeline=PipelineResource())
        assert isinstance(told, dg.SkipReason)
        return said if isinstance(said, dg.SensorResult) else None

    def lines(self) -> list[str]:
        """What the log says, without the times."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [line.split(" UTC ", 1)[1] for line in text.splitlines()]


@pytest.fixture
def place(
    warehouse: Warehouse,
    warehouse_address: WarehouseAddress,
    redis_address: RedisAddress,
    redis_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    """The settings of this process point at the stores of the test and at a webhook of its own."""
    with a_webhook() as hook, dg.DagsterInstance.ephemeral() as instance:
        for name, value in {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_PIPELINE_HOME": str(tmp_path),
            "CLICKHOUSE_HOST": warehouse_address.host,
            "CLICKHOUSE_PORT": str(warehouse_address.port),
            "CLICKHOUSE_DATABASE": warehouse_address.database,
            "REDIS_HOST": redis_address.host,
            "REDIS_PORT": str(redis_address.port),
            "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
            "BITGET_PIPELINE_ALERT_WEBHOOK": hook.url,
        }.items():
            monkeypatch.setenv(name, value)
        boot.cache_clear()
        alerting.cache_clear()
        stamp_database(warehouse, "local")
        placed = Place(hook, tmp_path / "logs" / "alerts.log", instance, time.time())
        monkeypatch.setattr(alerting(), "clock", lambda: placed.now)
        patient = [replace(one, within=60.0) if isinstance(one, Webhook) else one for one in alerting().senders]
        monkeypatch.setattr(alerting(), "senders", patient)
        monkeypatch.setattr(alerting(), "within", 60.0)
        yield placed
    boot.cache_clear()
    alerting.cache_clear()


@pytest.fixture
def ran(place: Place) -> Callable[[bool], None]:
    """Runs a job that fails or succeeds, and tells the failure sensor of a failure, as Dagster's daemon does."""

    @dg.op(config_schema={"works": bool})
    def work(context: dg.OpExecutionContext) -> None:
        if not context.op_config["works"]:
            raise ValueError("the disk\nis full")

    @dg.job
    def nightly() -> None:
        work()

    def run(works: bool) -> None:
        done = nightly.execute_in_process(
            run_config={"ops": {"work": {"config": {"works": works}}}}, instance=place.instance, raise_on_error=False
        )
        if not works:
            (failure,) = [e for e in done.all_events if e.event_type is dg.DagsterEventType.RUN_FAILURE]
            context = dg.build_run_status_sensor_context(
                "run_failures", failure, place.instance, done.dagster_run, resources={}
            )
            run_failures(context.for_run_failure())

    return run


def test_a_job_that_fails_is_told_with_its_reason_until_it_succeeds(place: Place, ran: Callable[[bool], None]) -> None:
    """Three failed runs are one alert, in the log and at the webhook; its end comes with the run that succeeds."""
    for _ in range(3):
        ran(False)
    place.tick()
    (line,) = place.lines()
    assert line.startswith("degraded: run:nightly: run ")
    assert line.endswith("failed: ValueError: the disk is full")
    place.tick(after=600)
    assert len(place.lines()) == 1

    ran(True)
    place.tick(after=20)
    place.tick(after=130)
    assert place.lines()[1].startswith("over: degraded: run:nightly")
    assert "the disk is full (3 times) (after " in place.lines()[1]
    assert [("run:nightly" in text, "*bitget_pipeline (local, " in text) for text in place.hook.texts] == [
        (True, True)
    ] * 2


def test_critical_health_is_told_when_it_lasts(place: Place) -> None:
    """No live run holds the lease: at the second look of the health sensor that is an alert, later not another one."""
    place.tick(with_health=True)
    assert place.lines() == []
    for _ in range(3):
        place.tick(after=60, with_health=True)
    (line,) = place.lines()
    assert line.startswith("critical: health: no live run holds the lease: nothing is being collected")


def seen(*vitals: Vital) -> Health:
    """What the health sensor saw."""
    return Health(worst(vitals), told_reasons(vitals), vitals=list(vitals))


def test_what_stays_unknown_is_told_and_its_end_too(place: Place) -> None:
    """Five minutes in which nobody could say how it stands are an alert, degraded; a moment of it is none."""
    dark = Vital("exchange.rest", Status.UNKNOWN, "the exchange was not asked yet")
    well = Vital("exchange.rest", Status.HEALTHY, "it answers")
    for sight in (dark, well, dark, dark, dark, dark, dark):
        notice_health(seen(sight))
        place.tick(after=60)
    assert place.lines() == []
    notice_health(seen(dark, Vital("lag.p50", Status.DEGRADED, "late")))
    place.tick()
    assert place.lines() == [
        "degraded: unseen: it is not known how it stands: the exchange was not asked yet",
    ]
    for _ in range(3):
        notice_health(seen(well))
        place.tick(after=90)
    assert place.lines()[1].startswith("over: degraded: unseen")


def test_what_is_unknown_beside_something_critical_is_no_alert_of_its_own(place: Place) -> None:
    """No live run: that says already why nobody looks. A symbol alone of which nothing came is none either."""
    gone = Vital("live.lease", Status.CRITICAL, "no live run holds the lease")
    dark = Vital("exchange.rest", Status.UNKNOWN, "no live run looks")
    alone = Vital("subscription.silence", Status.UNKNOWN, "nothing came yet", subject="spot/NEWUSDT")
    for _ in range(8):
        notice_health(seen(gone, dark))
        place.tick(after=60)
    assert not any("unseen" in line for line in place.lines())
    for _ in range(8):
        notice_health(seen(Vital("lag.p50", Status.DEGRADED, "late"), alone))
        place.tick(after=60)
    assert not any("unseen" in line for line in place.lines())


def test_a_store_that_is_down_is_red_and_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tick of the health sensor does not fail: its check is red, the alert goes out, and nothing else counts as over."""
    monkeypatch.setenv("CLICKHOUSE_PORT", "1")
    boot.cache_clear()
    place.tick(with_health=True)
    said = place.tick(after=60, with_health=True)
    assert said is not None
    checks = [one for one in said.asset_events if isinstance(one, dg.AssetCheckEvaluation)]
    (check,) = [one for one in checks if one.check_name == "stores_are_well"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    (line,) = place.lines()
    assert line.startswith("critical: health: ")
    assert "ClickHouse" in line


async def test_incidents_of_one_kind_are_one_alert_until_the_last_is_closed(
    place: Place, warehouse: Warehouse, redis_address: RedisAddress, redis_prefix: str
) -> None:
    """Notes are none; an incident that is closed at once is told all the same."""
    client = connect(redis_address)
    versions = Versions(client, redis_prefix, floor=lambda: 0)
    opened = time.time_ns() // 1_000_000

    async def report(name: str, severity: Severity, *, closed: int | None = None) -> None:
        found = Incident(name, "drill", severity, f"what {name} is", opened, closed)
        await report_incident(warehouse, versions, found, run_id="test")

    await report("note", Severity.NOTE)
    place.tick()
    assert place.lines() == []
    await report("one", Severity.DEGRADED)
    await report("two", Severity.CRITICAL, closed=opened)
    place.tick(after=20)
    (line,) = place.lines()
    assert line.startswith("critical: incident:drill: what ")
    assert line.endswith("(and 1 more)")

    long_ago = opened - round(timedelta(hours=1).total_seconds() * 1000)
    await report("one", Severity.DEGRADED, closed=long_ago)
    await report("two", Severity.CRITICAL, closed=long_ago)
    await client.aclose()
    place.tick(after=20)
    place.tick(after=130)
    assert place.lines()[1].startswith("over: critical: incident:drill")


def test_a_live_run_has_to_live_for_a_while_before_its_failure_is_over(place: Place) -> None:
    """It never succeeds while it is wanted: the next one that lives ends the alert. A job nobody knows fails no more."""
    for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED):
        run = dg.DagsterRun(job_name="live", run_id=str(uuid.uuid4()), status=status)
        place.instance.add_run(run)
        assert still_failing(place.instance, "live", now=place.now)
    place.instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "live"), run_id=run.run_id)
    started = place.instance.get_run_records(limit=1)[0].start_time
    assert started is not None
    assert still_failing(place.instance, "live", now=started + LIVE_STEADY - 1)
    assert not still_failing(place.instance, "live", now=started + LIVE_STEADY)
    assert not still_failing(place.instance, "unheard_of", now=place.now)


def test_the_log_is_always_a_channel_and_the_others_when_they_are_configured(tmp_path: Path) -> None:
    """Nothing has to be set for alerts to be written down."""
    assert [one.name for one in alert_channels(load_boot({"BITGET_PIPELINE_HOME": str(tmp_path)}))] == ["log"]
    everything = {
        "BITGET_PIPELINE_HOME": str(tmp_path),
        "BITGET_PIPELINE_ALERT_WEBHOOK": "https://hooks.example.org/secret",
        "BITGET_PIPELINE_SMTP_HOST": "mail.example.org",
        "BITGET_PIPELINE_ALERT_EMAIL_FROM": "alerts@example.org",
        "BITGET_PIPELINE_ALERT_EMAIL_TO": "a@example.org,b@example.org",
    }
    assert [one.name for one in alert_channels(load_boot(everything))] == ["log", "webhook", "email"]
