"""Listener and drain.

The drain: readiness fails, the listener closes, clients get `disconnect` with a time to reconnect, in paced slices, and
what is left after the deadline is cut. Then HTTP requests have a second to finish.
"""

import asyncio
import errno
import random
import socket
import ssl
from collections.abc import Sized

import structlog
from starlette.types import ASGIApp

from gateway.gateway import Gateway
from gateway.http.protocol import HttpProtocols
from gateway.ws.handshake import UpgradeHandler
from gateway.ws.protocol import CLOSE_GRACE_S, ServerContext
from gateway.ws.sniff import SnifferFactory
from services.lifecycle import CannotStart
from services.settings import Settings
from services.wire.codes import CloseCode

log = structlog.get_logger(__name__)

_BACKLOG = 4096  # a mass reconnect arrives faster than it is accepted
_SLICE_S = 0.1
_KEEPALIVE_TICK_S = 1.0
_CLOSE_WAIT_S = 1.0  # for the last close handshakes


def bind(settings: Settings) -> socket.socket:
    """Bind the listening socket; several gateways may share one port (SO_REUSEPORT).

    Raises:
        CannotStart: the address cannot be had, and why.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as fault:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        if fault.errno == errno.EADDRINUSE:
            raise CannotStart(f"{where} is in use by another program; choose another TIDINGS_PORT") from fault
        raise CannotStart(f"cannot listen on {where}: {fault.strerror}") from fault
    listener.setblocking(False)
    return listener


class Server:
    """Accepts connections, until it is stopped."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._gateway = gateway
        self._context = ServerContext(gateway.settings, gateway.on_limit)
        self._upgrades = UpgradeHandler(gateway, self._context)
        self._http = HttpProtocols(app, self._upgrades)

    async def start(self, listener: socket.socket) -> None:
        """Listen, and ping what is open."""
        settings = self._gateway.settings
        tls: ssl.SSLContext | None = None
        handshake_s: float | None = None
        shutdown_s: float | None = None
        if settings.tls_cert:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            handshake_s, shutdown_s = settings.handshake_timeout_s, CLOSE_GRACE_S
            tls.load_cert_chain(settings.tls_cert, settings.tls_key)
        make = SnifferFactory(self._upgrades, self._http, tls=tls is not None)
        self._server = await self._context.loop.create_server(
            make,
            sock=listener,
            ssl=tls,
            backlog=_BACKLOG,
            ssl_handshake_timeout=handshake_s,
            ssl_shutdown_timeout=shutdown_s,
        )
        self._gateway.tasks.spawn(self._tick(), "keepalive", critical=True)

    async def stop(self) -> None:
        """Disconnect all clients, paced; return when they are gone or the time is up."""
        gateway = self._gateway
        gateway.connections.drain()
        self._server.close()
        clients = list(gateway.connections)
        if clients:
            log.info("draining", clients=len(clients))
        budget_s = gateway.settings.drain_s
        # A few clients leave at once; many leave over all of the budget, so that other gateways are not overrun.
        slices = max(1, min(round((budget_s - _CLOSE_WAIT_S) / _SLICE_S), len(clients) // 25))
        spread_ms = int(1000 * min(budget_s, max(0.5, len(clients) / 1000)))
        for index in range(slices):
            for client in clients[index::slices]:
                client.disconnect(CloseCode.DRAIN, retry_after_ms=random.randint(0, spread_ms))
            if index + 1 < slices:
                await asyncio.sleep(_SLICE_S)
        await self._wait_until_gone(gateway.connections)
        for client in gateway.connections:
            client.abort()
        for connection in list(self._context.connections):  # handshakes and HTTP, too
            connection.shutdown()
        requests = self._http.requests
        await self._wait_until_gone(self._context.connections, requests)
        if requests:
            log.error("requests cancelled", requests=len(requests))
        for request in requests:
            request.cancel()

    async def _wait_until_gone(self, *open_ones: Sized) -> None:
        deadline = self._context.now() + _CLOSE_WAIT_S
        # They leave by themselves, one at a time: there is no one event that says that all are gone.
        while any(map(len, open_ones)) and self._context.now() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_KEEPALIVE_TICK_S)
            self._context.keepalive.tick(self._context.now())
