"""JSON Web Tokens: which ones are believed, and what they say.

The algorithm belongs to the key, never to the token (RFC 8725 §3.1): a candidate key comes with the one
algorithm it may verify, so neither `alg: none` nor a public key used as an HMAC secret gets anywhere.
`crit` is refused altogether: no extension is understood here (RFC 7515 §4.1.11).

Claims: `exp` and `sub` always, `aud` and `iss` when configured; `name` is the display name; `tidings` says
what the user may do: `{join: [pattern], publish: [pattern], channels: [pattern], broadcast, direct, admin:
bool}`. What that claim does not name is not allowed; without the claim `grants.DEFAULT` holds.
"""

import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt
import msgspec

from gateway.auth import grants
from gateway.auth.grants import Grants, InvalidPattern, Patterns
from gateway.auth.identity import Identity
from gateway.auth.refusal import AuthRefused
from services.wire.codes import ErrorCode
from services.wire.names import InvalidName, normalize_name

MAX_TOKEN_BYTES = 8192
MIN_SECRET_BYTES = 32  # RFC 7518 §3.2: an HS256 key is at least as long as the hash
CLOCK_SKEW_S = 5.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key that may have signed a token, and the one algorithm it is for."""

    key: Any
    algorithm: str


class KeySource(Protocol):
    """Where verification keys come from."""

    async def keys_for(self, header: Mapping[str, Any]) -> Iterable[Candidate]:
        """Return the keys to try for a token with this (unverified) header; none if the token is nobody's.

        Only `kid` and `alg` may choose among configured keys. Nothing in a header may name a place to fetch
        from.
        """


class SharedSecrets:
    """HS256 secrets of the configuration. All verify, so that one is replaced while its tokens still live.

    Raises:
        ValueError: a secret is shorter than 32 bytes.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        keys = [secret.encode() for secret in secrets]
        if any(len(key) < MIN_SECRET_BYTES for key in keys):
            raise ValueError(f"TIDINGS_JWT_SECRETS: each secret needs at least {MIN_SECRET_BYTES} bytes")
        self._candidates = [Candidate(key, "HS256") for key in keys]

    async def keys_for(self, header: Mapping[str, Any]) -> Iterable[Candidate]:
        return self._candidates if header.get("alg") == "HS256" else ()


class _Permissions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `tidings` claim. An unknown field is an error: a misspelt permission must not get lost."""

    join: list[str] = []
    publish: list[str] = []
    channels: list[str] = []
    broadcast: bool = False
    direct: bool = False
    admin: bool = False


class TokenVerifier:
    """Turns tokens into identities. Empty `audience` or `issuer` are not asked for."""

    def __init__(self, source: KeySource, *, audience: str = "", issuer: str = "") -> None:
        self._source = source
        self._audience = audience or None
        self._issuer = issuer or None

    async def verify(self, token: str) -> Identity:
        """Return who the token speaks of.

        Raises:
            AuthRefused: `unauthorized`, with a reason that helps its owner and nobody else.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise _refused(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        header = self._header(token)
        candidates = await self._source.keys_for(header)
        return identity_of(self._claims(token, candidates))

    def _header(self, token: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, UnicodeEncodeError, binascii.Error, RecursionError):
            raise _refused("not a JSON Web Token") from None
        if "crit" in header:
            raise _refused("the token asks for extensions that are not understood (`crit`)")
        return header

    def _claims(self, token: str, candidates: Iterable[Candidate]) -> Mapping[str, Any]:
        for candidate in candidates:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    candidate.key,
                    algorithms=[candidate.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=CLOCK_SKEW_S,
                    options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
                )
            except jwt.InvalidSignatureError:
                continue  # perhaps the next secret: this is how secrets are replaced
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
            except (jwt.PyJWTError, RecursionError, UnicodeDecodeError):
                raise _refused("the token is malformed") from None
            return claims
        raise _refused("the token is not signed by a known key")


def identity_of(claims: Mapping[str, Any]) -> Identity:
    """Return the identity that verified claims speak of.

    Raises:
        AuthRefused: `sub` or `name` are no valid names, or the `tidings` claim is malformed.
    """
    name = claims.get("name", "")
    if not isinstance(name, str):
        raise _refused("the token's `name` is not text")
    try:
        user_id = normalize_name(claims["sub"], "the token's `sub`")
        username = normalize_name(name, "the token's `name`") if name else user_id
    except InvalidName as fault:
        raise _refused(str(fault)) from None
    granted = _grants_of(claims["tidings"]) if "tidings" in claims else grants.DEFAULT
    return Identity(user_id, username, granted, expires_at=int(claims["exp"]) + CLOCK_SKEW_S)


def _grants_of(claim: object) -> Grants:
    try:
        said = msgspec.convert(claim, _Permissions)
        return Grants(
            join=Patterns.of(said.join),
            publish=Patterns.of(said.publish),
            channels=Patterns.of(said.channels),
            broadcast=said.broadcast,
            direct=said.direct,
            admin=said.admin,
        )
    except (msgspec.ValidationError, InvalidPattern) as fault:
        raise _refused(f"the token's `tidings` claim is malformed: {fault}") from None


def _refused(message: str) -> AuthRefused:
    return AuthRefused(ErrorCode.UNAUTHORIZED, message)
