"""Settings: defaults, where they come from, and what a person reads when one is wrong."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.cli.settings import as_env
from bitget_pipeline.errors import SettingsInvalid, StoreUnavailable
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.settings import (
    Operational,
    Tier,
    all_settings,
    exchange_address,
    load_boot,
    load_operational,
    redis_address,
    ssl_context,
    warehouse_address,
)

ROOT = Path(__file__).parents[1]
KEY = {"BITGET_API_KEY": "bg_key_17", "BITGET_SECRET_KEY": "very-secret-18", "BITGET_PASSPHRASE": "phrase-19"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the checkout, whose .env a developer may have filled in."""
    monkeypatch.chdir(tmp_path)


def operational(**environ: str) -> Operational:
    """The operational settings of an environment with these BITGET_PIPELINE_ variables (or full names)."""
    full = {name if name.isupper() else f"BITGET_PIPELINE_{name.upper()}": value for name, value in environ.items()}
    return load_operational(load_boot(full), full)


def complaint(environ: dict[str, str]) -> str:
    """The one line that a person reads about this environment."""
    with pytest.raises(SettingsInvalid) as raised:
        load_operational(load_boot(environ), environ)
    line = str(raised.value)
    assert "\n" not in line
    return line


# ---------------------------------------------------------------- what holds


def test_while_redis_is_away_there_is_a_part_of_the_budget_for_every_run_that_dagster_allows() -> None:
    """
    All slots of dagster.yaml, and a command of a person beside them; at ten requests a second, the least that is published
    for market data, each may still make one.
    """
    slots = re.search(r"max_concurrent_runs: (\d+)", (ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    assert slots is not None
    assert int(slots[1]) + 1 <= operational().request_processes <= 10
    assert operational(request_processes="40").request_processes == 40
    assert "from 1 to 1000" in complaint({"BITGET_PIPELINE_REQUEST_PROCESSES": "0"})


def test_an_egress_address_has_the_name_it_was_given_or_that_of_the_proxy_without_its_user() -> None:
    """
    It stands in the names of keys in Redis and in logs, so nothing of the proxy's user may be in it.
    """
    proxy = {"BITGET_PIPELINE_PROXY": "socks5://me:pw-21@proxy.example.com:1080"}
    assert load_boot({}).egress_name == "default"
    assert load_boot(proxy).egress_name == "proxy.example.com:1080"
    assert load_boot(proxy | {"BITGET_PIPELINE_EGRESS": "tokyo-1"}).egress_name == "tokyo-1"
    assert "tokyo-1" in complaint({"BITGET_PIPELINE_EGRESS": "to{kyo"})


def test_nothing_has_to_be_set(tmp_path: Path) -> None:
    """
    Without any setting the public tier collects the real exchange into ./data/bitget.
    """
    boot = load_boot({})
    settings = load_operational(boot, {})

    assert boot.home == tmp_path / "data" / "bitget"
    assert exchange_address(boot) == ("https://api.bitget.com", "wss://ws.bitget.com/v2/ws/public")
    assert settings.tier is Tier.PUBLIC
    assert settings.markets == (Market.SPOT, Market.USDTM)
    assert (settings.symbols_per_market, settings.symbols_per_connection, settings.history_days) == (30, 10, 30)
    assert settings.live_resolutions == (Resolution.M1, Resolution.M5, Resolution.M15, Resolution.H1)


def test_the_local_exchange_has_a_home_of_its_own(tmp_path: Path) -> None:
    """
    Simulated and real data never share a default folder.
    """
    assert load_boot({"BITGET_PIPELINE_EXCHANGE": "local"}).home == tmp_path / "data" / "local"


def test_credentials_open_the_wider_tier() -> None:
    """
    With a key all markets, 150 symbols and a year of history are the defaults.
    """
    settings = operational(**KEY)

    assert settings.tier is Tier.CREDENTIALED
    assert settings.markets == tuple(Market)
    assert (settings.symbols_per_market, settings.history_days, settings.book_levels) == (150, 365, 50)
    assert operational(**KEY, live_resolutions="1s,1m").live_resolutions == (Resolution.S1, Resolution.M1)


def test_environment_wins_over_the_settings_file(tmp_path: Path) -> None:
    """
    A key of the file holds until a variable says otherwise; lists may be written as TOML arrays.
    """
    file = tmp_path / "mine.toml"
    file.write_text('markets = ["spot"]\nhistory_days = 7\nclickhouse_port = 9999\n', encoding="utf-8")
    environ = {"BITGET_PIPELINE_SETTINGS": str(file), "BITGET_PIPELINE_HISTORY_DAYS": "3"}
    boot = load_boot(environ)
    settings = load_operational(boot, environ)

    assert boot.clickhouse_port == 9999
    assert settings.markets == (Market.SPOT,)
    assert settings.history_days == 3


def test_the_file_in_the_home_folder_is_found_and_read_again(tmp_path: Path) -> None:
    """
    A changed settings file makes a new generation without a restart.
    """
    environ = {"BITGET_PIPELINE_HOME": str(tmp_path)}
    boot = load_boot(environ)
    before = load_operational(boot, environ)
    (tmp_path / "settings.toml").write_text("symbols_per_market = 5\n", encoding="utf-8")
    after = load_operational(boot, environ)

    assert after.symbols_per_market == 5
    assert after.generation != before.generation


def test_an_empty_variable_is_not_set() -> None:
    """
    Compose files and CI pass empty variables for what nobody filled in.
    """
    assert load_boot({"CLICKHOUSE_HOST": "", "CLICKHOUSE_PORT": " "}) == load_boot({})


@given(days=st.integers(1, 3660), rate=st.floats(0.1, 100), symbols=st.integers(1, 30))
def test_generation_changes_with_the_content_only(days: int, rate: float, symbols: int) -> None:
    """
    Equal settings have equal generations; different ones differ.
    """
    written = {"history_days": str(days), "historical_rps": repr(rate), "symbols_per_market": str(symbols)}
    first, again = operational(**written), operational(**written)
    other = operational(**{**written, "history_days": str(days % 3660 + 1)})

    assert first == again
    assert first.generation == again.generation != other.generation


def test_pinned_symbols_are_parsed_once_each() -> None:
    """
    Pins carry their market; repeating one changes nothing.
    """
    settings = operational(pinned="spot:BTCUSDT, usdtm:ETHUSDT,spot:BTCUSDT")
    assert settings.pinned == (Symbol(Market.SPOT, "BTCUSDT"), Symbol(Market.USDTM, "ETHUSDT"))


def test_secrets_show_in_no_text() -> None:
    """
    Neither printing settings nor an error about one reveals a secret.
    """
    secret = {
        **KEY,
        "CLICKHOUSE_PASSWORD": "pw-20",
        "BITGET_PIPELINE_PROXY": "socks5://me:pw-21@proxy.example.com:1080",
    }
    boot = load_boot(secret)
    texts = [repr(boot), str(boot), boot.model_dump_json(), repr(load_operational(boot, secret))]
    texts.append(complaint({"BITGET_PIPELINE_PROXY": "ftp://me:pw-21@proxy.example.com"}))
    texts.append(complaint({"BITGET_API_KEY": "bg_key_17"}))

    for text in texts:
        assert not any(word in text for word in ("bg_key_17", "very-secret-18", "phrase-19", "pw-20", "pw-21"))
    assert boot.proxy_shown == "socks5://proxy.example.com:1080"


# ---------------------------------------------------------------- addresses


def test_configured_stores_become_addresses() -> None:
    """
    Host, port, TLS and user reach both drivers as they were set.
    """
    boot = load_boot(
        {
            "CLICKHOUSE_HOST": "ch.example.com",
            "CLICKHOUSE_PORT": "8443",
            "CLICKHOUSE_SECURE": "true",
            "CLICKHOUSE_PASSWORD": "pw",
            "REDIS_HOST": "redis.example.com",
            "REDIS_TLS": "1",
            "SSL_VERIFY": "false",
        }
    )
    warehouse, redis = warehouse_address(boot), redis_address(boot)

    assert (warehouse.host, warehouse.port, warehouse.secure, warehouse.verify) == ("ch.example.com", 8443, True, False)
    assert (warehouse.password, warehouse.database) == ("pw", "trading")
    assert (redis.host, redis.port, redis.tls, redis.verify) == ("redis.example.com", 6379, True, False)


def test_embedded_stores_that_do_not_run_say_how_to_start_them(tmp_path: Path) -> None:
    """
    Without a host and without a running instance the remedy is named.
    """
    boot = load_boot({"BITGET_PIPELINE_HOME": str(tmp_path), "BITGET_PIPELINE_EXCHANGE": "local"})
    for ask, name in ((warehouse_address, "warehouse"), (redis_address, "redis"), (exchange_address, "exchange")):
        with pytest.raises(StoreUnavailable, match=rf"the embedded {name} does not run .*`bitget-pipeline up`"):
            ask(boot)


def test_tls_verifies_unless_told_otherwise() -> None:
    """
    Certificates and host names are checked by default.
    """
    assert ssl_context(load_boot({})).verify_mode is ssl.CERT_REQUIRED
    assert ssl_context(load_boot({})).check_hostname
    assert ssl_context(load_boot({"SSL_VERIFY": "false"})).verify_mode is ssl.CERT_NONE


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """
    A file that is no certificate is refused with the variables to look at.
    """
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate", encoding="utf-8")
    with pytest.raises(SettingsInvalid, match=r"certificates cannot be used.*SSL_CA_CERTS"):
        ssl_context(load_boot({"SSL_CA_CERTS": str(file)}))


# ---------------------------------------------------------------- bad input

COMPLAINTS = [
    (
        {"CLICKHOUSE_PORT": "eight"},
        "CLICKHOUSE_PORT is 'eight': Input should be a valid integer, unable to parse string as an integer — "
        "write a port from 1 to 65535, for example 8123, or 8443 with TLS",
    ),
    (
        {"BITGET_REST_URL": "http://api.bitget.com", "BITGET_WS_URL": "wss://ws.bitget.com/v2/ws/public"},
        "BITGET_REST_URL is 'http://api.bitget.com': http:// is not encrypted and allowed to this machine only — "
        "write an https address, for example https://api.bitget.com",
    ),
    (
        {"BITGET_REST_URL": "api.bitget.com", "BITGET_WS_URL": "wss://ws.bitget.com/v2/ws/public"},
        "BITGET_REST_URL is 'api.bitget.com': that is not a https:// address — "
        "write an https address, for example https://api.bitget.com",
    ),
    (
        {"BITGET_REST_URL": "https://api.bitget.com"},
        "BITGET_WS_URL is not set, but its companion is: REST and websocket must be the same exchange — set both or neither",
    ),
    (
        {"BITGET_REST_URL": "http://127.0.0.1:18080", "BITGET_WS_URL": "ws://127.0.0.1:18080/v2/ws/public"},
        "BITGET_REST_URL is 'http://127.0.0.1:18080', on this machine, but the exchange is bitget: simulated data would be "
        "stored as real — set BITGET_PIPELINE_EXCHANGE=local; for a way out use BITGET_PIPELINE_PROXY",
    ),
    (
        {
            "BITGET_PIPELINE_EXCHANGE": "local",
            "BITGET_REST_URL": "https://api.bitget.com",
            "BITGET_WS_URL": "wss://ws.bitget.com/v2/ws/public",
        },
        "BITGET_REST_URL is 'https://api.bitget.com', but the local exchange is on this machine — write an address on "
        "127.0.0.1, or set BITGET_PIPELINE_EXCHANGE=bitget",
    ),
    (
        {"BITGET_API_KEY": "k"},
        "BITGET_SECRET_KEY and BITGET_PASSPHRASE not set, but BITGET_API_KEY is — set all of them or none",
    ),
    (
        {"BITGET_PIPELINE_SYMBOL_PER_MARKET": "10"},
        "there is no setting BITGET_PIPELINE_SYMBOL_PER_MARKET (environment) — did you mean BITGET_PIPELINE_SYMBOLS_PER_MARKET?",
    ),
    (
        {"BITGET_PIPELINE_SYMBOLS_PER_MARKET": "31"},
        "BITGET_PIPELINE_SYMBOLS_PER_MARKET is 31, over the maximum of 30 of the public tier — write a number from 1 to 30",
    ),
    (
        {**KEY, "BITGET_PIPELINE_SYMBOLS_PER_CONNECTION": "101"},
        "BITGET_PIPELINE_SYMBOLS_PER_CONNECTION is 101, over the maximum of 100 of the credentialed tier — write a number "
        "from 1 to 100",
    ),
    (
        {"BITGET_PIPELINE_RETENTION": "funding_rates=7"},
        "BITGET_PIPELINE_RETENTION throws funding away after 7 days, but more of them are wanted — keep at least the 30 days "
        "of BITGET_PIPELINE_HISTORY_DAYS",
    ),
    (
        {"BITGET_PIPELINE_BOOK_LEVELS": "50"},
        "BITGET_PIPELINE_BOOK_LEVELS is 50, over the maximum of 15 of the public tier — write a number from 1 to 15",
    ),
    (
        {"BITGET_PIPELINE_HISTORICAL_RPS": "120"},
        "BITGET_PIPELINE_HISTORICAL_RPS is '120': Input should be less than or equal to 100 — write a number above 0, up to "
        "100 (Bitget allows an address 6,000 requests a minute)",
    ),
    (
        {"BITGET_PIPELINE_REQUEST_SHARE": "1.5"},
        "BITGET_PIPELINE_REQUEST_SHARE is '1.5': Input should be less than or equal to 1 — write a fraction above 0, up to "
        "1, for example 0.9",
    ),
    (
        {"BITGET_PIPELINE_MAX_CHANNELS": "51"},
        "BITGET_PIPELINE_MAX_CHANNELS is '51': Input should be less than or equal to 50 — write a number from 1 to 50",
    ),
    (
        {"BITGET_PIPELINE_MARKETS": "spot,coinm"},
        "BITGET_PIPELINE_MARKETS has coinm, which needs credentials — set BITGET_API_KEY, BITGET_SECRET_KEY and "
        "BITGET_PASSPHRASE, or leave it out",
    ),
    (
        {"BITGET_PIPELINE_MARKETS": "spots"},
        "BITGET_PIPELINE_MARKETS is 'spots': Input should be 'spot', 'usdtm', 'coinm' or 'usdcm' — write markets from spot, "
        "usdtm, coinm, usdcm, separated by commas",
    ),
    (
        {"BITGET_PIPELINE_LIVE_RESOLUTIONS": "1s"},
        "BITGET_PIPELINE_LIVE_RESOLUTIONS has 1s, which needs credentials — set BITGET_API_KEY, BITGET_SECRET_KEY and "
        "BITGET_PASSPHRASE, or leave it out",
    ),
    (
        {"BITGET_PIPELINE_PINNED": "BTCUSDT"},
        "BITGET_PIPELINE_PINNED is 'BTCUSDT': 'BTCUSDT' is not a symbol — write market:SYMBOL separated by commas, for example "
        "spot:BTCUSDT,usdtm:ETHUSDT",
    ),
    (
        {"BITGET_PIPELINE_GRID_START": "2026-01-15"},
        "BITGET_PIPELINE_GRID_START is '2026-01-15': that is not the first day of a month — write the first day of a month as "
        "YYYY-MM-DD, for example 2026-01-01",
    ),
    (
        {"BITGET_PIPELINE_THROUGHPUT_CRITICAL": "0.8"},
        "BITGET_PIPELINE_THROUGHPUT_CRITICAL is 0.8, not below BITGET_PIPELINE_THROUGHPUT_DEGRADED (0.7) — less is worse here",
    ),
    (
        {"BITGET_PIPELINE_ERRORS_CRITICAL": "0.1"},
        "BITGET_PIPELINE_ERRORS_CRITICAL is 0.1, not above BITGET_PIPELINE_ERRORS_DEGRADED (0.1) — more is worse here",
    ),
    (
        {"CLICKHOUSE_HOST": "http://ch:8123"},
        "CLICKHOUSE_HOST is 'http://ch:8123': that is not a host name; the port and TLS have settings of their own — write a "
        "host name or address",
    ),
    (
        {"CLICKHOUSE_PROFILE": "cluster"},
        "CLICKHOUSE_PROFILE is cluster, but CLICKHOUSE_CLUSTER is not set — set it to a name of system.clusters",
    ),
    (
        {"SSL_CA_CERTS": "/nowhere/ca.pem"},
        "SSL_CA_CERTS is '/nowhere/ca.pem': there is no such file — write the path of a PEM file that can be read",
    ),
    (
        {"BITGET_PIPELINE_SETTINGS": "/nowhere/settings.toml"},
        "the settings file does not exist (/nowhere/settings.toml) — create it, or unset BITGET_PIPELINE_SETTINGS",
    ),
]


@pytest.mark.parametrize(("environ", "line"), COMPLAINTS, ids=[next(iter(environ)) for environ, _ in COMPLAINTS])
def test_a_wrong_variable_is_one_line_with_a_remedy(environ: dict[str, str], line: str) -> None:
    """
    What is wrong, where, and what to write instead.
    """
    assert complaint(environ) == line


FILES = [
    (
        "# mine\nhistory_days = many",
        "not TOML at history_days: Invalid value ({file} line 2) — write one `key = value` a line",
    ),
    ("history_days = 3\nmarkets = ['spot',", "is not TOML at markets: "),
    (
        "history_days = 3\nsymbols_per_m",
        "not TOML at symbols_per_m: Expected '=' after a key in a key/value pair ({file} line 2)",
    ),
    ('history_days = "many"', "history_days is 'many': Input should be a valid integer"),
    ('\nhistory_days = "many"', "({file} line 2) — write a number of days from 1 to 3660"),
    ("history_days = 3\nsymbols_per_market = 31", "31, over the maximum of 30 of the public tier ({file} line 2)"),
    ("[history]\ndays = 3", "there is no setting history ({file} line 1)"),
    ("# mine\n\nhistory_day = 3", "there is no setting history_day ({file} line 3) — did you mean history_days?"),
    ('exchange = "local"', "exchange cannot stand in the settings file ({file} line 1) — set BITGET_PIPELINE_EXCHANGE"),
    ('tier = "credentialed"', "there is no setting tier"),
    ("clickhouse_port = 0", "clickhouse_port is 0: Input should be greater than or equal to 1 ({file} line 1)"),
]


@pytest.mark.parametrize(("text", "expected"), FILES, ids=[text for text, _ in FILES])
def test_a_wrong_line_of_the_settings_file_is_named(tmp_path: Path, text: str, expected: str) -> None:
    """
    Misspelt keys and values of the file are found by their line.
    """
    file = tmp_path / "settings.toml"
    file.write_text(text, encoding="utf-8")

    assert expected.format(file=file) in complaint({"BITGET_PIPELINE_HOME": str(tmp_path)})


# ---------------------------------------------------------------- the manual


def test_every_setting_is_explained() -> None:
    """
    Each has a description that is a sentence, and a name of its own.
    """
    rows = all_settings()
    assert all(row.description.endswith(".") for row in rows)
    assert len({row.variable for row in rows}) == len(rows)


def test_the_readme_names_every_setting() -> None:
    """
    Nobody has to read the code to learn what can be set (`bitget-pipeline settings --markdown` prints the table).
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [row.variable for row in all_settings() if f"`{row.variable}`" not in readme]


def test_the_example_environment_is_complete() -> None:
    """
    .env.example is what `bitget-pipeline settings --env` prints.
    """
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == as_env()


def test_the_stand_ins_addresses_fit_the_exchange() -> None:
    """
    Real data never stands in for simulated data, nor the other way round.
    """
    with pytest.raises(SettingsInvalid, match=r"BINANCE_SPOT_REST_URL .* on this machine"):
        load_boot({"BINANCE_SPOT_REST_URL": "http://127.0.0.1:18081"})
    with pytest.raises(SettingsInvalid, match=r"BINANCE_FUTURES_REST_URL .* but the local exchange is on this machine"):
        load_boot({"BITGET_PIPELINE_EXCHANGE": "local", "BINANCE_FUTURES_REST_URL": "https://fapi.binance.com"})


# ---------------------------------------------------------------- alerts

MAIL = {
    "BITGET_PIPELINE_SMTP_HOST": "mail.example.org",
    "BITGET_PIPELINE_ALERT_EMAIL_FROM": "alerts@example.org",
    "BITGET_PIPELINE_ALERT_EMAIL_TO": "a@example.org, b@example.org,a@example.org",
}


def test_alerts_go_where_the_settings_say_and_their_secrets_show_nowhere() -> None:
    """
    The address of a webhook is as secret as a password.
    """
    hook = "https://hooks.slack.com/services/T0/B0/very-secret?x=1"
    login = {"BITGET_PIPELINE_SMTP_USER": "me", "BITGET_PIPELINE_SMTP_PASSWORD": "very-secret-too"}
    boot = load_boot({**MAIL, **login, "BITGET_PIPELINE_ALERT_WEBHOOK": hook})
    assert boot.alert_email_to == "a@example.org, b@example.org"
    assert boot.alert_webhook is not None
    assert boot.alert_webhook.get_secret_value() == hook
    assert "very-secret" not in f"{boot} {boot!r} {boot.model_dump_json()}"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"BITGET_PIPELINE_ALERT_WEBHOOK": "http://hooks.example.org/very-secret"}, "to this machine only"),
        ({"BITGET_PIPELINE_ALERT_WEBHOOK": "hooks.example.org/very-secret"}, "not an https:// address"),
        ({"BITGET_PIPELINE_ALERT_WEBHOOK": "https://[very-secret"}, "not an address"),
        ({**MAIL, "BITGET_PIPELINE_ALERT_EMAIL_TO": "a@example.org, nobody"}, "'nobody' is not an e-mail address"),
        ({**MAIL, "BITGET_PIPELINE_ALERT_EMAIL_FROM": "a@b.org\nBcc: c@d.org"}, "not an e-mail address"),
        ({**MAIL, "BITGET_PIPELINE_ALERT_EMAIL_TO": ","}, "not an e-mail address"),
        ({**MAIL, "BITGET_PIPELINE_SMTP_HOST": ""}, "BITGET_PIPELINE_SMTP_HOST not set"),
        ({**MAIL, "BITGET_PIPELINE_SMTP_USER": "me"}, "BITGET_PIPELINE_SMTP_PASSWORD not set"),
        ({**MAIL, "BITGET_PIPELINE_SMTP_SECURITY": "none"}, "is not this machine"),
        ({"BITGET_PIPELINE_ALERT_REPEAT_HOURS": "0"}, "write hours above 0"),
    ],
)
def test_where_alerts_cannot_go_is_said_at_the_start(environ: dict[str, str], expected: str) -> None:
    """
    Not when the first alert is lost; and no complaint repeats a secret.
    """
    said = complaint(environ)
    assert expected in said
    assert "very-secret" not in said
