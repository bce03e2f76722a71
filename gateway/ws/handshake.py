"""The ASGI side of an upgrade (ADR 0003).

The application sees an ordinary `websocket` scope, with one extension: `tidings.upgrade`, whose `link` accepts the
connection for a handler that is no coroutine. After that, ASGI is done with this connection. An application that
declines instead answers with the `websocket.http.response` extension or with `websocket.close`.
"""

from typing import Any
from urllib.parse import unquote

from websockets.http11 import Request

EXTENSION = "tidings.upgrade"


def upgrade_scope(
    request: Request,
    link: object,
    *,
    client: tuple[str, int] | None,
    server: tuple[str, int | None] | None,
    secure: bool,
    state: dict[str, Any],
) -> dict[str, Any]:
    """Return the ASGI scope of an upgrade request."""
    path, _, query = request.path.partition("?")
    subprotocols = [
        token.strip()
        for header in request.headers.get_all("Sec-WebSocket-Protocol")
        for token in header.split(",")
    ]
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if secure else "ws",
        "server": server,
        "client": client,
        "root_path": "",
        "path": unquote(path),
        "raw_path": path.encode("latin-1", "replace"),
        "query_string": query.encode("latin-1", "replace"),
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1", "surrogateescape"))
            for name, value in request.headers.raw_items()
        ],
        "subprotocols": subprotocols,
        "state": state.copy(),
        "extensions": {"websocket.http.response": {}, EXTENSION: {"link": link}},
    }


class Denial:
    """Collects what an application sends instead of accepting."""

    __slots__ = ("body", "complete", "headers", "status")

    def __init__(self) -> None:
        self.status = 403
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False

    def on_event(self, event: dict[str, Any]) -> None:
        """Take one ASGI send event.

        Raises:
            RuntimeError: the application speaks WebSocket over ASGI, which this server does not carry.
        """
        match event["type"]:
            case "websocket.close":
                self.body = b"Not found" if self.status == 404 else b"Forbidden"
                self.complete = True
            case "websocket.http.response.start":
                self.status = event["status"]
                self.headers = list(event.get("headers", ()))
            case "websocket.http.response.body":
                self.body += event.get("body", b"")
                self.complete = not event.get("more_body", False)
            case other:
                raise RuntimeError(f"{other}: after the handshake messages do not travel by ASGI (ADR 0003)")
