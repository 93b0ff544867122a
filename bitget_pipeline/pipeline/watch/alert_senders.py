"""
The ways out of an alert: a rotating file, a webhook that understands Slack's JSON, e-mail.

Each takes all that waits at once, blocks for a few seconds at most, and raises AlertNotDelivered with a reason that holds
no secret.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import smtplib
import socket
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from threading import Timer
from typing import Literal, Protocol

import aiohttp

from ...errors import AlertNotDelivered
from ..incidents import Severity
from .alerts import WEIGHT, Message, Said

ANSWER_WITHIN = 4.0
"""Seconds for one delivery."""

LOG_BYTES, LOG_FILES = 5 * 2**20, 5
MOST_LINES = 20
"""Of one post or e-mail; the rest is counted, and stands in the log."""

SIGN = {Said.NEW: "", Said.WORSE: "worse: ", Said.STILL: "still: ", Said.OVER: "over: "}


class Sender(Protocol):
    """One channel; `name` is what its messages wait under."""

    @property
    def name(self) -> str: ...

    def send(self, messages: Sequence[Message]) -> None:
        """Hand them over. Raises AlertNotDelivered."""


def line_of(message: Message) -> str:
    """One message as a line for a person."""
    times = f" ({message.times} times)" if message.times > 1 else ""
    lasted = ""
    if message.said is not Said.NEW:
        length = timedelta(seconds=round(max(0.0, message.at - message.since)))
        lasted = f" (after {length})" if message.said is Said.OVER else f" (for {length})"
    what = " ".join(message.what.split())
    return f"{SIGN[message.said]}{message.severity.value}: {message.key}: {what}{times}{lasted}"


def headline(messages: Sequence[Message]) -> str:
    """All of them in a few words."""
    counts = Counter("over" if one.said is Said.OVER else one.severity.value for one in messages)
    order = (*sorted(Severity, key=WEIGHT.__getitem__, reverse=True), "over")
    return ", ".join(f"{counts[word]} {word}" for word in order if counts[word])


def body_of(messages: Sequence[Message]) -> list[str]:
    """The newest of them as lines, and how many more there are."""
    lines = [f"{_clock(one.at)} {line_of(one)}" for one in messages[-MOST_LINES:]]
    more = len(messages) - len(lines)
    return [*([f"... and {more} before these, see alerts.log"] if more else []), *lines]


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@dataclass(frozen=True, slots=True)
class LogFile:
    """Every alert, always. One process writes at a time (the turn), so the file is opened anew for each delivery."""

    path: Path
    name: str = "log"

    def send(self, messages: Sequence[Message]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handler = _Raising(self.path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
            try:
                for one in messages:
                    handler.handle(_record(f"{_clock(one.at)} {line_of(one)}"))
            finally:
                handler.close()
        except OSError as error:
            raise AlertNotDelivered(f"alerts cannot be written: {error.strerror}", where=str(self.path)) from None


class _Raising(logging.handlers.RotatingFileHandler):
    """The library's prints what goes wrong and goes on; here nothing may count as written that is not."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("alerts", logging.WARNING, "", 0, text, None, None)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A post of `{"text": ...}`, as Slack's incoming webhooks and those compatible with it take. The address is a secret."""

    url: str = field(repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    instance: str = "bitget_pipeline"
    within: float = ANSWER_WITHIN
    name: str = "webhook"

    def send(self, messages: Sequence[Message]) -> None:
        asyncio.run(self._post("\n".join([f"*{self.instance}: {headline(messages)}*", *body_of(messages)])))

    async def _post(self, text: str) -> None:
        for sign, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):  # all that Slack wants escaped
            text = text.replace(sign, code)
        limit = aiohttp.ClientTimeout(total=self.within)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.post(
                    self.url, json={"text": text}, ssl=True if self.tls is None else self.tls, allow_redirects=False
                ) as answer,
            ):
                status = answer.status
        except TimeoutError:
            raise AlertNotDelivered(f"the webhook did not answer within {self.within:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # their texts may hold the address
            raise AlertNotDelivered(f"the webhook cannot be reached ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise AlertNotDelivered(f"the webhook answered {status}")


@dataclass(frozen=True, slots=True)
class Mail:
    """An e-mail to everybody, over SMTP."""

    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    instance: str = "bitget_pipeline"
    within: float = ANSWER_WITHIN
    name: str = "email"

    def send(self, messages: Sequence[Message]) -> None:
        letter = EmailMessage()
        letter["Subject"] = f"[{self.instance}] {headline(messages)}"
        letter["From"], letter["To"] = self.sender, ", ".join(self.to)
        letter["Date"], letter["Message-ID"] = formatdate(), make_msgid(domain=socket.gethostname())
        letter.set_content("\n".join(body_of(messages)) + "\n", cte="quoted-printable")
        until = time.monotonic() + self.within
        try:
            self._hand_over(letter, until)
        except (smtplib.SMTPException, OSError, ValueError) as error:  # their texts may hold what we said
            if time.monotonic() >= until:
                why = f"did not answer within {self.within:g} s"
            elif isinstance(error, smtplib.SMTPResponseException):
                why = f"answered {error.smtp_code}"
            else:
                why = f"cannot be used ({type(error).__name__})"
            raise AlertNotDelivered(f"the mail server {why}", where=f"{self.host}:{self.port}") from None

    def _hand_over(self, letter: EmailMessage, until: float) -> None:
        """The library's time-out is for each answer; the connection is cut when the whole takes too long."""
        context = self.tls or ssl.create_default_context()
        if self.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(timeout=self.within, context=context)
            server._host = self.host  # type: ignore[attr-defined]  # the name that its certificate is checked for
        else:
            server = smtplib.SMTP(timeout=self.within)
            server._host = self.host  # type: ignore[attr-defined]
        cut = Timer(self.within, _cut, (server,))
        cut.daemon = True
        cut.start()
        try:
            code, said = server.connect(self.host, self.port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, said)
            if time.monotonic() >= until:
                raise TimeoutError
            if self.security == "starttls":
                server.starttls(context=context)
            if self.user is not None:
                server.login(self.user, self.password or "")
            server.send_message(letter)
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
        finally:
            cut.cancel()
            server.close()


def _cut(server: smtplib.SMTP) -> None:
    if server.sock is not None:
        with suppress(OSError):
            server.sock.shutdown(socket.SHUT_RDWR)
