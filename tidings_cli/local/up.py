"""`tidings up`: everything on this machine.

Checks the port, the data directory and configured servers first, then hands brokers, services, agent and gateways to the
supervisor.
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

from services.lifecycle import EXIT_FAILED, CannotStart
from services.permissions import Role
from services.permissions.redis import ROLES as REDIS_ROLES
from services.servers import spell_version
from services.settings import Settings
from services.settings_problems import describe_unknown, unknown_variables
from tidings_cli import health
from tidings_cli.local.binaries import NoBinary
from tidings_cli.local.child_server import LocalServer, write_private
from tidings_cli.local.console import Console
from tidings_cli.local.external import UnusableServer, probe_nats, probe_redis
from tidings_cli.local.processes import ChildProcess, ProcessChild, ProcessSpec, free_port, port_fault
from tidings_cli.local.servers import NatsServer, RedisServer
from tidings_cli.local.supervisor import Supervisor, supervise

# All stops take at most 10 s: gateways drain first, then services, then brokers (1.5 s).
_GATEWAY_STOP_S = 6.5
_GATEWAY_DRAIN_S = 5.0
_SERVICE_STOP_S = 1.5


def check_port(host: str, port: int) -> None:
    """Check that a server may listen on a port. Raises CannotStart."""
    fault = port_fault(host, port)
    if isinstance(fault, socket.gaierror):
        raise CannotStart(f"--host {host}: {fault.strerror}")
    if fault is not None:
        raise CannotStart(
            f"port {port} on {host} cannot be used: {fault.strerror}. Stop what listens there, or choose"
            " another with --port (or TIDINGS_PORT)."
        )


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Lock the data directory against a second supervisor."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise CannotStart(
                f"another `tidings up` (pid {holder}) uses {data_dir}. Stop it, or choose another directory"
                " with --data-dir."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def session_secret(settings: Settings, data_dir: Path) -> str:
    """Return the secret that signs sessions: the configured one, or one kept in the data directory."""
    configured = settings.session_secret.get_secret_value()
    if configured:
        return configured
    path = data_dir / "session_secret"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


class Brokers:
    """NATS and Redis: configured servers, or embedded ones with a user for each role."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self._settings = settings
        self.nats = None if settings.nats_url else NatsServer(data_dir / "nats", settings=settings)
        self.redis = None if settings.redis_url else RedisServer(data_dir / "redis", settings=settings)

    @property
    def embedded(self) -> list[LocalServer]:
        return [server for server in (self.nats, self.redis) if server is not None]

    def environment_of(self, role: Role) -> dict[str, str]:
        """Return the servers' URLs that a process of that role needs, and no others."""
        nats = self.nats.url_of(role) if self.nats else self._settings.nats_url
        redis = self.redis.url_of(role) if self.redis else self._settings.redis_url
        # Both are always set: a process must not find a URL in the environment or in the configuration file.
        return {"TIDINGS_NATS_URL": nats, "TIDINGS_REDIS_URL": redis if role in REDIS_ROLES else ""}


# Settings with secrets besides the servers' URLs, by the role that needs them. No other role gets them.
SECRETS = {
    Role.GATEWAY: frozenset(
        {
            "session_secret",
            "jwt_secrets",
            "api_keys",
            "jwks_url",
            "jwks_issuers",
            "hooks_url",
            "hooks_secrets",
        }
    ),
    Role.PRESENCE: frozenset({"redis_sentinel_login", "presence_webhook_urls", "presence_webhook_secrets"}),
    Role.METRICS: frozenset({"redis_sentinel_login", "webhook_urls", "alertmanager_urls", "notify_urls"}),
    Role.AGENT: frozenset(),
    Role.APP: frozenset(),
}


def withheld_from(role: Role) -> frozenset[str]:
    """Return the variables of our environment that a process of that role does not inherit."""
    others = frozenset[str]().union(*SECRETS.values()) - SECRETS[role]
    # An unknown variable may be a secret with a misspelled name. Servers' URLs are set by us.
    names = {f"TIDINGS_{name.upper()}" for name in others} | set(unknown_variables())
    names |= {"TIDINGS_NATS_URL", "TIDINGS_REDIS_URL", "TIDINGS_TOKEN"}
    return frozenset(names | {f"{name}_FILE" for name in names})


def process_specs(
    settings: Settings, shared: dict[str, str], brokers: Brokers, session: str
) -> tuple[list[ProcessSpec], list[ProcessSpec]]:
    """Return the gateways, and all other processes of ours."""

    def spec(name: str, module: str, role: Role, stop_s: float) -> ProcessSpec:
        # -P: a folder named `gateway` in the working directory is not ours.
        command = [sys.executable, "-P", "-m", module]
        own = {"TIDINGS_SHUTDOWN_S": str(min(settings.shutdown_s, stop_s)), **brokers.environment_of(role)}
        if role is Role.GATEWAY:
            own["TIDINGS_SESSION_SECRET"] = session
        # Half a second more than its own limit: it ends by itself, with its own error.
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


async def _brokers(settings: Settings, data_dir: Path, console: Console) -> Brokers:
    """Check configured servers, and choose ports for embedded ones."""
    if settings.nats_url:
        console.done(str(await probe_nats(settings.nats_url)))
    if settings.redis_url:
        console.done(str(await probe_redis(settings)))
    brokers = Brokers(settings, data_dir)
    for server in brokers.embedded:
        binary = server.binary()
        console.say(f"  {server.name} {spell_version(binary.version)} from {binary.origin}", "dim")
        server.fix_port()
    if brokers.nats is not None:  # for services that answer calls
        write_private(data_dir / "app_nats_url", brokers.nats.url_of(Role.APP) + "\n")
    return brokers


async def _run(settings: Settings, data_dir: Path, console: Console) -> int:
    servers = await _brokers(settings, data_dir, console)
    port = settings.port or free_port()
    shared = {
        "TIDINGS_HOST": settings.host,
        "TIDINGS_PORT": str(port),
        "TIDINGS_HEALTH_HOST": "127.0.0.1",
        "TIDINGS_DRAIN_S": str(min(settings.drain_s, _GATEWAY_DRAIN_S)),
        "TIDINGS_GATEWAYS": str(settings.gateways),
    }
    if settings.log_format == "auto":
        shared["TIDINGS_LOG_FORMAT"] = "console" if console.on_terminal else "json"
    gateway_specs, service_specs = process_specs(
        settings, shared, servers, session_secret(settings, data_dir)
    )
    gateways: list[ChildProcess] = [ProcessChild(spec, console.child_line) for spec in gateway_specs]
    services: list[ChildProcess] = [ProcessChild(spec, console.child_line) for spec in service_specs]
    brokers: list[ChildProcess] = [*servers.embedded]
    supervisor = Supervisor(
        groups=[brokers, [*services, *gateways]], stop_order=[gateways, services, brokers], console=console
    )
    return await supervise(supervisor, console, f"Tidings is ready: {health.local_url(settings.host, port)}")


def up(settings: Settings) -> int:
    """Run everything on this machine until a signal. Print faults; return the exit code."""
    console = Console()
    data_dir = settings.data_dir.absolute()
    for sentence in describe_unknown(unknown_variables()):
        console.trouble(sentence)
    try:
        with locked(data_dir):
            if settings.port:
                check_port(settings.host, settings.port)
            return asyncio.run(_run(settings, data_dir, console))
    except (CannotStart, NoBinary, UnusableServer, OSError) as fault:
        console.trouble(str(fault))
        return EXIT_FAILED
