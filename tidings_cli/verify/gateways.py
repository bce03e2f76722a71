"""Connecting to any of several gateways, and how long to wait before the next attempt."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from services.wire.codec import SUBPROTOCOL_JSON

_OPEN_S = 15.0  # the server's own limit for a handshake is 10 s, and it answers
_MAX_BYTES = 64 * 1024 * 1024  # a resume may carry hundreds of messages
_PING_S = 10.0
_PONG_S = 15.0


class CannotConnect(Exception):
    """No connection came about. `retry_after_s` is what the gateway asked for, 0 where it said nothing."""

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


def socket_url(url: str, query: dict[str, str]) -> str:
    """Return the WebSocket address behind a gateway's HTTP address."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/ws", urlencode(query), ""))


@dataclass(frozen=True, slots=True)
class Gateways:
    """The addresses of one deployment; several where no load balancer stands before them."""

    urls: Sequence[str]
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def open(self, place: int, username: str, session: str) -> ClientConnection:
        """Connect to the gateway at `place` in the list, which goes round; `session` brings an anonymous user back.

        Raises:
            CannotConnect: refused, out of reach or too slow.
        """
        query = {"username": username} | ({"session": session} if session else {})
        try:
            return await connect(
                socket_url(self.urls[place % len(self.urls)], query),
                additional_headers=self.headers,
                subprotocols=[SUBPROTOCOL_JSON],  # type: ignore[list-item]  # a NewType of str
                max_size=_MAX_BYTES,
                open_timeout=_OPEN_S,
                ping_interval=_PING_S,
                ping_timeout=_PONG_S,
                compression=None,
                proxy=None,
            )
        except InvalidStatus as fault:
            response = fault.response
            said = response.headers.get("Retry-After", "")
            raise CannotConnect(
                f"HTTP {response.status_code}", float(said) if said.isdigit() else 0.0
            ) from None
        except ConnectionRefusedError:
            raise CannotConnect(
                "connection refused: does Tidings run there? `tidings up` starts it"
            ) from None
        except (InvalidHandshake, OSError, EOFError) as fault:  # TimeoutError is an OSError
            raise CannotConnect(str(fault) or type(fault).__name__) from None
