"""Public keys of the configured issuers: fetched over TLS, cached, and refreshed in the background.

Nothing in a token names an address to fetch from: `iss` only chooses among the configured issuers, and `jku`, `x5u` and
`jwk` are not read. Each issuer has one set of keys, so equal `kid`s of two issuers are different keys. The algorithm
follows from the kind of key (RFC 8725 §3.1), see `_KINDS`; symmetric keys in a published set are ignored.

- The set is fetched when first needed, and again in the background when it is older than `FRESH_S`.
- While it cannot be fetched, the last one is used, for `STALE_S` at most.
- An unknown `kid` causes a fetch, at most one in `COOLDOWN_S` for one issuer, and is not remembered: untrusted clients
  may invent `kid`s.
- All requests that need the set while it is being fetched wait for the same fetch.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import httpx
import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.auth.identity import AuthRefused
from gateway.auth.tokens import VerificationKey
from services.settings_values import is_secure_url
from services.wire.codes import ErrorCode
from services.wire.content import number

log = structlog.get_logger(__name__)

FRESH_S = 300.0
STALE_S = 86_400.0
COOLDOWN_S = 10.0
MAX_KEYS = 100
MIN_RSA_BITS = 2048  # RFC 7518 §3.3
MAX_BYTES = 262_144
TIMEOUT_S = 5.0

_decode = msgspec.json.Decoder(dict[str, Any], float_hook=number).decode

_KINDS = {"RS256": "RSA", "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}

Fetch = Callable[[], Awaitable[bytes]]


class FetchFailed(Exception):
    """A set of keys could not be fetched; the message gives the reason, for the log."""


def check_url(url: str) -> None:
    """Raise ValueError for a URL that is neither https, nor http on this machine."""
    if not is_secure_url(url):
        raise ValueError("TIDINGS_JWKS_URL is not https (http is for loopback alone)")


async def fetch(url: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return the document at `url`. Redirects are not followed: the address is the operator's choice, not a server's.

    Raises:
        FetchFailed: not in time, too large, another status than 200, or not reached.
    """
    # Uncompressed, so that the limit holds for what is decoded; trusting the system's certificates.
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    body = bytearray()
    try:
        async with (
            asyncio.timeout(timeout_s),  # of the whole; httpx has time limits for single reads alone
            httpx.AsyncClient(timeout=timeout_s, verify=ssl.create_default_context()) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise FetchFailed(f"status {answer.status_code}")
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise FetchFailed(f"larger than {MAX_BYTES} bytes")
    except (TimeoutError, httpx.TimeoutException):
        raise FetchFailed(f"no answer within {timeout_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as fault:
        raise FetchFailed(str(fault) or type(fault).__name__) from None
    return bytes(body)


class IssuerKeys:
    """The keys of one issuer. `fetch` returns the document; it raises FetchFailed."""

    def __init__(self, issuer: str, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, VerificationKey] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: object) -> list[VerificationKey]:
        """Return the key of that `kid`; for a token without one, the only key there is.

        Raises:
            AuthRefused: `unavailable`, while no keys can be fetched.
        """
        age_s = self._clock() - self._fetched_at
        if age_s > STALE_S:
            self._keys = {}
            self._fetched_at = float("-inf")  # as if none had ever been fetched
        if not self._keys:
            await self._refresh()
            if not self._keys and self._fetched_at == float("-inf"):
                text = "the keys to check tokens with cannot be fetched now"
                raise AuthRefused(ErrorCode.UNAVAILABLE, text)
        elif age_s > FRESH_S:
            self._start()  # stale keys are used meanwhile
        found = self._choose(kid)
        if not found:
            await self._refresh()
            found = self._choose(kid)
        return found

    def _choose(self, kid: object) -> list[VerificationKey]:
        if isinstance(kid, str):
            return [self._keys[kid]] if kid in self._keys else []
        return list(self._keys.values()) if kid is None and len(self._keys) == 1 else []

    async def _refresh(self) -> None:
        self._start()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    def _start(self) -> None:
        """Start to fetch, unless that is under way or was tried a moment ago."""
        now = self._clock()
        if self._fetching is None and now - self._tried_at >= COOLDOWN_S:
            self._tried_at = now
            self._fetching = asyncio.get_running_loop().create_task(self._load(), name="fetch keys")

    async def _load(self) -> None:
        try:
            self._keys = parse_keys(await self._fetch(), self._issuer)
            self._fetched_at = self._clock()
            log.debug("keys fetched", issuer=self._issuer, keys=len(self._keys))
        except FetchFailed as fault:
            kept = len(self._keys)
            log.warning("keys could not be fetched", issuer=self._issuer, reason=str(fault), kept=kept)
        finally:
            self._fetching = None


class PublicKeys:
    """A `KeySource` over the keys of all configured issuers."""

    def __init__(self, issuers: Mapping[str, IssuerKeys]) -> None:
        self._issuers = issuers

    async def keys_for(self, header: Mapping[str, Any], issuer: object) -> Iterable[VerificationKey]:
        keys = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if keys is None:  # an unknown issuer: no request is made
            return ()
        return await keys.find(header.get("kid"))


def parse_keys(document: bytes, issuer: str) -> dict[str, VerificationKey]:
    """Return the usable keys of a set (RFC 7517 §5) by `kid`; those of other kinds and uses are skipped.

    Raises:
        FetchFailed: not a set of keys, or one of more than `MAX_KEYS`.
    """
    try:
        entries = _decode(document).get("keys")
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise FetchFailed("not a JSON Web Key Set") from None
    if not isinstance(entries, list):
        raise FetchFailed("not a JSON Web Key Set: `keys` is no list")
    if len(entries) > MAX_KEYS:
        raise FetchFailed(f"{len(entries)} keys, the limit is {MAX_KEYS}")
    found: dict[str, VerificationKey] = {}
    for position, entry in enumerate(entries):
        if isinstance(entry, dict) and (key := _key_of(entry, issuer)) is not None:
            kid = entry.get("kid")
            found[kid if isinstance(kid, str) else f"#{position}"] = key
    return found


def _key_of(entry: dict[str, Any], issuer: str) -> VerificationKey | None:
    kind = "RSA" if entry.get("kty") == "RSA" else (entry.get("kty"), entry.get("crv"))
    algorithm = next((name for name, kinds in _KINDS.items() if kinds == kind), None)
    operations = entry.get("key_ops")
    if (
        algorithm is None
        or entry.get("use", "sig") != "sig"
        or entry.get("alg", algorithm) != algorithm
        or (isinstance(operations, list) and "verify" not in operations)
        or "d" in entry  # a private key that was published proves nothing any more
    ):
        return None
    try:
        key = jwt.PyJWK.from_dict(entry, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return None
    return VerificationKey(key, algorithm, issuer)
