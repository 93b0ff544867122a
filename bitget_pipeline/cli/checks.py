"""
What `doctor` looks at, one function a question; each answers with findings for a person.

Input: settings and what is reachable from here; output: `Finding`s. A check never raises one of our errors: it reports it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import psutil
from packaging.requirements import Requirement

from ..errors import PipelineError, RegionBlocked, Transient
from ..settings import Boot, Operational, exchange_address, redis_address, warehouse_address
from .up import folder, leftovers, ports

MAX_SKEW_MS = 1_000.0
LEAST_FREE_SHARE = 0.1  # below it the pipeline stops writing order books (design section 4)
OLDEST_CLICKHOUSE = (24, 8)
DAGSTER_PORT = 3000


class State(StrEnum):
    """What a finding means."""

    FINE = "fine"
    NOTE = "note"  # worth knowing, nothing to do
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was seen, and what to do about it."""

    name: str
    state: State
    said: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


Check = Callable[[Boot, Operational], Iterator[Finding]]


def python(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        yield Finding("python", State.FINE, version)
    else:
        yield Finding("python", State.PROBLEM, version, "use Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ...")


def packages(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """Whether what is installed is what we ask for."""
    wrong, seen = [], []
    for line in metadata.requires("bitget-pipeline") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        seen.append(f"{requirement.name} {version}")
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, wanted {requirement.specifier}")
    if wrong:
        yield Finding("packages", State.PROBLEM, "; ".join(wrong), "install again: rm .venv/.runtime, then make demo")
    else:
        yield Finding("packages", State.FINE, ", ".join(seen))


def disk(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """Room for what is collected."""
    place = boot.home
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    said = f"{usage.free / 1024**3:.1f} of {usage.total / 1024**3:.1f} GiB free at {place}"
    if usage.free < folder.LEAST_FREE_BYTES or usage.free / usage.total < LEAST_FREE_SHARE:
        yield Finding("disk", State.PROBLEM, said, "make room, or choose another disk with BITGET_PIPELINE_HOME")
    else:
        yield Finding("disk", State.FINE, said)


def instance(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """The folder, and what runs in it."""
    try:
        folder.check_stamp(boot.home, boot.exchange)
    except PipelineError as error:
        yield _problem("folder", error)
        return
    run, pid = folder.read_run(boot.home), folder.owner(boot.home)
    alive = leftovers.members(leftovers.recorded_sessions(run), str(run.get("mark", "")))
    if pid is None and alive:
        said = f"`up` was killed and left {len(alive)} processes in {boot.home}"
        yield Finding("instance", State.PROBLEM, said, "`bitget-pipeline down` ends them, `up` starts again cleanly")
    elif pid is None:
        yield Finding("instance", State.NOTE, f"nothing runs in {boot.home}", "start it with `bitget-pipeline up`")
    else:
        yield Finding("instance", State.FINE, f"runs in {boot.home} (process {pid}, {len(alive)} children)")


def dagster_port(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """Whether `up` could have its usual port."""
    if folder.owner(boot.home) is not None:
        address = folder.read_run(boot.home).get("addresses", {}).get("dagster", {})
        yield Finding("ports", State.FINE, f"the Dagster page is at {address.get('url', 'an unknown address')}")
        return
    try:
        ports.require_free(DAGSTER_PORT, option="--port")
    except PipelineError as error:
        yield _problem("ports", error)
    else:
        yield Finding("ports", State.FINE, f"port {DAGSTER_PORT} is free")


def second_installation(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """
    Another instance on this machine that spends the same address's requests, without sharing a budget with us.

    Two that share a Redis and its prefix share the budget too, and are no problem. Other machines behind the same
    address cannot be seen from here.
    """
    if boot.exchange == "local":
        return
    ours = str(boot.home)
    redis_of_others: dict[str, tuple[str, str, str]] = {}
    for process in psutil.process_iter():
        try:
            environ = process.environ()
        except (psutil.Error, OSError):
            continue
        home = environ.get("BITGET_PIPELINE_HOME", "")
        if leftovers.MARK in environ and home not in ("", ours) and environ.get("BITGET_PIPELINE_EXCHANGE") == "bitget":
            redis_of_others[home] = _budget_of(environ)
    mine = _budget_of(_own_budget(boot))
    apart = [home for home, budget in redis_of_others.items() if budget != mine]
    if apart:
        yield Finding(
            "second installation",
            State.PROBLEM,
            f"another instance asks Bitget from this address, with a budget of its own: {', '.join(apart)}",
            "stop one, or let both use one Redis (REDIS_HOST), or halve BITGET_PIPELINE_REQUEST_SHARE in both",
        )
    else:
        yield Finding("second installation", State.FINE, "none on this machine")


def security(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """TLS as it is set."""
    if not boot.ssl_verify:
        yield Finding(
            "tls", State.PROBLEM, "certificates are not verified (SSL_VERIFY)", "unset it; SSL_CA_CERTS adds your own"
        )
    else:
        yield Finding("tls", State.FINE, f"certificates are verified with {boot.ssl_ca_certs or 'those of the system'}")


def proxy(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """Whether the proxy is there."""
    if boot.proxy is None:
        yield Finding("proxy", State.FINE, "none")
        return
    parts = urlsplit(boot.proxy.get_secret_value())
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 1080)
    try:
        asyncio.run(_connects(parts.hostname or "", port))
    except (OSError, TimeoutError) as error:
        remedy = "start it, or change BITGET_PIPELINE_PROXY"
        said = f"{boot.proxy_shown} does not accept a connection: {error or 'timed out'}"
        yield Finding("proxy", State.PROBLEM, said, remedy)
    else:
        yield Finding("proxy", State.FINE, f"{boot.proxy_shown} accepts connections")


def exchange(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """Reachability, region and clock; the key, if there is one."""
    from .reach import check_credentials, reach, reach_socket

    try:
        reached = reach(boot)
    except RegionBlocked:
        yield Finding("region", State.PROBLEM, "Bitget does not serve this region", "`make demo` needs no exchange")
        return
    except Transient as error:
        running = boot.exchange == "bitget" or folder.owner(boot.home) is not None
        state = State.PROBLEM if running else State.NOTE
        remedy = "check the network or BITGET_PIPELINE_PROXY" if boot.exchange == "bitget" else error.remedy
        yield Finding("exchange", state, error.what, remedy or "`make demo` needs no exchange")
        return
    except PipelineError as error:
        yield _problem("exchange", error)
        return
    yield Finding("exchange", State.FINE, f"{exchange_address(boot).rest_url} answers in {reached.took_ms:.0f} ms")
    yield Finding("region", State.FINE, "served")
    try:
        took_ms = reach_socket(boot)
    except PipelineError as error:
        yield _problem("websocket", error)
    else:
        yield Finding("websocket", State.FINE, f"{exchange_address(boot).ws_url} answers in {took_ms:.0f} ms")
    ahead = "ahead of" if reached.skew_ms > 0 else "behind"
    said = f"our clock is {abs(reached.skew_ms) / 1000:.2f} s {ahead} the exchange's"
    if abs(reached.skew_ms) > MAX_SKEW_MS + reached.took_ms:
        yield Finding("clock", State.PROBLEM, said, "let the system keep time (timedatectl set-ntp true)")
    else:
        yield Finding("clock", State.FINE, said)
    if boot.has_credentials:
        try:
            verdict = check_credentials(boot)
        except PipelineError as error:
            yield _problem("credentials", error)
        else:
            rights = "reads only" if verdict.read_only else f"may {', '.join(verdict.rights)}"
            yield Finding(
                "credentials", State.FINE, f"accepted ({verdict.family}), {rights}, from {boot.credentials_from}"
            )


def clickhouse(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """Version, schema and stamp of the warehouse."""
    if boot.embedded_warehouse and folder.owner(boot.home) is None:
        yield Finding("clickhouse", State.NOTE, "the embedded one runs with `up`")
        return
    from ..storage.connection import Connection
    from ..storage.migrations import drift, schema_version
    from ..storage.stamp import database_exchange

    try:
        with Connection.open(warehouse_address(boot)) as warehouse:
            version = str(warehouse.query("SELECT version()")[0][0])
            schema, stamp = schema_version(warehouse), database_exchange(warehouse)
            wrong = drift(warehouse) if schema else []
    except PipelineError as error:
        yield _problem("clickhouse", error)
        return
    place = str(warehouse_address(boot))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_CLICKHOUSE:
        yield Finding("clickhouse", State.PROBLEM, f"{place} is version {version}", "install 24.8 or newer")
    else:
        yield Finding("clickhouse", State.FINE, f"{place} is version {version}")
    if stamp not in (None, boot.exchange):
        yield Finding(
            "schema",
            State.PROBLEM,
            f"the database {boot.clickhouse_database!r} holds data of {stamp}, this is {boot.exchange}",
            "set CLICKHOUSE_DATABASE to another name",
        )
    elif wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        said = "; ".join(wrong[:3]) + more
        yield Finding(
            "schema", State.PROBLEM, said, "somebody changed it by hand: change it back, or use a new database"
        )
    elif schema == 0:
        yield Finding("schema", State.NOTE, "no tables yet", "`up` and the `tables` asset create them")
    else:
        yield Finding("schema", State.FINE, f"version {schema}, as the code has it")


def redis(boot: Boot, operational: Operational) -> Iterator[Finding]:
    """Version, persistence and eviction of Redis, and the server itself where it is embedded."""
    if boot.embedded_redis:
        from ..local.redis import find_redis_server

        try:
            binary = find_redis_server()
        except PipelineError as error:
            yield _problem("redis", error)
            return
        if folder.owner(boot.home) is None:
            yield Finding("redis", State.NOTE, f"the embedded one ({binary}) runs with `up`")
            return
    from ..storage.redis_connection import connect_sync, findings
    from ..storage.redis_errors import translated

    try:
        address = redis_address(boot)
        client = connect_sync(address)
        try:
            with translated():
                version = client.info("server")["redis_version"]
            wrong = findings(client)
        finally:
            client.close()
    except PipelineError as error:
        yield _problem("redis", error)
        return
    for line in wrong:
        said, _, remedy = line.partition(" — ")
        yield Finding("redis", State.PROBLEM, f"{address}: {said}", remedy)
    if not wrong:
        yield Finding("redis", State.FINE, f"{address} is version {version}, appends to disk and evicts nothing")


CHECKS: tuple[Check, ...] = (
    python,
    packages,
    disk,
    instance,
    dagster_port,
    security,
    proxy,
    exchange,
    second_installation,
    redis,
    clickhouse,
)
"""In the order in which a person reads them."""


def _problem(name: str, error: PipelineError) -> Finding:
    where = f" ({error.where})" if error.where else ""
    return Finding(name, State.PROBLEM, f"{error.what}{where}", error.remedy)


def _budget_of(environ: dict[str, str]) -> tuple[str, str, str]:
    prefix = environ.get("BITGET_PIPELINE_REDIS_PREFIX") or "bitget_pipeline:"
    return environ.get("REDIS_HOST", ""), environ.get("REDIS_PORT", ""), prefix


def _own_budget(boot: Boot) -> dict[str, str]:
    try:
        address = redis_address(boot)
    except PipelineError:  # ours does not run: it cannot be shared
        return {}
    return {
        "REDIS_HOST": address.host,
        "REDIS_PORT": str(address.port),
        "BITGET_PIPELINE_REDIS_PREFIX": boot.redis_prefix,
    }


async def _connects(host: str, port: int) -> None:
    async with asyncio.timeout(5):
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
