"""Negotiation of a WebSocket handshake: an upgrade request, and its answer (RFC 6455 §4.2). No I/O.

An ordinary request without compression is negotiated here. The library decides about all others, and answers those that it
rejects.
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

from gateway.ws.frames import SILENT, FallbackParser
from services.settings import Settings
from services.wire.codec import CODECS

_WINDOW_BITS = 15  # the window with which shared frames are compressed (`gateway.ws.frames`)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §4.2.2
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes
_OFFERS = re.compile(r"[A-Za-z0-9._-]+(?:,[ \t]*[A-Za-z0-9._-]+)*")


class UpgradeRequest:
    """Method, path, query and headers. Names are in lower case. `repeats`: a name has more than one line.

    `early` is what the client sent behind the head, before it could have an answer.
    """

    __slots__ = ("early", "headers", "lines", "method", "path", "query", "repeats", "version")

    def __init__(
        self,
        method: str,
        target: str,
        lines: list[tuple[str, str]],
        *,
        version: str = "HTTP/1.1",
        early: bytes = b"",
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.lines = lines
        self.version = version
        self.early = early
        self.headers = dict(reversed(lines))  # the first line of each name
        self.repeats = len(self.headers) != len(lines)

    def all(self, name: str) -> list[str]:
        """Return every line of a name."""
        return [value for known, value in self.lines if known == name]


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
class Negotiated:
    """The answer to an upgrade request. An accepted one has a `parser` where an extension needs it."""

    answer: bytes
    accepted: bool = True
    subprotocol: str | None = None
    parser: FallbackParser | None = None


def negotiate(request: UpgradeRequest, settings: Settings) -> Negotiated:
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
        return Negotiated(_switching_protocols(key, subprotocol), subprotocol=subprotocol)
    return _negotiate_by_library(request, settings)


def _switching_protocols(key: str, subprotocol: str | None) -> bytes:
    # Not for security: it shows that the server speaks WebSocket.
    accepted = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest())
    chosen = f"\r\nSec-WebSocket-Protocol: {subprotocol}".encode() if subprotocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        b"%b%b\r\n\r\n" % (accepted, chosen)
    )


def _negotiate_by_library(request: UpgradeRequest, settings: Settings) -> Negotiated:
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
        return Negotiated(answer, accepted=False)
    parser = None
    if library.extensions:
        parser = FallbackParser(settings.max_message_bytes)
        parser.extensions = library.extensions
    return Negotiated(answer, subprotocol=library.subprotocol, parser=parser)


def choose_subprotocol(offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Return the first offered subprotocol that is supported; without one the connection speaks JSON."""
    return next((name for name in offered if name in CODECS), None)


def http_response(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Return an HTTP response after which the connection is closed."""
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}".encode()]
    lines += [b"%b: %b" % (name, value) for name, value in headers]
    return b"\r\n".join([*lines, b"connection: close", b"", body])
