"""Requests to the HTTP API, as this user."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from tidings_client.credentials import Credentials, Shown
from tidings_client.endpoint import Endpoint, QueryValue
from tidings_client.errors import ServerError
from tidings_client.generated.http import ANSWERS
from tidings_client.refusal import UNREADABLE, blocked, refusal

_TIMEOUT_S = 10.0
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Http:
    """Requests to one server. Connections are kept open until `close`."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials, given: httpx.AsyncClient | None) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._given = given
        self._own: httpx.AsyncClient | None = None

    async def request(
        self,
        operation: str,
        path: Mapping[str, str],
        query: Mapping[str, QueryValue],
        body: object,
        headers: Mapping[str, str] = NO_HEADERS,
        read_timeout: float = _TIMEOUT_S,
    ) -> Any:
        """Carry out one operation and return its answer, typed.

        Raises:
            TidingsError: the server refused the request or could not be reached.
            ValueError: the operation does not exist, or a part of its path is missing.
        """
        if operation not in ANSWERS:
            raise ValueError(f"no such operation: {operation!r} (they look like 'GET /api/rooms')")
        method, _, template = operation.partition(" ")
        missing = [part for part in re.findall(r"\{(\w+)\}", template) if not path.get(part)]
        if missing:
            raise ValueError(f"{operation} needs {missing[0]!r} in `path`")
        filled = re.sub(r"\{(\w+)\}", lambda part: quote(path[part[1]], safe=""), template)
        content = None if body is None else msgspec.json.encode(body)
        kind = {} if content is None else {"Content-Type": "application/json"}
        response = await self._send(method, filled, query, {**headers, **kind}, content, read_timeout)
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        try:
            return msgspec.json.decode(response.content, type=ANSWERS[operation])
        except UNREADABLE as fault:
            raise blocked(response.status_code) from fault

    async def open(
        self, path: str, query: Mapping[str, QueryValue], headers: Mapping[str, str]
    ) -> httpx.Response:
        """Open a stream, which the caller closes. Raises a TidingsError if it is refused."""
        # A stream has no end. The watchdog detects its silence.
        return await self._send("GET", path, query, headers, None, None)

    async def close(self) -> None:
        """Close all connections. The next request opens a new one."""
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, QueryValue],
        headers: Mapping[str, str],
        content: bytes | None,
        read_timeout: float | None,
    ) -> httpx.Response:
        """Send a request. Without a time limit for its answer, that is a stream."""
        stream = read_timeout is None

        async def attempt(shown: Shown) -> httpx.Response:
            request = self._client.build_request(
                method,
                self._endpoint.http(path, {**query, **shown.query}),
                headers={**headers, **shown.headers},
                content=content,
                timeout=httpx.Timeout(_TIMEOUT_S, read=read_timeout),
            )
            try:
                response = await self._client.send(request, stream=True)
                if response.is_success and stream:
                    return response
                try:
                    await response.aread()
                finally:
                    await response.aclose()
            except httpx.HTTPError as fault:
                reason = str(fault) or type(fault).__name__
                raise ServerError(
                    f"the server cannot be reached: {reason}", code="unavailable", retryable=True
                ) from fault
            if not response.is_success:
                raise refusal(response.status_code, response.headers.get("Retry-After"), response.content)
            return response

        return await self._credentials.show(attempt)

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = httpx.AsyncClient()
        return self._own
