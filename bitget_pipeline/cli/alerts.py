"""What is told to people: what is wrong now, and whether every channel works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from ..errors import AlertNotDelivered
from ..pipeline.incidents import Severity
from ..pipeline.watch.alert_senders import Sender
from ..pipeline.watch.alerts import Message, Said, book_of
from ..settings import Boot, redis_address
from ..settings.channels import alert_channels, alert_log
from ..storage.alert_book import AlertBook
from ..storage.redis_connection import connect_sync
from .output import as_json, boot_for, console, print_json, where


@click.command("alerts")
@where
@as_json
@click.option("--test", is_flag=True, help="Send a test message to every channel.")
def alerts_command(demo: bool, home: Path | None, json_wanted: bool, test: bool) -> int:
    """
    What is wrong now and was told, and what waits for a channel; with --test, whether every channel takes a message.

    Exit code 0; 75 when a channel did not take the test message.
    """
    boot = boot_for(home=home, demo=demo)
    channels = alert_channels(boot)
    if test:
        return _tried(boot, channels, json_wanted)
    with _opened(boot) as store:
        book = book_of(store.read())
    told = {key: one for key, one in sorted(book.known.items()) if one.announced}
    waiting = {name: len(messages) for name, messages in book.waiting.items()}
    if json_wanted:
        alerts = [
            {"key": key, "severity": one.severity, "what": one.what, "since": one.since} for key, one in told.items()
        ]
        names = [channel.name for channel in channels]
        print_json({"home": str(boot.home), "channels": names, "alerts": alerts, "waiting": waiting})
        return 0
    out = console()
    for key, one in told.items():
        since = datetime.fromtimestamp(one.since, UTC).strftime("%Y-%m-%d %H:%M:%S")
        out.print(f"{one.severity.value} since {since} UTC: {key}: {one.what}", markup=False)
    for name, count in waiting.items():
        out.print(f"{count} messages wait for {name}", markup=False)
    heard_by = ", ".join(channel.name for channel in channels)
    out.print(f"{len(told) or 'no'} alerts; told to {heard_by}; every one is in {alert_log(boot)}", markup=False)
    return 0


def _tried(boot: Boot, channels: list[Sender], json_wanted: bool) -> int:
    now = time.time()
    message = Message(Said.NEW, "test", Severity.NOTE, "a test: alerts reach this channel", now, now)
    said: dict[str, str] = {}
    for channel in channels:
        try:
            channel.send([message])
        except AlertNotDelivered as error:
            said[channel.name] = str(error)
        else:
            said[channel.name] = ""
    if json_wanted:
        print_json(
            {"home": str(boot.home), "failed": {name: why for name, why in said.items() if why}, "tried": [*said]}
        )
    else:
        for name, why in said.items():
            console().print(f"{name}: {why or 'taken'}", markup=False)
    return AlertNotDelivered.exit_code if any(said.values()) else 0


@contextmanager
def _opened(boot: Boot) -> Iterator[AlertBook]:
    client = connect_sync(redis_address(boot))
    try:
        yield AlertBook(client, boot.redis_prefix)
    finally:
        client.close()
