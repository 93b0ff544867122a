"""
Servers that alerts are sent to: a webhook and a mail server, on this machine, that take, refuse or hang.

Each runs in a thread of its own with real sockets; what they took can be read.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hook:
    """A webhook: `status` is what it answers, 0 means that it hangs until `released`."""

    status: int = 200
    taken: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Its address, whose path is a secret."""
        return f"http://127.0.0.1:{self.port}/services/T0/B0/very-secret"

    @property
    def texts(self) -> list[str]:
        """What was said, post by post."""
        return [str(one["text"]) for one in self.taken]


@contextmanager
def a_webhook(status: int = 200) -> Iterator[Hook]:
    """A webhook that answers, until the end of the block."""
    hook = Hook(status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.asked += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if hook.status == 0:
                hook.released.wait(60)
                return
            if 200 <= hook.status < 300:
                assert self.headers["Content-Type"] == "application/json"
                hook.taken.append(body)
            self.send_response(hook.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.port = server.server_address[1]
        with _served(server):
            try:
                yield hook
            finally:
                hook.released.set()


@dataclass
class Post:
    """
    A mail server. `greeting` is its first answer; empty: it says nothing. `drips` lets it send a byte at a time for ever.
    `login` is the code that a login gets.
    """

    greeting: str = "220 ready"
    drips: bool = False
    login: int = 235
    letters: list[tuple[list[str], str]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def a_mail_server(**how: Any) -> Iterator[Post]:
    """As much of SMTP (RFC 5321) and AUTH PLAIN (RFC 4616) as it takes to get a letter."""
    post = Post(**how)

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            try:
                self.talk()
            except ConnectionError:
                return

        def talk(self) -> None:
            while post.drips and not post.released.wait(0.05):
                self.wfile.write(b"2")
            if not post.greeting:
                post.released.wait(60)
                return
            self.say(post.greeting)
            to: list[str] = []
            while line := self.rfile.readline().decode().strip():
                word = line.split()[0].upper()
                if word == "EHLO":
                    self.say("250-here")
                    self.say("250 AUTH PLAIN")
                elif word == "AUTH":
                    post.logins.append(line.split()[-1])
                    self.say(f"{post.login} so be it")
                elif word == "RCPT":
                    to.append(line.partition(":")[2].strip("<>"))
                    self.say("250 ok")
                elif word == "DATA":
                    self.say("354 go on")
                    lines: list[str] = []
                    while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                        lines.append(text.removeprefix("."))
                    post.letters.append((to, "\n".join(lines)))
                    self.say("250 taken")
                elif word == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        post.port = server.server_address[1]
        with _served(server):
            try:
                yield post
            finally:
                post.released.set()


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
