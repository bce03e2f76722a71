"""Connections to running gateways, for `tidings pub`, `sub` and `verify`.

Written against the protocol and not with the package `tidings-client`: the server's distribution does not depend on its
clients' distributions, and `verify` must see a fault that they share with the gateway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

from services.wire.codec import SUBPROTOCOL_JSON
from services.wire.records import ErrorBody
from tidings_cli import CommandFailed
from tidings_cli.checks.outcome import reason_of


class CannotConnect(CommandFailed):
    """No connection was opened. `retry_after_s` is the gateway's Retry-After, 0 without one."""

    def __init__(self, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        value = (headers or {}).get("Retry-After", "")
        self.retry_after_s = float(value) if value.isdigit() else 0.0


def http_url(url: str) -> str:
    """Return a gateway's address with a scheme and without a slash at its end."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


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

    async def open(self, index: int, query: dict[str, str], **options: Any) -> ClientConnection:
        """Connect to one of the gateways. `options` are those of `websockets.connect`.

        Raises:
            CannotConnect: refused, unreachable or too slow.
        """
        url = self.url(index)
        try:
            return await connect(
                socket_url(url, query),
                additional_headers=self.headers,
                subprotocols=[SUBPROTOCOL_JSON],  # type: ignore[list-item]  # a NewType of str
                **options,
            )
        except InvalidStatus as fault:
            answer = fault.response
            hint = " (give a token with --token or TIDINGS_TOKEN)" if answer.status_code == 401 else ""
            detail = f": {text}" if (text := _error_text(answer.body or b"")) else ""
            raise CannotConnect(
                f"{url} answered {answer.status_code}{hint}{detail}", answer.headers
            ) from None
        except (InvalidURI, InvalidHandshake) as fault:
            raise CannotConnect(f"{url} is not a Tidings gateway: {fault}") from None
        except ConnectionRefusedError:
            raise CannotConnect(
                f"cannot reach {url}: connection refused. Does Tidings run? Start it with `tidings up`,"
                " or name another address with --url."
            ) from None
        except (OSError, EOFError) as fault:  # TimeoutError is an OSError
            raise CannotConnect(f"cannot reach {url}: {reason_of(fault)}") from None


def _error_text(body: bytes | bytearray) -> str:
    """Return the text of an HTTP error: an error body of ours for a person, or any other text."""
    text = body.decode(errors="replace").strip()[:500]
    try:
        error = msgspec.json.decode(text, type=ErrorBody)
    except msgspec.DecodeError:
        return text
    retry = f"; try again in {error.retry_after_ms / 1000:g} s" if error.retry_after_ms else ""
    return f"{error.code}: {error.message}{retry}"
