"""
The ways to the exchange, as the settings describe them: TLS with certificates of one's own, and a SOCKS proxy.

The local exchange stands behind a relay that speaks TLS, or SOCKS5 (RFC 1928); nothing of the client is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bitget_pipeline.errors import ExchangeUnavailable
from bitget_pipeline.exchange.contract import Channel, Exchange, Subscription
from bitget_pipeline.exchange.registry import get
from bitget_pipeline.feed.connection import Connection, SocketAddress
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.guard.rate_limit import Priority
from bitget_pipeline.history.client import HttpAddress, opened
from bitget_pipeline.local.exchange import ExchangeConfig, LocalExchange, running
from bitget_pipeline.market.instrument import Market, Symbol
from bitget_pipeline.settings import load_boot, ssl_context

from .test_client import QUICK, Heard, OwnBudget

Relay = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def local_exchange() -> AsyncIterator[LocalExchange]:
    config = ExchangeConfig(spot_instruments=10, usdtm_instruments=5, coinm=1, usdcm=1, active_per_market=4)
    async with running(config) as server:
        yield server


@pytest.fixture
def exchange() -> Exchange:
    return get("bitget")


class Authority:
    """A certificate authority of this test, and what it issues, as PEM files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
        self.certificate = self._write("ca.pem", self._issue(self._name, self._key, authority=True))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for this machine, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._write(f"{name}.pem", self._issue(subject, key)), self._write(f"{name}.key", secret)

    def _issue(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool = False) -> bytes:
        now = datetime.now(UTC)
        here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(here), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        return path


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def listening(relay: Relay, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port of this machine; the port."""
    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that comes, on to the other side."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def to(host: str, port: int) -> Relay:
    """A relay to this address."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        await asyncio.gather(pour(reader, back), pour(there, writer))

    return relay


def server_side(authority: Authority, *, wants_client: bool = False) -> ssl.SSLContext:
    certificate, key = authority.issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.certificate)
    return context


def client_side(tmp_path: Path, **settings: object) -> ssl.SSLContext:
    """TLS as these settings make it."""
    environment = {name: str(value) for name, value in settings.items()}
    return ssl_context(load_boot({"BITGET_PIPELINE_HOME": str(tmp_path / "home"), **environment}))


async def server_time(exchange: Exchange, address: HttpAddress) -> int:
    async with opened(exchange, address, OwnBudget(), patience=QUICK) as client:
        return await client.fetch(exchange.server_time(), exchange.read_server_time, priority=Priority.HEALTH)


async def first_trades(exchange: Exchange, address: SocketAddress, clock: Callable[[], int]) -> int:
    """How many trades the first frame of a socket held."""
    heard = Heard()
    wanted = [Subscription(Symbol(Market.SPOT, "BTCUSDT"), Channel.TRADE)]
    connection = Connection("c", exchange, address, wanted, heard, clock=clock, rules=SessionRules())
    task = asyncio.create_task(connection.run())
    frame = await asyncio.wait_for(heard.first, 60)
    connection.close()
    await task
    return len(frame.batch.trades)


async def test_certificates_are_verified_and_ones_own_authority_can_be_trusted(
    exchange, local_exchange, authority, tmp_path
):
    """An unknown authority is refused in one line; named in SSL_CA_CERTS it is trusted, for requests and sockets."""
    where = urlsplit(local_exchange.rest_url)
    async with listening(to(where.hostname, where.port), server_side(authority)) as port:
        url = f"https://localhost:{port}"
        with pytest.raises(ExchangeUnavailable, match="certificate"):
            await server_time(exchange, HttpAddress(url, tls=client_side(tmp_path)))

        trusting = client_side(tmp_path, SSL_CA_CERTS=authority.certificate)
        before = local_exchange.now_ms()
        assert before <= await server_time(exchange, HttpAddress(url, tls=trusting)) <= local_exchange.now_ms()
        socket = SocketAddress(f"wss://localhost:{port}/v2/ws/public", tls=trusting, open_within=60.0)
        assert await first_trades(exchange, socket, local_exchange.now_ms) > 0


async def test_client_certificate_is_shown_where_it_is_asked_for(exchange, local_exchange, authority, tmp_path):
    """Without it the way is closed, with SSL_CERT_FILE and SSL_KEY_FILE it is open."""
    where = urlsplit(local_exchange.rest_url)
    certificate, key = authority.issue("client")
    async with listening(to(where.hostname, where.port), server_side(authority, wants_client=True)) as port:
        url = f"https://localhost:{port}"
        trusting = client_side(tmp_path, SSL_CA_CERTS=authority.certificate)
        with pytest.raises(ExchangeUnavailable):
            await server_time(exchange, HttpAddress(url, tls=trusting))

        known = client_side(tmp_path, SSL_CA_CERTS=authority.certificate, SSL_CERT_FILE=certificate, SSL_KEY_FILE=key)
        assert await server_time(exchange, HttpAddress(url, tls=known)) > 0


async def socks5(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A SOCKS5 proxy without a login, for names and IPv4 addresses."""
    _, methods = await reader.readexactly(2)
    await reader.readexactly(methods)
    writer.write(b"\x05\x00")
    _, _, _, kind = await reader.readexactly(4)
    if kind == 1:
        host = str(ipaddress.ip_address(await reader.readexactly(4)))
    else:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    port = int.from_bytes(await reader.readexactly(2), "big")
    writer.write(b"\x05\x00\x00\x01" + bytes(6))
    await to(host, port)(reader, writer)


async def test_requests_and_sockets_go_through_a_socks_proxy(exchange, local_exchange):
    """With a SOCKS5 proxy set, both ways lead through it."""
    passed = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal passed
        passed += 1
        await socks5(reader, writer)

    async with listening(counted) as port:
        proxy = f"socks5://127.0.0.1:{port}"
        assert await server_time(exchange, HttpAddress(local_exchange.rest_url, proxy=proxy)) > 0
        assert passed == 1
        socket = SocketAddress(local_exchange.ws_url, proxy=proxy, open_within=60.0)
        assert await first_trades(exchange, socket, local_exchange.now_ms) > 0
        assert passed == 2


async def test_socks_proxy_that_is_down_is_one_clear_line(exchange, local_exchange, silent_port):
    """The line names the setting, not a defect."""
    address = HttpAddress(local_exchange.rest_url, proxy=f"socks5://127.0.0.1:{silent_port}")
    with pytest.raises(ExchangeUnavailable, match="BITGET_PIPELINE_PROXY"):
        await server_time(exchange, address)
