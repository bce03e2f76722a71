"""Public keys of the issuers that the configuration names, and of nobody else.

Nothing in a token says where a key is fetched from: `iss` only chooses among the configured issuers, and `jku`,
`x5u` and `jwk` in a header are not read. Of each issuer one set of keys is kept, so equal `kid`s of two issuers
are different keys. The algorithm follows from the kind of key (RFC 8725 §3.1): RSA is RS256, P-256 is ES256,
Ed25519 is EdDSA; symmetric keys in a published set are ignored.

- The set is fetched when first needed, and again in the background when it is older than `FRESH_S`.
- While it cannot be fetched, the last one is served, for `STALE_S` at most.
- A `kid` that is not in the set has it fetched again, at most once in `COOLDOWN_S` for one issuer: a stranger
  who makes up `kid`s causes no more requests than that, and nothing is remembered for each of them.
- Whoever needs it while it is being fetched waits for the same request.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.auth.identity import AuthRefused
from gateway.auth.tokens import Candidate
from services.wire.codes import ErrorCode

log = structlog.get_logger(__name__)

FRESH_S = 300.0
STALE_S = 86_400.0
COOLDOWN_S = 10.0
MAX_KEYS = 100
MIN_RSA_BITS = 2048  # RFC 7518 §3.3

Fetch = Callable[[], Awaitable[bytes]]


class FetchFailed(Exception):
    """A set of keys could not be had; the message says why, for the log."""


class IssuerKeys:
    """The keys of one issuer. `fetch` returns the document; it raises FetchFailed."""

    def __init__(self, issuer: str, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, Candidate] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: object) -> list[Candidate]:
        """Return the key of that `kid`; for a token without one, the only key there is.

        Raises:
            AuthRefused: `unavailable`, while there are no keys because they cannot be fetched.
        """
        age_s = self._clock() - self._fetched_at
        if age_s > STALE_S:
            self._keys = {}
            self._fetched_at = float("-inf")  # as if there never had been any
        if not self._keys:
            await self._refresh()
            if not self._keys and self._fetched_at == float("-inf"):
                raise AuthRefused(
                    ErrorCode.UNAVAILABLE, "the keys to check tokens with cannot be fetched now"
                )
        elif age_s > FRESH_S:
            self._start()  # served stale meanwhile
        found = self._choose(kid)
        if not found:
            await self._refresh()
            found = self._choose(kid)
        return found

    def _choose(self, kid: object) -> list[Candidate]:
        if isinstance(kid, str):
            candidate = self._keys.get(kid)
            return [candidate] if candidate is not None else []
        return list(self._keys.values()) if kid is None and len(self._keys) == 1 else []

    async def _refresh(self) -> None:
        self._start()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    def _start(self) -> None:
        """Begin to fetch, unless that is under way or was tried a moment ago."""
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
            log.warning(
                "keys could not be fetched", issuer=self._issuer, reason=str(fault), kept=len(self._keys)
            )
        finally:
            self._fetching = None


class PublicKeys:
    """A `KeySource` over the keys of all configured issuers."""

    def __init__(self, issuers: Mapping[str, IssuerKeys]) -> None:
        self._issuers = issuers

    async def keys_for(self, header: Mapping[str, Any], issuer: object) -> Iterable[Candidate]:
        """See KeySource."""
        keys = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if keys is None:  # nobody we know: nothing is asked of anybody
            return ()
        return await keys.find(header.get("kid"))


def parse_keys(document: bytes, issuer: str) -> dict[str, Candidate]:
    """Return the usable keys of a set (RFC 7517 §5) by `kid`; those of other kinds and uses are passed over.

    Raises:
        FetchFailed: it is no set of keys, or has more than `MAX_KEYS`.
    """
    try:
        entries = msgspec.json.decode(document, type=dict[str, Any]).get("keys")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise FetchFailed("not a JSON Web Key Set") from None
    if not isinstance(entries, list):
        raise FetchFailed("not a JSON Web Key Set: `keys` is no list")
    if len(entries) > MAX_KEYS:
        raise FetchFailed(f"{len(entries)} keys, the limit is {MAX_KEYS}")
    found: dict[str, Candidate] = {}
    for number, entry in enumerate(entries):
        if isinstance(entry, dict) and (candidate := _candidate(entry, issuer)) is not None:
            kid = entry.get("kid")
            found[kid if isinstance(kid, str) else f"#{number}"] = candidate
    return found


def _candidate(entry: dict[str, Any], issuer: str) -> Candidate | None:
    algorithm = {
        ("RSA", None): "RS256",
        ("EC", "P-256"): "ES256",
        ("OKP", "Ed25519"): "EdDSA",
    }.get((str(entry.get("kty")), None if entry.get("kty") == "RSA" else str(entry.get("crv"))))
    operations = entry.get("key_ops")
    if (
        algorithm is None
        or entry.get("use", "sig") != "sig"
        or entry.get("alg", algorithm) != algorithm
        or (isinstance(operations, list) and "verify" not in operations)
        or "d" in entry  # a private key that somebody published is nobody's any more
    ):
        return None
    try:
        key = jwt.PyJWK.from_dict(entry, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return None
    return Candidate(key, algorithm, issuer)
