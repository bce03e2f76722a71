"""WebSocket handshakes: negotiation (RFC 6455 §4.2), pending upgrades, and the rules for admitting a client (ADR 0007).

An ordinary request without compression is negotiated here. The library decides about all others, and answers those that it
rejects.
"""

import asyncio
import base64
import hashlib
import http
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

import structlog
from starlette.responses import Response
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter, Subprotocol

from gateway.api.responses import refusal_response, too_many, too_many_from_there
from gateway.auth.expiry import to_ms
from gateway.auth.identity import AuthRefused
from gateway.gateway import Gateway
from gateway.limits import Limit
from gateway.ws.connection import Connection
from gateway.ws.echo import Echo
from gateway.ws.frames import SILENT, FallbackParser, FrameReader
from gateway.ws.protocol import CLOSE_GRACE_S, Handler, ServerContext, WebSocketProtocol
from gateway.ws.sniff import UpgradeRequest
from gateway.ws.timers import TimeoutQueue
from services.bus.errors import BusError
from services.settings import Settings
from services.tasks import start_eagerly
from services.wire import server
from services.wire.codec import CODECS, JSON, PROTOCOL_VERSION
from services.wire.codes import CloseCode, ErrorCode
from services.wire.records import UNSET, Position

log = structlog.get_logger(__name__)

_RETRY_MS = 1000
_WINDOW_BITS = 15  # the window with which shared frames are compressed (`gateway.ws.frames`)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §4.2.2
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes
_OFFERS = re.compile(r"[A-Za-z0-9._-]+(?:,[ \t]*[A-Za-z0-9._-]+)*")


class SharedDeflate(ServerPerMessageDeflateFactory):
    """Accepts permessage-deflate only where frames can be shared: without context takeover, with one window.

    An offer that asks for a smaller window of ours is declined (RFC 7692 §7.1.2.1): its client could not inflate
    what is compressed once for all. The connection is then not compressed, or another offer is accepted.
    """

    def __init__(self) -> None:
        super().__init__(
            server_no_context_takeover=True,
            client_no_context_takeover=True,  # so that a connection keeps no window
            server_max_window_bits=_WINDOW_BITS,
            client_max_window_bits=12,
            compress_settings={"memLevel": 5},
        )

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Any]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Decline a smaller window, which the base class accepts."""
        answer, extension = super().process_request_params(params, accepted_extensions)
        if extension.local_max_window_bits != _WINDOW_BITS:
            raise NegotiationError("frames are shared by all clients, with one window")
        return answer, extension


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to an upgrade, once its client is admitted. `parser` is there where an extension needs it.

    `early` is what the client sent before it had the answer.
    """

    answer: bytes
    subprotocol: str | None = None
    parser: FallbackParser | None = None
    early: bytes = b""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The answer to a request that is no upgrade."""

    answer: bytes


def negotiate(request: UpgradeRequest, settings: Settings) -> Accepted | Rejected:
    """Return the outcome of the handshake (RFC 6455 §4.2)."""
    headers = request.headers
    offered = headers.get("sec-websocket-protocol")
    if (
        request.method == "GET"
        and request.version == "HTTP/1.1"
        and not request.repeats
        and headers.get("upgrade", "").lower() == "websocket"
        and "upgrade" in [option.strip() for option in headers.get("connection", "").lower().split(",")]
        and headers.get("sec-websocket-version") == "13"
        and _KEY.fullmatch(key := headers.get("sec-websocket-key", ""))
        and (offered is None or _OFFERS.fullmatch(offered))
        and not (settings.compression and "sec-websocket-extensions" in headers)
    ):
        subprotocol = None
        if offered is not None:
            subprotocol = choose_subprotocol([Subprotocol(name.strip()) for name in offered.split(",")])
        return Accepted(switching_protocols(key, subprotocol), subprotocol, early=request.early)
    return _negotiate_by_library(request, settings)


def switching_protocols(key: str, subprotocol: str | None) -> bytes:
    # Not for security: it shows that the server speaks WebSocket.
    accepted = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest())
    chosen = f"\r\nSec-WebSocket-Protocol: {subprotocol}".encode() if subprotocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        b"%b%b\r\n\r\n" % (accepted, chosen)
    )


def _negotiate_by_library(request: UpgradeRequest, settings: Settings) -> Accepted | Rejected:
    library = ServerProtocol(
        extensions=[SharedDeflate()] if settings.compression else None,
        select_subprotocol=lambda _library, offered: choose_subprotocol(offered),
        logger=SILENT,
    )
    target = f"{request.path}?{request.query}" if request.query else request.path
    response = library.accept(Request(target, Headers(request.lines), request.method, request.version))
    library.send_response(response)
    answer = b"".join(library.data_to_send())
    if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
        return Rejected(answer)
    parser = None
    if library.extensions:
        parser = FallbackParser(settings.max_message_bytes)
        parser.extensions = library.extensions
    return Accepted(answer, library.subprotocol, parser, request.early)


def choose_subprotocol(offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Return the first offered subprotocol that is supported; without one the connection speaks JSON."""
    return next((name for name in offered if name in CODECS), None)


def http_response(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Return an HTTP response after which the connection is closed."""
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}".encode()]
    lines += [b"%b: %b" % (name, value) for name, value in headers]
    return b"\r\n".join([*lines, b"connection: close", b"", body])


class UpgradeRules(Protocol):
    """Decides about upgrades (`UpgradeHandler`)."""

    def serves(self, path: str) -> bool:
        """Whether WebSockets are served at a path."""

    def handle(self, upgrade: "PendingUpgrade", request: UpgradeRequest) -> Coroutine[Any, Any, None]:
        """Accept or reject one upgrade, at once or later. Handles its own faults."""


class Upgrades:
    """Starts the handshakes of one server, and limits their time."""

    def __init__(self, context: ServerContext, rules: UpgradeRules) -> None:
        self.context = context
        self.rules = rules
        self.pending: TimeoutQueue[PendingUpgrade] = TimeoutQueue(
            context.settings.handshake_timeout_s, PendingUpgrade.on_timeout
        )

    def start(self, transport: asyncio.Transport, request: UpgradeRequest) -> None:
        """Take over the transport of a connection that asks for an upgrade."""
        negotiated = negotiate(request, self.context.settings)
        upgrade = PendingUpgrade(self, transport, negotiated)
        if isinstance(negotiated, Accepted):
            upgrade.start(request)


class PendingUpgrade(asyncio.Protocol):
    """A connection from its upgrade request to the answer; then a `WebSocketProtocol`, or closed."""

    __slots__ = (
        "_answered", "_close_timer", "_context", "_negotiated", "_opened", "_reading_paused", "_task", "_transport", "_upgrades",
    )  # fmt: skip

    def __init__(
        self, upgrades: Upgrades, transport: asyncio.Transport, negotiated: Accepted | Rejected
    ) -> None:
        self._upgrades = upgrades
        self._context = upgrades.context
        self._transport = transport
        self._negotiated = negotiated if isinstance(negotiated, Accepted) else Accepted(b"")
        self._answered = False
        self._reading_paused = False
        self._task: asyncio.Task[None] | None = None
        self._opened: WebSocketProtocol | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        transport.set_protocol(self)
        self._context.connections.add(self)
        if isinstance(negotiated, Rejected):
            self._answered = True
            self._answer_and_close(negotiated.answer)

    def start(self, request: UpgradeRequest) -> None:
        """Let the rules decide; wait, reading nothing, if they need time."""
        task = start_eagerly(self._upgrades.rules.handle(self, request))
        if not task.done():
            self._task = task
        if not self._answered:
            self._reading_paused = True
            self._upgrades.pending.add(self)
            # A client must wait for the answer (RFC 6455 §4.1). What one sends before that waits in the kernel.
            self._transport.pause_reading()

    @property
    def client_address(self) -> str:
        """The peer's address, empty where there is none (a Unix socket)."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def deflate(self) -> bool:
        """Whether permessage-deflate was negotiated."""
        return self._negotiated.parser is not None

    @property
    def subprotocol(self) -> str | None:
        """The negotiated subprotocol, if the client asked for one that is supported."""
        return self._negotiated.subprotocol

    def accept(self, handler: Handler, first: bytes = b"") -> WebSocketProtocol | None:
        """Accept the upgrade and hand the connection to `handler`; `first` leaves in the same write.

        Returns None where the client is gone, or was answered before.
        """
        if not self._end():
            return None
        context, negotiated = self._context, self._negotiated
        reader = FrameReader(context.settings.max_message_bytes, negotiated.parser)
        protocol = self._opened = WebSocketProtocol(context, self._transport, handler, reader)
        context.connections.discard(self)
        self._transport.set_protocol(protocol)
        self._transport.write(negotiated.answer + first)
        if negotiated.early:  # after what the handler does first, and before the loop reads on
            context.loop.call_soon(protocol.data_received, negotiated.early)
        return protocol

    def reject(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer the upgrade with an HTTP response, and close. A client that was admitted before is disconnected."""
        if self._opened is not None:  # a fault came up behind the answer
            self._opened.close(CloseCode.INTERNAL)
        elif self._end():
            self._answer_and_close(http_response(status, headers, body))

    def on_timeout(self) -> None:
        """Give up a handshake that was not decided in time."""
        self._context.on_limit(Limit.HANDSHAKE_TIME)
        self.reject(408, ((b"content-type", b"text/plain"),), b"The handshake took too long.\n")

    def _end(self) -> bool:
        """Stop waiting; return False where the client is gone, or was answered before."""
        if self._answered:
            return False
        self._answered = True
        if self._reading_paused:
            self._reading_paused = False
            self._upgrades.pending.discard(self)
            self._transport.resume_reading()
        return True

    def _answer_and_close(self, answer: bytes) -> None:
        self._transport.write(answer)
        self._close_timer = self._context.loop.call_later(CLOSE_GRACE_S, self._transport.abort)
        self._transport.close()

    # --- what asyncio and uvicorn call ---

    def data_received(self, data: bytes) -> None:
        """Ignore what follows a rejected upgrade; nothing is read before the answer."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        """Stop deciding."""
        self._answered = True
        self._context.connections.discard(self)
        self._upgrades.pending.discard(self)
        if self._close_timer is not None:
            self._close_timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def shutdown(self) -> None:
        """Close: uvicorn's last call."""
        self._transport.close()


# Hands the connection over, with its slot in the per-IP limit; False where the client is gone by then.
Open = Callable[[PendingUpgrade, UpgradeRequest, str], Awaitable[bool]]


class UpgradeHandler:
    """Admits or rejects upgrades: accept rate, per-IP limit, origin, authentication."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        settings = gateway.settings
        self._open_at: dict[str, Open] = {"/ws": self._open_client}
        echo = settings.auth == "open" if settings.echo_endpoint is None else settings.echo_endpoint
        if echo:
            self._open_at["/ws/echo"] = self._open_echo

    def serves(self, path: str) -> bool:
        """Whether WebSockets are served there."""
        return path in self._open_at

    async def handle(self, upgrade: PendingUpgrade, request: UpgradeRequest) -> None:
        """Accept the upgrade, or reject it with the reason."""
        try:
            refusal = await self._admit(upgrade, request)
        except Exception:
            # The fault is ours, and no caller could answer the client.
            log.exception("a handshake failed")
            refusal = refusal_response(ErrorCode.INTERNAL, "an internal error occurred")
        if refusal is not None:
            _reject(upgrade, refusal)

    async def _admit(self, upgrade: PendingUpgrade, request: UpgradeRequest) -> Response | None:
        gateway = self._gateway
        open_it = self._open_at.get(unquote(request.path))
        if open_it is None:
            return refusal_response(ErrorCode.NOT_FOUND, "no WebSockets are served at this path")
        if wait_s := gateway.connections.accept_wait_s():
            return too_many(wait_s)
        ip_key = gateway.connections.reserve_ip(upgrade.client_address, request.all)
        if ip_key is None:
            return too_many_from_there()
        opened = False
        try:
            gateway.authenticator.origins.check(request.headers)
            opened = await open_it(upgrade, request, ip_key)
        except (AuthRefused, BusError) as fault:
            return self._refusal(fault)
        finally:
            if not opened:
                gateway.connections.release_ip(ip_key)
        return None

    async def _open_client(self, upgrade: PendingUpgrade, request: UpgradeRequest, ip_key: str) -> bool:
        """`GET /ws?username=U&channels=a,b&session=S`: a client's connection.

        Raises:
            AuthRefused, BusError: the upgrade is refused.
        """
        gateway = self._gateway
        query: Mapping[str, str] = dict(parse_qsl(request.query, keep_blank_values=True))
        identity = await gateway.authenticator.authenticate(request.headers, query)
        codec = CODECS.get(upgrade.subprotocol or "", JSON)
        origin = request.headers.get("origin")
        connection = Connection(
            gateway, identity, codec, secrets.token_hex(8), ip_key, origin, deflate=upgrade.deflate
        )
        wanted = [name for name in query.get("channels", "").split(",") if name]
        gateway.inboxes.open(connection, partial(self._welcome, upgrade, connection, wanted))
        return True

    def _welcome(
        self,
        upgrade: PendingUpgrade,
        connection: Connection,
        wanted: list[str],
        position: Position | BusError,
    ) -> None:
        """Admit a client whose inbox is open."""
        gateway, identity = self._gateway, connection.identity
        refusal: Response | None = None
        try:
            if isinstance(position, BusError):
                refusal = self._refusal(position)
            else:
                gateway.authenticator.require_current(identity)  # a revocation may have come meanwhile
                welcome = connection.encode(self._welcome_message(connection, position))
                if (protocol := upgrade.accept(connection, welcome)) is not None:
                    connection.start(protocol, position, wanted)
                    return
        except AuthRefused as fault:
            refusal = self._refusal(fault)
        except Exception:
            log.exception("a handshake failed")
            refusal = refusal_response(ErrorCode.INTERNAL, "an internal error occurred")
        gateway.inboxes.leave(connection)
        gateway.connections.discard(connection)
        if refusal is not None:
            _reject(upgrade, refusal)

    def _welcome_message(self, connection: Connection, position: Position) -> server.Welcome:
        gateway, identity = self._gateway, connection.identity
        settings = gateway.settings
        return server.Welcome(
            protocol=PROTOCOL_VERSION,
            user_id=identity.user_id,
            username=identity.username,
            connection_id=connection.connection_id,
            gateway=gateway.instance,
            session=identity.session or UNSET,
            inbox=position,
            heartbeat_interval=settings.heartbeat_interval_ms,
            max_message_bytes=settings.max_message_bytes,
            expires_at=UNSET if identity.expires_at is None else to_ms(identity.expires_at),
        )

    async def _open_echo(self, upgrade: PendingUpgrade, _request: UpgradeRequest, ip_key: str) -> bool:
        """`GET /ws/echo`: every message comes back unchanged."""
        echo = Echo(partial(self._gateway.connections.release_ip, ip_key))
        protocol = upgrade.accept(echo)
        if protocol is None:
            return False
        echo.protocol = protocol
        return True

    def _refusal(self, fault: AuthRefused | BusError) -> Response:
        """Count a refusal, and return its response."""
        counters = self._gateway.counters
        if isinstance(fault, AuthRefused) and fault.code is not ErrorCode.UNAVAILABLE:
            counters.request_failed(fault.code.code, our_fault=False)
            return refusal_response(fault.code, fault.message)
        if isinstance(fault, AuthRefused):
            message = fault.message
            log.info("connection refused: its credentials cannot be checked", reason=message)
        else:
            message = "the server cannot take connections now"
            log.info("connection refused: the bus is out of reach", reason=str(fault))
        counters.request_failed(ErrorCode.UNAVAILABLE.code, our_fault=True)
        return refusal_response(ErrorCode.UNAVAILABLE, message, retry_after_ms=_RETRY_MS)


def _reject(upgrade: PendingUpgrade, response: Response) -> None:
    upgrade.reject(response.status_code, response.raw_headers, bytes(response.body))
