"""Public keys: only from configured URLs, fetched once for many requests, kept while the issuer is down."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import AuthRefused
from gateway.auth.jwks import (
    COOLDOWN_S,
    FRESH_S,
    MAX_BYTES,
    MAX_KEYS,
    STALE_S,
    FetchFailed,
    IssuerKeys,
    PublicKeys,
    check_url,
    fetch,
    parse_keys,
)
from gateway.auth.tokens import ConfiguredKeys, TokenVerifier
from services.settings import Settings
from services.wire.codes import ErrorCode

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
ISSUER, OTHER = "https://id.example", "https://other.example"


def jwk(private: Any, kid: str | None, **extra: object) -> dict[str, Any]:
    algorithm = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    maker = next(maker for kind, maker in algorithm.items() if isinstance(private, kind))
    entry = json.loads(maker.to_jwk(private.public_key()))
    return {**entry, **({} if kid is None else {"kid": kid}), **extra}


def document(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def token(private: Any, algorithm: str, kid: str | None = None, **claims: object) -> str:
    base = {"sub": "ada", "iss": ISSUER, "aud": "tidings", "exp": int(time.time()) + 60}
    return jwt.encode(base | claims, private, algorithm, {} if kid is None else {"kid": kid})


class Server:
    """An issuer's set of keys that counts requests; and a clock."""

    def __init__(self, body: bytes) -> None:
        self.body: bytes | FetchFailed = body
        self.asked = 0
        self.now = 1000.0
        self.gate: asyncio.Event | None = None

    async def fetch(self) -> bytes:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.body, FetchFailed):
            raise self.body
        return self.body

    def keys(self, issuer: str = ISSUER) -> IssuerKeys:
        return IssuerKeys(issuer, self.fetch, lambda: self.now)


def verifier_of(**servers: IssuerKeys) -> TokenVerifier:
    issuers = {{"one": ISSUER, "two": OTHER}[name]: keys for name, keys in servers.items()}
    secrets = ["a-secret-of-32-bytes-for-hs256-only"]
    return TokenVerifier(ConfiguredKeys(secrets, public=PublicKeys(issuers)), audience="tidings")


async def refusal_of(by: TokenVerifier, text: str) -> AuthRefused:
    with pytest.raises(AuthRefused) as caught:
        await by.verify(text)
    return caught.value


@pytest.mark.parametrize(("private", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
async def test_the_algorithm_follows_from_the_kind_of_key(private: Any, algorithm: str) -> None:
    by = verifier_of(one=Server(document(jwk(private, "k"))).keys())
    assert (await by.verify(token(private, algorithm, "k"))).user_id == "ada"


@pytest.mark.parametrize("algorithm", ["RS512", "PS256"])
async def test_the_token_does_not_choose_the_algorithm(algorithm: str) -> None:
    by = verifier_of(one=Server(document(jwk(RSA, "k"))).keys())
    assert (await refusal_of(by, token(RSA, algorithm, "k"))).code is ErrorCode.UNAUTHORIZED


async def test_same_kid_under_two_issuers() -> None:
    one, two = Server(document(jwk(RSA, "k"))), Server(document(jwk(OTHER_RSA, "k")))
    by = verifier_of(one=one.keys(), two=two.keys(OTHER))

    assert (await by.verify(token(RSA, "RS256", "k"))).user_id == "ada"
    assert (await by.verify(token(OTHER_RSA, "RS256", "k", iss=OTHER))).user_id == "ada"
    for text in (token(OTHER_RSA, "RS256", "k"), token(RSA, "RS256", "k", iss=OTHER)):
        assert "known key" in (await refusal_of(by, text)).message


@pytest.mark.parametrize("iss", ["https://evil.example", "http://127.0.0.1:1", None, 7, [ISSUER], ""])
async def test_forged_issuer_makes_no_request(iss: object) -> None:
    server = Server(document(jwk(RSA, "k")))
    headers = {"kid": "k", "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/", "jwk": jwk(EC, "k")}
    claims = {"sub": "ada", "iss": iss, "aud": "tidings", "exp": int(time.time()) + 60}
    payload = jwt.api_jws.encode(json.dumps(claims).encode(), RSA, "RS256", headers)
    assert (await refusal_of(verifier_of(one=server.keys()), payload)).code is ErrorCode.UNAUTHORIZED
    assert server.asked == 0


async def test_a_secret_does_not_verify_for_an_issuer_with_public_keys() -> None:
    public = RSA.public_key()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    import hmac
    from base64 import urlsafe_b64encode as b64

    parts = [
        json.dumps({"alg": "HS256", "kid": "k"}),
        json.dumps({"sub": "ada", "iss": ISSUER, "aud": "tidings", "exp": 9_999_999_999}),
    ]
    text = ".".join(b64(part.encode()).rstrip(b"=").decode() for part in parts)
    forged = f"{text}.{b64(hmac.digest(pem, text.encode(), 'sha256')).rstrip(b'=').decode()}"
    by = verifier_of(one=Server(document(jwk(RSA, "k"))).keys())
    assert "known key" in (await refusal_of(by, forged)).message


async def test_many_at_once_cost_one_request() -> None:
    server = Server(document(jwk(RSA, "k")))
    server.gate = asyncio.Event()
    by = verifier_of(one=server.keys())
    waiting = [asyncio.ensure_future(by.verify(token(RSA, "RS256", "k"))) for _ in range(50)]
    await asyncio.sleep(0)
    server.gate.set()
    assert {identity.user_id for identity in await asyncio.gather(*waiting)} == {"ada"}
    assert server.asked == 1


async def test_made_up_kids_cost_one_request_in_a_while_and_no_memory() -> None:
    server = Server(document(jwk(RSA, "k")))
    keys = server.keys()
    by = verifier_of(one=keys)
    await by.verify(token(RSA, "RS256", "k"))
    for number in range(50):
        await refusal_of(by, token(RSA, "RS256", f"made-up-{number}"))
    assert server.asked == 1
    server.now += COOLDOWN_S
    for number in range(50):
        await refusal_of(by, token(RSA, "RS256", f"made-up-{number}"))
    assert server.asked == 2
    assert len(keys._keys) == 1


async def test_a_new_key_is_found() -> None:
    server = Server(document(jwk(RSA, "old")))
    by = verifier_of(one=server.keys())
    await by.verify(token(RSA, "RS256", "old"))
    server.body = document(jwk(OTHER_RSA, "new"))
    server.now += COOLDOWN_S
    assert (await by.verify(token(OTHER_RSA, "RS256", "new"))).user_id == "ada"
    await refusal_of(by, token(RSA, "RS256", "old"))  # taken out: it counts no more


async def test_an_old_set_is_served_while_a_new_one_is_fetched() -> None:
    server = Server(document(jwk(RSA, "k")))
    by = verifier_of(one=server.keys())
    await by.verify(token(RSA, "RS256", "k"))
    server.now += FRESH_S + 1
    server.gate = asyncio.Event()
    assert (await by.verify(token(RSA, "RS256", "k"))).user_id == "ada"
    await asyncio.sleep(0)
    assert server.asked == 2
    server.gate.set()


async def test_an_issuer_that_is_away_is_remembered_for_a_day() -> None:
    server = Server(document(jwk(RSA, "k")))
    by = verifier_of(one=server.keys())
    await by.verify(token(RSA, "RS256", "k"))
    server.body = FetchFailed("away")
    server.now += STALE_S - 1
    assert (await by.verify(token(RSA, "RS256", "k"))).user_id == "ada"
    server.now += COOLDOWN_S + 2
    for _ in range(2):  # the token may be valid: that cannot be decided
        assert (await refusal_of(by, token(RSA, "RS256", "k"))).code is ErrorCode.UNAVAILABLE


async def test_an_issuer_without_keys_has_none() -> None:
    server = Server(document())
    by = verifier_of(one=server.keys())
    for _ in range(2):
        assert (await refusal_of(by, token(RSA, "RS256", "k"))).code is ErrorCode.UNAUTHORIZED
    assert server.asked == 1


async def test_without_keys_the_answer_is_not_now_instead_of_no() -> None:
    server = Server(b"")
    server.body = FetchFailed("away")
    by = verifier_of(one=server.keys())
    for _ in range(20):
        assert (await refusal_of(by, token(RSA, "RS256", "k"))).code is ErrorCode.UNAVAILABLE
    assert server.asked == 1
    server.body = document(jwk(RSA, "k"))
    server.now += COOLDOWN_S
    assert (await by.verify(token(RSA, "RS256", "k"))).user_id == "ada"


async def test_a_token_without_kid_is_for_the_only_key() -> None:
    by = verifier_of(one=Server(document(jwk(RSA, "k"))).keys())
    assert (await by.verify(token(RSA, "RS256"))).user_id == "ada"
    by = verifier_of(one=Server(document(jwk(RSA, "k"), jwk(OTHER_RSA, "l"))).keys())
    await refusal_of(by, token(RSA, "RS256"))


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k"},
        jwk(RSA, "k", use="enc"),
        jwk(RSA, "k", alg="RS512"),
        jwk(RSA, "k", key_ops=["sign"]),
        json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA)) | {"kid": "k"},
        jwk(rsa.generate_private_key(public_exponent=65537, key_size=1024), "k"),  # noqa: S505  # too small on purpose
        jwk(ec.generate_private_key(ec.SECP384R1()), "k"),
        {"kty": "RSA", "kid": "k", "n": "!!", "e": "AQAB"},
        {"kty": "RSA", "kid": "k"},
        {"kty": ["RSA"], "kid": "k"},
        {},
        7,
    ],
    ids=[
        "symmetric",
        "encryption",
        "other algorithm",
        "signing",
        "private",
        "small",
        "P-384",
        "no numbers",
        "empty key",
        "list",
        "empty",
        "number",
    ],
)
def test_keys_that_are_not_taken(entry: object) -> None:
    assert parse_keys(json.dumps({"keys": [entry]}).encode(), ISSUER) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 1}',
        b"\xff",
        b"[" * 5000,
        json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(),
    ],
)
def test_what_is_no_set_of_keys(body: bytes) -> None:
    with pytest.raises(FetchFailed):
        parse_keys(body, ISSUER)


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


async def served(answer: Answer) -> tuple[asyncio.Server, str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"


async def outcome_of(raw: bytes, *, then_wait_s: float = 0.0, timeout_s: float = 5.0) -> bytes:
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(raw)
            for _ in range(int(then_wait_s / 0.1)):
                await asyncio.sleep(0.1)
                writer.write(b" ")
                await writer.drain()
        except ConnectionError:
            pass  # the other side gave up, as it should
        finally:
            writer.close()
            answered.set()

    server, url = await served(answer)
    async with server:
        try:
            return await fetch(url, timeout_s)
        finally:
            await answered.wait()
            await asyncio.sleep(0)  # let the transport close


async def test_fetching() -> None:
    assert await outcome_of(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") == b"{}"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX_BYTES + 1),
    ],
    ids=["missing", "elsewhere", "empty", "nonsense", "nothing", "large"],
)
async def test_fetching_fails(raw: bytes) -> None:
    with pytest.raises(FetchFailed):
        await outcome_of(raw)


async def test_a_document_that_drips_is_given_up() -> None:
    with pytest.raises(FetchFailed):  # and when it has all come it is taken
        await outcome_of(b"HTTP/1.1 200 OK\r\n\r\n", then_wait_s=1.5, timeout_s=0.5)


async def test_unreachable_server() -> None:
    with pytest.raises(FetchFailed):
        await fetch("http://127.0.0.1:1/keys")


@pytest.mark.parametrize(
    "url", ["http://id.example/keys", "ftp://id.example", "file:///etc/passwd", "https://", "keys"]
)
def test_where_keys_are_not_fetched_from(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        check_url(url)


def test_the_configuration_is_checked_at_start() -> None:
    with pytest.raises(ValueError, match="TIDINGS_JWT_ISSUER"):
        Authenticator(Settings(auth="jwt", jwks_url="https://id.example/keys"))
    with pytest.raises(ValueError, match="https"):
        Authenticator(Settings(auth="jwt", jwks_issuers={ISSUER: "http://id.example/keys"}))
    Authenticator(Settings(auth="jwt", jwks_url="https://id.example/keys", jwt_issuer=ISSUER))
