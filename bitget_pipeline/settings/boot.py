"""
Boot settings: where things are. Read once, when a process starts; changing one needs a restart.

Input: environment variables and the settings file; output: a frozen `Boot`, given to cli, defs and api.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, PrivateAttr, SecretStr, field_validator, model_validator

from ..errors import SettingsInvalid
from ..exchange.credentials import Credentials
from . import mail, reading
from .reading import Given, setting
from .stored_key import KeyStore, default_key_file

PRODUCTION_REST_URL = "https://api.bitget.com"  # reference/bitget-api.md 1.1
PRODUCTION_WS_URL = "wss://ws.bitget.com/v2/ws/public"
PRODUCTION_BINANCE_SPOT = "https://data-api.binance.vision"  # reference/binance-api.md 1
PRODUCTION_BINANCE_FUTURES = "https://fapi.binance.com"
PRODUCTION_BINANCE_SPOT_WS = "wss://data-stream.binance.vision/ws"
PRODUCTION_BINANCE_FUTURES_WS = "wss://fstream.binance.com/market/ws"  # reference/binance-api.md 4.1: not /ws

PROXY_SCHEMES = ("http", "https", "socks5")

CREDENTIALS = ("bitget_api_key", "bitget_secret_key", "bitget_passphrase")

NOT_IN_FILE = frozenset({"home", "exchange", "settings_file"})
"""These decide which settings file is read, so it cannot hold them."""


class Boot(BaseModel):
    """Where everything is and who we are to it. Secrets are SecretStr: printing a Boot never shows one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    exchange: Literal["bitget", "local"] = setting(
        "bitget",
        "Whose data this is: the real exchange, or the simulated one on this machine. Folders, databases and Redis "
        "prefixes are stamped with it.",
        variable="BITGET_PIPELINE_EXCHANGE",
        write="bitget or local",
    )
    home: Path = setting(
        Path("data"),
        "The folder that holds everything of this instance: Dagster's records, embedded stores, logs, spill files.",
        variable="BITGET_PIPELINE_HOME",
        write="a folder, for example ./data/bitget",
        shown="./data/bitget, or ./data/local with the local exchange",
    )
    settings_file: Path | None = setting(
        None,
        "A TOML file with settings; a variable of the environment wins over it.",
        variable="BITGET_PIPELINE_SETTINGS",
        write="the path of a TOML file",
        shown="settings.toml in the home folder, if it exists",
    )
    bitget_rest_url: str | None = setting(
        None,
        "Bitget's REST address. Plain http only to this machine.",
        variable="BITGET_REST_URL",
        write=f"an https address, for example {PRODUCTION_REST_URL}",
        shown=PRODUCTION_REST_URL,
    )
    bitget_ws_url: str | None = setting(
        None,
        "Bitget's public websocket address (V2). Plain ws only to this machine.",
        variable="BITGET_WS_URL",
        write=f"a wss address, for example {PRODUCTION_WS_URL}",
        shown=PRODUCTION_WS_URL,
    )
    binance_spot_rest_url: str | None = setting(
        None,
        "Binance's REST address of spot, which stands in while Bitget is dark. Needs no key.",
        variable="BINANCE_SPOT_REST_URL",
        write=f"an https address, for example {PRODUCTION_BINANCE_SPOT}",
        shown=f"{PRODUCTION_BINANCE_SPOT}; the local exchange plays it too",
    )
    binance_futures_rest_url: str | None = setting(
        None,
        "Binance's REST address of USDT futures, for the same.",
        variable="BINANCE_FUTURES_REST_URL",
        write=f"an https address, for example {PRODUCTION_BINANCE_FUTURES}",
        shown=f"{PRODUCTION_BINANCE_FUTURES}; the local exchange plays it too",
    )
    binance_spot_ws_url: str | None = setting(
        None,
        "Binance's websocket address of spot, for raw streams.",
        variable="BINANCE_SPOT_WS_URL",
        write=f"a wss address, for example {PRODUCTION_BINANCE_SPOT_WS}",
        shown=f"{PRODUCTION_BINANCE_SPOT_WS}; the local exchange plays it too",
    )
    binance_futures_ws_url: str | None = setting(
        None,
        "Binance's websocket address of USDT futures: the one of the class market, others stay silent.",
        variable="BINANCE_FUTURES_WS_URL",
        write=f"a wss address, for example {PRODUCTION_BINANCE_FUTURES_WS}",
        shown=f"{PRODUCTION_BINANCE_FUTURES_WS}; the local exchange plays it too",
    )
    bitget_api_key: SecretStr | None = setting(
        None,
        "Bitget API key, read-only. All three Bitget credentials, or none: public data needs none.",
        variable="BITGET_API_KEY",
        write="the key as Bitget shows it, together with BITGET_SECRET_KEY and BITGET_PASSPHRASE",
    )
    bitget_secret_key: SecretStr | None = setting(
        None,
        "The secret of the Bitget API key.",
        variable="BITGET_SECRET_KEY",
        write="the secret as Bitget showed it once",
    )
    bitget_passphrase: SecretStr | None = setting(
        None,
        "The passphrase of the Bitget API key.",
        variable="BITGET_PASSPHRASE",
        write="the passphrase chosen with the key",
    )
    credentials_key_file: Path | None = setting(
        None,
        "The file that decrypts the key of `bitget-pipeline credentials set`. Keep it out of what the home folder is copied to.",
        write="the path of a file outside of the home folder",
        shown="~/.config/bitget_pipeline/credentials.key",
    )
    allow_trading_key: bool = setting(
        False,
        "Accept a Bitget key that may do more than read. We never trade; a read-only key is the safer one.",
        write="true or false",
        shown="false",
    )
    redis_host: str | None = setting(
        None,
        "Redis server. Not set: `up` runs one of its own.",
        variable="REDIS_HOST",
        write="a host name or address",
        shown="embedded",
    )
    redis_port: int = setting(
        6379, "Redis port.", variable="REDIS_PORT", write="a port from 1 to 65535", ge=1, le=65535
    )
    redis_user: str | None = setting(None, "Redis user (ACL).", variable="REDIS_USER", write="a user name")
    redis_password: SecretStr | None = setting(None, "Redis password.", variable="REDIS_PASSWORD", write="the password")
    redis_db: int = setting(
        0, "Redis database number.", variable="REDIS_DB", write="a number from 0 to 15", ge=0, le=15
    )
    redis_tls: bool = setting(False, "Speak TLS to Redis.", variable="REDIS_TLS", write="true or false", shown="false")
    redis_prefix: str = setting(
        "bitget_pipeline:",
        "What every key of ours in Redis begins with; stamped with the exchange.",
        variable="BITGET_PIPELINE_REDIS_PREFIX",
        write="1 to 64 letters, digits, '_', '-' or ':', for example bitget_pipeline:",
        pattern=r"^[A-Za-z0-9_:-]{1,64}$",
    )
    clickhouse_host: str | None = setting(
        None,
        "ClickHouse server (HTTP interface). Not set: `up` runs one of its own.",
        variable="CLICKHOUSE_HOST",
        write="a host name or address",
        shown="embedded",
    )
    clickhouse_port: int = setting(
        8123,
        "ClickHouse's HTTP port.",
        variable="CLICKHOUSE_PORT",
        write="a port from 1 to 65535, for example 8123, or 8443 with TLS",
        ge=1,
        le=65535,
    )
    clickhouse_user: str = setting("default", "ClickHouse user.", variable="CLICKHOUSE_USER", write="a user name")
    clickhouse_password: SecretStr = setting(
        SecretStr(""), "ClickHouse password.", variable="CLICKHOUSE_PASSWORD", write="the password", shown="empty"
    )
    clickhouse_database: str = setting(
        "trading",
        "The ClickHouse database with our tables.",
        variable="CLICKHOUSE_DATABASE",
        write="a plain name, for example trading",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$",
    )
    clickhouse_secure: bool = setting(
        False, "Speak TLS to ClickHouse.", variable="CLICKHOUSE_SECURE", write="true or false", shown="false"
    )
    clickhouse_profile: Literal["single", "cluster", "cloud"] = setting(
        "single",
        "How tables are created: on one server, replicated over a cluster, or on ClickHouse Cloud.",
        variable="CLICKHOUSE_PROFILE",
        write="single, cluster or cloud",
    )
    clickhouse_cluster: str | None = setting(
        None,
        "The name of the cluster, with CLICKHOUSE_PROFILE=cluster.",
        variable="CLICKHOUSE_CLUSTER",
        write="the cluster's name as in system.clusters",
        pattern=r"^[A-Za-z0-9_.{}-]{1,64}$",
    )
    ssl_ca_certs: Path | None = setting(
        None,
        "Certificates to trust (PEM), for the exchange, Redis and ClickHouse.",
        variable="SSL_CA_CERTS",
        write="the path of a PEM file that can be read",
        shown="the system's",
    )
    ssl_cert_file: Path | None = setting(
        None,
        "Client certificate (PEM), together with SSL_KEY_FILE. Alone it means certificates to trust, as OpenSSL does.",
        variable="SSL_CERT_FILE",
        write="the path of a PEM file that can be read",
    )
    ssl_key_file: Path | None = setting(
        None,
        "Key of the client certificate (PEM).",
        variable="SSL_KEY_FILE",
        write="the path of a PEM file that can be read, together with SSL_CERT_FILE",
    )
    ssl_verify: bool = setting(
        True,
        "Verify certificates and host names everywhere. False is for a test bench only.",
        variable="SSL_VERIFY",
        write="true or false",
        shown="true",
    )
    proxy: SecretStr | None = setting(
        None,
        "Proxy on the way to the exchange; a password in it is never shown.",
        variable="BITGET_PIPELINE_PROXY",
        write="http://, https:// or socks5:// with host and port, for example socks5://proxy.example.com:1080",
    )
    egress: str | None = setting(
        None,
        "A name for the address that requests go out by: all processes with the same name share one request budget. Give "
        "instances that leave by different addresses different names, and those that share one the same (and the same Redis).",
        write="1 to 64 letters, digits, '_', '.', ':' or '-', for example tokyo-1",
        shown="default, or host and port of the proxy",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
    )
    alert_webhook: SecretStr | None = setting(
        None,
        "Where alerts are posted: an incoming webhook of Slack, or of anything that takes its JSON. The address is a secret.",
        write="the https address that Slack shows for an incoming webhook",
    )
    alert_email_to: str | None = setting(
        None,
        "Who gets alerts by e-mail. Together with a sender and a mail server.",
        write="addresses, separated by commas",
    )
    alert_email_from: str | None = setting(None, "Who alerts by e-mail come from.", write="an e-mail address")
    smtp_host: str | None = setting(None, "The mail server that takes alerts.", write="a host name or address")
    smtp_port: int = setting(587, "Its port.", write="a port from 1 to 65535, often 587 or 465", ge=1, le=65535)
    smtp_security: Literal["starttls", "tls", "none"] = setting(
        "starttls",
        "How it is spoken to: STARTTLS, TLS from the first byte, or in the clear, which is allowed to this machine only.",
        write="starttls, tls or none",
    )
    smtp_user: str | None = setting(None, "The mail server's user, if it wants one.", write="a name")
    smtp_password: SecretStr | None = setting(None, "The password of that user.", write="the password")
    alert_repeat_hours: float = setting(
        6.0,
        "How often something that lasts is told again.",
        write="hours above 0, up to 168, for example 6",
        gt=0,
        le=168,
    )
    metrics_host: str = setting(
        "127.0.0.1",
        "Where the metrics for Prometheus are served. They have no password: open them to others behind a proxy that has one.",
        write="an address of this machine",
    )
    metrics_port: int = setting(
        19464,
        "The port of the metrics. `up` takes another one when it is in use, and remembers it; `status` names it.",
        write="a port from 1 to 65535",
        ge=1,
        le=65535,
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "INFO", "How much is logged.", variable="BITGET_PIPELINE_LOG_LEVEL", write="DEBUG, INFO, WARNING or ERROR"
    )
    log_format: Literal["text", "json"] = setting(
        "text", "Log lines for people or for programs.", variable="BITGET_PIPELINE_LOG_FORMAT", write="text or json"
    )

    _credentials_from: str = PrivateAttr("")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("home", "settings_file", "credentials_key_file", "ssl_ca_certs", "ssl_cert_file", "ssl_key_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("ssl_ca_certs", "ssl_cert_file", "ssl_key_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("there is no such file")
        return value

    @field_validator("bitget_api_key", "bitget_secret_key", "bitget_passphrase")
    @classmethod
    def _fits_into_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value else ""
        if not (text.isascii() and text.isprintable()):
            raise ValueError("it holds a line break, or a character that is not ASCII")
        return value

    @field_validator("bitget_rest_url", "binance_spot_rest_url", "binance_futures_rest_url")
    @classmethod
    def _rest(cls, value: str | None) -> str | None:
        return value and _checked_url(value, secure="https", plain="http")

    @field_validator("bitget_ws_url", "binance_spot_ws_url", "binance_futures_ws_url")
    @classmethod
    def _ws(cls, value: str | None) -> str | None:
        return value and _checked_url(value, secure="wss", plain="ws")

    @field_validator("alert_webhook")
    @classmethod
    def _webhook(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else mail.checked_webhook(value, is_loopback=is_loopback)

    @field_validator("alert_email_to", "alert_email_from")
    @classmethod
    def _addresses(cls, value: str | None) -> str | None:
        return value and ", ".join(mail.addresses(value))

    @field_validator("clickhouse_host", "redis_host", "smtp_host", "metrics_host")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        if value is not None and ("/" in value or " " in value or "@" in value):
            raise ValueError("that is not a host name; the port and TLS have settings of their own")
        return value

    @field_validator("proxy")
    @classmethod
    def _proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        scheme, host, _ = _parts(value.get_secret_value())
        if scheme not in PROXY_SCHEMES or not host:
            raise ValueError("that is not the address of an HTTP or SOCKS5 proxy")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _refuse_half(
            BITGET_API_KEY=self.bitget_api_key,
            BITGET_SECRET_KEY=self.bitget_secret_key,
            BITGET_PASSPHRASE=self.bitget_passphrase,
        )
        _refuse_half(
            BITGET_PIPELINE_SMTP_HOST=self.smtp_host,
            BITGET_PIPELINE_ALERT_EMAIL_FROM=self.alert_email_from,
            BITGET_PIPELINE_ALERT_EMAIL_TO=self.alert_email_to,
        )
        _refuse_half(BITGET_PIPELINE_SMTP_USER=self.smtp_user, BITGET_PIPELINE_SMTP_PASSWORD=self.smtp_password)
        if self.smtp_host and self.smtp_security == "none" and not _is_loopback_host(self.smtp_host):
            raise ValueError(
                f"BITGET_PIPELINE_SMTP_SECURITY is none, but {self.smtp_host} is not this machine — write starttls or tls"
            )
        if self.ssl_key_file and not self.ssl_cert_file:
            raise ValueError("SSL_KEY_FILE is set without SSL_CERT_FILE — set both or neither")
        if self.clickhouse_profile == "cluster" and not self.clickhouse_cluster:
            raise ValueError(
                "CLICKHOUSE_PROFILE is cluster, but CLICKHOUSE_CLUSTER is not set — set it to a name of system.clusters"
            )
        self._exchange_fits_its_addresses()
        return self

    def _exchange_fits_its_addresses(self) -> None:
        if (self.bitget_rest_url is None) != (self.bitget_ws_url is None):
            missing = "BITGET_WS_URL" if self.bitget_ws_url is None else "BITGET_REST_URL"
            raise ValueError(
                f"{missing} is not set, but its companion is: REST and websocket must be the same exchange — set both "
                "or neither"
            )
        addresses = {
            "BITGET_REST_URL": self.bitget_rest_url,
            "BITGET_WS_URL": self.bitget_ws_url,
            "BINANCE_SPOT_REST_URL": self.binance_spot_rest_url,
            "BINANCE_FUTURES_REST_URL": self.binance_futures_rest_url,
            "BINANCE_SPOT_WS_URL": self.binance_spot_ws_url,
            "BINANCE_FUTURES_WS_URL": self.binance_futures_ws_url,
        }
        for variable, url in addresses.items():
            if url is None:
                continue
            if self.exchange == "bitget" and is_loopback(url):
                raise ValueError(
                    f"{variable} is {url!r}, on this machine, but the exchange is bitget: simulated data would be "
                    "stored as real — set BITGET_PIPELINE_EXCHANGE=local; for a way out use BITGET_PIPELINE_PROXY"
                )
            if self.exchange == "local" and not is_loopback(url):
                raise ValueError(
                    f"{variable} is {url!r}, but the local exchange is on this machine — write an address on "
                    "127.0.0.1, or set BITGET_PIPELINE_EXCHANGE=bitget"
                )

    @property
    def has_credentials(self) -> bool:
        """Whether Bitget credentials are given (not whether they are valid)."""
        return self.bitget_api_key is not None

    @property
    def credentials_from(self) -> str:
        """Where the credentials stood: a variable, a line of the settings file, the encrypted file; empty without."""
        return self._credentials_from

    @property
    def credentials(self) -> Credentials | None:
        """What the exchange knows us by, None without."""
        if not (self.bitget_api_key and self.bitget_secret_key and self.bitget_passphrase):
            return None
        return Credentials(
            self.bitget_api_key.get_secret_value(),
            self.bitget_secret_key.get_secret_value(),
            self.bitget_passphrase.get_secret_value(),
        )

    @property
    def key_store(self) -> KeyStore:
        """Where `bitget-pipeline credentials set` keeps a key."""
        return KeyStore(self.home, self.credentials_key_file or default_key_file(None), self.exchange)

    @property
    def egress_name(self) -> str:
        """The name of the address that requests go out by. Of a proxy host and port alone, never who we are to it."""
        if self.egress or self.proxy is None:
            return self.egress or "default"
        _, host, port = _parts(self.proxy.get_secret_value())
        return f"{host}:{port}" if port else host

    @property
    def proxy_shown(self) -> str | None:
        """The proxy without its user and password, for people."""
        if self.proxy is None:
            return None
        parts = urlsplit(self.proxy.get_secret_value())
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))

    @property
    def embedded_warehouse(self) -> bool:
        """Whether ClickHouse is the one that `up` runs."""
        return self.clickhouse_host is None

    @property
    def embedded_redis(self) -> bool:
        """Whether Redis is the one that `up` runs."""
        return self.redis_host is None

    @property
    def warehouse_folder(self) -> Path:
        """Where the embedded ClickHouse keeps its data."""
        return self.home / "warehouse"

    @property
    def redis_folder(self) -> Path:
        """Where the embedded Redis keeps its data."""
        return self.home / "redis"

    @property
    def store_folders(self) -> tuple[Path, ...]:
        """The folders of those stores that lie on this machine: their disks must not fill."""
        warehouse = (self.warehouse_folder,) if self.embedded_warehouse else ()
        return warehouse + ((self.redis_folder,) if self.embedded_redis else ())

    @property
    def dagster_home(self) -> Path:
        """Dagster's own folder."""
        return self.home / "dagster"


def settings_path(environ: Mapping[str, str] | None = None) -> tuple[Path, Path, bool]:
    """The instance's folder, its settings file, and whether that was named (then it has to be there)."""
    given = reading.from_environment(Boot, reading.environment() if environ is None else environ)
    exchange = given.get("exchange")
    home = given.get("home") or Given(Path("data") / (exchange.value if exchange else "bitget"), "")
    named = given.get("settings_file")
    path = Path(named.value if named else Path(home.value) / "settings.toml").expanduser().absolute()
    return Path(home.value).expanduser().absolute(), path, named is not None


def load_boot(
    environ: Mapping[str, str] | None = None, *, with_stored_key: bool = True, read_instead: Path | None = None
) -> Boot:
    """
    Read the boot settings: the environment (the process's own and `.env` when none is given) over the settings file, or
    over the file to `read_instead` of it.

    Credentials that stand in neither are the stored ones, if there are any; whoever mends those reads without them.
    Raises SettingsInvalid, one line that names the variable or the line of the file.
    """
    from . import known_keys, known_variables

    environ = reading.environment() if environ is None else environ
    reading.refuse_unknown_variables(environ, known_variables())
    given = reading.from_environment(Boot, environ)
    home, path, named = settings_path(environ)
    in_file = reading.read_file(read_instead or path, required=named)
    only_environment = {name: reading.variable_of(name, Boot.model_fields[name]) for name in NOT_IN_FILE}
    reading.refuse_unknown_keys(in_file, known_keys(), only_environment)
    written = {**in_file, **given}
    defaults: dict[str, object] = {"home": home, "settings_file": path}
    if config_home := environ.get("XDG_CONFIG_HOME", "").strip():
        defaults["credentials_key_file"] = default_key_file(config_home)
    boot = reading.build(Boot, written, defaults)
    if boot.has_credentials:
        boot._credentials_from = written[CREDENTIALS[0]].where
    elif with_stored_key and (stored := boot.key_store.read()) is not None:
        where = str(boot.key_store.path)
        values = dict(zip(CREDENTIALS, (stored.key, stored.secret, stored.passphrase), strict=True))
        given_too = {name: Given(value, where) for name, value in values.items()}
        boot = reading.build(Boot, {**written, **given_too}, defaults)
        boot._credentials_from = where
    return boot


def credentials_in(file: Path) -> Credentials | None:
    """The key that stands in a settings file now, None without. Raises SettingsInvalid for half a key or a file that is none."""
    written = reading.read_file(file, required=False)
    found = {name: str(written[name].value).strip() for name in CREDENTIALS if name in written}
    missing = [name for name in CREDENTIALS if not found.get(name)]
    if missing and any(found.values()):
        there = next(name for name in found if found[name])
        raise SettingsInvalid(
            f"{' and '.join(missing)} not set, but {there} is",
            where=written[there].where,
            remedy="set all three or none",
        )
    return None if missing else Credentials(*(found[name] for name in CREDENTIALS))


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    return _is_loopback_host(_parts(url)[1])


def _is_loopback_host(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parts(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("that is not an address") from None


def _checked_url(url: str, *, secure: str, plain: str) -> str:
    scheme, host, _ = _parts(url)
    if scheme not in (secure, plain) or not host:
        raise ValueError(f"that is not a {secure}:// address")
    if scheme == plain and not _is_loopback_host(host):
        raise ValueError(f"{plain}:// is not encrypted and allowed to this machine only")
    if "@" in url or "?" in url or "#" in url:
        raise ValueError("user, query and fragment have no place in this address")
    return url.rstrip("/")


def _refuse_half(**credentials: SecretStr | str | None) -> None:
    given = [name for name, value in credentials.items() if value is not None]
    missing = [name for name, value in credentials.items() if value is None]
    if given and missing:
        raise ValueError(f"{' and '.join(missing)} not set, but {' and '.join(given)} is — set all of them or none")
