"""Alerts on their way: through the book in a real Redis to a file, a webhook and a mail server on this machine."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email import message_from_string
from email.policy import default
from pathlib import Path

import pytest

from bitget_pipeline.errors import AlertNotDelivered, StoreUnavailable
from bitget_pipeline.pipeline.incidents import Severity
from bitget_pipeline.pipeline.watch.alert_senders import LogFile, Mail, Sender, Webhook
from bitget_pipeline.pipeline.watch.alerting import Alerting
from bitget_pipeline.pipeline.watch.alerts import Alert, Message, Said
from bitget_pipeline.storage.alert_book import AlertBook
from bitget_pipeline.storage.redis_connection import RedisAddress, connect_sync

from .alert_servers import a_mail_server, a_webhook

NOON = 1_800_000_000.0
RED = Alert("health", Severity.CRITICAL, "no live run holds the lease: nothing <is> collected & stored")
SECRET = "very-secret"
SOON = 60.0
"""Seconds that whoever answers at once may take: this machine may have much else to do."""


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


Started = Callable[..., Alerting]


@pytest.fixture
def clock() -> Clock:
    """Noon, until it is set."""
    return Clock()


@pytest.fixture
def started(redis_address: RedisAddress, redis_prefix: str, clock: Clock) -> Started:
    """A process's alerts; every call is another process on the same Redis. `away` lists what makes Redis absent."""

    def start(senders: Sequence[Sender], *, away: Sequence[object] = (), within: float = SOON) -> Alerting:
        @contextmanager
        def opened() -> Iterator[AlertBook]:
            if away:
                raise StoreUnavailable("Redis cannot be reached")
            client = connect_sync(redis_address)
            try:
                yield AlertBook(client, redis_prefix)
            finally:
                client.close()

        return Alerting(opened, senders, clock=clock, ticks=clock, within=within)

    return start


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def message(what: str = RED.what, said: Said = Said.NEW) -> Message:
    return Message(said, "health", Severity.CRITICAL, what, NOON - 90, NOON)


# ---------------------------------------------------------------- channels


def test_the_webhook_gets_slacks_json() -> None:
    """One post for all that waits, with what Slack wants escaped."""
    with a_webhook() as hook:
        Webhook(hook.url, instance="demo", within=SOON).send([message(), message(said=Said.OVER)])
    (said,) = hook.taken
    assert said == {
        "text": "*demo: 1 critical, 1 over*\n"
        "2027-01-15 08:00:00 UTC critical: health: no live run holds the lease: nothing &lt;is&gt; collected &amp; stored\n"
        "2027-01-15 08:00:00 UTC over: critical: health: no live run holds the lease: nothing &lt;is&gt; collected &amp; stored"
        " (after 0:01:30)"
    }


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_webhook_that_refuses_is_told_by_its_answer(status: int) -> None:
    """A redirection is no delivery: nobody else gets what was meant for this address."""
    with a_webhook(status) as hook, pytest.raises(AlertNotDelivered, match=f"answered {status}"):
        Webhook(hook.url, within=SOON).send([message()])
    assert (hook.asked, hook.taken) == (1, [])


def test_no_error_and_no_print_of_a_channel_holds_its_secrets() -> None:
    """A webhook's address is a password; so is the mail server's."""
    with a_webhook(500) as hook:
        refused = Webhook(hook.url)
    silent = Webhook(refused.url)  # its server is gone
    wrong = Webhook("http://[very-secret")
    with a_mail_server(login=535) as post:
        mail = Mail("127.0.0.1", post.port, "a@x.org", ("b@x.org",), security="none", user="me", password=SECRET)
        for sender in (silent, wrong, mail):
            with pytest.raises(AlertNotDelivered) as raised:
                sender.send([message()])
            chain = f"{raised.value} {raised.value.__cause__!r} {sender!r}"
            assert SECRET not in chain
            assert raised.value.__suppress_context__


def test_a_letter_arrives_with_every_alert_in_it() -> None:
    """For everybody at once, logged in as the settings say; more than twenty are counted."""
    with a_mail_server() as post:
        mail = Mail(
            "127.0.0.1", post.port, "alerts@example.org", ("a@example.org", "b@example.org"), security="none",
            user="me", password=SECRET, instance="demo", within=SOON,
        )  # fmt: skip
        mail.send([message(f"line {number} über\nhidden") for number in range(25)])
    ((to, text),) = post.letters
    assert to == ["a@example.org", "b@example.org"]
    letter = message_from_string(text, policy=default)
    assert (letter["Subject"], letter["From"]) == ("[demo] 25 critical", "alerts@example.org")
    body = letter.get_content()
    assert "and 5 before these" in body
    assert "line 24 über hidden" in body
    assert "line 4 " not in body
    assert base64.b64decode(post.logins[0]) == b"\0me\0" + SECRET.encode()


@pytest.mark.parametrize("how", [{"greeting": ""}, {"drips": True}], ids=["silent", "a byte at a time"])
def test_a_mail_server_that_hangs_is_left(how: dict[str, object]) -> None:
    """The whole delivery has its time, not each of its answers."""
    with a_mail_server(**how) as post:
        mail = Mail("127.0.0.1", post.port, "a@x.org", ("b@x.org",), security="none", within=0.3)
        with pytest.raises(AlertNotDelivered, match=r"did not answer within 0\.3 s"):
            mail.send([message()])


def test_a_server_without_tls_gets_no_letter_that_wants_it() -> None:
    """STARTTLS that is not offered is a refusal, never a letter in the clear."""
    with a_mail_server() as post, pytest.raises(AlertNotDelivered):
        Mail("127.0.0.1", post.port, "a@x.org", ("b@x.org",), user="me", password=SECRET, within=SOON).send([message()])
    assert (post.letters, post.logins) == ([], [])


def test_the_log_rotates_and_a_log_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest file goes; nothing counts as told that was not written."""
    monkeypatch.setattr("bitget_pipeline.pipeline.watch.alert_senders.LOG_BYTES", 2000)
    path = tmp_path / "logs" / "alerts.log"
    for number in range(300):
        LogFile(path).send([message(f"number {number}")])
    assert len(list(path.parent.iterdir())) == 6
    assert "number 299" in lines(path)[-1]

    path.parent.chmod(0o755)
    (tmp_path / "file").write_text("")
    with pytest.raises(AlertNotDelivered, match="cannot be written"):
        LogFile(tmp_path / "file" / "alerts.log").send([message()])


# ---------------------------------------------------------------- the whole way


def test_every_channel_is_told_the_beginning_and_the_end_once(started: Started, clock: Clock, tmp_path: Path) -> None:
    """Two processes that look at the same thing, one of them restarted in between, tell it once."""
    path = tmp_path / "alerts.log"
    with a_webhook() as hook, a_mail_server() as post:
        mail = Mail("127.0.0.1", post.port, "a@x.org", ("b@x.org",), "none", within=SOON)
        senders = [LogFile(path), Webhook(hook.url, within=SOON), mail]
        for minute in range(30):
            process = started(senders)
            clock.now = NOON + minute * 60
            process.looked("health", [RED] if minute < 20 else [])
            started(senders).looked("health", [RED] if minute < 20 else [])
            process.deliver()
            started(senders).deliver()
    assert len(lines(path)) == len(hook.taken) == len(post.letters) == 2
    assert "critical: health" in lines(path)[0]
    assert "over: critical: health" in lines(path)[1]


@pytest.mark.parametrize("status", [500, 0])
def test_a_webhook_that_fails_holds_up_nobody_and_is_tried_again(
    started: Started, clock: Clock, tmp_path: Path, status: int
) -> None:
    """
    The log has the alert at once; the webhook, which answers 500 or hangs, rests and has it when it is well again.
    """
    path = tmp_path / "alerts.log"
    with a_webhook(status) as hook:
        within = SOON if status else 2.0
        process = started([LogFile(path), Webhook(hook.url, within=within)])
        process.looked("health", [RED])
        said = process.deliver()
        assert said["log"] == "1 delivered"
        assert said["webhook"] == ("the webhook answered 500" if status else "the webhook did not answer within 2 s")
        assert process.deliver() == {}  # it rests
        assert hook.asked == 1

        hook.status = 200
        hook.released.set()
        clock.now += 20
        process.looked("health", [RED])
        assert process.deliver() == {"webhook": "1 delivered"}
    assert [text.count("critical: health") for text in hook.texts] == [1]
    assert len(lines(path)) == 1


class Stuck:
    """A channel that no time-out reaches, until it is let go."""

    name = "stuck"

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.let_go = threading.Event()

    def send(self, messages: Sequence[Message]) -> None:
        self.let_go.wait(60)
        self.taken += messages


def test_a_channel_that_ends_late_has_what_it_took(started: Started, tmp_path: Path) -> None:
    """It is begun once, nobody waits for it, and what it took in the end is not given to it again."""
    stuck = Stuck()
    process = started([LogFile(tmp_path / "alerts.log"), stuck], within=0.05)
    process.looked("health", [RED])
    for _ in range(3):
        assert process.deliver()["stuck"] == "takes its time"
    stuck.let_go.set()
    deadline, told = time.monotonic() + SOON, {}
    while (said := process.deliver()) or not stuck.taken:
        assert time.monotonic() < deadline
        told |= said
    assert told["stuck"] == "1 delivered"
    assert process.deliver() == {}
    assert len(stuck.taken) == 1


def test_one_process_delivers_at_a_time(started: Started, tmp_path: Path) -> None:
    """While one is at work another leaves it alone, and the file has one writer."""
    stuck, path = Stuck(), tmp_path / "alerts.log"
    first = started([stuck])
    first.looked("health", [RED])
    thread = threading.Thread(target=first.deliver)
    thread.start()
    other = started([LogFile(path), stuck])
    other.looked("health", [Alert("health", Severity.DEGRADED, "x")])
    deadline = time.monotonic() + SOON
    while not any(one.name == "alerts-stuck" for one in threading.enumerate()):
        assert time.monotonic() < deadline
    other.happened(Alert("run:live", Severity.CRITICAL, "gone"))
    assert other.deliver() == {}
    stuck.let_go.set()
    thread.join(SOON)
    assert other.deliver()["log"] == "1 delivered"


def test_that_redis_is_gone_is_told_all_the_same_and_once(started: Started, clock: Clock, tmp_path: Path) -> None:
    """
    The book goes on in the process while Redis is away; when it is back, neither what was told before nor what was told
    meanwhile is told again, and another process knows of both.
    """
    path, away = tmp_path / "alerts.log", []
    process = started([LogFile(path)], away=away)
    process.happened(Alert("run:discovery", Severity.DEGRADED, "it failed"))
    process.deliver()

    away.append("redis")
    for _ in range(5):
        clock.now += 60
        process.looked("health", [RED])
        process.deliver()
    assert [line.split(" UTC ")[1].split(": ")[1] for line in lines(path)] == ["run:discovery", "health"]

    away.clear()
    clock.now += 60
    process.looked("health", [RED])
    process.deliver()
    other = started([LogFile(path)])
    other.looked("health", [RED])
    other.deliver()
    assert len(lines(path)) == 2
    assert set(other.known("health")) == {"health"}


def test_a_book_that_nobody_can_read_is_begun_anew(
    started: Started, redis_address: RedisAddress, redis_prefix: str, tmp_path: Path
) -> None:
    """Told once more is better than never."""
    client = connect_sync(redis_address)
    client.set(f"{redis_prefix}alerts:book", b'{"known": 7')
    client.close()
    process = started([LogFile(tmp_path / "alerts.log")])
    process.looked("health", [RED])
    assert process.deliver() == {"log": "1 delivered"}
