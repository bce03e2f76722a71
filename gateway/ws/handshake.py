"""What a handshake agrees on: the subprotocol and compression; and how it is refused.

An ordinary request without compression is answered here. The library decides about every other one, and what it refuses.
"""

import base64
import hashlib
import http
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter, Subprotocol

from gateway.ws.fallback import SILENT, FallbackParser
from gateway.ws.request import UpgradeRequest
from services.settings import Settings
from services.wire.codec import CODECS

_WINDOW_BITS = 15  # the window with which shared frames are compressed (`gateway.delivery.encoded_message`)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §4.2.2
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes
_OFFERS = re.compile(r"[A-Za-z0-9._-]+(?:,[ \t]*[A-Za-z0-9._-]+)*")


class SharedDeflate(ServerPerMessageDeflateFactory):
    """Agrees on permessage-deflate only where frames can be shared: without context takeover, with one window.

    An offer that asks for a smaller window of ours is declined (RFC 7692 §7.1.2.1): its client could not inflate
    what is compressed once for everybody. The connection is then not compressed, or another offer is taken.
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
        """Decline what the base class would agree to with a smaller window."""
        answer, extension = super().process_request_params(params, accepted_extensions)
        if extension.local_max_window_bits != _WINDOW_BITS:
            raise NegotiationError("frames are shared by all clients, with one window")
        return answer, extension


@dataclass(frozen=True, slots=True)
class Accepted:
    """What to answer an upgrade with, once its client is let in. `core` is there where an extension needs it.

    `early` is what the client sent before it had the answer: it is the first of what comes.
    """

    answer: bytes
    subprotocol: str | None = None
    core: FallbackParser | None = None
    early: bytes = b""


@dataclass(frozen=True, slots=True)
class Rejected:
    """What to answer a request with that is no upgrade."""

    answer: bytes


def negotiate(request: UpgradeRequest, settings: Settings) -> Accepted | Rejected:
    """Return what the handshake comes to (RFC 6455 §4.2)."""
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
    core = None
    if library.extensions:
        core = FallbackParser(settings)
        core.extensions = library.extensions
    return Accepted(answer, library.subprotocol, core, request.early)


def choose_subprotocol(offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Return the first offered subprotocol that we speak; none is no reason to refuse (JSON is the default)."""
    return next((name for name in offered if name in CODECS), None)


def http_answer(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Return an HTTP response after which the connection is closed."""
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}".encode()]
    lines += [b"%b: %b" % (name, value) for name, value in headers]
    return b"\r\n".join([*lines, b"connection: close", b"", body])
