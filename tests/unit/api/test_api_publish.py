"""Publishing, disconnecting and tickets over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.delivery.publisher import PublishRefused, Sender
from gateway.limits import Limit
from services.bus.errors import Unavailable
from services.settings import Settings
from services.wire.codes import ErrorCode
from services.wire.grants import Grants, Patterns
from services.wire.records import UNSET
from tests.support.api import FakeDeps, api_client


@pytest.fixture
def deps() -> FakeDeps:
    return FakeDeps(Settings(max_message_bytes=1024, max_body_bytes=4096))


async def test_to_a_room(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    answer = await client.post("/api/publish", json={"room": "den", "content": {"a": [1, "é"]}, "id": "m1"})

    assert answer.status_code == 200
    assert answer.json() == {"type": "ack", "id": "m1", "epoch": "e", "seq": 1, "timestamp": 1}
    kind, sender, target, content, id = deps.publisher.published[0]
    assert (kind, sender, target, id) == ("room", Sender("server", "server"), "den", "m1")
    assert content == '{"a":[1,"é"]}'.encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"userId": "ada", "content": 1}, ("user", Sender("server", "server"), "ada", b"1", UNSET)),
        ({"broadcast": True, "content": None}, ("all", Sender("server", "server"), "", b"null", UNSET)),
        (
            {"room": "den", "content": "x", "username": "Bot"},
            ("room", Sender("server", "Bot"), "den", b'"x"', UNSET),
        ),
        (
            {"room": "cafe\u0301", "content": "x"},
            ("room", Sender("server", "server"), "caf\u00e9", b'"x"', UNSET),
        ),
    ],
)
async def test_recipients(
    client: httpx.AsyncClient, deps: FakeDeps, body: dict[str, Any], expected: object
) -> None:
    assert (await client.post("/api/publish", json=body)).status_code == 200
    assert deps.publisher.published == [expected]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_field"),
        (b"{}", "invalid_field"),
        (b"nonsense", "bad_message"),
        (b'{"room":"den","content":tru}', "bad_message"),
        (b'{"room":"den","content":1', "bad_message"),
        (b'{"room":"den","content":1}x', "bad_message"),
        (b'{"room":"den","content":"\xff"}', "bad_message"),
        (b'{"id":' * 600, "invalid_field"),
        (b'{"room":"den","content":' + b"[" * 65 + b"]" * 65 + b"}", "invalid_field"),
        (b'{"room":"den"}', "invalid_field"),
        (b'{"content":1}', "invalid_field"),
        (b'{"room":"den","userId":"ada","content":1}', "invalid_field"),
        (b'{"room":"den","broadcast":true,"content":1}', "invalid_field"),
        (b'{"broadcast":"yes","content":1}', "invalid_field"),
        (b'{"room":7,"content":1}', "invalid_field"),
        (b'{"room":null,"content":1}', "invalid_field"),
        (b'{"room":"","content":1}', "invalid_name"),
        (b'{"room":"a\\nb","content":1}', "invalid_name"),
        (b'{"room":"\\ud800","content":1}', "bad_message"),
        (b'{"room":"den","content":1,"username":""}', "invalid_name"),
        (b'{"room":"den","content":1,"id":"' + b"x" * 65 + b'"}', "invalid_field"),
        (b"null", "invalid_field"),
    ],
)
async def test_bad_input(client: httpx.AsyncClient, deps: FakeDeps, body: bytes, code: str) -> None:
    answer = await client.post("/api/publish", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert deps.publisher.published == []


async def test_a_nesting_bomb_within_the_size_limits() -> None:
    deps = FakeDeps(Settings())
    bomb = b"[" * 30_000 + b"]" * 30_000  # deeper than any interpreter follows
    async with api_client(deps) as client:
        answer = await client.post("/api/publish", content=b'{"room":"den","content":' + bomb + b"}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_message")
    assert deps.publisher.published == []


async def test_oversize(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    content = await client.post("/api/publish", json={"room": "den", "content": "x" * 1100})
    body = await client.post("/api/publish", content=b" " * 5000)

    async def in_chunks() -> AsyncIterator[bytes]:
        yield b'{"room":"den","content":1}'
        for _ in range(5):
            yield b" " * 1000

    undeclared = await client.post("/api/publish", content=in_chunks())
    liar = await client.post("/api/publish", content=b"{}", headers={"content-length": "9" * 400})

    for answer in (content, body, undeclared, liar):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert deps.publisher.published == []


async def test_compressed_bodies_are_refused_unread(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/publish", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert answer.json()["code"] == "bad_message"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (PublishRefused(ErrorCode.UNAVAILABLE, "not now"), 503, "unavailable"),
        (PublishRefused(ErrorCode.TOO_LARGE, "too large"), 413, "too_large"),
    ],
)
async def test_refusals(
    client: httpx.AsyncClient, deps: FakeDeps, fault: Exception, status: int, code: str
) -> None:
    deps.publisher.fault = fault
    answer = await client.post("/api/publish", json={"room": "den", "content": 1})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (answer.headers.get("retry-after") == "1") == (status == 503)


@pytest.mark.parametrize("user_id", ["ada", "a/b", "Ü x"])
async def test_disconnecting_orders_all_gateways(
    client: httpx.AsyncClient, deps: FakeDeps, user_id: str
) -> None:
    escaped = str(httpx.QueryParams({"u": user_id})).removeprefix("u=").replace("+", "%20")
    answer = await client.delete(f"/api/users/{escaped}/connections?reason=spam")

    assert (answer.status_code, answer.json()) == (202, {"userId": user_id})
    order = {"type": "disconnect_user", "userId": user_id, "reason": "spam"}
    assert deps.bus.published == [("tidings.control", order)]
    assert deps.bus.flushed == 1


async def test_disconnecting_fails_if_the_order_was_not_sent(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    deps.bus.fault = Unavailable("no bus")
    assert (await client.delete("/api/users/ada/connections")).status_code == 503


async def test_a_reason_fits_a_close_frame(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/api/users/ada/connections", params={"reason": "é" * 61})
    assert answer.status_code == 400


async def test_tickets_under_open(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    answer = await client.post("/api/tickets", params={"username": "Ada"})

    assert (answer.status_code, answer.json()) == (201, {"ticket": "ticket-0", "expiresAt": 1_000_500})
    assert answer.headers["cache-control"] == "no-store"
    identity, origin = deps.tickets.kept["ticket-0"]
    assert (identity.username, origin) == ("Ada", "")


async def test_a_ticket_is_bound_to_the_requesting_page(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    page = "http://127.0.0.1:8080"
    await client.post("/api/tickets", headers={"origin": page}, json={"origin": "https://other.example"})
    await client.post("/api/tickets", json={"origin": "https://app.example"})
    assert [origin for _, origin in deps.tickets.kept.values()] == [page, "https://app.example"]


# --- several targets, and batches ---


async def test_to_several_rooms_and_users(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.publisher.refused["b"] = PublishRefused(ErrorCode.UNAVAILABLE, "not now")
    body = {"rooms": ["a", "b", "", "a"], "content": 1, "id": "m"}
    answer = await client.post("/api/publish", json=body)

    assert answer.status_code == 200
    assert (answer.json()["type"], answer.json()["id"]) == ("ack", "m")
    answers = answer.json()["answers"]
    assert [each.get("code", each["type"]) for each in answers] == [
        "ack",
        "unavailable",
        "invalid_name",
        "ack",
    ]
    assert all(each["id"] == "m" for each in answers)
    assert answers[1] == {
        "type": "error", "id": "m", "code": "unavailable", "message": "not now", "retryable": True, "retryAfterMs": 1000,
    }  # fmt: skip
    users = (await client.post("/api/publish", json={"userIds": ["ada"], "content": 1})).json()
    assert [each["type"] for each in users["answers"]] == ["ack"]
    assert [published[:3:2] for published in deps.publisher.published] == [
        ("room", "a"), ("room", "a"), ("user", "ada"),
    ]  # fmt: skip


async def test_several_targets_of_which_none_accepts_have_the_first_error(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    deps.publisher.fault = PublishRefused(ErrorCode.UNAVAILABLE, "not now")
    alone = await client.post("/api/publish", json={"rooms": ["a", "b"], "content": 1})
    assert (alone.status_code, alone.json()["code"], alone.headers["retry-after"]) == (
        503,
        "unavailable",
        "1",
    )
    batch = await client.post("/api/publish", json=[{"rooms": ["a", "b"], "content": 1}])
    assert [each["code"] for each in batch.json()] == ["unavailable"]


async def test_a_batch_is_answered_in_order_and_its_bad_members_by_themselves(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    answer = await client.post(
        "/api/publish",
        content=b'[{"room":"a","content":1,"id":"1"},7,{"room":"a"},{"room":"","content":1},{"userId":"u","content":2},'
        b'{"room":"a","content":"'
        + b"x" * 1100
        + b'"},{"rooms":["b","c"],"content":[]},{"broadcast":true,"content":{}}]',
    )
    assert answer.status_code == 200
    assert [each.get("code", each["type"]) for each in answer.json()] == [
        "ack", "invalid_field", "invalid_field", "invalid_name", "ack", "too_large", "ack", "ack",
    ]  # fmt: skip
    assert [len(each.get("answers", ())) for each in answer.json()] == [0, 0, 0, 0, 0, 0, 2, 0]
    assert [published[2] for published in deps.publisher.published] == ["a", "u", "b", "c", ""]
    assert deps.limited == [Limit.MESSAGE_BYTES]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[" + b",".join([b"1"] * 1001) + b"]", 413, "too_large"),
        (b"[1", 400, "bad_message"),
        (b"[1]x", 400, "bad_message"),
        (b"[" * 2000, 400, "bad_message"),
        (b'{"rooms":[],"content":1}', 400, "invalid_field"),
        (b'{"rooms":["a"],"room":"a","content":1}', 400, "invalid_field"),
        (b'{"room":"a","content":1,"exclude":"' + b"x" * 65 + b'"}', 400, "invalid_field"),
    ],
)
async def test_what_is_refused_as_a_whole(
    client: httpx.AsyncClient, deps: FakeDeps, body: bytes, status: int, code: str
) -> None:
    answer = await client.post("/api/publish", content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert deps.publisher.published == []


async def test_an_empty_batch_has_no_answers(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/publish", content=b" [ ] ")).json() == []


async def test_an_excluded_connection_goes_with_each_target(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    body = {"rooms": ["a", "b"], "content": 1, "exclude": "c0"}
    await client.post("/api/publish", json=[body, {"broadcast": True, "content": 1, "exclude": "c1"}])
    assert deps.publisher.excluded == ["c0", "c0", "c1"]


async def test_a_request_has_limited_messages_and_few_wait_at_a_time() -> None:
    deps = FakeDeps(Settings())
    deps.publisher.delay_s = 0.001
    thousand = {"rooms": [f"r{number}" for number in range(1000)], "content": 1}
    async with api_client(deps) as client:
        answers = (await client.post("/api/publish", json=[thousand] * 11)).json()
        assert [each["type"] for each in answers] == ["ack"] * 10 + ["error"]
        assert answers[-1]["code"] == "too_large"
        assert 1 < deps.publisher.most_open <= 2000

        deps.publisher.most_open = 0
        large = {"rooms": [f"r{number}" for number in range(40)], "content": "x" * 60_000}
        assert (await client.post("/api/publish", json=large)).json()["type"] == "ack"
        assert 1 < deps.publisher.most_open <= 17


KEYS = "p;scopes=publish,i;scopes=impersonate,t;scopes=tickets,all"
SECURED = Settings(auth="jwt", jwt_secrets=["s" * 32], api_keys=KEYS.split(","))


@pytest.mark.parametrize(
    ("key", "plain", "as_user"), [("p", "ack", "forbidden"), ("i", "forbidden", "ack"), ("all", "ack", "ack")]
)
async def test_a_message_of_another_user_needs_a_scope(key: str, plain: str, as_user: str) -> None:
    deps = FakeDeps(SECURED)
    body = [
        {"room": "r", "content": 1},
        {"room": "r", "content": 1, "as": {"userId": "ada", "username": "Ada"}},
        {"room": "r", "content": 1, "as": {"userId": "ada"}},
    ]
    async with api_client(deps, headers={"x-api-key": key}) as client:
        answers = (await client.post("/api/publish", json=body)).json()
        assert [each.get("code", each["type"]) for each in answers] == [plain, as_user, as_user]
        alone = await client.post("/api/publish", json=body[1])
        assert alone.status_code == (200 if as_user == "ack" else 403)
    senders = [published[1] for published in deps.publisher.published]
    expected = [Sender("server", "server")] if plain == "ack" else []
    if as_user == "ack":
        expected += [Sender("ada", "Ada"), Sender("ada", "ada"), Sender("ada", "Ada")]
    assert senders == expected


async def test_a_server_makes_a_ticket_for_a_user() -> None:
    deps = FakeDeps(SECURED)
    body: dict[str, Any] = {
        "userId": "ada", "name": "Ada", "grants": {"join": ["a:*"]}, "origin": "https://app.example",
    }  # fmt: skip
    async with api_client(deps, headers={"x-api-key": "t"}) as client:
        assert (await client.post("/api/tickets", json=body)).status_code == 201
        identity, origin = deps.tickets.kept["ticket-0"]
        assert (identity.user_id, identity.username, origin) == ("ada", "Ada", "https://app.example")
        assert identity.grants.to_dict() == Grants(join=Patterns(["a:*"])).to_dict()
        assert identity.issued_at is not None
        await client.post("/api/tickets", json={"userId": "bob"})
        assert deps.tickets.kept["ticket-1"][0].grants == SECURED.default_grants
        for refused, code in (
            (body | {"userId": "server"}, "invalid_name"),
            (body | {"userId": ""}, "invalid_name"),
            (body | {"grants": {"jion": []}}, "invalid_field"),
            (body | {"grants": {"admin": True}}, "forbidden"),
            ({"name": "without a user"}, "unauthorized"),
        ):
            assert (await client.post("/api/tickets", json=refused)).json()["code"] == code
    async with api_client(deps, headers={"x-api-key": "all"}) as client:
        assert (await client.post("/api/tickets", json=body | {"grants": {"admin": True}})).status_code == 201
    async with api_client(deps, headers={"x-api-key": "p"}) as client:
        assert (await client.post("/api/tickets", json=body)).json()["code"] == "forbidden"
    async with api_client(deps) as client:
        assert (await client.post("/api/tickets", json=body)).json()["code"] == "unauthorized"
