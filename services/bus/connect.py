"""Opening a connection to NATS: where, as whom, and whether this server will do.

nats-py's own first connect never gives up when reconnects are unlimited, not even on a wrong password, so one
attempt is made at a time, and the caller decides about the next.
"""

import asyncio
import random
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from nats import errors
from nats.aio.client import Server

from services.backoff import Backoff
from services.bus.errors import Misconfigured, Unavailable
from services.bus.nats_client import LeanClient
from services.bus.stats import BusStats

OLDEST_SERVER = (2, 11)  # batched direct get and message TTL
_ATTEMPT_S = 2.0
_CREDENTIALS_REFUSED = re.compile(
    r"authorization violation|authentication|user authentication", re.IGNORECASE
)

ErrorCallback = Callable[[Exception], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The servers and the credentials, apart.

    nats-py neither decodes percent escapes in a URL's password nor uses the URL's credentials for servers
    that the cluster tells it of; both work when they are options.
    """

    servers: list[str]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """The servers, fit for logs and errors."""
        return ", ".join(self.servers)


def parse_address(urls: str) -> ServerAddress:
    """Take apart `nats://user:password@host:port`, or several of them separated by commas.

    The first credentials found are used for all servers.

    Raises:
        Misconfigured: there is none, or one is no URL.
    """
    servers: list[str] = []
    user = password = token = None
    for given in (part.strip() for part in urls.split(",")):
        if not given:
            continue
        try:
            url = urlsplit(given if "://" in given else f"nats://{given}")
            host, port = url.hostname, url.port
        except ValueError:
            host = None
        if not host:
            raise Misconfigured("TIDINGS_NATS_URL is not a list of nats://user:password@host:port")
        if url.username is not None and user is None and token is None:
            if url.password is None:
                token = unquote(url.username)
            else:
                user, password = unquote(url.username), unquote(url.password)
        shown_host = f"[{host}]" if ":" in host else host
        servers.append(f"{url.scheme}://{shown_host}:{port}" if port else f"{url.scheme}://{shown_host}:4222")
    if not servers:
        raise Misconfigured("TIDINGS_NATS_URL is empty: say where NATS is")
    return ServerAddress(servers, user, password, token)


def check_version(version: str) -> None:
    """Refuse a server older than 2.11.

    Raises:
        Misconfigured: it is.
    """
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < OLDEST_SERVER:
        wanted = ".".join(map(str, OLDEST_SERVER))
        raise Misconfigured(
            f"NATS server {version or 'of unknown version'} is too old: {wanted} or newer is needed"
        )


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client behaves once it is connected."""

    name: str
    ping_interval_s: float
    max_pending_bytes: int
    on_error: ErrorCallback
    tls: ssl.SSLContext | None
    on_reconnected: Callable[[], Awaitable[None]]


async def open_client(
    address: ServerAddress, options: ClientOptions, backoff: Backoff, stats: BusStats, timeout_s: float
) -> LeanClient:
    """Make one attempt to connect, trying each server, and return a client that reconnects for ever.

    Raises:
        Misconfigured: credentials or certificate refused, TLS not offered, or the server is too old.
        Unavailable: nothing answered in time.
    """
    client = LeanClient(stats, options.max_pending_bytes)
    reports: list[Exception] = []

    def pick_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """Return a random server and the delay before it, as nats-py asks while it reconnects."""
        return random.choice(servers), backoff.next_s()

    async def on_error(error: Exception) -> None:
        if client.watcher is None:
            reports.append(error)
        else:
            await options.on_error(error)

    try:
        await asyncio.wait_for(
            client.connect(
                servers=address.servers,
                user=address.user,
                password=address.password,
                token=address.token,
                name=options.name,
                tls=options.tls,
                error_cb=on_error,
                reconnected_cb=options.on_reconnected,
                reconnect_to_server_handler=pick_server,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=_ATTEMPT_S,  # type: ignore[arg-type]  # nats-py says int, asyncio takes it
                ping_interval=options.ping_interval_s,  # type: ignore[arg-type]  # as above
                max_outstanding_pings=2,
                pending_size=0,  # what is published while down is refused, not sent late
            ),
            timeout_s,
        )
        check_version(str(client.server_info.get("version", "")))
    except (OSError, errors.Error) as exc:  # TimeoutError is an OSError
        await client.close_now()
        cause = reports[-1] if reports and isinstance(exc, errors.NoServersError) else exc
        raise _explain(cause, address) from exc
    except BaseException:
        await client.close_now()
        raise
    client.options["allow_reconnect"] = True
    client.options["max_reconnect_attempts"] = -1
    return client


def _explain(error: Exception, address: ServerAddress) -> Misconfigured | Unavailable:
    text = str(error) or type(error).__name__
    if isinstance(error, errors.AuthorizationError) or _CREDENTIALS_REFUSED.search(text):
        return Misconfigured(f"NATS at {address.shown} refuses the credentials in TIDINGS_NATS_URL")
    if isinstance(error, errors.SecureConnRequiredError):
        return Misconfigured(f"NATS at {address.shown} does not offer TLS, which the tls:// URL asks for")
    if isinstance(error, ssl.SSLError):
        return Misconfigured(f"TLS with NATS at {address.shown} fails: {text}")
    return Unavailable(f"NATS at {address.shown} cannot be reached: {text}")
