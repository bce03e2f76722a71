"""JSON Web Tokens: verification and claims.

The algorithm belongs to the key, never to the token (RFC 8725 §3.1): a key comes with the one algorithm that it may
verify, so neither `alg: none` nor a public key used as an HMAC secret verifies anything. `crit` is always refused: no
extension is supported (RFC 7515 §4.1.11).

A room token has the claim `room`: it makes its user a member of that room, and is refused wherever a user authenticates.

Claims: `exp` and `sub` always, `aud` and `iss` when configured; `name` is the display name; `tidings` the user's grants
(`services.wire.grants`), instead of the configured default. A token is revoked by `jti`, or `sub` and `iat`.
"""

import binascii
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jwt

from gateway.auth.identity import SERVER_USER_ID, AuthRefused, Identity
from services.settings_values import MIN_SECRET_BYTES
from services.wire.codes import ErrorCode
from services.wire.grants import DEFAULT, NOTHING, Grants
from services.wire.names import InvalidName, normalize_name

MAX_TOKEN_BYTES = 8192
CLOCK_SKEW_S = 5.0
_SLACK_S = 60.0  # for a token minted for exactly the longest life, by a clock that is ahead


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key, the one algorithm it verifies, and its issuer.

    A token verified with it must name that `issuer`, so that one issuer cannot speak for another.
    """

    key: Any
    algorithm: str
    issuer: str = ""


class KeySource(Protocol):
    """A source of verification keys: shared secrets, public keys, or both."""

    async def keys_for(self, header: Mapping[str, Any], issuer: object) -> Iterable[VerificationKey]:
        """Return the keys to try for a token with this (unverified) header and `iss`; none for an unknown issuer.

        `kid`, `alg` and `iss` only choose among configured keys. Nothing in a token may name an address to fetch from.

        Raises:
            AuthRefused: `unavailable`, while keys cannot be fetched.
        """


class ConfiguredKeys:
    """HS256 secrets, and the source of `public` keys for all other algorithms.

    All secrets verify, so that one can be replaced while its tokens are still valid.

    Raises:
        ValueError: a secret is shorter than 32 bytes.
    """

    def __init__(self, secrets: Iterable[str], issuer: str = "", public: KeySource | None = None) -> None:
        keys = [secret.encode() for secret in secrets]
        if any(len(key) < MIN_SECRET_BYTES for key in keys):
            raise ValueError(f"TIDINGS_JWT_SECRETS: each secret needs at least {MIN_SECRET_BYTES} bytes")
        self._secrets = [VerificationKey(key, "HS256", issuer) for key in keys]
        self._public = public

    async def keys_for(self, header: Mapping[str, Any], issuer: object) -> Iterable[VerificationKey]:
        if header.get("alg") == "HS256":
            return self._secrets
        return () if self._public is None else await self._public.keys_for(header, issuer)


@dataclass(frozen=True, slots=True)
class RoomToken:
    """What a verified room token allows: membership until `identity.expires_at`, and maybe publishing."""

    room: str
    publish: bool
    identity: Identity  # without grants: what a revocation goes by


class TokenVerifier:
    """Verifies tokens and returns their identities. `aud` and `iss` are only checked when configured.

    Args:
        source: the keys.
        audience: the required `aud`; empty: any.
        longest_life_s: tokens that expire later than that from now are refused; 0 accepts any. A revocation is
            remembered for that time, and must outlive what it revokes.
        default: the grants of a token without a `tidings` claim.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        audience: str = "",
        longest_life_s: float = 0.0,
        default: Grants = DEFAULT,
    ) -> None:
        self._source = source
        self._audience = audience or None
        self._longest_life_s = longest_life_s
        self._default = default

    async def verify(self, token: str) -> Identity:
        """Return the identity of a token.

        Raises:
            AuthRefused: `unauthorized`, with a reason that helps the token's owner and no one else.
        """
        claims = await self._verified(token)
        if "room" in claims:
            raise _refused("a token for one room is no login: send it with `join_room`")
        return identity_of(claims, self._default)

    async def verify_room(self, token: str) -> RoomToken:
        """Return what a room token allows. Raises AuthRefused as `verify`."""
        return room_token_of(await self._verified(token))

    async def _verified(self, token: str) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN_BYTES:
            raise _refused(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        header, issuer = self._unverified(token)
        candidates = await self._source.keys_for(header, issuer)
        claims = self._claims(token, candidates)
        ends = int(claims["exp"]) + CLOCK_SKEW_S
        if self._longest_life_s and ends - time.time() > self._longest_life_s + _SLACK_S:
            limit = f"{self._longest_life_s:g} s of TIDINGS_REVOCATION_S"
            raise _refused(f"the token lives longer than the {limit}")
        return claims

    def _unverified(self, token: str) -> tuple[Mapping[str, Any], object]:
        """Return the parts that may choose the key: the header, and `iss`."""
        try:
            parts = jwt.decode_complete(token, options={"verify_signature": False})
        except (jwt.PyJWTError, UnicodeEncodeError, UnicodeDecodeError, binascii.Error, RecursionError):
            raise _refused("not a JSON Web Token") from None
        header: Mapping[str, Any] = parts["header"]
        if "crit" in header:
            raise _refused("the token asks for extensions that are not understood (`crit`)")
        return header, parts["payload"].get("iss")

    def _claims(self, token: str, candidates: Iterable[VerificationKey]) -> Mapping[str, Any]:
        for candidate in candidates:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    candidate.key,
                    algorithms=[candidate.algorithm],
                    audience=self._audience,
                    issuer=candidate.issuer or None,
                    leeway=CLOCK_SKEW_S,
                    options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
                )
            except jwt.InvalidSignatureError:
                continue  # perhaps the next secret: several are valid while one is replaced
            except jwt.ExpiredSignatureError:
                raise _refused("the token has expired") from None
            except jwt.ImmatureSignatureError:
                raise _refused("the token is not valid yet") from None
            except jwt.MissingRequiredClaimError as fault:
                raise _refused(f"the token has no `{fault.claim}` claim") from None
            except jwt.InvalidAudienceError:
                raise _refused("the token is for another audience") from None
            except jwt.InvalidIssuerError:
                raise _refused("the token is from another issuer") from None
            except (jwt.PyJWTError, RecursionError, UnicodeDecodeError, OverflowError):
                raise _refused("the token is malformed") from None
            return claims
        raise _refused("the token is not signed by a known key")


def identity_of(claims: Mapping[str, Any], default: Grants = DEFAULT) -> Identity:
    """Return the identity of verified claims; `default` are the grants without a `tidings` claim.

    Raises:
        AuthRefused: `sub` or `name` is no valid name, or the `tidings` claim is malformed.
    """
    name = claims.get("name", "")
    if not isinstance(name, str):
        raise _refused("the token's `name` is not text")
    try:
        user_id = normalize_name(claims["sub"], "the token's `sub`")
        username = normalize_name(name, "the token's `name`") if name else user_id
    except InvalidName as fault:
        raise _refused(str(fault)) from None
    if user_id == SERVER_USER_ID:
        raise _refused(
            f"`{SERVER_USER_ID}` is no user: it is the sender of all that the server API publishes"
        )
    try:
        granted = Grants.parse(claims["tidings"]) if "tidings" in claims else default
    except ValueError as fault:
        raise _refused(f"the token's `tidings` claim is malformed: {fault}") from None
    token_id, issued_at = claims.get("jti"), claims.get("iat")
    return Identity(
        user_id,
        username,
        granted,
        expires_at=int(claims["exp"]) + CLOCK_SKEW_S,
        token_id=token_id if isinstance(token_id, str) else "",
        # In whole seconds, as it was compared with our clock: with a fraction it could be later than its revocation.
        issued_at=float(int(issued_at)) if isinstance(issued_at, int | float) else None,
    )


def room_token_of(claims: Mapping[str, Any]) -> RoomToken:
    """Return what verified claims allow in a room.

    Raises:
        AuthRefused: `room` or `sub` is no valid name, or `publish` no boolean.
    """
    room, publish = claims.get("room"), claims.get("publish", False)
    if not isinstance(room, str) or not isinstance(publish, bool):
        raise _refused("a room token needs `room`, a text, and may have `publish`, a boolean")
    try:
        room = normalize_name(room, "the token's `room`")
    except InvalidName as fault:
        raise _refused(str(fault)) from None
    # Its end removes a member, and costs no connection: no clock skew is added.
    identity = replace(identity_of(claims), grants=NOTHING, expires_at=float(int(claims["exp"])))
    return RoomToken(room, publish, identity)


def _refused(message: str) -> AuthRefused:
    return AuthRefused(ErrorCode.UNAUTHORIZED, message)
