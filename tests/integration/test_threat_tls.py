"""TLS to clients, NATS and Redis, with certificates made here: peers that cannot prove their name are refused."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
import redis.asyncio
import trustme
from websockets.asyncio.client import connect

from services.bus.client import Bus
from services.bus.errors import BusError, Misconfigured
from services.redis_client import open_redis
from services.settings import Settings
from tests.support.cluster import aside
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment
from tests.support.requires import need
from tests.support.secured import SERVER, WITH_TOKENS, bearer, counted, token
from tidings_cli.check import run_checks
from tidings_cli.local.external import probe_redis
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer, RedisServer


class Certificates:
    """An authority, a server's certificate for loopback, and a client's, as files."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.directory = directory
        self.ca = self._write("ca.pem", self.authority.cert_pem)
        self.server = self._issue("server", "127.0.0.1", "localhost")
        self.client = self._issue("client", "gateway.internal")

    def _issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        issued = self.authority.issue_cert(*identities)
        chain = self.directory / f"{name}.pem"
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(chain), append=True)
        return chain, self._write(f"{name}.key", issued.private_key_pem)

    def _write(self, name: str, blob: trustme.Blob) -> Path:
        path = self.directory / name
        blob.write_to_path(str(path))
        return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def untrusted_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Certificates(tmp_path_factory.mktemp("strangers")).ca


@contextmanager
def running(*command: str, cwd: Path) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


# --- clients --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tls_gateway(
    nats: NatsServer, redis: RedisServer, certificates: Certificates, directory: Path, **more: object
) -> AsyncIterator[tuple[int, httpx.AsyncClient]]:
    """Run a gateway that serves TLS; hand over its port, and HTTP to it."""
    settings: dict[str, object] = {
        **WITH_TOKENS,
        "nats_url": nats.url,
        "redis_url": redis.url,
        "prefix": "tls-clients",
        "tls_cert": certificates.server[0],
        "tls_key": certificates.server[1],
        **more,
    }
    deployment = Deployment(directory, gateways=1, services=False, **settings)
    gateway = deployment.gateways[0]
    trusting = ssl.create_default_context(cafile=str(certificates.ca))
    await aside(gateway.spawn)
    try:
        async with httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{gateway.port}", verify=trusting, timeout=PATIENCE_S
        ) as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(ready, "the gateway to be ready", 40)
            yield gateway.port, http
    finally:
        deployment.stop()
    assert deployment.faults() == []


async def test_clients_over_tls(
    nats_server: NatsServer,
    redis_server: RedisServer,
    certificates: Certificates,
    untrusted_ca: Path,
    tmp_path: Path,
) -> None:
    async with tls_gateway(nats_server, redis_server, certificates, tmp_path) as (port, http):
        answer = await http.get("/api/presence", headers=bearer(token()))
        assert answer.status_code == 503  # let in; presence_svc does not run here
        url = f"wss://127.0.0.1:{port}/ws"
        trusting = ssl.create_default_context(cafile=str(certificates.ca))
        async with connect(url, ssl=trusting, additional_headers=bearer(token())) as socket:
            assert '"welcome"' in str(await socket.recv())
            await socket.send('{"type":"join_room","room":"r","id":"1"}')
            assert '"joined_room"' in str(await socket.recv())
        distrusting = ssl.create_default_context(cafile=str(untrusted_ca))
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connect(url, ssl=distrusting):
                pass
        # The scheme belongs to an origin (RFC 6454 §4): the page came over TLS, or it is another one.
        for scheme, status in (("https", 503), ("http", 403)):
            origin = {"origin": f"{scheme}://127.0.0.1:{port}"}
            assert (await http.get("/api/presence", headers=bearer(token()) | origin)).status_code == status


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["nothing", "half a hello"]
)
async def test_a_tls_handshake_that_does_not_end(
    nats_server: NatsServer,
    redis_server: RedisServer,
    certificates: Certificates,
    tmp_path: Path,
    said: bytes,
) -> None:
    async with tls_gateway(nats_server, redis_server, certificates, tmp_path, handshake_timeout_s=1) as (
        port,
        http,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()

        async def is_counted() -> bool:
            return counted((await http.get("/metrics", headers=SERVER)).text, "tls_handshake") > 0

        await eventually(is_counted, "the handshake to be counted")


def _seconds_without_close_notify(port: int, certificates: Certificates) -> float:
    """Have a request answered over TLS, ignore the server's close_notify, and return when its connection ends."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(certificates.ca))
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as raw:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
        tls.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        raw.sendall(outgoing.read())
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while raw.recv(65536):
                pass
        return time.monotonic() - began


@pytest.mark.timing
async def test_a_peer_without_close_notify(
    nats_server: NatsServer, redis_server: RedisServer, certificates: Certificates, tmp_path: Path
) -> None:
    async with tls_gateway(nats_server, redis_server, certificates, tmp_path) as (port, _):
        assert await aside(lambda: _seconds_without_close_notify(port, certificates)) < 15


# --- NATS -----------------------------------------------------------------------------------------------------------


@contextmanager
def nats_with_tls(certificates: Certificates, directory: Path, *, verify: bool) -> Iterator[str]:
    port = free_port()
    config = directory / "nats.conf"
    cert, key = certificates.server
    config.write_text(
        f'host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: "{directory}" }}\n'
        f'authorization {{ user: u, password: "p@:/" }}\n'
        f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{certificates.ca}", verify: {str(verify).lower()} }}\n'
    )
    with running(need("nats-server"), "-c", str(config), cwd=directory):
        yield f"tls://u:p%40%3A%2F@127.0.0.1:{port}"


async def test_nats_over_tls(certificates: Certificates, untrusted_ca: Path, tmp_path: Path) -> None:
    with nats_with_tls(certificates, tmp_path, verify=False) as url:
        bus = await Bus.connect(Settings(nats_url=url, nats_ca=certificates.ca), "test")
        await bus.flush()
        await bus.close()
        outcomes = await run_checks(Settings(nats_url=url, nats_ca=certificates.ca))
        assert {outcome.name for outcome in outcomes if outcome.ok} >= {"NATS", "NATS login", "JetStream"}
        for settings in (Settings(nats_url=url, nats_ca=untrusted_ca), Settings(nats_url=url)):
            with pytest.raises(BusError, match="TLS"):
                await Bus.connect(settings, "test")


async def test_nats_asks_for_our_certificate(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = certificates.client
    with nats_with_tls(certificates, tmp_path, verify=True) as url:
        bus = await Bus.connect(
            Settings(nats_url=url, nats_ca=certificates.ca, nats_cert=cert, nats_key=key), "test"
        )
        await bus.flush()
        await bus.close()
        with pytest.raises(BusError):
            await Bus.connect(Settings(nats_url=url, nats_ca=certificates.ca, bus_connect_s=1), "test")


async def test_credentials_are_not_sent_to_a_server_without_tls(
    nats_server: NatsServer, certificates: Certificates
) -> None:
    url = nats_server.url.replace("nats://", "tls://")
    with pytest.raises(Misconfigured, match="does not offer TLS"):
        await Bus.connect(Settings(nats_url=url, nats_ca=certificates.ca), "test")


async def test_a_certificate_that_is_none(nats_server: NatsServer, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(Misconfigured, match="TIDINGS_NATS_CA"):
            await Bus.connect(Settings(nats_url=nats_server.url, nats_ca=path), "test")


# --- Redis ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tls_in_front_of(port: int, certificates: Certificates) -> AsyncIterator[int]:
    """Terminate TLS, asking clients for a certificate: the embedded redis-server is built without TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.ca))
    context.load_cert_chain(*certificates.server)
    context.verify_mode = ssl.CERT_REQUIRED

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(join, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_redis_over_tls(
    redis_server: RedisServer, certificates: Certificates, untrusted_ca: Path
) -> None:
    cert, key = certificates.client
    async with tls_in_front_of(redis_server.port, certificates) as port:
        url = f"rediss://default:{redis_server.password}@127.0.0.1:{port}/0"
        good = Settings(redis_url=url, redis_ca=certificates.ca, redis_cert=cert, redis_key=key)
        client = open_redis(good, "presence")
        assert await client.ping()
        await client.aclose()
        assert (await probe_redis(good)).product in ("Redis", "Valkey")
        for bad in (
            Settings(redis_url=url, redis_ca=untrusted_ca, redis_cert=cert, redis_key=key),
            Settings(redis_url=url, redis_ca=certificates.ca),
        ):
            # Closed whatever happens: the server's end waits for its connections.
            async with contextlib.aclosing(open_redis(bad, "presence")) as client:
                with pytest.raises(redis.exceptions.ConnectionError):
                    await client.ping()
