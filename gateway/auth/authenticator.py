"""One policy for WebSocket, SSE and HTTP: a request's headers and query in, an identity out.

Under `open` no credentials are needed: a request with the signed `session` of an earlier `welcome` is that user again,
any other is a new one. A session that does not verify counts as absent: after the deployment's secret was replaced,
every browser would be locked out by its stored session.

Under `jwt` a request has a token in `Authorization: Bearer`, or a one-time `ticket` in its query. A valid token in a URL
is refused too: by then proxies and histories have it. Revoked credentials are always refused.
"""

import hmac
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from gateway.auth.identity import AuthRefused, Identity, SessionSigner
from gateway.auth.origins import OriginPolicy
from gateway.auth.revocations import Revocations
from gateway.auth.tickets import TicketStore
from gateway.auth.tokens import ConfiguredKeys, KeySource, RoomToken, TokenVerifier
from services.settings import Settings
from services.settings_values import EVERY_SCOPE, Scope, digest_of_key, parse_api_key
from services.wire.codes import ErrorCode
from services.wire.grants import ALL, NOTHING
from services.wire.names import InvalidName, normalize_name

_TOKEN_PARAMETERS = ("token", "access_token", "jwt")


@dataclass(frozen=True, slots=True)
class ServerCaller:
    """The caller of the server API: its name in the log (`key 2`, `user ada`), and what it may do."""

    name: str
    scopes: frozenset[Scope]

    def require(self, *scopes: Scope) -> None:
        """Raise AuthRefused `forbidden` unless the caller has one of the scopes."""
        if self.scopes.isdisjoint(scopes):
            wanted = " or ".join(f"`{scope}`" for scope in scopes)
            raise AuthRefused(ErrorCode.FORBIDDEN, f"this key is not for {wanted}")


class Authenticator:
    """Authenticates requests. Without a store of `tickets` none is valid.

    Raises:
        ValueError: the configuration would admit everyone from anywhere, or no one; the message says what to set.
    """

    def __init__(
        self,
        settings: Settings,
        tickets: TicketStore | None = None,
        revocations: Revocations | None = None,
    ) -> None:
        self.open = settings.auth == "open"
        if settings.is_exposed:
            raise ValueError(
                f"TIDINGS_AUTH=open admits everyone, so it is served on loopback only, not on {settings.host!r}; "
                "set TIDINGS_AUTH=jwt and TIDINGS_JWT_SECRETS (at least 32 bytes) to be reachable from elsewhere"
            )
        self.origins = OriginPolicy(
            settings.origins,
            local_names_only=self.open,
            local_pages=self.open and not settings.open_beyond_loopback,
            tls=settings.tls_cert is not None,
        )
        self.revocations = revocations if revocations is not None else Revocations()
        self._tickets = tickets
        self._signer = SessionSigner(settings.session_secret.get_secret_value().encode())
        self._tokens = _verifier(settings)
        self._keys = ApiKeys(key.get_secret_value() for key in settings.api_keys)

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
        """Return the identity of a request. `headers` are looked up in lower case.

        Raises:
            AuthRefused: `unauthorized`, `unavailable` while public keys cannot be fetched, or `invalid_name` for the
                `username`.
            BusError: a ticket could not be looked up.
        """
        identity = await self._identify(headers, query)
        self.require_current(identity)
        return identity

    async def verify_room_token(self, token: str, room: str, user_id: str) -> RoomToken:
        """Return what a token allows a user in a room.

        Raises:
            AuthRefused: `unauthorized`, `unavailable`, or `forbidden` for a token of another user or room.
        """
        found = await self._tokens.verify_room(token)
        if found.identity.user_id != user_id or found.room != room:
            raise AuthRefused(ErrorCode.FORBIDDEN, "the token is for another user or another room")
        self.require_current(found.identity)
        return found

    def require_current(self, identity: Identity) -> None:
        """Raise AuthRefused for credentials that were revoked or have expired since they were verified.

        While the revocations are not known (during and just after an outage of the bus) all are `unavailable`, except
        under `open`: there a client without its session is just another user.
        """
        if not self.open and not self.revocations.current:
            raise AuthRefused(ErrorCode.UNAVAILABLE, "it is not known now which credentials were revoked")
        self._require_valid(identity)

    def _require_valid(self, identity: Identity) -> None:
        now = time.time()
        if self.revocations.covers(identity, now):
            raise AuthRefused(ErrorCode.UNAUTHORIZED, "these credentials were revoked")
        if identity.expires_at is not None and identity.expires_at <= now:
            raise AuthRefused(ErrorCode.UNAUTHORIZED, "the token has expired")

    async def refresh(
        self, identity: Identity, *, token: str = "", ticket: str = "", origin: str | None
    ) -> Identity:
        """Return the identity of a new token, or of a ticket made from one, for an open connection.

        `origin` is that of the page which opened the connection. Under `open` nothing expires.

        Raises:
            AuthRefused: `unauthorized`, `unavailable`, or `forbidden` for another user's token.
            BusError: a ticket could not be looked up.
        """
        if self.open:
            return identity
        renewed = await (self._redeem(ticket, origin) if ticket else self._tokens.verify(token))
        # An outage of the bus need not end an open connection: it ends as soon as a revocation is known.
        self._require_valid(renewed)
        if renewed.user_id != identity.user_id:
            raise AuthRefused(ErrorCode.FORBIDDEN, "the new token is for another user")
        return renewed

    async def _identify(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
        if "ticket" in query:
            return await self._redeem(query["ticket"], headers.get("origin"))
        if self.open:
            return self._anonymous(query)
        if any(name in query for name in _TOKEN_PARAMETERS):
            text = "a token must not travel in a URL: POST /api/tickets with it, then connect with ?ticket="
            raise AuthRefused(ErrorCode.UNAUTHORIZED, text)
        if not (token := bearer(headers)):
            text = "send `Authorization: Bearer TOKEN`, or ?ticket= from POST /api/tickets"
            raise AuthRefused(ErrorCode.UNAUTHORIZED, text)
        return await self._tokens.verify(token)

    async def prove(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity | None:
        """Return the user that a request's ticket, token or session proves; None without, or with a token of others.

        For a deployment whose application decides: it may know the user by other credentials.

        Raises:
            AuthRefused: the ticket is not valid, or what is valid was revoked.
            BusError: the ticket could not be looked up.
        """
        if "ticket" in query:
            identity = await self._redeem(query["ticket"], headers.get("origin"))
        elif self.open:
            if not self._signer.verify(query.get("session", "")):
                return None
            identity = self._anonymous(query)
        else:
            try:
                identity = await self._tokens.verify(bearer(headers))
            except AuthRefused:
                return None
        self.require_current(identity)
        return identity

    async def authenticate_reader(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
        """Authenticate an HTTP read: a user, or an anonymous identity with the rights of an API key.

        Raises:
            AuthRefused: as `authenticate`.
        """
        if self.open:
            return Identity("", "", ALL)
        if (key := self._key(headers)) is None:
            return await self.authenticate(headers, query)
        return Identity("", "", ALL if Scope.READ in key.scopes else NOTHING)

    async def require_api_key(self, headers: Mapping[str, str], *scopes: Scope) -> ServerCaller:
        """Require an API key with one of the scopes, or a token with `admin`. Under `open` nothing is required.

        Raises:
            AuthRefused: `unauthorized` without valid credentials, `forbidden` with a key of other scopes or a token
                without `admin`.
        """
        caller = await self.server_caller(headers)
        caller.require(*scopes)
        return caller

    async def server_caller(self, headers: Mapping[str, str]) -> ServerCaller:
        """Return the caller of the server API. Raises AuthRefused, as `require_api_key`."""
        if self.open:
            return ServerCaller("anyone", EVERY_SCOPE)
        if (key := self._key(headers)) is not None:
            return key
        if not (token := bearer(headers)):
            text = "send an API key: `X-API-Key: KEY` or `Authorization: Bearer KEY`"
            raise AuthRefused(ErrorCode.UNAUTHORIZED, text)
        identity = await self._tokens.verify(token)
        self.require_current(identity)
        if not identity.grants.admin:
            raise AuthRefused(ErrorCode.FORBIDDEN, "the server API needs an API key or an admin token")
        return ServerCaller(f"user {identity.user_id}", EVERY_SCOPE)

    def has_api_key(self, headers: Mapping[str, str]) -> bool:
        """Return True for a request with an API key of any scope."""
        return self._key(headers) is not None

    def is_operator(self, headers: Mapping[str, str]) -> bool:
        """Return True for a request with an API key, and for any under `open`."""
        return self.open or self.has_api_key(headers)

    def _key(self, headers: Mapping[str, str]) -> ServerCaller | None:
        offered = headers.get("x-api-key") or bearer(headers)
        return self._keys.find(offered) if offered else None

    async def _redeem(self, ticket: str, origin: str | None) -> Identity:
        identity = await self._tickets.redeem(ticket, origin) if self._tickets is not None else None
        if identity is None:
            text = "the ticket is not valid: unknown, used, expired or of another origin"
            raise AuthRefused(ErrorCode.UNAUTHORIZED, text)
        return identity

    def _anonymous(self, query: Mapping[str, str]) -> Identity:
        user_id = self._signer.verify(query.get("session", "")) or f"u-{secrets.token_hex(10)}"
        try:
            # Derived from the id, so that it is the same in the user's next session.
            username = normalize_name(query.get("username") or f"guest-{user_id[-4:]}", "username")
        except InvalidName as fault:
            raise AuthRefused(ErrorCode.INVALID_NAME, str(fault)) from None
        return Identity(user_id, username, ALL, session=self._signer.sign(user_id))


class ApiKeys:
    """Keys of the server API, each for everything or for some scopes, known by their hashes alone.

    ```
    TIDINGS_API_KEYS="sha256:9f86d0…;scopes=publish+metrics,another-plain-key"
    ```

    Several are valid at once: to replace a key, add the new one, move the callers, remove the old one. A hash without
    salt is enough, because a key is random (`tidings key`), not a password. Comparing all hashes, which have one length,
    reveals neither a key's length nor which key was near.

    Raises:
        ValueError: a malformed key; the message does not show it.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = [(number, *_parse_key(number, key)) for number, key in enumerate(keys, 1) if key]

    def find(self, key: str) -> ServerCaller | None:
        """Return a key, by its number in the setting, with its scopes; None if it is unknown."""
        offered = digest_of_key(key)
        numbers: list[int] = []
        found: frozenset[Scope] = frozenset()
        for number, digest, scopes in self._keys:
            if hmac.compare_digest(digest, offered):
                numbers.append(number)
                found |= scopes
        return ServerCaller(f"key {numbers[0]}", found) if numbers else None


def _parse_key(number: int, text: str) -> tuple[bytes, frozenset[Scope]]:
    try:
        return parse_api_key(text)
    except ValueError as fault:
        raise ValueError(f"TIDINGS_API_KEYS: number {number} {fault}") from None


def bearer(headers: Mapping[str, str]) -> str:
    """Return the bearer credentials of a request, or nothing (RFC 6750 §2.1; the scheme's case is free)."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""


def _verifier(settings: Settings) -> TokenVerifier:
    """Return the verifier of tokens.

    Raises:
        ValueError: no key to verify them with, or an unsuitable one.
    """
    issuers = dict(settings.jwks_issuers)
    if settings.jwks_url:
        if not settings.jwt_issuer:
            raise ValueError("TIDINGS_JWKS_URL needs TIDINGS_JWT_ISSUER: it names the issuer of these keys")
        issuers[settings.jwt_issuer] = settings.jwks_url
    if (
        settings.auth == "jwt"
        and not settings.jwt_secrets
        and not issuers
        and "connect" not in settings.hooks
    ):
        raise ValueError("TIDINGS_AUTH=jwt needs TIDINGS_JWT_SECRETS or TIDINGS_JWKS_URL")
    public: KeySource | None = None
    if issuers:
        # Not at the top: loading httpx takes a tenth of the time in which a gateway starts.
        from gateway.auth.jwks import IssuerKeys, PublicKeys, check_url, fetch

        for url in issuers.values():
            check_url(url)
        public = PublicKeys(
            {issuer: IssuerKeys(issuer, partial(fetch, url)) for issuer, url in issuers.items()}
        )
    secrets = (secret.get_secret_value() for secret in settings.jwt_secrets)
    return TokenVerifier(
        ConfiguredKeys(secrets, settings.jwt_issuer, public),
        audience=settings.jwt_audience,
        longest_life_s=settings.revocation_s,
        default=settings.default_grants,
    )
