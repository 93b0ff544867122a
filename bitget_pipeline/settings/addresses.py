"""
Addresses of the stores and of the exchange, made from boot settings.

What is not set is embedded: its address stands in `<home>/run.json`, written by `bitget-pipeline up`. The stores' modules
are imported when they are asked for, because the drivers behind them take a second.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import SettingsInvalid, StoreUnavailable
from ..market.instrument import Market
from .boot import (
    PRODUCTION_BINANCE_FUTURES,
    PRODUCTION_BINANCE_FUTURES_WS,
    PRODUCTION_BINANCE_SPOT,
    PRODUCTION_BINANCE_SPOT_WS,
    PRODUCTION_REST_URL,
    PRODUCTION_WS_URL,
    Boot,
)

if TYPE_CHECKING:
    from ..storage.connection import WarehouseAddress
    from ..storage.redis_connection import RedisAddress

RUN_FILE = "run.json"


class ExchangeAddress(NamedTuple):
    """Where the exchange is: base of the REST paths, and the public websocket."""

    rest_url: str
    ws_url: str


_PRODUCTION_BINANCE = {
    Market.SPOT: ExchangeAddress(PRODUCTION_BINANCE_SPOT, PRODUCTION_BINANCE_SPOT_WS),
    Market.USDTM: ExchangeAddress(PRODUCTION_BINANCE_FUTURES, PRODUCTION_BINANCE_FUTURES_WS),
}


def run_file(home: Path) -> Path:
    """Where `up` writes the addresses and process ids of a running instance."""
    return home / RUN_FILE


def exchange_address(boot: Boot) -> ExchangeAddress:
    """The exchange's addresses. Raises StoreUnavailable when it is the local one and does not run."""
    if boot.bitget_rest_url and boot.bitget_ws_url:
        return ExchangeAddress(boot.bitget_rest_url, boot.bitget_ws_url)
    if boot.exchange == "bitget":
        return ExchangeAddress(PRODUCTION_REST_URL, PRODUCTION_WS_URL)
    running = _embedded(boot, "exchange", "BITGET_REST_URL and BITGET_WS_URL")
    return ExchangeAddress(running["rest_url"], running["ws_url"])


def substitute_addresses(boot: Boot) -> dict[Market, ExchangeAddress]:
    """
    Where Binance is asked and listened to, by market; without those that the local exchange does not play. The websocket is
    empty where only the other is given.
    """
    given = {
        Market.SPOT: (boot.binance_spot_rest_url, boot.binance_spot_ws_url),
        Market.USDTM: (boot.binance_futures_rest_url, boot.binance_futures_ws_url),
    }
    else_at = dict(_PRODUCTION_BINANCE)
    if boot.exchange != "bitget":
        try:
            else_at = {Market(name): ExchangeAddress(**of) for name, of in _embedded(boot, "binance", "").items()}
        except StoreUnavailable:
            else_at = {}
    found: dict[Market, ExchangeAddress] = {}
    for market, (rest_url, ws_url) in given.items():
        known = else_at.get(market)
        rest_url, ws_url = rest_url or (known and known.rest_url), ws_url or (known and known.ws_url)
        if rest_url:
            found[market] = ExchangeAddress(rest_url, ws_url or "")
    return found


def warehouse_address(boot: Boot) -> WarehouseAddress:
    """ClickHouse's address. Raises StoreUnavailable when it is the embedded one and does not run."""
    from ..storage.connection import WarehouseAddress
    from ..storage.schema import Profile

    host, port, secure = boot.clickhouse_host, boot.clickhouse_port, boot.clickhouse_secure
    profile, cluster = Profile(boot.clickhouse_profile), boot.clickhouse_cluster or ""
    if host is None:
        running = _embedded(boot, "warehouse", "CLICKHOUSE_HOST")
        host, port, secure = running["host"], running["port"], False
        profile, cluster = Profile.SINGLE, ""
    return WarehouseAddress(
        host=host,
        port=port,
        user=boot.clickhouse_user,
        password=boot.clickhouse_password.get_secret_value(),
        secure=secure,
        verify=boot.ssl_verify,
        ca_cert=_text(boot.ssl_ca_certs),
        client_cert=_text(boot.ssl_cert_file) if boot.ssl_key_file else None,
        client_cert_key=_text(boot.ssl_key_file),
        database=boot.clickhouse_database,
        profile=profile,
        cluster=cluster,
    )


def redis_address(boot: Boot) -> RedisAddress:
    """Redis's address. Raises StoreUnavailable when it is the embedded one and does not run."""
    from ..storage.redis_connection import RedisAddress

    host, port, user, tls = boot.redis_host, boot.redis_port, boot.redis_user, boot.redis_tls
    if host is None:
        running = _embedded(boot, "redis", "REDIS_HOST")
        host, port, user, tls = running["host"], running["port"], None, False
    return RedisAddress(
        host=host,
        port=port,
        user=user,
        password=boot.redis_password.get_secret_value() if boot.redis_password else None,
        db=boot.redis_db,
        tls=tls,
        verify=boot.ssl_verify,
        ca_cert=_text(boot.ssl_ca_certs),
        client_cert=_text(boot.ssl_cert_file) if boot.ssl_key_file else None,
        client_cert_key=_text(boot.ssl_key_file),
    )


def ssl_context(boot: Boot) -> ssl.SSLContext:
    """
    TLS as the settings say, for the exchange's REST and websocket.

    The trusted certificates are loaded by name and not by `load_default_certs` when a client certificate is given:
    OpenSSL reads SSL_CERT_FILE itself, as certificates to trust, and would trust the client's certificate only.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if boot.ssl_ca_certs:
            context.load_verify_locations(cafile=boot.ssl_ca_certs)
        elif boot.ssl_cert_file and boot.ssl_key_file:
            paths = ssl.get_default_verify_paths()
            context.load_verify_locations(
                cafile=paths.openssl_cafile if Path(paths.openssl_cafile).is_file() else None,
                capath=paths.openssl_capath,
            )
        else:
            context.load_default_certs()
        if boot.ssl_cert_file and boot.ssl_key_file:
            context.load_cert_chain(boot.ssl_cert_file, boot.ssl_key_file)
    except (ssl.SSLError, OSError) as error:
        raise SettingsInvalid(
            f"the certificates cannot be used: {error}",
            where="SSL_CA_CERTS, SSL_CERT_FILE, SSL_KEY_FILE",
            remedy="give PEM files that belong together",
        ) from None
    if not boot.ssl_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _embedded(boot: Boot, name: str, variables: str) -> dict[str, Any]:
    path = run_file(boot.home)
    try:
        running = json.loads(path.read_text(encoding="utf-8"))
        return dict(running["addresses"][name])
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreUnavailable(
            f"the embedded {name} does not run",
            where=str(boot.home),
            remedy=f"start it with `bitget-pipeline up`, or set {variables}",
        ) from None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
