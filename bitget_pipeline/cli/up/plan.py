"""
What an instance consists of: its programs, their ports and what each waits for.

Input: settings and the options of `up`; output: `Program`s for the supervisor and the addresses for run.json. What has a
*_HOST setting runs elsewhere and is not started here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...local.redis import RedisConfig
from ...local.redis import command as redis_command
from ...settings import Boot, Operational, exchange_address, substitute_addresses
from . import dagster_home, folder, ports, probes
from .leftovers import MARK, SYSTEM_VARIABLES
from .program import Program
from .stores import prepare as prepare_stores
from .supervisor import Step

PREFERRED = {"warehouse": 18123, "redis": 16379, "exchange": 18080, "code_server": 14266}
PREFERRED |= {"binance_spot": 18081, "binance_futures": 18082}
"""Ports tried first; the choice of the first start is remembered, so that notebooks keep their address."""

DAGSTER_VARIABLES = {
    "DAGSTER_EVENT_BATCH_SIZE": "500",  # with the next one: 44 times less overhead on Postgres (measured)
    "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "true",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
}


@dataclass(frozen=True)
class Plan:
    """What to start, and what to tell people and run.json about it. Addresses hold no secrets."""

    programs: tuple[Program, ...]
    steps: tuple[Step, ...]
    addresses: Mapping[str, Any]
    ports: Mapping[str, int]


def choose_ports(boot: Boot, claims: ports.Claims, *, dagster_port: int) -> dict[str, int]:
    """A port for each server that is started here: remembered, else preferred, else free. Raises PortTaken."""
    claims.require(dagster_port, option="--port")
    remembered = folder.read_run(boot.home).get("ports", {})
    chosen = {"dagster": dagster_port}
    for name in _servers(boot):
        wish = remembered.get(name, boot.metrics_port if name == "metrics" else PREFERRED[name])
        chosen[name] = claims.choose(int(wish))
    return chosen


def make_plan(
    boot: Boot,
    operational: Operational,
    claims: ports.Claims,
    *,
    environ: Mapping[str, str],
    dagster_port: int,
    mark: str,
    seed: int | None,
) -> Plan:
    """Decide what runs where, and write what the programs read at start (Redis's and Dagster's configuration)."""
    chosen = choose_ports(boot, claims, dagster_port=dagster_port)
    addresses = _addresses(boot, chosen)
    bare = {name: value for name, value in environ.items() if name in SYSTEM_VARIABLES}
    bare |= {MARK: mark, "PYTHONUNBUFFERED": "1", "BITGET_PIPELINE_LOG_FORMAT": boot.log_format}
    bare |= {"BITGET_PIPELINE_LOG_LEVEL": boot.log_level}
    programs = []
    if "exchange" in chosen:
        command = _ours("exchange", "--port", chosen["exchange"], "--binance")
        for name in ("binance_spot", "binance_futures"):
            command += [f"--{name.replace('_', '-')}-port", str(chosen[name])]
        programs.append(
            Program(
                name="exchange",
                command=[*command, *(("--seed", str(seed)) if seed is not None else ())],
                environment=bare,
                ready=probes.http_answers(chosen["exchange"], "/api/v2/public/time"),
                phase="store",
            )
        )
    if "redis" in chosen:
        programs.append(_redis(boot, chosen["redis"], bare))
    if "warehouse" in chosen:
        programs.append(_warehouse(boot, chosen["warehouse"], bare))
    stores = frozenset(program.name for program in programs)
    environment = _child_environment(boot, environ, addresses, mark)
    programs += _dagster(boot, chosen, environment, stores)
    programs.append(_metrics(boot, chosen["metrics"], environment, stores))
    steps = (
        Step(dagster_home.RECORDS, lambda: dagster_home.make_records(boot.home, environment), frozenset()),
        Step("tables", lambda: prepare_stores(boot), stores - {"exchange"}),
    )
    return Plan(tuple(programs), steps, addresses, chosen)


def _servers(boot: Boot) -> list[str]:
    names = ["code_server", "metrics"]
    if boot.embedded_warehouse:
        names.append("warehouse")
    if boot.embedded_redis:
        names.append("redis")
    if boot.exchange == "local" and boot.bitget_rest_url is None:
        names += ["exchange", "binance_spot", "binance_futures"]
    return names


def _addresses(boot: Boot, chosen: Mapping[str, int]) -> dict[str, Any]:
    addresses: dict[str, Any] = {
        "dagster": {"host": ports.HOST, "port": chosen["dagster"], "url": f"http://{ports.HOST}:{chosen['dagster']}"},
        "code_server": {"host": ports.HOST, "port": chosen["code_server"]},
        "warehouse": {
            "host": ports.HOST if boot.embedded_warehouse else boot.clickhouse_host,
            "port": chosen.get("warehouse", boot.clickhouse_port),
            "user": boot.clickhouse_user,
            "database": boot.clickhouse_database,
        },
        "redis": {
            "host": ports.HOST if boot.embedded_redis else boot.redis_host,
            "port": chosen.get("redis", boot.redis_port),
        },
    }
    host = boot.metrics_host
    addresses["metrics"] = {
        "host": host,
        "port": chosen["metrics"],
        "url": f"http://{host}:{chosen['metrics']}/metrics",
    }
    if "exchange" in chosen:
        base = f"{ports.HOST}:{chosen['exchange']}"
        addresses["exchange"] = {"rest_url": f"http://{base}", "ws_url": f"ws://{base}/v2/ws/public"}
        spot, futures = f"{ports.HOST}:{chosen['binance_spot']}", f"{ports.HOST}:{chosen['binance_futures']}"
        addresses["binance"] = {
            "spot": {"rest_url": f"http://{spot}", "ws_url": f"ws://{spot}/ws"},
            "usdtm": {"rest_url": f"http://{futures}", "ws_url": f"ws://{futures}/market/ws"},
        }
    else:
        addresses["exchange"] = exchange_address(boot)._asdict()
        addresses["binance"] = {market.value: of._asdict() for market, of in substitute_addresses(boot).items()}
    return addresses


def _ours(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "bitget_pipeline.cli.main", *map(str, arguments)]


def _redis(boot: Boot, port: int, environment: Mapping[str, str]) -> Program:
    password = boot.redis_password.get_secret_value() if boot.redis_password else None
    config = RedisConfig(data=boot.redis_folder, port=port, password=password)
    return Program(
        name="redis",
        command=redis_command(config),
        environment=environment,
        ready=probes.redis_answers(port),
        phase="store",
        own_log=config.log_path,
    )


def _warehouse(boot: Boot, port: int, environment: Mapping[str, str]) -> Program:
    secret = boot.clickhouse_password.get_secret_value()
    return Program(
        name="warehouse",
        command=_ours("warehouse", "--data", boot.warehouse_folder, "--port", port),
        environment={**environment, "CLICKHOUSE_USER": boot.clickhouse_user, "CLICKHOUSE_PASSWORD": secret},
        ready=probes.http_answers(port, "/ping"),
        phase="store",
    )


def _dagster(
    boot: Boot, chosen: Mapping[str, int], environment: Mapping[str, str], stores: frozenset[str]
) -> list[Program]:
    workspace = str(dagster_home.prepare(boot.home, code_server_port=chosen["code_server"]))
    host = ("-h", ports.HOST)
    return [
        Program(
            name="code-server",
            command=[
                *(sys.executable, "-m", "dagster", "api", "grpc", *host, "-p", str(chosen["code_server"])),
                *("-m", dagster_home.MODULE, "--location-name", dagster_home.LOCATION),
                "--use-python-environment-entry-point",  # run workers start from this interpreter, not from PATH
            ],
            environment=environment,
            ready=probes.port_accepts(chosen["code_server"]),
            phase="code",
            needs=frozenset({dagster_home.RECORDS}),  # it opens them too, and would create them at the same moment
        ),
        Program(
            name="dagster-webserver",
            command=[
                *(sys.executable, "-m", f"{__package__}.page", str(chosen["code_server"])),
                *(*host, "-p", str(chosen["dagster"]), "-w", workspace),
            ],
            environment=environment,
            ready=probes.http_answers(chosen["dagster"], "/server_info"),
            phase="dagster",
            needs=frozenset({dagster_home.RECORDS}),
        ),
        Program(
            name="dagster-daemon",
            command=[sys.executable, "-m", "dagster._daemon", "run", "-w", workspace],
            environment=environment,
            ready=lambda: True,  # it listens to nobody; its heartbeat is the webserver's business
            phase="launcher",
            needs=stores | {"tables", "code-server", "dagster-webserver"},
        ),
    ]


def _metrics(boot: Boot, port: int, environment: Mapping[str, str], stores: frozenset[str]) -> Program:
    return Program(
        name="metrics",
        command=_ours("metrics", "--host", boot.metrics_host, "--port", port),
        environment=environment,
        ready=probes.http_answers(port, "/-/healthy", host=boot.metrics_host),
        phase="dagster",
        needs=stores | {"tables", "dagster-webserver"},  # nobody scrapes before there is something to see
    )


def _child_environment(
    boot: Boot, environ: Mapping[str, str], addresses: Mapping[str, Any], mark: str
) -> dict[str, str]:
    """What Dagster's processes see: our environment, with every address spelt out."""
    exchange, warehouse, redis = addresses["exchange"], addresses["warehouse"], addresses["redis"]
    spelt_out = {
        "BITGET_PIPELINE_HOME": str(boot.home),
        "BITGET_PIPELINE_EXCHANGE": boot.exchange,
        "BITGET_REST_URL": exchange["rest_url"],
        "BITGET_WS_URL": exchange["ws_url"],
        "CLICKHOUSE_HOST": warehouse["host"],
        "CLICKHOUSE_PORT": str(warehouse["port"]),
        "REDIS_HOST": redis["host"],
        "REDIS_PORT": str(redis["port"]),
        "DAGSTER_HOME": str(boot.dagster_home),
        "PYTHONUNBUFFERED": "1",
        MARK: mark,
    }
    for market, name in (("spot", "SPOT"), ("usdtm", "FUTURES")):
        binance = addresses["binance"].get(market, {})
        spelt_out |= {f"BINANCE_{name}_REST_URL": binance.get("rest_url", "")}
        spelt_out |= {f"BINANCE_{name}_WS_URL": binance.get("ws_url", "")}
    if boot.embedded_warehouse:
        spelt_out |= {"CLICKHOUSE_SECURE": "false", "CLICKHOUSE_PROFILE": "single", "CLICKHOUSE_CLUSTER": ""}
    if boot.embedded_redis:
        spelt_out |= {"REDIS_TLS": "false", "REDIS_USER": ""}
    return {**environ, **DAGSTER_VARIABLES, **spelt_out}
