"""`tidings up`: everything on this machine, wired together.

Checks first what would fail later (who may come in, the port, the data directory, servers that are given),
then hands brokers, services, agent and gateways to the supervisor.
"""

import asyncio
import fcntl
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.permissions.redis import ROLES as REDIS_ROLES
from services.permissions.roles import Role
from services.settings import Settings
from services.settings_problems import describe_unknown, unknown_variables
from tidings_cli.local.binaries import NoBinary, spell
from tidings_cli.local.console import Screen
from tidings_cli.local.external import Unusable, find_nats, find_redis
from tidings_cli.local.processes import Child, ProcessChild, ProcessSpec, ServerChild
from tidings_cli.local.servers import LocalServer, NatsServer, RedisServer, free_port, write_private
from tidings_cli.local.supervisor import EXIT_FAILED, Supervisor, supervise

# All must be over within 10 s: gateways drain first, then services, then the brokers' 1.5 s.
_GATEWAY_STOP_S = 6.5
_GATEWAY_DRAIN_S = 5.0
_SERVICE_STOP_S = 1.5


class Refused(RuntimeError):
    """`tidings up` cannot work as asked; the message says what to change."""


def check_port(host: str, port: int) -> None:
    """Refuse a port that something listens on, also one that would share it (SO_REUSEPORT)."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as fault:
        raise Refused(f"--host {host}: {fault.strerror}") from None
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no obstacle
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as fault:
            raise Refused(
                f"port {port} on {host} cannot be used: {fault.strerror}. Stop what listens there, or choose"
                " another with --port (or TIDINGS_PORT)."
            ) from None


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data directory: a second supervisor on it is refused."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Refused(
                f"another `tidings up` (pid {holder}) uses {data_dir}. Stop it, or choose another directory"
                " with --data-dir."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def session_secret(settings: Settings, data_dir: Path) -> str:
    """Return what signs sessions: the configured secret, or one kept in the data directory over restarts."""
    configured = settings.session_secret.get_secret_value()
    if configured:
        return configured
    path = data_dir / "session_secret"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


class Brokers:
    """NATS and Redis: those that are given, or the embedded ones with a user for each role."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self._settings = settings
        self.nats = None if settings.nats_url else NatsServer(data_dir / "nats", settings=settings)
        self.redis = None if settings.redis_url else RedisServer(data_dir / "redis", settings=settings)

    @property
    def embedded(self) -> list[LocalServer]:
        """The servers to start."""
        return [server for server in (self.nats, self.redis) if server is not None]

    def environment_of(self, role: Role) -> dict[str, str]:
        """Return where a process of that role finds its servers; what it does not need it is not told."""
        urls = {"TIDINGS_NATS_URL": self.nats.url_of(role) if self.nats else self._settings.nats_url}
        # Set in any case: a process must not find the URL in the environment or the file that we read.
        urls["TIDINGS_REDIS_URL"] = ""
        if role in REDIS_ROLES:
            urls["TIDINGS_REDIS_URL"] = self.redis.url_of(role) if self.redis else self._settings.redis_url
        return urls


# Settings that hold secrets, by who needs them besides the servers' URLs; nobody else finds them in the environment.
SECRETS = {
    Role.GATEWAY: frozenset({"session_secret", "jwt_secrets", "api_keys", "jwks_url", "jwks_issuers"}),
    Role.PRESENCE: frozenset({"redis_sentinel_login", "presence_webhook_urls", "presence_webhook_secrets"}),
    Role.METRICS: frozenset({"redis_sentinel_login", "webhook_urls", "alertmanager_urls", "notify_urls"}),
    Role.AGENT: frozenset(),
}


def withheld_from(role: Role) -> frozenset[str]:
    """Return the variables of our environment that a process of that role is not given."""
    others = frozenset[str]().union(*SECRETS.values()) - SECRETS[role]
    # What is no setting may be a secret under a misspelled name; and a server's URL is what we say.
    names = {f"TIDINGS_{name.upper()}" for name in others} | set(unknown_variables())
    names |= {"TIDINGS_NATS_URL", "TIDINGS_REDIS_URL", "TIDINGS_TOKEN"}
    return frozenset(names | {f"{name}_FILE" for name in names})


def process_specs(
    settings: Settings, shared: dict[str, str], brokers: Brokers, session: str
) -> tuple[list[ProcessSpec], list[ProcessSpec]]:
    """Return the gateways, and everything else that is ours."""

    def spec(name: str, module: str, role: Role, stop_s: float) -> ProcessSpec:
        # -P: a folder named `gateway` where the user stands is not ours.
        command = [sys.executable, "-P", "-m", module]
        own = {"TIDINGS_SHUTDOWN_S": str(min(settings.shutdown_s, stop_s)), **brokers.environment_of(role)}
        if role is Role.GATEWAY:
            own["TIDINGS_SESSION_SECRET"] = session
        # Half a second more than it gives itself: it ends by its own hand, with its own words.
        return ProcessSpec(name, command, shared | own, stop_s + 0.5, withheld_from(role))

    gateways = [
        spec(f"gateway-{n}", "gateway", Role.GATEWAY, _GATEWAY_STOP_S)
        for n in range(1, settings.gateways + 1)
    ]
    services = [
        spec("presence-1", "presence_svc", Role.PRESENCE, _SERVICE_STOP_S),
        spec("metrics-1", "metrics_svc", Role.METRICS, _SERVICE_STOP_S),
        spec("agent", "metrics_svc.agent", Role.AGENT, _SERVICE_STOP_S),
    ]
    return gateways, services


def page_address(host: str, port: int) -> str:
    """Return where a browser on this machine finds the dashboard."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _brokers(settings: Settings, data_dir: Path, screen: Screen) -> Brokers:
    """Look at the servers that are given, and choose ports for those to start."""
    if settings.nats_url:
        nats = await find_nats(settings.nats_url)
        screen.done(f"{nats.product} {spell(nats.version)} at {nats.address}")
    if settings.redis_url:
        store = await find_redis(settings)
        screen.done(f"{store.product} {spell(store.version)} at {store.address}")
    brokers = Brokers(settings, data_dir)
    for server in brokers.embedded:
        binary = server.binary()
        screen.say(f"  {server.name} {spell(binary.version)} from {binary.origin}", "dim")
        server.settle_port()
    return brokers


async def _run(settings: Settings, data_dir: Path, screen: Screen) -> int:
    servers = await _brokers(settings, data_dir, screen)
    port = settings.port or free_port()
    shared = {
        "TIDINGS_HOST": settings.host,
        "TIDINGS_PORT": str(port),
        "TIDINGS_HEALTH_HOST": "127.0.0.1",
        "TIDINGS_DRAIN_S": str(min(settings.drain_s, _GATEWAY_DRAIN_S)),
        "TIDINGS_GATEWAYS": str(settings.gateways),
    }
    if settings.log_format == "auto":
        shared["TIDINGS_LOG_FORMAT"] = "console" if screen.on_terminal else "json"
    gateway_specs, service_specs = process_specs(
        settings, shared, servers, session_secret(settings, data_dir)
    )
    gateways: list[Child] = [ProcessChild(spec, screen.child_line) for spec in gateway_specs]
    services: list[Child] = [ProcessChild(spec, screen.child_line) for spec in service_specs]
    brokers: list[Child] = [ServerChild(server) for server in servers.embedded]
    supervisor = Supervisor(
        groups=[brokers, [*services, *gateways]], stop_order=[gateways, services, brokers], screen=screen
    )
    return await supervise(supervisor, screen, f"Tidings is ready: {page_address(settings.host, port)}")


def up(settings: Settings, screen: Screen | None = None) -> int:
    """Run everything on this machine until told to stop. Returns the exit code; says what went wrong."""
    screen = screen or Screen()
    data_dir = settings.data_dir.absolute()
    for sentence in describe_unknown(unknown_variables()):
        screen.trouble(sentence)
    try:
        with locked(data_dir):
            if settings.port:
                check_port(settings.host, settings.port)
            return asyncio.run(_run(settings, data_dir, screen))
    except (Refused, NoBinary, Unusable, OSError) as fault:
        screen.trouble(str(fault))
        return EXIT_FAILED
