"""The authenticator: one policy for all requests."""

import time

import jwt
import pytest

from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import AuthRefused, Identity
from gateway.auth.revocations import Revocations
from services.settings import Settings
from services.settings_values import Scope
from services.wire.codes import ErrorCode
from services.wire.events import Revoked

SECRET = "a-secret-for-tests-of-32-bytes-or-more"
KEY = "api-key-one"


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
    base = {
        "sub": "ada",
        "aud": "tidings",
        "exp": int(time.time()) + 3600,
    }  # some are made long before their test runs
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
    async def test_every_connection_is_a_new_user(self) -> None:
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
        await open_to_all().require_api_key({}, Scope.PUBLISH)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "chat.example"])  # noqa: S104  # nothing binds
    def test_open_is_refused_off_loopback(self, host: str) -> None:
        with pytest.raises(ValueError, match="TIDINGS_AUTH=jwt"):
            open_to_all(host=host)

    def test_open_in_a_container_whose_port_is_published_on_loopback(self) -> None:
        open_to_all(host="0.0.0.0", open_beyond_loopback=True)  # noqa: S104  # nothing binds

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
    async def test_no_user_without_credentials(self, headers: dict[str, str]) -> None:
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
        await with_tokens().require_api_key(headers, Scope.USERS)

    async def test_a_users_token_is_not_enough(self) -> None:
        with pytest.raises(AuthRefused) as caught:
            await with_tokens().require_api_key(bearer(token()), Scope.LOGS)
        assert caught.value.code is ErrorCode.FORBIDDEN

    @pytest.mark.parametrize(
        "headers", [{}, bearer(KEY[:-1]), {"x-api-key": KEY + "x"}, {"x-api-key": ""}, bearer("é\ud800")]
    )
    async def test_anything_else_is_no_user(self, headers: dict[str, str]) -> None:
        with pytest.raises(AuthRefused) as caught:
            await with_tokens().require_api_key(headers, Scope.USERS)
        assert caught.value.code is ErrorCode.UNAUTHORIZED

    async def test_a_key_reads_everything_and_a_token_what_it_may(self) -> None:
        assert (await with_tokens().authenticate_reader(bearer(KEY), {})).grants.may_follow("logs")
        grants = (
            await with_tokens().authenticate_reader(bearer(token(tidings={"channels": ["alerts"]})), {})
        ).grants
        assert grants.may_follow("alerts")
        assert not grants.may_follow("metrics")

    async def test_a_key_is_no_user(self) -> None:
        with pytest.raises(AuthRefused):
            await with_tokens().authenticate(bearer(KEY), {})

    async def test_a_key_is_for_its_scopes(self) -> None:
        authenticator = Authenticator(
            Settings(auth="jwt", jwt_secrets=[SECRET], api_keys=["k1;scopes=publish"])
        )  # type: ignore[arg-type]
        await authenticator.require_api_key(bearer("k1"), Scope.PUBLISH)
        with pytest.raises(AuthRefused) as caught:
            await authenticator.require_api_key(bearer("k1"), Scope.USERS)
        assert caught.value.code is ErrorCode.FORBIDDEN
        assert not (await authenticator.authenticate_reader(bearer("k1"), {})).grants.may_follow("metrics")


class TestRevocation:
    @staticmethod
    def revoked(**what: object) -> Authenticator:
        revocations = Revocations()
        until = time.time() + 60
        revocations.add(Revoked(until=until, **what), time.time())  # type: ignore[arg-type]
        return Authenticator(Settings(auth="jwt", jwt_secrets=[SECRET]), revocations=revocations)  # type: ignore[arg-type]

    async def test_one_token(self) -> None:
        authenticator = self.revoked(token_id="j1")
        refusal = await refusal_of(authenticator, bearer(token(jti="j1")), {})
        assert refusal.code is ErrorCode.UNAUTHORIZED
        assert (await authenticator.authenticate(bearer(token(jti="j2")), {})).user_id == "ada"

    async def test_all_tokens_of_a_user_up_to_a_moment(self) -> None:
        now = int(time.time())
        authenticator = self.revoked(user_id="ada", issued_before=float(now))
        for old in (token(iat=now - 60), token(iat=now), token()):
            assert (await refusal_of(authenticator, bearer(old), {})).code is ErrorCode.UNAUTHORIZED
        newer = Authenticator(
            Settings(auth="jwt", jwt_secrets=[SECRET]),  # type: ignore[arg-type]
            revocations=self.revoked(user_id="ada", issued_before=float(now - 10)).revocations,
        )
        assert (await newer.authenticate(bearer(token(iat=now - 5)), {})).user_id == "ada"
        assert (await authenticator.authenticate(bearer(token(sub="bob")), {})).user_id == "bob"

    async def test_an_administrator_too(self) -> None:
        authenticator = self.revoked(user_id="ada", issued_before=time.time())
        with pytest.raises(AuthRefused):
            await authenticator.require_api_key(bearer(token(tidings={"admin": True})), Scope.USERS)

    async def test_a_ticket_made_before(self) -> None:
        identity = await with_tokens().authenticate(bearer(token(jti="j1")), {})
        revocations = self.revoked(token_id="j1").revocations
        settings = Settings(auth="jwt", jwt_secrets=[SECRET])  # type: ignore[arg-type]
        authenticator = Authenticator(settings, OneTicket("t", identity), revocations)
        assert (await refusal_of(authenticator, {}, {"ticket": "t"})).code is ErrorCode.UNAUTHORIZED

    async def test_while_it_is_not_known_what_was_revoked(self) -> None:
        authenticator = with_tokens()
        ada = await authenticator.authenticate(bearer(token()), {})
        authenticator.revocations.current = False
        assert (await refusal_of(authenticator, bearer(token()), {})).code is ErrorCode.UNAVAILABLE
        with pytest.raises(AuthRefused) as caught:
            await authenticator.require_api_key(bearer(token(tidings={"admin": True})), Scope.USERS)
        assert caught.value.code is ErrorCode.UNAVAILABLE
        # Open connections continue, and under `open` a revocation keeps no client out.
        assert (await authenticator.refresh(ada, token=token(), origin=None)).user_id == "ada"
        anyone = open_to_all()
        anyone.revocations.current = False
        await anyone.authenticate({}, {})

    async def test_a_session(self) -> None:
        ada = await open_to_all().authenticate({}, {})
        authenticator = open_to_all()
        authenticator.revocations.add(Revoked(until=time.time() + 60, user_id=ada.user_id), time.time())
        refusal = await refusal_of(authenticator, {}, {"session": ada.session})
        assert refusal.code is ErrorCode.UNAUTHORIZED
        assert (await authenticator.authenticate({}, {})).user_id != ada.user_id


class TestRenewal:
    async def test_new_rights_for_the_same_user(self) -> None:
        ada = await with_tokens().authenticate(bearer(token(tidings={"join": ["a"]})), {})
        renewed = await with_tokens().refresh(ada, token=token(tidings={"join": ["b"]}), origin=None)
        assert (renewed.user_id, renewed.grants.may_join("a"), renewed.grants.may_join("b")) == (
            "ada",
            False,
            True,
        )

    async def test_not_for_another_user(self) -> None:
        ada = await with_tokens().authenticate(bearer(token()), {})
        with pytest.raises(AuthRefused) as caught:
            await with_tokens().refresh(ada, token=token(sub="eve"), origin=None)
        assert caught.value.code is ErrorCode.FORBIDDEN

    async def test_by_a_ticket_of_the_same_page(self) -> None:
        ada = await with_tokens().authenticate(bearer(token()), {})
        tickets = OneTicket("t", ada)
        assert await with_tokens(tickets).refresh(ada, ticket="t", origin="https://app.example") == ada
        assert tickets.origins == ["https://app.example"]

    async def test_what_expired_renews_nothing(self) -> None:
        ada = await with_tokens().authenticate(bearer(token()), {})
        with pytest.raises(AuthRefused):
            await with_tokens().refresh(ada, token=token(exp=int(time.time()) - 60), origin=None)
