"""
The channels that alerts go to, made from boot settings: the log always, a webhook and e-mail where they are configured.

Used by defs/alerts.py and by the command `alerts`.
"""

from __future__ import annotations

import socket
from pathlib import Path

from ..pipeline.watch.alert_senders import LogFile, Mail, Sender, Webhook
from .addresses import ssl_context
from .boot import Boot


def alert_log(boot: Boot) -> Path:
    """Where every alert is written down."""
    return boot.home / "logs" / "alerts.log"


def alert_channels(boot: Boot) -> list[Sender]:
    """The channels that are configured: the log always."""
    instance = f"bitget_pipeline ({boot.exchange}, {socket.gethostname()})"
    found: list[Sender] = [LogFile(alert_log(boot))]
    if boot.alert_webhook is not None:
        found.append(Webhook(boot.alert_webhook.get_secret_value(), tls=ssl_context(boot), instance=instance))
    if boot.smtp_host and boot.alert_email_from and boot.alert_email_to:
        found.append(
            Mail(
                boot.smtp_host,
                boot.smtp_port,
                boot.alert_email_from,
                tuple(boot.alert_email_to.split(", ")),
                security=boot.smtp_security,
                user=boot.smtp_user,
                password=boot.smtp_password.get_secret_value() if boot.smtp_password else None,
                tls=ssl_context(boot),
                instance=instance,
            )
        )
    return found
