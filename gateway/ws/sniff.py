"""The protocol of a new connection, chosen by its first bytes.

Nearly every upgrade is one segment with one plain head: it is parsed here and goes to its WebSocket at once. All else goes to
the HTTP protocol, with the bytes that arrived; an upgrade found there ends at the same `UpgradeRequest`.

A client has `handshake_timeout_s` for its TLS handshake (asyncio cuts it), and again for its first bytes; for the rest of a
head that arrives in pieces, HTTP's time starts then.
"""

import asyncio
import re
from collections.abc import Callable
from typing import cast

from gateway.limits import Limit
from gateway.ws.handshake import UpgradeHandler
from gateway.ws.negotiation import UpgradeRequest
from gateway.ws.timers import TimeoutQueue

# What RFC 9112 §3-5 allows, and no more: a field that folds, a bare line feed or a control character is not ordinary.
_HEAD = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_WITH_MORE = ("content-length", "transfer-encoding", "expect")
_NEEDED = ("host", "upgrade")


def plain_upgrade(data: bytes, max_bytes: int, is_served: Callable[[str], bool]) -> UpgradeRequest | None:
    """Parse `data` as one complete, plain upgrade request; None where it is anything else."""
    if len(data) > max_bytes:
        return None
    head = _HEAD.fullmatch(data)
    if head is None:
        return None
    lines = []
    for line in head[2].decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        lines.append((name.lower(), value.strip(" \t")))
    request = UpgradeRequest("GET", head[1].decode("ascii"), lines)
    headers = request.headers
    if not is_served(request.path) or any(name in headers for name in _WITH_MORE):
        return None
    if any(name not in headers for name in _NEEDED) or (request.repeats and len(request.all("host")) > 1):
        return None
    return request


class ProtocolSniffer(asyncio.Protocol):
    """One connection until its first bytes."""

    __slots__ = ("_shared", "_transport")

    _transport: asyncio.Transport  # set by connection_made, first

    def __init__(self, shared: "SnifferFactory") -> None:
        self._shared = shared

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time-out. With TLS, this is the end of its handshake."""
        shared = self._shared
        shared.in_tls.discard(self)
        self._transport = cast(asyncio.Transport, transport)
        shared.context.connections.add(self)
        shared.silent.add(self)

    def data_received(self, data: bytes) -> None:
        """Hand the connection over to the protocol that the client speaks."""
        self._leave()
        shared, transport, upgrades = self._shared, self._transport, self._shared.upgrades
        request = plain_upgrade(data, shared.context.settings.max_head_bytes, upgrades.serves)
        if request is not None:
            upgrades.start(transport, request)
            return
        http = shared.make_http()
        transport.set_protocol(http)
        http.connection_made(transport)
        http.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        """Forget it."""
        self._leave()

    def shutdown(self) -> None:
        """Close: the server stops."""
        self._transport.close()

    def on_timeout(self) -> None:
        """Close without an answer: browsers open connections in advance."""
        self._shared.context.on_limit(Limit.HEAD_TIME)
        self._transport.close()

    def on_tls_timeout(self) -> None:
        """Count a TLS handshake that took too long or failed: asyncio reports neither."""
        self._shared.context.on_limit(Limit.TLS_HANDSHAKE)

    def _leave(self) -> None:
        self._shared.silent.discard(self)
        self._shared.context.connections.discard(self)


class SnifferFactory:
    """Makes the protocol of each new connection, which with TLS happens before the handshake."""

    def __init__(
        self, upgrades: UpgradeHandler, make_http: Callable[[], asyncio.Protocol], *, tls: bool = False
    ) -> None:
        self.context = upgrades.context
        self.upgrades = upgrades
        self.make_http = make_http
        self._tls = tls
        timeout_s = self.context.settings.handshake_timeout_s
        self.in_tls: TimeoutQueue[ProtocolSniffer] = TimeoutQueue(timeout_s, ProtocolSniffer.on_tls_timeout)
        self.silent: TimeoutQueue[ProtocolSniffer] = TimeoutQueue(timeout_s, ProtocolSniffer.on_timeout)

    def __call__(self) -> ProtocolSniffer:
        """Make one."""
        sniffer = ProtocolSniffer(self)
        if self._tls:
            self.in_tls.add(sniffer)
        return sniffer
