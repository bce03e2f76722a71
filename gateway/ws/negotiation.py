"""What a handshake agrees on: the subprotocol and compression; and how it is refused."""

import http
from collections.abc import Sequence
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter, Subprotocol

from gateway.ws.handshake import Denial
from services.settings import Settings
from services.wire.codec import CODECS

_WINDOW_BITS = 15  # the window with which shared frames are compressed (`gateway.delivery.outbound`)


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


def extensions(settings: Settings) -> list[SharedDeflate] | None:
    """Return the extensions to agree to."""
    return [SharedDeflate()] if settings.compression else None


def select_subprotocol(_core: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Return the first offered subprotocol that we speak; none is no reason to refuse (JSON is the default)."""
    return next((name for name in offered if name in CODECS), None)


def denial_response(denial: Denial) -> Response:
    """Return the HTTP response that an application chose instead of accepting."""
    status = http.HTTPStatus(denial.status)
    headers = Headers()
    for name, value in denial.headers:
        headers[name.decode("latin-1")] = value.decode("latin-1")
    headers["Connection"] = "close"
    if "Content-Length" not in headers:
        headers["Content-Length"] = str(len(denial.body))
    return Response(status.value, status.phrase, headers, denial.body)
