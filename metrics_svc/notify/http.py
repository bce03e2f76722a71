"""Posting JSON to a receiver, and what is known when that fails."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Mapping

ATTEMPT_S = 5.0


class DeliveryFailed(Exception):
    """A receiver did not take a message. `perhaps` says that it may have, all the same (its answer is missing)."""

    def __init__(self, reason: str, *, perhaps: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.perhaps = perhaps


async def post_json(url: str, data: bytes, headers: Mapping[str, str]) -> None:
    """Post JSON; any answer of 2xx means that it was taken.

    Raises:
        DeliveryFailed: the receiver is not there, refuses, or does not answer in `ATTEMPT_S`.
    """
    await asyncio.to_thread(_post, url, data, headers)


def _post(url: str, data: bytes, headers: Mapping[str, str]) -> None:
    if not url.startswith(("http://", "https://")):
        raise DeliveryFailed("not an http or https URL")
    try:
        request = urllib.request.Request(  # noqa: S310  # checked above
            url, data, {"Content-Type": "application/json", "User-Agent": "tidings", **headers}
        )
        with urllib.request.urlopen(request, timeout=ATTEMPT_S) as answer:  # noqa: S310  # checked above
            answer.read(1024)
    except urllib.error.HTTPError as fault:
        with fault:
            raise DeliveryFailed(f"HTTP {fault.code}") from None
    except urllib.error.URLError as fault:
        # Raised before anything was sent: no such name, no such server, no TLS.
        raise DeliveryFailed(str(fault.reason)) from None
    except (OSError, ValueError) as fault:
        raise DeliveryFailed(str(fault) or type(fault).__name__, perhaps=isinstance(fault, OSError)) from None
