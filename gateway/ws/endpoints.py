"""The ASGI endpoints of `/ws` and `/ws/echo`: they decide about the handshake, and then they are done."""

import secrets
import time
from functools import partial

import structlog
from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from gateway.api.errors import ACCEPT_RATE, refusal_response, too_many, too_many_from_there
from gateway.auth.expiry import to_ms
from gateway.auth.refusal import AuthRefused
from gateway.core import Gateway
from gateway.session.limits import Limit
from gateway.ws.connection import Connection
from gateway.ws.echo import Echo
from gateway.ws.handshake import EXTENSION
from gateway.ws.protocol import WebSocketProtocol
from services.bus.errors import BusError
from services.wire import server
from services.wire.codec import CODECS, JSON
from services.wire.codes import ErrorCode
from services.wire.records import UNSET

log = structlog.get_logger(__name__)

PROTOCOL_VERSION = 1
_RETRY_MS = 1000


class _Endpoint:
    """What every upgrade passes first: the accept rate, the place it comes from, the page that asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the connection over, or answer why not."""
        gateway = self._gateway
        wait_s = gateway.admission.wait_s(time.monotonic())
        if wait_s:
            gateway.traffic.refused(ACCEPT_RATE, our_fault=False)
            gateway.traffic.limit(Limit.ACCEPT_RATE)
            await too_many(wait_s)(scope, receive, send)
            return
        headers, query = Headers(scope=scope), QueryParams(scope["query_string"])
        place = gateway.enter(scope)
        if place is None:
            await too_many_from_there()(scope, receive, send)
            return
        opened = False
        try:
            gateway.authenticator.origins.check(headers)
            opened = await self._open(scope["extensions"][EXTENSION]["link"], headers, query, place)
        except AuthRefused as refusal:
            self._gateway.traffic.refused(refusal.code.code, our_fault=False)
            await refusal_response(refusal.code, refusal.message)(scope, receive, send)
        except BusError as fault:
            log.info("connection refused: the bus is out of reach", reason=str(fault))
            self._gateway.traffic.refused(ErrorCode.UNAVAILABLE.code, our_fault=True)
            response = refusal_response(
                ErrorCode.UNAVAILABLE, "the server cannot take connections now", retry_after_ms=_RETRY_MS
            )
            await response(scope, receive, send)
        finally:
            if not opened:
                gateway.addresses.leave(place)

    async def _open(self, link: WebSocketProtocol, headers: Headers, query: QueryParams, place: str) -> bool:
        """Hand the connection over, and `place` with it; False where the client is gone by then.

        Raises:
            AuthRefused, BusError: the upgrade is refused.
        """
        raise NotImplementedError


class WebSocketEndpoint(_Endpoint):
    """`GET /ws?username=U&channels=a,b&session=S`: a client's connection."""

    async def _open(self, link: WebSocketProtocol, headers: Headers, query: QueryParams, place: str) -> bool:
        gateway = self._gateway
        identity = await gateway.authenticator.authenticate(headers, query)
        codec = CODECS.get(link.subprotocol or "", JSON)
        origin = headers.get("origin")
        connection = Connection(gateway, link, identity, codec, secrets.token_hex(8), place, origin)
        position = await gateway.inboxes.open(connection)
        try:
            gateway.authenticator.require_current(identity)  # a revocation may have come meanwhile
        except AuthRefused:
            gateway.inboxes.close(connection)
            raise
        settings = gateway.settings
        welcome = server.Welcome(
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
        wanted = [name for name in query.get("channels", "").split(",") if name]
        if not connection.open(welcome, position, wanted):
            gateway.inboxes.close(connection)
            return False
        return True


class EchoEndpoint(_Endpoint):
    """`GET /ws/echo`: every message comes back as it came."""

    async def _open(self, link: WebSocketProtocol, headers: Headers, query: QueryParams, place: str) -> bool:  # noqa: ARG002  # nobody is asked who they are
        return link.accept(Echo(link, partial(self._gateway.addresses.leave, place)))
