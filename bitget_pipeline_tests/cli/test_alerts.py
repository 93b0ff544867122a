"""The command `alerts`: what was told, and whether every channel takes a message."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from bitget_pipeline.pipeline.incidents import Severity
from bitget_pipeline.pipeline.watch.alert_senders import Webhook
from bitget_pipeline.pipeline.watch.alerts import Alert, AlertRules, Book, happened, text_of
from bitget_pipeline.settings import channels
from bitget_pipeline.storage.alert_book import AlertBook
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync

from ..pipeline.watch.alert_servers import a_webhook
from .test_commands import Run, run  # noqa: F401


def test_a_test_message_reaches_every_channel_or_says_why_not(
    run: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Exit code 75 and the reason for a webhook that refuses; its address, a secret, is not in it.
    """
    monkeypatch.setattr(channels, "Webhook", partial(Webhook, within=60.0))  # a slow machine is not what this is about
    with a_webhook() as hook:
        place = {"BITGET_PIPELINE_HOME": str(tmp_path), "BITGET_PIPELINE_ALERT_WEBHOOK": hook.url}
        good = run("alerts", "--test", **place)
        hook.status = 500
        bad = run("alerts", "--test", "--json", **place)
    assert (good.code, good.out) == (0, "log: taken\nwebhook: taken\n")
    assert "alerts reach this channel" in hook.texts[0]
    assert bad.code == 75
    assert json.loads(bad.out)["failed"] == {"webhook": "the webhook answered 500"}
    assert "very-secret" not in good.out + bad.out + bad.error
    assert (tmp_path / "logs" / "alerts.log").read_text(encoding="utf-8").count("note: test") == 2


def test_alerts_shows_what_was_told_and_what_waits(
    run: Run,  # noqa: F811
    tmp_path: Path,
    redis_address: RedisAddress,
    redis_prefix: str,
) -> None:
    """
    From the book in Redis, which the sensors write.
    """
    client = connect_sync(redis_address)
    alert = Alert("run:discovery", Severity.DEGRADED, "run 12345678 failed: [disk] full")
    book = happened(Book(), alert, ["log", "webhook"], now=1_800_000_000.0, rules=AlertRules())
    AlertBook(client, redis_prefix).change(lambda _: text_of(book))
    client.close()
    place = {
        "BITGET_PIPELINE_HOME": str(tmp_path),
        "REDIS_HOST": redis_address.host,
        "REDIS_PORT": str(redis_address.port),
        "BITGET_PIPELINE_REDIS_PREFIX": redis_prefix,
    }
    people = run("alerts", **place)
    programs = json.loads(run("alerts", "--json", **place).out)
    assert people.out.splitlines()[:3] == [
        "degraded since 2027-01-15 08:00:00 UTC: run:discovery: run 12345678 failed: [disk] full",
        "1 messages wait for log",
        "1 messages wait for webhook",
    ]
    assert programs["channels"] == ["log"]
    assert programs["waiting"] == {"log": 1, "webhook": 1}
    assert [one["key"] for one in programs["alerts"]] == ["run:discovery"]
