"""One policy for WebSocket, SSE and HTTP: a request's headers and query in, an identity out.

Under `open` anybody is somebody: a request with the signed `session` of an earlier `welcome` is that user
again, any other is a new one. A session that does not verify is treated as absent, not refused: after the
deployment's secret was replaced, every browser would otherwise be locked out by what it still keeps.

Under `jwt` a request shows a token in `Authorization: Bearer`, or a one-time `ticket` in its query. A token
in a URL is refused even where it is valid, because by then proxies and histories have it.

Whoever it is, what was revoked is refused.
"""

import secrets
import time
from collections.abc import Mapping
from functools import partial

from gateway.auth.api_keys import ApiKeys, Scope
from gateway.auth.identity import AuthRefused, Identity, SessionSigner
from gateway.auth.jwks import IssuerKeys, PublicKeys
from gateway.auth.jwks_fetch import check_url, fetch
from gateway.auth.origins import OriginPolicy
from gateway.auth.revocations import Revocations
from gateway.auth.tickets import TicketStore
from gateway.auth.tokens import EitherSource, SharedSecrets, TokenVerifier
from services.settings import Settings
from services.settings_values import is_loopback
from services.wire.codes import ErrorCode
from services.wire.grants import ALL, NOTHING
from services.wire.names import InvalidName, normalize_name

_TOKEN_PARAMETERS = ("token", "access_token", "jwt")


class Authenticator:
    """Decides who is who. `tickets` is where tickets are redeemed; without it there are none.

    Raises:
        ValueError: the configuration would let in everybody from everywhere, or nobody; the message says
        what to set.
    """

    def __init__(
        self,
        settings: Settings,
        tickets: TicketStore | None = None,
        revocations: Revocations | None = None,
    ) -> None:
        self.open = settings.auth == "open"
        if self.open and not settings.open_beyond_loopback:
            _refuse_exposure(settings.host)
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
        """Return who asks. `headers` are looked up in lower case.

        Raises:
            AuthRefused: `unauthorized`, `unavailable` while public keys cannot be fetched, or `invalid_name`
            for a `username` that can be none.
            BusError: a ticket could not be looked up.
        """
        identity = await self._identify(headers, query)
        self.require_current(identity)
        return identity

    def require_current(self, identity: Identity) -> None:
        """Let pass whose credentials were not revoked, nor expired, since they were verified.

        While it is not known what is revoked (the bus is away, or was until a moment ago) nobody passes. Under `open`
        that would protect nothing: who leaves the session out is another user.

        Raises:
            AuthRefused: `unauthorized`, or `unavailable`.
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

    async def renew(
        self, identity: Identity, *, token: str = "", ticket: str = "", origin: str | None
    ) -> Identity:
        """Return the identity of a new token, or of a ticket made from one, for a connection that has one.

        `origin` is that of the page the connection belongs to. Under `open` nothing expires.

        Raises:
            AuthRefused: `unauthorized`, `unavailable`, or `forbidden` for another user's.
            BusError: a ticket could not be looked up.
        """
        if self.open:
            return identity
        renewed = await (self._redeem(ticket, origin) if ticket else self._tokens.verify(token))
        # The connection was let in already, and ends as soon as it is known that the new token was revoked: an outage
        # of the bus does not have to end it.
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
            raise AuthRefused(
                ErrorCode.UNAUTHORIZED,
                "a token must not travel in a URL: POST /api/tickets with it, then connect with ?ticket=",
            )
        token = bearer(headers)
        if not token:
            raise AuthRefused(
                ErrorCode.UNAUTHORIZED,
                "send `Authorization: Bearer TOKEN`, or ?ticket= from POST /api/tickets",
            )
        return await self._tokens.verify(token)

    async def authenticate_reader(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
        """Return who reads over HTTP: a user, or nobody in particular with a server key's rights.

        Raises:
            AuthRefused: as `authenticate`.
        """
        if self.open:
            return Identity("", "", ALL)
        scopes = self._scopes(headers)
        if scopes is None:
            return await self.authenticate(headers, query)
        return Identity("", "", ALL if Scope.READ in scopes else NOTHING)

    async def require_api_key(self, headers: Mapping[str, str], scope: Scope) -> None:
        """Let pass who may use this part of the server API: a key with the scope, or a token with `admin`.

        Under `open` anybody may.

        Raises:
            AuthRefused: `unauthorized` without valid credentials, `forbidden` with a key that is for other
            things or a token that is not `admin`.
        """
        if self.open:
            return
        scopes = self._scopes(headers)
        if scopes is not None:
            if scope not in scopes:
                raise AuthRefused(ErrorCode.FORBIDDEN, f"this key is not for `{scope}`")
            return
        token = bearer(headers)
        if not token:
            raise AuthRefused(
                ErrorCode.UNAUTHORIZED, "send a server key: `X-API-Key: KEY` or `Authorization: Bearer KEY`"
            )
        identity = await self._tokens.verify(token)
        self.require_current(identity)
        if not identity.grants.admin:
            raise AuthRefused(ErrorCode.FORBIDDEN, "the server API needs a server key or an admin token")

    def has_api_key(self, headers: Mapping[str, str]) -> bool:
        """Whether a request shows a server key, for whatever it is."""
        return self._scopes(headers) is not None

    def is_operator(self, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from the operator's side: with a server key, or any under `open`."""
        return self.open or self.has_api_key(headers)

    def _scopes(self, headers: Mapping[str, str]) -> frozenset[Scope] | None:
        offered = headers.get("x-api-key") or bearer(headers)
        return self._keys.scopes_of(offered) if offered else None

    async def _redeem(self, ticket: str, origin: str | None) -> Identity:
        identity = await self._tickets.redeem(ticket, origin) if self._tickets is not None else None
        if identity is None:
            raise AuthRefused(
                ErrorCode.UNAUTHORIZED, "the ticket is not valid: unknown, used, expired or of another origin"
            )
        return identity

    def _anonymous(self, query: Mapping[str, str]) -> Identity:
        user_id = self._signer.verify(query.get("session", "")) or f"u-{secrets.token_hex(10)}"
        try:
            # A guest's name follows from the id, so that it stays the same when the guest comes back.
            username = normalize_name(query.get("username") or f"guest-{user_id[-4:]}", "username")
        except InvalidName as fault:
            raise AuthRefused(ErrorCode.INVALID_NAME, str(fault)) from None
        return Identity(user_id, username, ALL, session=self._signer.sign(user_id))


def bearer(headers: Mapping[str, str]) -> str:
    """Return the bearer credentials of a request, or nothing (RFC 6750 §2.1; the scheme's case is free)."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""


def _verifier(settings: Settings) -> TokenVerifier:
    """Return what checks tokens.

    Raises:
        ValueError: there is nothing to check them with, or it is not fit to.
    """
    issuers = dict(settings.jwks_issuers)
    if settings.jwks_url:
        if not settings.jwt_issuer:
            raise ValueError("TIDINGS_JWKS_URL needs TIDINGS_JWT_ISSUER: whose keys are there?")
        issuers[settings.jwt_issuer] = settings.jwks_url
    if settings.auth == "jwt" and not settings.jwt_secrets and not issuers:
        raise ValueError("TIDINGS_AUTH=jwt needs TIDINGS_JWT_SECRETS or TIDINGS_JWKS_URL")
    for url in issuers.values():
        check_url(url, "TIDINGS_JWKS_URL")
    keys = {issuer: IssuerKeys(issuer, partial(fetch, url)) for issuer, url in issuers.items()}
    secret_texts = (secret.get_secret_value() for secret in settings.jwt_secrets)
    return TokenVerifier(
        EitherSource(SharedSecrets(secret_texts, settings.jwt_issuer), PublicKeys(keys)),
        audience=settings.jwt_audience,
        longest_life_s=settings.revocation_s,
        default=settings.default_grants,
    )


def _refuse_exposure(host: str) -> None:
    if not is_loopback(host):
        raise ValueError(
            f"TIDINGS_AUTH=open lets anybody in, so it is served on loopback only, not on {host!r}; "
            "set TIDINGS_AUTH=jwt and TIDINGS_JWT_SECRETS (at least 32 bytes) to be reachable from elsewhere"
        )
