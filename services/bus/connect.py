"""One attempt to connect to NATS: addresses, credentials, TLS, the server's version.

nats-py's own first connect never gives up when reconnects are unlimited, not even on a wrong password, so one
attempt is made at a time, and the caller decides about the next.
"""

import asyncio
import random
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nats import errors
from nats.aio.client import Server

from services.backoff import Backoff
from services.bus.errors import Misconfigured, Unavailable
from services.bus.nats_client import LeanClient
from services.bus.stats import BusStats
from services.servers import NATS_MINIMUM, NatsAddress, parse_nats_url, parse_version, spell_version
from services.settings import Settings

_ATTEMPT_S = 2.0
_CREDENTIALS_REFUSED = re.compile(
    r"authorization violation|authentication|user authentication", re.IGNORECASE
)

ErrorCallback = Callable[[Exception], Awaitable[None]]


def nats_address(settings: Settings) -> NatsAddress:
    """Return the address in `nats_url`. Raises Misconfigured."""
    try:
        return parse_nats_url(settings.nats_url)
    except ValueError as fault:
        raise Misconfigured(f"TIDINGS_NATS_URL {fault}") from None


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS options, or None where no URL asks for TLS and nothing is configured.

    Certificates are always verified; nothing switches that off.

    Raises:
        Misconfigured: a file cannot be read, or is no certificate or key.
    """
    if not (settings.nats_ca or settings.nats_cert or "tls://" in settings.nats_url):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.nats_ca)
        if settings.nats_cert is not None:
            context.load_cert_chain(settings.nats_cert, settings.nats_key)
    except (OSError, ssl.SSLError) as fault:
        raise Misconfigured(f"TIDINGS_NATS_CA, TIDINGS_NATS_CERT or TIDINGS_NATS_KEY: {fault}") from fault
    return context


def check_version(version: str) -> None:
    """Refuse a server that is too old.

    Raises:
        Misconfigured: it is.
    """
    found = parse_version(version)
    if found < NATS_MINIMUM:
        raise Misconfigured(
            f"NATS server {spell_version(found)} is too old: {spell_version(NATS_MINIMUM)} or newer is needed"
        )


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client behaves once it is connected."""

    name: str
    ping_interval_s: float
    on_error: ErrorCallback
    tls: ssl.SSLContext | None
    on_reconnected: Callable[[], Awaitable[None]]


async def open_client(
    address: NatsAddress, options: ClientOptions, backoff: Backoff, stats: BusStats, timeout_s: float
) -> LeanClient:
    """Make one attempt to connect, trying each server, and return a client that reconnects for ever.

    Raises:
        Misconfigured: credentials or certificate refused, TLS not offered, or the server is too old.
        Unavailable: nothing answered in time.
    """
    client = LeanClient(stats)
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
    client.reconnect_forever()
    return client


def _explain(error: Exception, address: NatsAddress) -> Misconfigured | Unavailable:
    text = str(error) or type(error).__name__
    if isinstance(error, errors.AuthorizationError) or _CREDENTIALS_REFUSED.search(text):
        return Misconfigured(f"NATS at {address.shown} refuses the credentials in TIDINGS_NATS_URL")
    if isinstance(error, errors.SecureConnRequiredError):
        return Misconfigured(f"NATS at {address.shown} does not offer TLS, which the tls:// URL asks for")
    if isinstance(error, ssl.SSLError):
        return Misconfigured(f"TLS with NATS at {address.shown} fails: {text}")
    return Unavailable(f"NATS at {address.shown} cannot be reached: {text}")
