"""Attacks on the handshake against a real gateway: its answers and its log."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from services.wire.names import to_token
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment
from tests.support.rawsocket import FIN, TEXT, client_frame, raw_socket
from tests.support.secured import KEY, SECRET, WITH_TOKENS, bearer, client, token
from tidings_cli.local.servers import NatsServer, RedisServer

ORIGIN = "https://app.example"
PAYLOAD = "a-payload-that-belongs-into-no-log"


def settings_for(nats: NatsServer, redis: RedisServer, **more: object) -> dict[str, object]:
    return {"nats_url": nats.url, "redis_url": redis.url, "prefix": "handshake", "log_level": "debug", **more}


@pytest.fixture(scope="module")
def gateway(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    settings = settings_for(nats_server, redis_server, origins=ORIGIN, echo_endpoint=True, **WITH_TOKENS)
    with Deployment(tmp_path_factory.mktemp("jwt"), gateways=1, services=False, **settings) as deployment:
        yield deployment.gateways[0]
        assert deployment.faults() == []


@pytest.fixture
def with_presence(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> Iterator[ServiceProcess]:
    settings = settings_for(nats_server, redis_server, **WITH_TOKENS) | {"prefix": "handshake-presence"}
    with Deployment(tmp_path, gateways=1, **settings) as deployment:
        yield deployment.gateways[0]
        assert deployment.faults() == []


@pytest.fixture(scope="module")
def open_gateway(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    settings = settings_for(nats_server, redis_server)
    with Deployment(tmp_path_factory.mktemp("open"), gateways=1, services=False, **settings) as deployment:
        yield deployment.gateways[0]
        assert deployment.faults() == []


async def refusal(
    gateway: ServiceProcess, text: str = "", query: str = "", **headers: str
) -> tuple[int, str]:
    """Try to connect; return the status and the error's code."""
    with pytest.raises(InvalidStatus) as caught:
        async with client(gateway, text, query, **headers):
            pass
    response = caught.value.response
    return response.status_code, json.loads(response.body or b"{}").get("code", "")


async def test_cross_site_websocket_hijack(gateway: ServiceProcess, open_gateway: ServiceProcess) -> None:
    for origin in (
        "https://evil.example",
        "null",
        f"{ORIGIN}.evil.example",
        "http://app.example",
        f"{ORIGIN}:444",
    ):
        assert await refusal(gateway, token(), Origin=origin) == (403, "forbidden")
        assert await refusal(open_gateway, Origin=origin) == (403, "forbidden")
        assert await upgraded(gateway, f"Origin: {origin}") == 403
        async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
            answer = await http.get(f"{gateway.url}/api/rooms", headers=bearer(token()) | {"origin": origin})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    async with client(gateway, token(), Origin=ORIGIN) as page:
        assert await page.is_open()
    async with client(open_gateway, Origin=open_gateway.url) as page:
        assert await page.is_open()


async def test_a_page_of_another_site_embeds_nothing(open_gateway: ServiceProcess) -> None:
    """An image's address must not make a user and join rooms; the link to the dashboard works."""
    embedding = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    async with httpx.AsyncClient(base_url=open_gateway.url, timeout=PATIENCE_S) as http:
        answer = await http.get("/events?rooms=lobby&username=Your%20Boss", headers=embedding)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert (await http.get("/", headers=embedding | {"sec-fetch-mode": "navigate"})).status_code == 200
    assert await upgraded(open_gateway, "Sec-Fetch-Site: cross-site") == 403


async def test_a_page_of_this_machine(open_gateway: ServiceProcess, gateway: ServiceProcess) -> None:
    """A developer's own page connects to a gateway that only this machine reaches."""
    page = "http://localhost:5173"
    async with client(open_gateway, Origin=page) as socket:
        assert await socket.is_open()
    async with httpx.AsyncClient(headers={"origin": page}, timeout=PATIENCE_S) as http:
        answer = await http.get(f"{open_gateway.url}/api/gateways")
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)
        assert (await http.get(f"{gateway.url}/api/rooms", headers=bearer(token()))).status_code == 403
        answer = await http.get(f"{open_gateway.url}/api/rooms", headers={"host": "evil.example"})
        assert answer.status_code == 403
    assert f'"origin": "{page}"' in gateway.log_text() or f'"origin":"{page}"' in gateway.log_text()


async def test_dns_rebinding(open_gateway: ServiceProcess) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        answer = await http.get(f"{open_gateway.url}/api/rooms", headers={"host": "evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["evil.example/healthz?", "127.0.0.1/healthz#", "x@y", "[::1", ""])
async def test_poisoned_host(gateway: ServiceProcess, host: str) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        for path in ("/api/logs", "/api/rooms", "/events"):
            assert (await http.get(gateway.url + path, headers={"host": host})).status_code in (400, 401)


async def test_token_in_url(gateway: ServiceProcess) -> None:
    text = token()
    for name in ("token", "access_token", "jwt"):
        assert await refusal(gateway, "", f"{name}={text}") == (401, "unauthorized")
        assert await refusal(gateway, text, f"{name}={text}") == (401, "unauthorized")


async def test_ticket_reuse(gateway: ServiceProcess) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:

        async def ticket() -> str:
            return str(
                (await http.post("/api/tickets", headers=bearer(token()) | {"origin": ORIGIN})).json()[
                    "ticket"
                ]
            )

        one = await ticket()
        async with client(gateway, "", f"ticket={one}", Origin=ORIGIN):
            pass
        assert await refusal(gateway, "", f"ticket={one}", Origin=ORIGIN) == (401, "unauthorized")
        assert (await http.get("/api/rooms", params={"ticket": one})).status_code == 401
        # Shown by the wrong page, it is spent too.
        two = await ticket()
        assert await refusal(gateway, "", f"ticket={two}", Origin=gateway.url) == (401, "unauthorized")
        assert await refusal(gateway, "", f"ticket={two}", Origin=ORIGIN) == (401, "unauthorized")


async def upgraded(gateway: ServiceProcess, *headers: str) -> int:
    """Try an upgrade of `/ws/echo` with these header lines; return the status."""
    try:
        async with raw_socket(gateway.port, "/ws/echo", *headers) as socket:
            head = socket.head
            await socket.still_serves()
    except AssertionError as refused:
        status = re.search(r"HTTP/1\.1 ([45]\d\d) ", str(refused))
        if status is None:
            raise
        return int(status[1])
    assert b"sec-websocket-protocol" not in head.lower()
    return 101


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Sec-WebSocket-Protocol: tidings.v1.json\u00e9", 400),
        ("Sec-WebSocket-Protocol: \u202e", 400),
        ("Sec-WebSocket-Protocol: a b", 400),
        ("Sec-WebSocket-Protocol: ,,,", 400),
        ('Sec-WebSocket-Protocol: "', 400),
        (f"Sec-WebSocket-Protocol: {'x' * 5000}", 101),
        ("Sec-WebSocket-Extensions: \u00e9", 101),
        ("X-Other: \u00e9\u202e\U0001f600", 101),
        ("Cookie: \u00ff=\u00fe", 101),
    ],
)
async def test_strange_subprotocols(gateway: ServiceProcess, header: str, status: int) -> None:
    """What is no token is refused as malformed, what is none of ours is not agreed to; nothing raises."""
    assert await upgraded(gateway, header) == status


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "room", ["*", ">", "a.*", "a.>", "$SYS.>", "$JS.API.STREAM.DELETE.x", "a b", "=2E", "../x", "x\u2028y"]
)
async def test_subject_injection(gateway: ServiceProcess, room: str) -> None:
    """A room named like a wildcard is a room of that name: it hears itself and nothing else."""
    async with client(gateway, token("mallory")) as mallory, client(gateway, token("ada")) as ada:
        assert (await mallory.ask("join_room", room=room))["type"] == "joined_room"
        for other in ("a.b", "a", "secret"):
            await ada.ask("join_room", room=other)
            await ada.ask("room_message", room=other, content=f"not for you: {other}")
        await mallory.ask("room_message", room=room, content="mine", echo=True)
        assert (await mallory.receive("room_message") if not heard(mallory) else heard(mallory)[0])[
            "content"
        ] == "mine"
        assert [message["content"] for message in heard(mallory)] == ["mine"]
        assert not re.search(r"[.*>$ ]", to_token(room))


def heard(who: Any) -> list[dict[str, Any]]:
    return [message for message in who.seen if message["type"] == "room_message"]


async def test_room_name_confusion(gateway: ServiceProcess) -> None:
    """Two spellings of one name are one room, and a permission for one is none for a look-alike."""
    limited = {"join": ["caf\u00e9"], "publish": ["caf\u00e9"]}
    async with client(gateway, token("bob", tidings=limited)) as bob, client(gateway, token("ada")) as ada:
        assert (await bob.ask("join_room", room="cafe\u0301"))["room"] == "caf\u00e9"
        await ada.ask("join_room", room="caf\u00e9")
        await ada.ask("room_message", room="cafe\u0301", content="one room")
        assert (await bob.receive("room_message"))["room"] == "caf\u00e9"
        for lookalike in ("c\u0430fe\u0301", "caf\u00e9 ", "Caf\u00e9", "cafe", "caf\u00e9\u200b"):
            assert (await bob.ask("join_room", room=lookalike))["code"] == "forbidden"


@pytest.mark.parametrize("room", ["", "\x00", "a\x00b", "a\nb", "\u0085", "x" * 129, "\u0301" * 600])
async def test_names_that_are_none(gateway: ServiceProcess, room: str) -> None:
    async with client(gateway, token()) as ada:
        assert (await ada.ask("join_room", room=room))["code"] == "invalid_name"
        assert await ada.is_open()


async def test_json_bomb(gateway: ServiceProcess) -> None:
    async with client(gateway, token()) as ada:
        await ada.ask("join_room", room="bombs")
        for depth in (65, 1000, 30_000):
            bomb = "[" * depth + "]" * depth
            await ada.socket.send(
                f'{{"type":"room_message","room":"bombs","content":{bomb},"id":"b{depth}"}}'
            )
            assert (await ada.receive("error"))["code"] in ("invalid_field", "bad_message")
        await ada.socket.send("[" * 60_000)
        assert (await ada.receive("error"))["code"] == "bad_message"
        assert await ada.is_open()


async def test_lua_injection(with_presence: ServiceProcess) -> None:
    """Names and data that would end a string or a script are stored as they are."""
    nasty = ["']] redis.call('FLUSHALL') --[[", '"\\" .. os.exit()', "{tidings:metrics}", "%s%n", "\\u0000"]
    for number, text in enumerate(nasty):
        async with client(with_presence, token(f"lua-{number}", name=text), "channels=presence") as ada:
            await ada.ask("join_room", room=text)
            assert (await ada.ask("presence_update", customData={text: text}))["type"] == "ack"
            async with httpx.AsyncClient(headers={"x-api-key": KEY}, timeout=PATIENCE_S) as http:

                async def shown(http: httpx.AsyncClient = http, text: str = text) -> bool:
                    users = (
                        await http.get(f"{with_presence.url}/api/presence", params={"room": text})
                    ).json()
                    return [user.get("customData") for user in users] == [{text: text}]

                await eventually(shown, "the user's data")


async def test_redos_in_patterns(gateway: ServiceProcess) -> None:
    """Patterns with exponential cost in a backtracking matcher cost one pass each."""
    patterns = ["*a" * 60 + "b", "*" * 120, "a*" * 60 + "c"]
    async with client(gateway, token(tidings={"join": patterns[:1] + patterns[2:]})) as ada:
        for _ in range(20):
            assert (await ada.ask("join_room", room="a" * 128))["code"] == "forbidden"


# --- answers to untrusted clients ---------------------------------------------------------------------------------


async def test_no_versions_and_no_traces_for_untrusted_clients(gateway: ServiceProcess) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        answers = [
            await http.request(method, path)
            for method in ("GET", "POST", "DELETE", "PUT", "TRACE")
            for path in (
                "/",
                "/healthz",
                "/readyz",
                "/metrics",
                "/openapi.json",
                "/asyncapi.json",
                "/nowhere",
                "/api/rooms",
                "/api/publish",
                "/ws",
                "/events",
            )
        ]
        answers.append(await http.post("/api/publish", content=b"\xff{", headers={"x-api-key": KEY}))
        for answer in answers:
            said = f"{answer.headers} {answer.text}".lower()
            for sign in ("uvicorn", "starlette", "traceback", "python_info", "build_info", 'version="'):
                assert sign not in said, (answer.request.url, sign)
            assert "server" not in answer.headers
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        for document in ("/openapi.json", "/asyncapi.json"):
            assert (await http.get(document)).json()["info"]["version"] == "1"  # of the protocol
        assert "python_info" in (await http.get("/metrics", headers={"x-api-key": KEY})).text


async def test_cors_is_exact(gateway: ServiceProcess) -> None:
    async with httpx.AsyncClient(
        base_url=gateway.url, headers={"origin": ORIGIN}, timeout=PATIENCE_S
    ) as http:
        answer = await http.get("/api/rooms", headers=bearer(token()))
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]
        preflight = await http.options("/api/tickets", headers={"access-control-request-method": "POST"})
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, ORIGIN)


async def test_log_injection_and_log_cleanliness(gateway: ServiceProcess) -> None:
    """Names cannot forge lines or colour a terminal; secrets and payloads are in no line, not even when debugging."""
    text = token("eve\u202e\u2028", name="eve\u202e[31m")
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        ticket = (await http.post("/api/tickets", headers=bearer(text))).json()["ticket"]
        async with client(gateway, "", f"ticket={ticket}&username=a%0Ab%1B%5B31m") as eve:
            room = 'room\u202e\u2028{"level":"error"}'
            await eve.ask("join_room", room=room)
            await eve.ask(
                "join_room", room=room, since={"epoch": "x", "seq": 1}
            )  # what became of it is logged
            await eve.ask("room_message", room=room, content=PAYLOAD)
            await eve.ask("direct_message", targetUserId="eve", content=PAYLOAD)
            await eve.ask("presence_update", customData={"x": PAYLOAD})
            await eve.ask("refresh", token=text)
            await eve.socket.send(f'{{"type": "{PAYLOAD}", "content": ')
            await eve.receive("error")
        await refusal(gateway, f"{text}x")
        await refusal(gateway, "", f"ticket={ticket}")
        await http.post("/api/publish", headers={"x-api-key": KEY}, json={"room": "r", "content": PAYLOAD})
        await http.post("/api/publish", headers={"x-api-key": KEY}, content=f'{{"{PAYLOAD}')
        await http.get(f"/api/rooms?ticket={ticket}&token={text}")
        async with raw_socket(gateway.port) as socket:
            socket.send(client_frame(FIN | TEXT, f"{PAYLOAD}\n".encode()) + b"\xff\xff" + PAYLOAD.encode())

    lines = gateway.log_text()
    assert "room not recovered" in lines
    for secret in (text, text.split(".")[2], ticket, KEY, SECRET, PAYLOAD):
        assert secret not in lines
    for line in lines.splitlines():
        json.loads(line)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\u2066-\u2069]", line)
        assert not re.search(r"\\u(001b|202e|2028)", line)
