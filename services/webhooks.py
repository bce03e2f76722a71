"""Posting signed JSON to applications' servers: one attempt, within a total time.

What to do when an attempt fails is the caller's decision; `NotTaken` says whether and when to try again.
"""

import asyncio
import email.utils
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from datetime import UTC

import httpx

TIMESTAMP_HEADER = "Tidings-Timestamp"
SIGNATURE_HEADER = "Tidings-Signature"
# For the whole attempt, from connecting to the last header of the answer, however slowly bytes come.
ATTEMPT_S = 5.0
MAX_RETRY_AFTER_S = 300.0
# Read of an answer's body, so that its connection can be used again. Nothing of it is kept.
MAX_ANSWER_BYTES = 65_536

_PASSING_4XX = (408, 429)


class NotTaken(Exception):
    """A receiver did not take a post.

    Attributes:
        reason: for counters: `timeout`, `unreachable`, `3xx`, `4xx`, `5xx`.
        status: of the answer, 0 without one.
        retry: whether to try again: not after 4xx, except 408 and 429.
        perhaps: the receiver may have accepted it; its answer is missing.
        after_s: the receiver's `Retry-After`, at most `MAX_RETRY_AFTER_S`; 0 if absent.
    """

    def __init__(
        self, reason: str, *, status: int = 0, retry: bool = True, perhaps: bool = False, after_s: float = 0.0
    ) -> None:
        super().__init__(f"HTTP {status}" if status else reason)
        self.reason = reason
        self.status = status
        self.retry = retry
        self.perhaps = perhaps
        self.after_s = after_s


def signature(secret_keys: Sequence[str], timestamp: int, body: bytes) -> str:
    """Return the signature header: `v1=HEX` of HMAC-SHA256 over `TIMESTAMP.BODY`, one for each secret."""
    signed = str(timestamp).encode() + b"." + body
    return ",".join(f"v1={hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()}" for key in secret_keys)


class WebhookSender:
    """Posts JSON, signed with each of `secret_keys` (none: unsigned). `attempt_s` bounds an attempt as a whole."""

    def __init__(self, secret_keys: Sequence[str] = (), *, attempt_s: float = ATTEMPT_S) -> None:
        self._secret_keys = list(secret_keys)
        self._attempt_s = attempt_s
        # Redirects are not followed: a receiver that moved is reconfigured, not guessed.
        self._client = httpx.AsyncClient(timeout=attempt_s, follow_redirects=False)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Post once. Any answer of 2xx means that it was taken. Raises NotTaken."""
        timestamp = int(time.time())
        sent = {"Content-Type": "application/json", "User-Agent": "tidings", **(headers or {})}
        if self._secret_keys:
            sent[TIMESTAMP_HEADER] = str(timestamp)
            sent[SIGNATURE_HEADER] = signature(self._secret_keys, timestamp, body)
        try:
            async with asyncio.timeout(self._attempt_s):
                async with self._client.stream("POST", url, content=body, headers=sent) as answer:
                    status, after_s = answer.status_code, _retry_after(answer.headers.get("Retry-After", ""))
                    if 200 <= status < 300:
                        await _drain(answer)
                        return
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise NotTaken("unreachable") from None
        except (TimeoutError, httpx.TimeoutException):
            raise NotTaken("timeout", perhaps=True) from None
        except httpx.HTTPError:
            raise NotTaken("unreachable", perhaps=True) from None
        passing = status in _PASSING_4XX or not 400 <= status < 500
        raise NotTaken(f"{status // 100}xx", status=status, retry=passing, after_s=after_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _drain(answer: httpx.Response) -> None:
    """Read the rest of an answer, so that the connection is kept; of a long or broken one it is closed."""
    size = 0
    try:
        async for piece in answer.aiter_raw():
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                return
    except httpx.HTTPError:
        return


def _retry_after(header: str) -> float:
    """Return the seconds that `Retry-After` names, as a number or as a date (RFC 9110, 10.2.3); 0 if it is neither."""
    if header.isascii() and header.isdigit():
        return min(float(header), MAX_RETRY_AFTER_S)
    try:
        at = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, at.timestamp() - time.time()), MAX_RETRY_AFTER_S)
