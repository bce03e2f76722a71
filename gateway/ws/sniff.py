"""What a connection is before it has asked for anything.

An ordinary upgrade goes from here to its WebSocket, and everything else to the HTTP protocol, with the bytes that came. A
client has `handshake_timeout_s` for its TLS handshake (asyncio cuts it), and again for its first bytes; for the rest of a
head that came in pieces, HTTP's clock starts then.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.limits import Limit
from gateway.ws.context import ServerContext
from gateway.ws.protocol import WebSocketProtocol
from gateway.ws.request import ordinary_upgrade
from gateway.ws.timeouts import TimeoutQueue


class ProtocolSniffer(asyncio.Protocol):
    """One connection until its first bytes."""

    __slots__ = ("_context", "_in_tls", "_make_http", "_silent", "_transport")

    def __init__(
        self,
        context: ServerContext,
        in_tls: "TimeoutQueue[ProtocolSniffer]",
        silent: "TimeoutQueue[ProtocolSniffer]",
        make_http: Callable[[], asyncio.Protocol],
    ) -> None:
        self._context = context
        self._in_tls = in_tls
        self._silent = silent
        self._make_http = make_http
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # set by connection_made, first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock. With TLS, this is the end of its handshake."""
        self._in_tls.discard(self)
        self._transport = cast(asyncio.Transport, transport)
        self._context.connections.add(self)
        self._silent.add(self)

    def data_received(self, data: bytes) -> None:
        """Hand the connection over to who speaks what it wants."""
        self._leave()
        context, transport = self._context, self._transport
        request = ordinary_upgrade(data, context.settings.max_head_bytes, context.entrance.serves)
        if request is not None:
            WebSocketProtocol(context, transport).begin(request)
            return
        http = self._make_http()
        transport.set_protocol(http)
        http.connection_made(transport)
        http.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        """Forget it."""
        self._leave()

    def shutdown(self) -> None:
        """Close: uvicorn's last call."""
        self._transport.close()

    def on_late(self) -> None:
        """Close: browsers open connections in advance, and to one that never asked there is nothing to say."""
        self._context.on_limit(Limit.HEAD_TIME)
        self._transport.close()

    def on_tls_late(self) -> None:
        """Count a TLS handshake that took too long or failed: in neither case does asyncio say anything."""
        self._context.on_limit(Limit.TLS_HANDSHAKE)

    def _leave(self) -> None:
        self._silent.discard(self)
        self._context.connections.discard(self)


def sniffer_factory(
    context: ServerContext, make_http: Callable[[], asyncio.Protocol], *, tls: bool = False
) -> Callable[[], ProtocolSniffer]:
    """Return what makes the protocol of each new connection, which with TLS happens before the handshake."""
    limit_s = context.settings.handshake_timeout_s
    in_tls: TimeoutQueue[ProtocolSniffer] = TimeoutQueue(limit_s, ProtocolSniffer.on_tls_late)
    silent: TimeoutQueue[ProtocolSniffer] = TimeoutQueue(
        context.settings.handshake_timeout_s, ProtocolSniffer.on_late
    )

    def make() -> ProtocolSniffer:
        sniffer = ProtocolSniffer(context, in_tls, silent, make_http)
        if tls:
            in_tls.add(sniffer)
        return sniffer

    return make
