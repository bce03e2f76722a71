"""One policy for all requests."""

import time

import jwt
import pytest

from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import Identity
from gateway.auth.refusal import AuthRefused
from services.settings import Settings
from services.wire.codes import ErrorCode

SECRET = "a-secret-for-tests-of-32-bytes-or-more"
KEY = "server-key-one"


class OneTicket:
    """A store with one ticket in it."""

    def __init__(self, ticket: str, identity: Identity) -> None:
        self._left = {ticket: identity}
        self.origins: list[str | None] = []

    async def issue(self, identity: Identity, origin: str) -> tuple[str, float]:
        raise NotImplementedError

    async def redeem(self, ticket: str, origin: str | None) -> Identity | None:
        self.origins.append(origin)
        return self._left.pop(ticket, None)


def open_to_all(**overrides: object) -> Authenticator:
    return Authenticator(Settings(session_secret="s" * 32, **overrides))  # type: ignore[arg-type]


def with_tokens(tickets: OneTicket | None = None, **overrides: object) -> Authenticator:
    settings = Settings(auth="jwt", jwt_secrets=[SECRET], api_keys=[KEY, "two"], **overrides)  # type: ignore[arg-type]
    return Authenticator(settings, tickets)


def token(**claims: object) -> str:
    base = {"sub": "ada", "aud": "tidings", "exp": int(time.time()) + 60}
    return jwt.encode(base | claims, SECRET, algorithm="HS256")


def bearer(credentials: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credentials}"}


async def refusal_of(
    authenticator: Authenticator, headers: dict[str, str], query: dict[str, str]
) -> AuthRefused:
    with pytest.raises(AuthRefused) as caught:
        await authenticator.authenticate(headers, query)
    return caught.value


class TestOpen:
    async def test_everybody_is_a_new_user(self) -> None:
        one = await open_to_all().authenticate({}, {"username": "Ada"})
        two = await open_to_all().authenticate({}, {"username": "Ada"})

        assert one.user_id != two.user_id
        assert one.username == two.username == "Ada"
        assert one.grants.admin

    async def test_a_session_brings_the_user_back_on_another_gateway(self) -> None:
        first = await open_to_all().authenticate({}, {})
        again = await open_to_all().authenticate({}, {"session": first.session})

        assert (again.user_id, again.username, again.session) == (
            first.user_id,
            first.username,
            first.session,
        )

    async def test_a_session_of_another_deployment_makes_a_new_user(self) -> None:
        other = await Authenticator(Settings(session_secret="x" * 32)).authenticate({}, {})  # type: ignore[arg-type]
        identity = await open_to_all().authenticate({}, {"session": other.session})

        assert identity.user_id != other.user_id

    async def test_a_username_is_never_an_identity(self) -> None:
        ada = await open_to_all().authenticate({}, {})
        thief = await open_to_all().authenticate({}, {"username": ada.user_id})
        assert thief.user_id != ada.user_id

    @pytest.mark.parametrize("username", ["a\nb", "x" * 200, "\x00"])
    async def test_a_username_must_be_a_name(self, username: str) -> None:
        assert (await refusal_of(open_to_all(), {}, {"username": username})).code is ErrorCode.INVALID_NAME

    async def test_the_server_api_needs_no_key(self) -> None:
        await open_to_all().require_server_key({})

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "chat.example"])  # noqa: S104  # nothing binds
    def test_open_is_refused_off_loopback(self, host: str) -> None:
        with pytest.raises(ValueError, match="TIDINGS_AUTH=jwt"):
            open_to_all(host=host)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
    def test_open_on_loopback(self, host: str) -> None:
        open_to_all(host=host)


class TestTokens:
    async def test_a_bearer_token_names_the_user(self) -> None:
        identity = await with_tokens().authenticate(
            {"authorization": f"bearer  {token()}"}, {"username": "Eve"}
        )
        assert (identity.user_id, identity.username, identity.session) == ("ada", "ada", "")

    @pytest.mark.parametrize("headers", [{}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer "}])
    async def test_nobody_without_credentials(self, headers: dict[str, str]) -> None:
        refusal = await refusal_of(with_tokens(), headers, {"session": "1.x"})
        assert refusal.code is ErrorCode.UNAUTHORIZED
        assert "ticket" in refusal.message

    @pytest.mark.parametrize("name", ["token", "access_token", "jwt"])
    async def test_token_in_url(self, name: str) -> None:
        refusal = await refusal_of(with_tokens(), bearer(token()), {name: token()})
        assert refusal.code is ErrorCode.UNAUTHORIZED
        assert "must not travel in a URL" in refusal.message

    async def test_a_ticket_is_good_once(self) -> None:
        tickets = OneTicket("t", await with_tokens().authenticate(bearer(token()), {}))
        authenticator = with_tokens(tickets)
        headers = {"origin": "https://app.example"}

        assert (await authenticator.authenticate(headers, {"ticket": "t"})).user_id == "ada"
        assert (await refusal_of(authenticator, headers, {"ticket": "t"})).code is ErrorCode.UNAUTHORIZED
        assert tickets.origins == ["https://app.example"] * 2

    async def test_a_bad_ticket_is_not_mended_by_a_token(self) -> None:
        await refusal_of(with_tokens(), bearer(token()), {"ticket": "nonsense"})

    def test_jwt_without_secrets_is_refused_at_start(self) -> None:
        with pytest.raises(ValueError, match="TIDINGS_JWT_SECRETS"):
            Authenticator(Settings(auth="jwt"))


class TestServerApi:
    @pytest.mark.parametrize(
        "headers", [bearer(KEY), {"x-api-key": KEY}, bearer("two"), bearer(token(tidings={"admin": True}))]
    )
    async def test_keys_and_admin_tokens_pass(self, headers: dict[str, str]) -> None:
        await with_tokens().require_server_key(headers)

    async def test_a_users_token_is_not_enough(self) -> None:
        with pytest.raises(AuthRefused) as caught:
            await with_tokens().require_server_key(bearer(token()))
        assert caught.value.code is ErrorCode.FORBIDDEN

    @pytest.mark.parametrize(
        "headers", [{}, bearer(KEY[:-1]), {"x-api-key": KEY + "x"}, {"x-api-key": ""}, bearer("é\ud800")]
    )
    async def test_anything_else_is_nobody(self, headers: dict[str, str]) -> None:
        with pytest.raises(AuthRefused) as caught:
            await with_tokens().require_server_key(headers)
        assert caught.value.code is ErrorCode.UNAUTHORIZED

    async def test_a_key_reads_everything_and_a_token_what_it_may(self) -> None:
        assert (await with_tokens().authorize_read(bearer(KEY), {})).may_follow("logs")
        grants = await with_tokens().authorize_read(bearer(token(tidings={"channels": ["alerts"]})), {})
        assert grants.may_follow("alerts")
        assert not grants.may_follow("metrics")

    async def test_a_key_is_no_user(self) -> None:
        with pytest.raises(AuthRefused):
            await with_tokens().authenticate(bearer(KEY), {})
