"""Connections to any of several gateways."""

from collections.abc import Mapping, Sequence
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
    """No connection was opened. `retry_after_s` is the gateway's Retry-After, 0 without one."""

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


def http_url(url: str) -> str:
    """Return a gateway's address with a scheme and without a slash at its end."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds of a Retry-After header, 0 without one."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


def socket_url(url: str, query: dict[str, str]) -> str:
    """Return the WebSocket address behind a gateway's HTTP address."""
    parts = urlsplit(http_url(url))
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path + "/ws", urlencode(query), ""))


@dataclass(frozen=True, slots=True)
class Gateways:
    """The addresses of one deployment: the load balancer's, or those of its gateways."""

    urls: Sequence[str]
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Headers that authenticate a request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def url(self, index: int) -> str:
        """Return an address; the list repeats."""
        return self.urls[index % len(self.urls)]

    async def open(self, index: int, username: str, session: str) -> ClientConnection:
        """Connect to one of the gateways. `session` keeps an anonymous user's identity.

        Raises:
            CannotConnect: refused, unreachable or too slow.
        """
        query = {"username": username} | ({"session": session} if session else {})
        try:
            return await connect(
                socket_url(self.url(index), query),
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
            raise CannotConnect(f"HTTP {response.status_code}", retry_after_s(response.headers)) from None
        except ConnectionRefusedError:
            raise CannotConnect(
                "connection refused: does Tidings run there? `tidings up` starts it"
            ) from None
        except (InvalidHandshake, OSError, EOFError) as fault:  # TimeoutError is an OSError
            raise CannotConnect(str(fault) or type(fault).__name__) from None
