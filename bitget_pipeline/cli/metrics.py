"""
What Prometheus reads: a small HTTP server that asks Redis and ClickHouse at every scrape.

`up` runs it beside everything else; alone it serves an instance whose stores run elsewhere.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click

from ..errors import PortTaken
from ..settings import Boot, redis_address, warehouse_address
from ..telemetry import configure
from .facts import SHARD
from .output import boot_for, console, where

if TYPE_CHECKING:
    from ..pipeline.metrics.sources import Collector

WAREHOUSE_EVERY = 10.0
"""Seconds for which ClickHouse's answer holds, however often Prometheus scrapes."""
CONTENT = "text/plain; charset=utf-8"
PATH, ALIVE = "/metrics", "/-/healthy"

Start = Callable[[str, list[tuple[str, str]]], Any]
App = Callable[[dict[str, Any], Start], Iterable[bytes]]


@click.command("metrics")
@click.option("--host", help="Address to listen on [default: BITGET_PIPELINE_METRICS_HOST, 127.0.0.1].")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="0 takes a free one [default: BITGET_PIPELINE_METRICS_PORT, 19464]."
)
@click.option("--once", is_flag=True, help="Print what one scrape answers, and end.")
@click.option("--markdown", is_flag=True, help="Print every metric and its meaning, as docs/metrics.md has them.")
@where
def metrics_command(
    host: str | None, port: int | None, once: bool, markdown: bool, demo: bool, home: Path | None
) -> None:
    """
    Serve metrics for Prometheus at /metrics until Ctrl-C.

    It asks Redis and ClickHouse when it is scraped. A store that is down does not delay the answer: its figures are missing, and
    bitget_pipeline_source_up says so.
    """
    if markdown:
        from ..pipeline.metrics.names import as_markdown

        click.echo(as_markdown(), nl=False)
        return
    boot = boot_for(home=home, demo=demo)
    collector = collector_for(boot)
    try:
        if once:
            from prometheus_client import CollectorRegistry, generate_latest

            registry = CollectorRegistry()
            registry.register(collector)
            click.echo(generate_latest(registry).decode(), nl=False)
            return
        configure(level=boot.log_level, json=boot.log_format == "json")
        _serve(collector, host or boot.metrics_host, boot.metrics_port if port is None else port)
    finally:
        collector.close()


def collector_for(boot: Boot) -> Collector:
    """A collector that asks the instance's stores; where they are is looked up at each question, as `up` may move them."""
    import redis

    from ..pipeline.metrics.asking import WarehouseQuestions, redis_families
    from ..pipeline.metrics.sources import Collector, Source
    from ..storage.redis_connection import connect_sync
    from ..storage.warehouse import Warehouse

    clients: dict[Any, redis.Redis] = {}

    def ask_redis() -> Any:
        address = redis_address(boot)
        if address not in clients:
            clients.clear()
            clients[address] = connect_sync(address)
        return redis_families(clients[address], boot.redis_prefix, SHARD, egress=boot.egress_name)

    questions = WarehouseQuestions(lambda: Warehouse.open(warehouse_address(boot)))
    return Collector([Source("redis", ask_redis), Source("clickhouse", questions.families, WAREHOUSE_EVERY)])


def application(collector: Collector) -> App:
    """The pages: metrics, a sign of life that asks nobody, and a word for a person who looks."""
    from prometheus_client import CollectorRegistry, make_wsgi_app

    registry = CollectorRegistry()
    registry.register(collector)
    metrics: App = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == PATH:
            return metrics(environ, start)
        said = {ALIVE: "alive\n", "/": f"bitget_pipeline: metrics for Prometheus are at {PATH}\n"}.get(path)
        start("200 OK" if said else "404 Not Found", [("Content-Type", CONTENT)])
        return [(said or f"there is nothing here; see {PATH}\n").encode()]

    return app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """As the base does, without asking a name server for our own name."""
        from socketserver import TCPServer

        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line for each scrape tells nobody anything."""


def listening(collector: Collector, host: str, port: int) -> _Server:
    """A server that listens. Raises PortTaken."""
    try:
        return make_server(host, port, application(collector), server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise PortTaken(
            f"cannot listen: {error.strerror}",
            where=f"{host}:{port}",
            remedy="choose another port with --port or BITGET_PIPELINE_METRICS_PORT",
        ) from None


def _serve(collector: Collector, host: str, port: int) -> None:
    with listening(collector, host, port) as server:
        told = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: told.set())
        thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
        thread.start()
        console().print(f"metrics at http://{host}:{server.server_port}{PATH}", markup=False)
        told.wait()
        server.shutdown()
