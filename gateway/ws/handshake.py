"""WebSocket handshakes: pending upgrades, and the rules for admitting a client (ADR 0007)."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import parse_qsl, unquote

import structlog
from starlette.responses import Response

from gateway.api.responses import hook_refusal, refusal_response, too_many, too_many_from_there
from gateway.auth.expiry import to_ms
from gateway.auth.identity import AuthRefused
from gateway.gateway import Gateway
from gateway.hooks.messages import ClientRequest, HookRefused, HookUnavailable
from gateway.limits import Limit
from gateway.ws.connection import Connection
from gateway.ws.frames import FrameReader
from gateway.ws.negotiation import UpgradeRequest, http_response, negotiate
from gateway.ws.protocol import CLOSE_GRACE_S, Handler, ServerContext, WebSocketProtocol, discard
from gateway.ws.timers import TimeoutQueue
from services.bus.errors import BusError
from services.tasks import start_eagerly
from services.wire import server
from services.wire.codec import CODECS, JSON, PROTOCOL_VERSION
from services.wire.codes import CloseCode, ErrorCode
from services.wire.records import UNSET, Position

log = structlog.get_logger(__name__)

_RETRY_MS = 1000


class PendingUpgrade(asyncio.Protocol):
    """A connection from its upgrade request to the answer; then a `WebSocketProtocol`, or closed."""

    __slots__ = (
        "_answered", "_close_timer", "_context", "_handler", "_opened", "_reading_paused", "_task", "_transport", "negotiated",
        "request",
    )  # fmt: skip

    def __init__(
        self, handler: "UpgradeHandler", transport: asyncio.Transport, request: UpgradeRequest
    ) -> None:
        self.request = request
        self.negotiated = negotiate(request, handler.context.settings)
        self._handler = handler
        self._context = handler.context
        self._transport = transport
        self._answered = False
        self._reading_paused = False
        self._task: asyncio.Task[None] | None = None
        self._opened: WebSocketProtocol | None = None
        self._close_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Let the handler decide; wait, reading nothing, if it needs time."""
        self._transport.set_protocol(self)
        self._context.connections.add(self)
        if not self.negotiated.accepted:
            self._answered = True
            self._answer_and_close(self.negotiated.answer)
            return
        task = start_eagerly(self._handler.handle(self))
        if not task.done():
            self._task = task
        if not self._answered:
            self._reading_paused = True
            self._handler.pending.add(self)
            # A client must wait for the answer (RFC 6455 §4.1). What one sends before that waits in the kernel.
            self._transport.pause_reading()

    @property
    def client_address(self) -> str:
        """The peer's address, empty where there is none (a Unix socket)."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    def accept(self, handler: Handler, first: bytes = b"") -> WebSocketProtocol | None:
        """Accept the upgrade and hand the connection to `handler`; `first` leaves in the same write.

        Returns None where the client is gone, or was answered before.
        """
        if not self._stop_waiting():
            return None
        context, negotiated = self._context, self.negotiated
        reader = FrameReader(context.settings.max_message_bytes, negotiated.parser)
        protocol = self._opened = WebSocketProtocol(context, self._transport, handler, reader)
        context.connections.discard(self)
        self._transport.set_protocol(protocol)
        self._transport.write(negotiated.answer + first)
        if self.request.early:  # after what the handler does first, and before the loop reads on
            context.loop.call_soon(protocol.data_received, self.request.early)
        return protocol

    def reject(self, response: Response) -> None:
        """Answer the upgrade with an HTTP response, and close. A client that was admitted before is disconnected."""
        if self._opened is not None:  # a fault came up behind the answer
            self._opened.close(CloseCode.INTERNAL)
        elif self._stop_waiting():
            body = bytes(response.body)
            self._answer_and_close(http_response(response.status_code, response.raw_headers, body))

    def on_timeout(self) -> None:
        """Give up a handshake that was not decided in time."""
        self._context.on_limit(Limit.HANDSHAKE_TIME)
        if self._stop_waiting():
            headers = ((b"content-type", b"text/plain"),)
            self._answer_and_close(http_response(408, headers, b"The handshake took too long.\n"))

    def _stop_waiting(self) -> bool:
        """Return False where the client is gone, or was answered before."""
        if self._answered:
            return False
        self._answered = True
        if self._reading_paused:
            self._reading_paused = False
            self._handler.pending.discard(self)
            self._transport.resume_reading()
        return True

    def _answer_and_close(self, answer: bytes) -> None:
        self._transport.write(answer)
        self._close_timer = self._context.loop.call_later(CLOSE_GRACE_S, self._transport.abort)
        self._transport.close()

    # --- what asyncio and the server call ---

    def data_received(self, data: bytes) -> None:
        """Ignore what follows a rejected upgrade; nothing is read before the answer."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        """Stop deciding."""
        self._answered = True
        self._context.connections.discard(self)
        self._handler.pending.discard(self)
        if self._close_timer is not None:
            self._close_timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def shutdown(self) -> None:
        """Close: the server stops."""
        self._transport.close()


class Echo:
    """The handler of `/ws/echo`: every message comes back unchanged. For connection checks and conformance suites."""

    __slots__ = ("_on_end", "protocol", "write")

    protocol: WebSocketProtocol  # set when the upgrade is accepted

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self.write: Callable[[bytes], None] = discard

    def on_message(self, data: bytes, binary: bool) -> None:
        """Send it back."""
        self.protocol.send_message(data, binary)

    def on_slow(self) -> None:
        """Close: a client that sends without reading would make us keep everything it sent."""
        self.protocol.close(CloseCode.SLOW_CLIENT)

    def disconnect_frame(self, code: CloseCode) -> bytes:  # noqa: ARG002  # the close code says it all
        """Return nothing: only the client's messages are sent."""
        return b""

    def on_close(self, code: int, *, by_client: bool) -> None:  # noqa: ARG002  # however it ended
        """Release the connection's slot in the per-IP limit."""
        self._on_end()


# Opens the connection, and takes over its slot in the per-IP limit; False where the client is gone by then.
Open = Callable[[PendingUpgrade, str], Awaitable[bool]]


class UpgradeHandler:
    """Admits or rejects upgrades: accept rate, per-IP limit, origin, authentication. Limits their time."""

    def __init__(self, gateway: Gateway, context: ServerContext) -> None:
        self.context = context
        self.pending: TimeoutQueue[PendingUpgrade] = TimeoutQueue(
            context.settings.handshake_timeout_s, PendingUpgrade.on_timeout
        )
        self._gateway = gateway
        settings = gateway.settings
        self._open_at: dict[str, Open] = {"/ws": self._open_client}
        echo = settings.auth == "open" if settings.echo_endpoint is None else settings.echo_endpoint
        if echo:
            self._open_at["/ws/echo"] = self._open_echo

    def serves(self, path: str) -> bool:
        """Whether WebSockets are served there."""
        return path in self._open_at

    def start(self, transport: asyncio.Transport, request: UpgradeRequest) -> None:
        """Take over the transport of a connection that asks for an upgrade."""
        PendingUpgrade(self, transport, request).start()

    async def handle(self, upgrade: PendingUpgrade) -> None:
        """Accept the upgrade, or reject it with the reason."""
        try:
            refusal = await self._admit(upgrade)
        except Exception:
            # The fault is ours, and no caller could answer the client.
            log.exception("a handshake failed")
            refusal = refusal_response(ErrorCode.INTERNAL, "an internal error occurred")
        if refusal is not None:
            upgrade.reject(refusal)

    async def _admit(self, upgrade: PendingUpgrade) -> Response | None:
        gateway, request = self._gateway, upgrade.request
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
            opened = await open_it(upgrade, ip_key)
        except (AuthRefused, HookRefused, HookUnavailable, BusError) as fault:
            return self._refusal(fault)
        finally:
            if not opened:
                gateway.connections.release_ip(ip_key)
        return None

    async def _open_client(self, upgrade: PendingUpgrade, ip_key: str) -> bool:
        """`GET /ws?username=U&channels=a,b&session=S`: a client's connection.

        Raises:
            AuthRefused, HookRefused, HookUnavailable, BusError: the upgrade is refused.
        """
        gateway, request, negotiated = self._gateway, upgrade.request, upgrade.negotiated
        query: Mapping[str, str] = dict(parse_qsl(request.query, keep_blank_values=True))
        connection_id, proxies = secrets.token_hex(8), gateway.connections.proxies
        admission = await gateway.admitter.admit(
            ClientRequest(
                request.headers,
                query,
                lambda: proxies.client_ip(upgrade.client_address, request.all(proxies.header)),
                connection_id,
            )
        )
        codec = CODECS.get(negotiated.subprotocol or "", JSON)
        origin, deflate = request.headers.get("origin"), negotiated.parser is not None
        make: Callable[..., Connection] = partial(Connection, gateway, admission.identity)
        if gateway.hooks is not None:
            from gateway.ws.hooked_connection import HookedConnection  # only where hooks are

            make = partial(HookedConnection, gateway, gateway.hooks, admission)
        connection = make(codec, connection_id, ip_key, origin, deflate=deflate)
        address = proxies.client_ip(upgrade.client_address, request.all(proxies.header))
        connection.address = "" if address == upgrade.client_address else address
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
            upgrade.reject(refusal)

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

    async def _open_echo(self, upgrade: PendingUpgrade, ip_key: str) -> bool:
        """`GET /ws/echo`."""
        echo = Echo(partial(self._gateway.connections.release_ip, ip_key))
        protocol = upgrade.accept(echo)
        if protocol is None:
            return False
        echo.protocol = protocol
        return True

    def _refusal(self, fault: AuthRefused | HookRefused | HookUnavailable | BusError) -> Response:
        """Count a refusal, and return its response."""
        counters = self._gateway.counters
        if isinstance(fault, HookRefused | HookUnavailable):
            is_refused = isinstance(fault, HookRefused)
            code = ErrorCode.REFUSED if is_refused else ErrorCode.UNAVAILABLE
            counters.request_failed(code.code, our_fault=not is_refused)
            return hook_refusal(fault)
        if isinstance(fault, BusError):
            message = "the server cannot take connections now"
            log.info("connection refused: the bus is out of reach", reason=str(fault))
        elif fault.code is ErrorCode.UNAVAILABLE:
            message = fault.message
            log.info("connection refused: its credentials cannot be checked", reason=message)
        else:
            counters.request_failed(fault.code.code, our_fault=False)
            return refusal_response(fault.code, fault.message)
        counters.request_failed(ErrorCode.UNAVAILABLE.code, our_fault=True)
        return refusal_response(ErrorCode.UNAVAILABLE, message, retry_after_ms=_RETRY_MS)
