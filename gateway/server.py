"""Listener and drain.

uvicorn's own shutdown closes all sockets in one instant and waits for streams for ever. So the drain comes first:
readiness fails, the listeners close, clients get `disconnect` with a time to reconnect, in paced slices, and what is
left after the deadline is cut.
"""

import asyncio
import contextlib
import errno
import logging
import random
import socket
from collections.abc import Iterator
from functools import partial

import structlog
import uvicorn
from starlette.types import ASGIApp

from gateway.gateway import Gateway
from gateway.http.protocol import LimitedHttpProtocol
from gateway.ws.handshake import UpgradeHandler, Upgrades
from gateway.ws.protocol import ServerContext
from gateway.ws.sniff import SnifferFactory
from gateway.ws.timers import Keepalive
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


class Server(uvicorn.Server):
    """uvicorn with our protocols, our signals and our drain."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        # It warns of every malformed request, and untrusted clients do not choose what is in our log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._gateway = gateway
        settings = gateway.settings
        self._keepalive = Keepalive(settings.heartbeat_interval_ms / 1000, settings.idle_timeout_s)
        super().__init__(
            uvicorn.Config(
                app,
                ws="none",  # upgrades never reach uvicorn's own choice
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
                loop="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=1,
                proxy_headers=False,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with our protocols. Stands for uvicorn's, which lets a TLS handshake take a minute."""
        config, state, gateway = self.config, self.server_state, self._gateway
        context = ServerContext(gateway.settings, self._keepalive, gateway.on_limit, state.connections)
        upgrades = Upgrades(context, UpgradeHandler(gateway))
        make_http = partial(
            LimitedHttpProtocol,
            config,
            state,
            self.lifespan.state,
            context=context,
            start_upgrade=upgrades.start,
        )
        make = SnifferFactory(context, upgrades.rules.serves, upgrades.start, make_http, tls=config.is_ssl)
        limit_s = gateway.settings.handshake_timeout_s if config.is_ssl else None
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                make, sock=listener, ssl=config.ssl, backlog=config.backlog, ssl_handshake_timeout=limit_s
            )
            for listener in sockets or []
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process's lifecycle."""
        yield

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until cancelled or stopped."""
        self._gateway.tasks.spawn(self._tick(), "keepalive", critical=True)
        await self.serve(sockets=[listener])

    async def drain(self) -> None:
        """Disconnect all clients, paced; return when they are gone or the time is up."""
        gateway = self._gateway
        gateway.connections.drain()
        for server in self.servers:
            server.close()
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
        await self._wait_until_gone(_CLOSE_WAIT_S)
        for client in gateway.connections:
            client.abort()

    async def _wait_until_gone(self, limit_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + limit_s
        # Clients leave by themselves, one at a time: there is no one event that says that all are gone.
        while self._gateway.connections and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_KEEPALIVE_TICK_S)
            self._keepalive.tick(loop.time())
