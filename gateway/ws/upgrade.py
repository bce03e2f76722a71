"""Who comes in at `/ws` and `/ws/echo`: every upgrade passes here, and nothing after it does (ADR 0007)."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import parse_qsl, unquote

import structlog
from starlette.responses import Response

from gateway.api.responses import refusal_response, too_many, too_many_from_there
from gateway.auth.expiry import to_ms
from gateway.auth.identity import AuthRefused
from gateway.gateway import Gateway
from gateway.ws.connection import Connection
from gateway.ws.echo import Echo
from gateway.ws.protocol import WebSocketProtocol
from gateway.ws.request import UpgradeRequest
from services.bus.errors import BusError
from services.wire import server
from services.wire.codec import CODECS, JSON, PROTOCOL_VERSION
from services.wire.codes import ErrorCode
from services.wire.records import UNSET, Position

log = structlog.get_logger(__name__)

_RETRY_MS = 1000

# Hands the connection over, and the place with it; False where the client is gone by then.
Open = Callable[[WebSocketProtocol, UpgradeRequest, str], Awaitable[bool]]


class UpgradeHandler:
    """What every upgrade passes: the accept rate, the place it comes from, the page that asks, and who it is."""

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

    async def decide(self, link: WebSocketProtocol, request: UpgradeRequest) -> None:
        """Hand the connection over, or answer why not."""
        try:
            refusal = await self._decide(link, request)
        except Exception:
            # Whatever went wrong is our fault, and nobody above could answer the client.
            log.exception("a handshake failed")
            refusal = refusal_response(ErrorCode.INTERNAL, "something went wrong here")
        if refusal is not None:
            _refuse(link, refusal)

    async def _decide(self, link: WebSocketProtocol, request: UpgradeRequest) -> Response | None:
        gateway = self._gateway
        open_it = self._open_at.get(unquote(request.path))
        if open_it is None:
            return refusal_response(ErrorCode.NOT_FOUND, "no WebSockets are served at this path")
        if wait_s := gateway.accept_wait_s():
            return too_many(wait_s)
        place = gateway.enter(link.client_address, request.all)
        if place is None:
            return too_many_from_there()
        opened = False
        try:
            gateway.authenticator.origins.check(request.headers)
            opened = await open_it(link, request, place)
        except (AuthRefused, BusError) as fault:
            return self._refusal(fault)
        finally:
            if not opened:
                gateway.addresses.leave(place)
        return None

    async def _open_client(self, link: WebSocketProtocol, request: UpgradeRequest, place: str) -> bool:
        """`GET /ws?username=U&channels=a,b&session=S`: a client's connection.

        Raises:
            AuthRefused, BusError: the upgrade is refused.
        """
        gateway = self._gateway
        query: Mapping[str, str] = dict(parse_qsl(request.query, keep_blank_values=True))
        identity = await gateway.authenticator.authenticate(request.headers, query)
        codec = CODECS.get(link.subprotocol or "", JSON)
        origin = request.headers.get("origin")
        connection = Connection(gateway, link, identity, codec, secrets.token_hex(8), place, origin)
        wanted = [name for name in query.get("channels", "").split(",") if name]
        gateway.inboxes.open_with_callback(connection, partial(self._welcome, link, connection, wanted))
        return True

    def _welcome(
        self,
        link: WebSocketProtocol,
        connection: Connection,
        wanted: list[str],
        position: Position | BusError,
    ) -> None:
        """Let a client in who has everything but an answer."""
        gateway, identity = self._gateway, connection.stay.identity
        refusal: Response | None = None
        try:
            if isinstance(position, BusError):
                refusal = self._refusal(position)
            else:
                gateway.authenticator.require_current(identity)  # a revocation may have come meanwhile
                if connection.open(self._greeting(connection, position), position, wanted):
                    return
        except AuthRefused as fault:
            refusal = self._refusal(fault)
        except Exception:
            log.exception("a handshake failed")
            refusal = refusal_response(ErrorCode.INTERNAL, "something went wrong here")
        gateway.inboxes.leave(connection)
        connection.stay.end()
        if refusal is not None:
            _refuse(link, refusal)

    def _greeting(self, connection: Connection, position: Position) -> server.Welcome:
        gateway, identity = self._gateway, connection.stay.identity
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

    async def _open_echo(self, link: WebSocketProtocol, _request: UpgradeRequest, place: str) -> bool:
        """`GET /ws/echo`: every message comes back as it came, whoever sends it."""
        return link.accept(Echo(link, partial(self._gateway.addresses.leave, place)))

    def _refusal(self, fault: AuthRefused | BusError) -> Response:
        """Count a refusal, and return how it is answered."""
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


def _refuse(link: WebSocketProtocol, response: Response) -> None:
    link.refuse(response.status_code, response.raw_headers, bytes(response.body))
