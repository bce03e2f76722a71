"""One policy for WebSocket, SSE and HTTP: a request's headers and query in, an identity out.

Under `open` anybody is somebody: a request with the signed `session` of an earlier `welcome` is that user
again, any other is a new one. A session that does not verify is treated as absent, not refused: after the
deployment's secret was replaced, every browser would otherwise be locked out by what it still keeps.

Under `jwt` a request shows a token in `Authorization: Bearer`, or a one-time `ticket` in its query. A token
in a URL is refused even where it is valid, because by then proxies and histories have it.
"""

import ipaddress
import secrets
from collections.abc import Mapping

from gateway.auth.grants import ALL, Grants
from gateway.auth.identity import Identity
from gateway.auth.origins import OriginPolicy
from gateway.auth.refusal import AuthRefused
from gateway.auth.server_keys import ServerKeys
from gateway.auth.sessions import SessionSigner
from gateway.auth.tickets import TicketStore
from gateway.auth.tokens import SharedSecrets, TokenVerifier
from services.settings import Settings
from services.wire.codes import ErrorCode
from services.wire.names import InvalidName, normalize_name

_TOKEN_PARAMETERS = ("token", "access_token", "jwt")


class Authenticator:
    """Decides who is who. `tickets` is where tickets are redeemed; without it there are none.

    Raises:
        ValueError: the configuration would let in everybody from everywhere, or nobody; the message says
        what to set.
    """

    def __init__(self, settings: Settings, tickets: TicketStore | None = None) -> None:
        self.open = settings.auth == "open"
        if self.open:
            _refuse_exposure(settings.host)
        elif not settings.jwt_secrets:
            raise ValueError("TIDINGS_AUTH=jwt needs TIDINGS_JWT_SECRETS")
        self.origins = OriginPolicy(settings.origins, local_names_only=self.open)
        self._tickets = tickets
        self._signer = SessionSigner(settings.session_secret.get_secret_value().encode())
        self._tokens = TokenVerifier(
            SharedSecrets(secret.get_secret_value() for secret in settings.jwt_secrets),
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
        )
        self._keys = ServerKeys(key.get_secret_value() for key in settings.api_keys)

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
        """Return who asks. `headers` are looked up in lower case.

        Raises:
            AuthRefused: `unauthorized`, or `invalid_name` for a `username` that can be none.
            BusError: a ticket could not be looked up.
        """
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

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Let pass pages that may talk to this gateway, and what is no page.

        Raises:
            AuthRefused: `forbidden`.
        """
        self.origins.check(headers)

    async def authorize_read(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Grants:
        """Return what the asker may read over HTTP: a user's grants, or everything for a server key.

        Raises:
            AuthRefused: as `authenticate`.
        """
        if self.open or self._has_server_key(headers):
            return ALL
        return (await self.authenticate(headers, query)).grants

    async def require_server_key(self, headers: Mapping[str, str]) -> None:
        """Let pass who may use the server API: a known key, or a token with `admin`; anybody under `open`.

        Raises:
            AuthRefused: `unauthorized` without valid credentials, `forbidden` with a token that is not
            `admin`.
        """
        if self.open or self._has_server_key(headers):
            return
        token = bearer(headers)
        if not token:
            raise AuthRefused(
                ErrorCode.UNAUTHORIZED, "send a server key: `X-API-Key: KEY` or `Authorization: Bearer KEY`"
            )
        if not (await self._tokens.verify(token)).grants.admin:
            raise AuthRefused(ErrorCode.FORBIDDEN, "the server API needs a server key or an admin token")

    def _has_server_key(self, headers: Mapping[str, str]) -> bool:
        offered = headers.get("x-api-key") or bearer(headers)
        return bool(offered) and self._keys.knows(offered)

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


def _refuse_exposure(host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: who knows where it points
        loopback = False
    if not loopback:
        raise ValueError(
            f"TIDINGS_AUTH=open lets anybody in, so it is served on loopback only, not on {host!r}; "
            "set TIDINGS_AUTH=jwt and TIDINGS_JWT_SECRETS (at least 32 bytes) to be reachable from elsewhere"
        )
