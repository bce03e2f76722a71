"""What all connections of one server share."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from gateway.limits import Limit
from gateway.ws.keepalive import Keepalive
from gateway.ws.timeouts import TimeoutQueue
from services.settings import Settings

if TYPE_CHECKING:
    from gateway.ws.protocol import WebSocketProtocol
    from gateway.ws.request import UpgradeRequest


class Entrance(Protocol):
    """Decides about upgrades: calls the link's `accept` or `refuse`, at once or later."""

    def serves(self, path: str) -> bool:
        """Whether WebSockets are served there."""

    def decide(self, link: "WebSocketProtocol", request: "UpgradeRequest") -> Coroutine[Any, Any, None]:
        """Return what decides about one upgrade. It handles its own faults."""


class ServerContext:
    """Made once for a server, and referred to by each connection instead of all this."""

    def __init__(
        self,
        settings: Settings,
        keepalive: Keepalive,
        on_limit: Callable[[Limit], object],
        connections: set[Any],
        entrance: Entrance,
    ) -> None:
        self.settings = settings
        self.keepalive = keepalive
        self.on_limit = on_limit
        self.connections = connections  # uvicorn's: it closes them in the end, and waits for them
        self.entrance = entrance
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.handshakes: TimeoutQueue[WebSocketProtocol] = TimeoutQueue(
            settings.handshake_timeout_s, lambda link: link.on_handshake_late()
        )
