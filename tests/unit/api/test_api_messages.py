"""Messages over HTTP: the rules of a connection, without a connection."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from gateway.auth.identity import SessionSigner
from gateway.delivery.publisher import PublishRefused
from services.settings import Settings
from services.wire.codes import ErrorCode
from services.wire.events import SetPresence
from services.wire.records import UNSET
from tests.support.api import FakeDeps, api_client
from tests.support.secured import KEY, SECRET, bearer, token

SESSION_SECRET = "a-secret-for-sessions"
ADA = {"session": SessionSigner(SESSION_SECRET.encode()).sign("ada"), "username": "Ada"}
DEEP = b"[" * 65 + b"]" * 65


def settings_of(**more: Any) -> Settings:
    return Settings(session_secret=SESSION_SECRET, max_message_bytes=1024, **more)


@pytest.fixture
def deps() -> FakeDeps:
    return FakeDeps(settings_of())


@pytest.fixture
def secured() -> FakeDeps:
    return FakeDeps(settings_of(auth="jwt", jwt_secrets=[SECRET], api_keys=[KEY]))


@pytest.fixture
async def jwt_client(secured: FakeDeps) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(secured) as client:
        yield client


def said(**tidings: Any) -> dict[str, str]:
    """Return the header of a user whose token allows just that."""
    return bearer(token(tidings=tidings))


async def test_to_a_room_as_oneself(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    answer = await client.post(
        "/api/rooms/a%2Fb/messages",
        params=ADA,
        json={"content": {"a": "é"}, "id": "m1"},
        headers={"Tidings-Connection": "c1"},
    )

    assert (answer.status_code, answer.json()) == (
        200, {"type": "ack", "id": "m1", "epoch": "e", "seq": 1, "timestamp": 1},
    )  # fmt: skip
    kind, sender, target, content, id = deps.publisher.published[0]
    assert (kind, sender.user_id, sender.username, sender.connection_id) == ("room", "ada", "Ada", "c1")
    assert (target, content, id) == ("a/b", '{"a":"é"}'.encode(), "m1")
    assert deps.publisher.echoes == [UNSET]
    assert deps.active == ["ada"]


async def test_without_a_session_each_request_is_a_user_of_its_own(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    for _ in range(2):
        await client.post("/api/rooms/den/messages", json={"content": 1})
    one, other = (sender.user_id for _, sender, *_ in deps.publisher.published)
    assert one != other
    assert one.startswith("u-")


async def test_an_echo_is_asked_for_or_left_to_the_namespace() -> None:
    deps = FakeDeps(settings_of(namespaces={"loud": {"echo": True}}))
    async with api_client(deps) as client:
        for room, asked in (("den", True), ("den", False), ("loud:den", False)):
            await client.post(f"/api/rooms/{room}/messages", json={"content": 1, "echo": asked})
        await client.post("/api/rooms/loud:den/messages", json={"content": 1})
    assert deps.publisher.echoes == [True, False, False, UNSET]


async def test_the_ack_of_a_direct_message_has_the_users_online_state(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    deps.user_presence.online["bob"] = True
    there = await client.post("/api/users/bob/messages", params=ADA, json={"content": "x", "id": "d"})
    unknown = await client.post("/api/users/eve/messages", params=ADA, json={"content": "x"})

    assert (there.json()["online"], there.json()["id"]) == (True, "d")
    assert "online" not in unknown.json()
    assert [(kind, target) for kind, _, target, *_ in deps.publisher.published] == [
        ("user", "bob"),
        ("user", "eve"),
    ]


async def test_broadcast(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    answer = await client.post("/api/broadcast", params=ADA, json={"content": None})
    assert answer.json()["type"] == "ack"
    assert deps.publisher.published[0][0] == "all"


async def test_status_and_data(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    status = await client.put(
        "/api/me/status", params=ADA, json={"status": "busy"}, headers={"Tidings-Connection": "c1"}
    )
    data = await client.put("/api/me/data", params=ADA, json={"customData": {"page": 1}})

    assert (status.json(), data.json()) == ({"type": "ack"}, {"type": "ack"})
    assert deps.user_presence.orders == [
        SetPresence(user_id="ada", connection_id="c1", status="busy"),
        SetPresence(user_id="ada", custom_data=msgspec.Raw(b'{"page":1}')),
    ]


async def test_status_of_a_user_who_is_offline(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.user_presence.present = False
    answer = await client.put("/api/me/status", params=ADA, json={"status": "busy"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("path", ["/api/rooms/den/messages", "/api/users/bob/messages", "/api/broadcast"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_field"),
        (b"[]", 400, "invalid_field"),
        (b'{"id":"x"}', 400, "invalid_field"),
        (b'{"content":tru}', 400, "bad_message"),
        (b'{"content":"\xff"}', 400, "bad_message"),
        (b'{"content":' + DEEP + b"}", 400, "invalid_field"),
        (b'{"content":1e999}', 400, "invalid_field"),
        (b'{"content":1,"id":"' + b"x" * 65 + b'"}', 400, "invalid_field"),
        (b'{"content":"' + b"x" * 1024 + b'"}', 413, "too_large"),
    ],
)
async def test_bad_bodies(
    client: httpx.AsyncClient, deps: FakeDeps, path: str, body: bytes, status: int, code: str
) -> None:
    answer = await client.post(path, content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert deps.publisher.published == []
    assert deps.limited == (["json_depth"] if DEEP in body else [])


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/api/me/status", {"status": "asleep"}, "invalid_field"),
        ("/api/me/status", {}, "invalid_field"),
        ("/api/me/data", {}, "invalid_field"),
        ("/api/me/data", {"customData": "x" * 200}, "too_large"),
    ],
)
async def test_bad_presence(path: str, body: dict[str, Any], code: str) -> None:
    deps = FakeDeps(settings_of(max_custom_data_bytes=100))
    async with api_client(deps) as client:
        answer = await client.put(path, json=body)
    assert answer.json()["code"] == code
    assert deps.user_presence.orders == []


@pytest.mark.parametrize(
    ("headers", "code"),
    [({"Tidings-Connection": "c2"}, "forbidden"), ({"Tidings-Connection": "x" * 65}, "invalid_field")],
)
async def test_the_connection_is_the_users_own(
    client: httpx.AsyncClient, deps: FakeDeps, headers: dict[str, str], code: str
) -> None:
    deps.connections |= {"c1": SimpleNamespace(user_id="ada"), "c2": SimpleNamespace(user_id="bob")}
    own = await client.post(
        "/api/broadcast", params=ADA, json={"content": 1}, headers={"Tidings-Connection": "c1"}
    )
    other = await client.post("/api/broadcast", params=ADA, json={"content": 1}, headers=headers)
    assert own.status_code == 200
    assert other.json()["code"] == code
    assert len(deps.publisher.published) == 1


async def test_a_refusal_of_the_bus_is_passed_on(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.publisher.fault = PublishRefused(ErrorCode.UNAVAILABLE, "not now")
    answer = await client.post("/api/rooms/den/messages", json={"content": 1})
    assert (answer.status_code, answer.json()["retryable"], answer.headers["retry-after"]) == (503, True, "1")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/rooms/den/messages", {"content": 1}),
        ("POST", "/api/users/bob/messages", {"content": 1}),
        ("POST", "/api/broadcast", {"content": 1}),
        ("PUT", "/api/me/status", {"status": "away"}),
        ("PUT", "/api/me/data", {"customData": 1}),
    ],
)
async def test_under_jwt_only_users_send(
    jwt_client: httpx.AsyncClient, secured: FakeDeps, method: str, path: str, body: dict[str, Any]
) -> None:
    nobody = await jwt_client.request(method, path, json=body)
    by_session = await jwt_client.request(method, path, json=body, params=ADA)
    by_key = await jwt_client.request(method, path, json=body, headers=bearer(KEY))
    assert [answer.status_code for answer in (nobody, by_session, by_key)] == [401, 401, 401]
    assert secured.publisher.published == []

    allowed = said(join=["den"], publish=["den"], direct=True, broadcast=True)
    assert (await jwt_client.request(method, path, json=body, headers=allowed)).status_code == 200
    nothing = await jwt_client.request(method, path, json=body, headers=said())
    assert nothing.status_code == (200 if path.startswith("/api/me/") else 403)


@pytest.mark.parametrize(
    "grants", [{"join": ["den"]}, {"publish": ["den"]}, {"join": ["*"], "publish": ["x"]}]
)
async def test_a_room_needs_both_rights(
    jwt_client: httpx.AsyncClient, secured: FakeDeps, grants: dict[str, Any]
) -> None:
    answer = await jwt_client.post("/api/rooms/den/messages", json={"content": 1}, headers=said(**grants))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert secured.publisher.published == []


async def test_only_the_server_publishes_to_a_namespace_of_the_server() -> None:
    deps = FakeDeps(settings_of(namespaces={"news": {"publish": "server"}}))
    async with api_client(deps) as client:
        answer = await client.post("/api/rooms/news:today/messages", json={"content": 1})
    assert answer.json()["code"] == "forbidden"


async def test_the_rate_is_that_of_the_user() -> None:
    deps = FakeDeps(settings_of(message_rate=1, namespaces={"slow": {"message_rate": 0.5}}))
    bob = {"session": SessionSigner(SESSION_SECRET.encode()).sign("bob")}
    async with api_client(deps) as client:

        async def post(room: str, who: dict[str, str]) -> httpx.Response:
            return await client.post(f"/api/rooms/{room}/messages", params=who, json={"content": 1})

        codes = [(await post("den", ADA)).status_code for _ in range(3)]
        late = await post("den", ADA)
        assert codes == [200, 200, 429]
        assert late.json()["code"] == "rate_limited"
        assert 0 < late.json()["retryAfterMs"] <= 1000
        assert late.headers["retry-after"] == "1"
        assert [(await post("slow:den", bob)).status_code for _ in range(2)] == [200, 429]
    assert deps.limited == ["message_rate", "message_rate", "namespace_rate"]


async def test_a_message_without_an_id_is_no_retry(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    await client.post("/api/rooms/den/messages", params=ADA, json={"content": 1})
    assert deps.publisher.published[0][4] is UNSET
