"""Fetching a set of public keys: over TLS, from where the configuration says, within limits of size and time."""

import asyncio
import http.client
import time
import urllib.error
import urllib.request
from typing import Any

from gateway.auth.jwks import FetchFailed
from services.settings_values import is_safe_keys_url

MAX_BYTES = 262_144
TIMEOUT_S = 5.0
_CHUNK_BYTES = 16_384


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: the address is the operator's word, not a server's."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_StayHere())


def check_url(url: str, setting: str) -> None:
    """Let pass https, and http on this machine.

    Raises:
        ValueError: keys fetched from there could be anybody's.
    """
    if not is_safe_keys_url(url):
        raise ValueError(f"{setting} is not https (http is for loopback alone)")


async def fetch(url: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return the document at `url`.

    Raises:
        FetchFailed: not in time, too large, another status than 200, or not reached.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.to_thread(_fetch, url, time.monotonic() + timeout_s, timeout_s)
    except TimeoutError:
        raise FetchFailed(f"no answer within {timeout_s:g} s") from None


def _fetch(url: str, deadline: float, timeout_s: float) -> bytes:
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310  # see check_url
    try:
        with _opener.open(request, timeout=timeout_s) as response:
            if response.status != http.client.OK:
                raise FetchFailed(f"status {response.status}")
            return _read(response, deadline)
    except urllib.error.HTTPError as answer:
        raise FetchFailed(f"status {answer.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as fault:
        raise FetchFailed(str(fault) or type(fault).__name__) from None


def _read(response: Any, deadline: float) -> bytes:
    """Read with one eye on the clock: the socket's own time limit begins anew with every byte."""
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BYTES:
            raise FetchFailed(f"larger than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise FetchFailed("too slow")
    return bytes(body)
