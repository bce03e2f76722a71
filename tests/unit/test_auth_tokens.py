"""Valid and forged tokens: one test for each kind of forgery."""

import base64
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.auth.identity import AuthRefused
from gateway.auth.tokens import CLOCK_SKEW_S, MAX_TOKEN_BYTES, ConfiguredKeys, TokenVerifier, VerificationKey
from services.wire.codes import ErrorCode
from services.wire.grants import DEFAULT, NOTHING, Grants, Patterns

SECRET = "first-secret-of-32-bytes-or-more-"
OLD_SECRET = "older-secret-of-32-bytes-or-more-"
verifier = TokenVerifier(ConfiguredKeys([SECRET, OLD_SECRET], "https://id.example"), audience="tidings")


def claims(**overrides: Any) -> dict[str, Any]:
    base = {"sub": "ada", "exp": int(time.time()) + 60, "aud": "tidings", "iss": "https://id.example"}
    return {name: value for name, value in (base | overrides).items() if value is not None}


def token(secret: str = SECRET, headers: dict[str, Any] | None = None, **overrides: Any) -> str:
    return jwt.encode(claims(**overrides), secret, algorithm="HS256", headers=headers)


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def refusal_of(text: str, by: TokenVerifier = verifier) -> str:
    with pytest.raises(AuthRefused) as caught:
        await by.verify(text)
    assert caught.value.code is ErrorCode.UNAUTHORIZED
    return caught.value.message


async def test_a_good_token_names_its_user() -> None:
    expires = int(time.time()) + 60
    identity = await verifier.verify(token(name="Ada L.", exp=expires))

    assert (identity.user_id, identity.username, identity.session) == ("ada", "Ada L.", "")
    assert identity.expires_at == expires + CLOCK_SKEW_S
    assert identity.grants is DEFAULT


async def test_without_name_the_user_is_shown_by_id() -> None:
    assert (await verifier.verify(token())).username == "ada"


async def test_tokens_of_an_older_secret_pass_while_it_is_configured() -> None:
    assert (await verifier.verify(token(OLD_SECRET))).user_id == "ada"


async def test_an_unknown_secret() -> None:
    assert "known key" in await refusal_of(token("another-secret-of-32-bytes-or-more"))


async def test_alg_none() -> None:
    unsigned = f"{segment({'alg': 'none', 'typ': 'JWT'})}.{segment(claims())}."
    assert "known key" in await refusal_of(unsigned)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_another_algorithm_with_the_right_secret(algorithm: str) -> None:
    text = jwt.encode(claims(), SECRET + SECRET, algorithm=algorithm)
    source = ConfiguredKeys([SECRET + SECRET])
    assert "known key" in await refusal_of(text, TokenVerifier(source))


@pytest.mark.parametrize("alg", ["RS256", "", None, 7, ["HS256"], {"HS256": 1}])
async def test_a_header_with_a_strange_algorithm(alg: object) -> None:
    signed = token().split(".")
    await refusal_of(".".join([segment({"alg": alg}), *signed[1:]]))


class AnyKey:
    """A key source that leaves the choice of algorithm to the verifier."""

    def __init__(self, candidate: VerificationKey) -> None:
        self._candidate = candidate

    async def keys_for(self, header: Mapping[str, Any], issuer: object) -> list[VerificationKey]:
        return [self._candidate]


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "none"])
async def test_the_algorithm_belongs_to_the_key(algorithm: str) -> None:
    text = jwt.encode(claims(), "" if algorithm == "none" else SECRET * 2, algorithm=algorithm)
    await refusal_of(text, TokenVerifier(AnyKey(VerificationKey(SECRET * 2, "HS256"))))


async def test_key_confusion() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    by = TokenVerifier(AnyKey(VerificationKey(public, "RS256")))
    honest = jwt.encode(claims(), private, algorithm="RS256")
    forged = sign(f"{segment({'alg': 'HS256'})}.{segment(claims())}", public)

    assert (
        await TokenVerifier(AnyKey(VerificationKey(public, "RS256")), audience="tidings").verify(honest)
    ).user_id
    await refusal_of(forged, by)


async def test_a_key_offered_by_the_token_itself_is_not_used() -> None:
    stranger = "a-secret-only-the-stranger-knows-"
    headers = {
        "jwk": {"kty": "oct", "k": segment(stranger)},
        "jku": "http://127.0.0.1:1/",
        "x5u": "http://x/",
    }
    assert "known key" in await refusal_of(token(stranger, headers))


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], "exp", None])
async def test_crit_is_refused(crit: object) -> None:
    header = segment({"alg": "HS256", "crit": crit, "b64": True})
    await refusal_of(".".join([header, *token().split(".")[1:]]))


async def test_a_properly_signed_crit_is_refused() -> None:
    parts = [segment({"alg": "HS256", "crit": ["b64"], "b64": True}), segment(claims())]
    assert "crit" in await refusal_of(sign(".".join(parts)))


async def test_an_expired_token() -> None:
    assert "expired" in await refusal_of(token(exp=int(time.time()) - 60))


async def test_a_token_of_the_future() -> None:
    assert "not valid yet" in await refusal_of(token(nbf=int(time.time()) + 60))


@pytest.mark.parametrize("missing", ["exp", "sub", "aud", "iss"])
async def test_a_token_without(missing: str) -> None:
    assert missing in await refusal_of(token(**{missing: None}))


async def test_another_audience() -> None:
    assert "audience" in await refusal_of(token(aud="somebody-else"))


async def test_another_issuer() -> None:
    assert "issuer" in await refusal_of(token(iss="https://evil.example"))


async def test_audience_and_issuer_are_asked_for_only_where_configured() -> None:
    free = TokenVerifier(ConfiguredKeys([SECRET]))
    assert (await free.verify(token(aud="whoever", iss="whoever"))).user_id == "ada"
    assert (await free.verify(token(aud=None, iss=None))).user_id == "ada"


@pytest.mark.parametrize("sub", ["", "x" * 129, "a\nb", 7, ["ada"]])
async def test_a_sub_that_is_no_name(sub: object) -> None:
    parts = [segment({"alg": "HS256"}), segment(claims(sub=sub))]
    await refusal_of(sign(".".join(parts)))


async def test_a_sub_is_normalized() -> None:
    assert (await verifier.verify(token(sub="cafe\u0301"))).user_id == "caf\u00e9"


@pytest.mark.parametrize("exp", ["soon", [], {}, True, float("inf"), 1e300])
async def test_an_expiry_that_is_no_time(exp: object) -> None:
    parts = [segment({"alg": "HS256"}), segment(claims(exp=exp))]
    try:
        identity = await verifier.verify(sign(".".join(parts)))
    except AuthRefused:
        return
    assert identity.expires_at == int(1e300) + CLOCK_SKEW_S  # absurd, but said by the holder of the secret


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b.c", "é.é.é", "\ud800", "A" * (MAX_TOKEN_BYTES + 1), "e30.e30.", "W10.W10.W10"],
)
async def test_what_is_no_token(text: str) -> None:
    await refusal_of(text)


async def test_a_token_has_a_longest_length() -> None:
    assert "longer" in await refusal_of(token(filler="x" * MAX_TOKEN_BYTES))


async def test_a_nesting_bomb_in_the_header() -> None:
    bomb = base64.urlsafe_b64encode(b"[" * 4500).rstrip(b"=").decode()
    await refusal_of(f"{bomb}.e30.e30")


async def test_a_token_that_would_outlive_its_revocation() -> None:
    by = TokenVerifier(ConfiguredKeys([SECRET]), longest_life_s=3600)
    assert (await by.verify(token(exp=int(time.time()) + 3600, aud=None, iss=None))).user_id == "ada"
    assert "TIDINGS_REVOCATION_S" in await refusal_of(token(exp=int(time.time()) + 3700, aud=None), by)


async def test_what_a_token_is_revoked_by() -> None:
    identity = await verifier.verify(token(jti="j1", iat=1_700_000_000))
    assert (identity.token_id, identity.issued_at) == ("j1", 1_700_000_000)
    identity = await verifier.verify(token())
    assert (identity.token_id, identity.issued_at) == ("", None)
    latest = time.time() + CLOCK_SKEW_S
    identity = await verifier.verify(
        token(iat=int(latest) + 0.999)
    )  # a fraction is passed over where it is judged
    assert identity.issued_at is not None
    assert identity.issued_at <= latest, "what is taken is covered by a revocation that comes now"


async def test_what_a_token_without_the_claim_allows_is_configured() -> None:
    by = TokenVerifier(ConfiguredKeys([SECRET]), default=Grants(join=Patterns(("lobby",))))
    grants = (await by.verify(token(aud=None, iss=None))).grants
    assert (grants.may_join("lobby"), grants.may_join("den"), grants.direct) == (True, False, False)


async def test_the_claim_has_the_users_permissions() -> None:
    said = {"join": ["team:*"], "publish": ["team:a"], "channels": ["metrics"], "broadcast": True}
    grants = (await verifier.verify(token(tidings=said))).grants

    assert grants.may_join("team:b")
    assert not grants.may_join("lobby")
    assert grants.may_publish("team:a")
    assert not grants.may_publish("team:b")
    assert grants.may_follow("metrics")
    assert not grants.may_follow("presence")
    assert grants.broadcast
    assert (grants.direct, grants.admin) == (False, False)


@pytest.mark.parametrize(
    "claim",
    [
        None,
        [],
        "admin",
        {"join": "lobby"},
        {"join": [1]},
        {"join": [""]},
        {"admin": 1},
        {"admin": "true"},
        {"admins": True},
        {"join": ["x"] * 1000},
    ],
)
async def test_a_malformed_claim_refuses_the_token(claim: object) -> None:
    parts = [segment({"alg": "HS256"}), segment(claims() | {"tidings": claim})]
    assert "tidings" in await refusal_of(sign(".".join(parts)))


def test_a_short_secret_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ConfiguredKeys(["short"])


def sign(signing_input: str, secret: str | bytes = SECRET) -> str:
    """Sign what PyJWT would refuse to make."""
    key = secret if isinstance(secret, bytes) else secret.encode()
    signature = hmac.digest(key, signing_input.encode(), "sha256")
    return f"{signing_input}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_a_room_token() -> None:
    end = int(time.time()) + 30
    found = await verifier.verify_room(token(room="Cafe\u0301", exp=end, jti="j", iat=5, publish=True))
    assert (found.room, found.publish) == ("Caf\u00e9", True)  # normalized as a name of a room is
    identity = found.identity
    assert (identity.user_id, identity.token_id, identity.issued_at) == ("ada", "j", 5.0)
    assert (identity.expires_at, identity.grants) == (end, NOTHING)
    assert (await verifier.verify_room(token(room="r"))).publish is False


@pytest.mark.parametrize(
    "wrong", [{}, {"room": 1}, {"room": ""}, {"room": "r", "publish": 1}, {"room": "r", "sub": None}]
)
async def test_what_is_no_room_token(wrong: dict[str, Any]) -> None:
    with pytest.raises(AuthRefused):
        await verifier.verify_room(token(**wrong))


async def test_a_room_token_is_no_login() -> None:
    assert "no login" in await refusal_of(token(room="r"))
    assert "no login" in await refusal_of(token(room=["r"], tidings={"admin": True}))
