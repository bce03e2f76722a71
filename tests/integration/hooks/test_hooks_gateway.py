"""Gateways whose application decides, as clients see it: over WebSockets, streams and HTTP."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.clients import Client, client, event_source
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment
from tests.support.hook_application import HookApplication
from tests.support.requires import need

Gateways = tuple[ServiceProcess, ServiceProcess]


def cookie(user: str) -> dict[str, str]:
    return {"Cookie": f"sessionid={user}"}


@contextlib.asynccontextmanager
async def connected(
    gateway: ServiceProcess, user: str, query: str = "", **options: Any
) -> AsyncIterator[Client]:
    async with client(gateway, query, additional_headers=cookie(user), **options) as one:
        yield one


def http(gateway: ServiceProcess, user: str = "", **headers: str) -> httpx.AsyncClient:
    sent = (cookie(user) if user else {}) | headers
    return httpx.AsyncClient(base_url=gateway.url, headers=sent, timeout=PATIENCE_S)


# --- connect ---


@pytest.mark.parametrize("subprotocol", ["tidings.v1.json", "tidings.v1.msgpack"])
async def test_a_cookie_is_enough(gateways: Gateways, application: HookApplication, subprotocol: str) -> None:
    async with connected(gateways[0], "ann", "page=1", subprotocol=subprotocol) as ann:
        assert (ann.welcome["userId"], ann.welcome["username"]) == ("ann", "Ann")
    (asked,) = application.asked("connect")
    assert asked["connectionId"] == ann.welcome["connectionId"]
    assert asked["headers"]["cookie"] == "sessionid=ann"
    assert (asked["query"], asked["address"], asked["dialect"]) == ({"page": "1"}, "127.0.0.1", "tidings")


async def test_a_client_that_is_refused_gets_403_before_the_upgrade(
    gateways: Gateways, application: HookApplication
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with client(gateways[0]):
            pass
    assert caught.value.response.status_code == 403
    body = json.loads(caught.value.response.body or b"")
    assert body == {"code": "login_required", "message": "log in first", "retryable": False}
    async with http(gateways[0]) as anyone:
        assert (await anyone.get("/events")).status_code == 403
        assert (await anyone.post("/api/broadcast", json={"content": 1})).json() == body
        assert (await anyone.get("/api/rooms/x/history")).json() == body
    assert len(application.asked("connect")) == 4


async def test_the_answer_makes_the_connection(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    expires_at = int(time.time() + 3600) * 1000
    answer = {
        "userId": "bo",
        "username": "Bo",
        "grants": {"join": ["open-*"], "publish": ["*"], "channels": ["presence", "presence:*"]},
        "rooms": [room, "other"],
        "customData": {"mood": "calm"},
        "expiresAt": expires_at,
    }
    application.misbehave(answers={"connect": answer})
    async with connected(gateways[0], "bo") as bo:
        assert bo.welcome["expiresAt"] == expires_at
        await bo.expect("joined_room", room=room)
        await bo.expect("joined_room", room="other")
        assert (await bo.ask("room_message", room=room, content="hi"))["type"] == "ack"
        assert (await bo.ask("join_room", room=room))["type"] == "joined_room"  # which the grants do not name
        assert (await bo.ask("join_room", room="elsewhere"))["code"] == "forbidden"
        async with http(gateways[1], **{"X-API-Key": "the-servers-key"}) as server:

            async def present() -> Any:
                users = (await server.get("/api/presence", params={"room": room})).json()
                return [(user["userId"], user["customData"]) for user in users if "customData" in user]

            await eventually(lambda: _equals(present(), [("bo", {"mood": "calm"})]), "the custom data")
        async with http(
            gateways[1], "bo"
        ) as same:  # the room that the application named is open over HTTP too
            sent = await same.post(f"/api/rooms/{room}/messages", json={"content": "from HTTP"})
            assert sent.status_code == 200
        await bo.expect("room_message", content="from HTTP")
        assert application.asked("join") == []


async def _equals(value: Any, wanted: object) -> bool:
    return bool(await value == wanted)


async def test_a_connection_ends_when_the_application_says_so(
    gateways: Gateways, application: HookApplication
) -> None:
    application.misbehave(answers={"connect": {"userId": "ann", "expiresAt": (time.time() + 1.5) * 1000}})
    async with connected(gateways[0], "ann") as ann:
        await ann.expect("disconnect", code=4002)


async def test_a_stream_has_its_cookie_and_its_rooms(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    application.misbehave(answers={"connect": {"userId": "ann", "rooms": [room]}})
    async with event_source(gateways[0], headers=cookie("ann"), rooms=f"{room}-2") as stream:
        greeting = await stream.expect("connected")
        assert greeting["userId"] == "ann"
        assert {(await stream.expect("joined_room"))["room"] for _ in range(2)} == {room, f"{room}-2"}
        (asked,) = application.asked("connect")
        assert asked["connectionId"] == greeting["connectionId"]
        assert [one["room"] for one in application.asked("join")] == [f"{room}-2"]
        async with http(gateways[1], "ann") as ann:
            await ann.post(f"/api/rooms/{room}/messages", json={"content": 1})
        assert (await stream.expect("room_message"))["content"] == 1


async def test_an_answer_is_kept_until_the_user_is_revoked(
    gateways: Gateways, application: HookApplication
) -> None:
    application.misbehave(answers={"connect": {"userId": "revoked-one", "ttl": 60}})
    async with (
        http(gateways[0], "x") as user,
        http(gateways[0], **{"X-API-Key": "the-servers-key"}) as server,
    ):
        for _ in range(3):
            assert (await user.get("/api/presence")).status_code == 200
        assert len(application.asked("connect")) == 1
        await server.delete("/api/users/revoked-one/connections?revoke=true")

        async def refused() -> bool:
            return (await user.get("/api/presence")).status_code == 401

        await eventually(refused, "the revocation to be known")
        assert len(application.asked("connect")) > 1


async def test_an_api_key_is_not_asked_about(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    async with http(gateways[0], **{"X-API-Key": "the-servers-key"}) as server:
        assert (await server.post("/api/publish", json={"room": room, "content": 1})).status_code == 200
        assert (await server.get(f"/api/rooms/{room}/history")).status_code == 200
    assert application.asked() == []


async def test_allowed_pages_may_send_cookies(deployment: Deployment, application: HookApplication) -> None:
    gateway = deployment.extra_gateway("with-origins", origins="https://app.example")
    async with http(gateway, "ann", Origin="https://app.example") as page:
        answer = await page.get("/api/presence")
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    async with http(gateway, "ann", Origin="https://else.example") as page:
        refused = await page.get("/api/presence")
    assert refused.status_code == 403
    assert "access-control-allow-credentials" not in refused.headers
    gateway.terminate()
    assert [one["origin"] for one in application.asked()] == ["https://app.example"]


# --- join ---


async def test_a_refused_room_stays_closed_on_every_way(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    closed = f"closed-{room}"
    code = "not_a_friend"
    async with connected(gateways[0], "ann") as ann, connected(gateways[1], "bob") as bob:
        await bob.join(room)
        await ann.send("join_room", room=closed, id="j")
        await ann.send("room_message", room=closed, content=1, id="m")  # before the answer
        for id in ("j", "m"):
            error = await ann.expect("error", id=id)
            assert (error["code"], error["message"], error["retryable"]) == (
                code,
                "this room is for friends",
                False,
            )
        assert (await ann.ask("room_message", room=closed, content=1))["code"] == "not_in_room"
        assert (await ann.ask("subscribe", channel=f"presence:{closed}"))["code"] == code
        assert (await ann.ask("subscribe", channel=f"presence:{room}"))["type"] == "subscribed"
    async with http(gateways[0], "ann") as user:
        for method, path in [
            ("GET", f"/events?rooms={closed}"),
            ("GET", f"/events?channels=presence:{closed}"),
            ("POST", f"/api/rooms/{closed}/messages"),
            ("GET", f"/api/rooms/{closed}/history"),
            ("GET", f"/api/presence?room={closed}"),
        ]:
            answer = await user.request(method, path, json={"content": 1} if method == "POST" else None)
            assert (answer.status_code, answer.json()["code"]) == (403, code), path


async def test_messages_wait_for_a_join_that_waits_for_the_application(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    async with connected(gateways[0], "ann") as ann:
        application.misbehave(delay_s=0.3)
        await ann.send("join_room", room=room, id="j")
        for number in range(3):
            await ann.send("room_message", room=room, content=number, id=f"m{number}", echo=True)
        got = [await ann.receive() for _ in range(7)]
    acks = [message["id"] for message in got if message["type"] == "ack"]
    assert got[0]["type"] == "joined_room"
    assert acks == ["m0", "m1", "m2"]
    assert [message["content"] for message in got if message["type"] == "room_message"] == [0, 1, 2]


async def test_the_application_sees_and_replaces_member_data(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    async with connected(gateways[0], "ann") as ann, connected(gateways[1], "bob") as bob:
        await ann.join(room)
        await bob.join(room, memberData={"seat": 1})
        assert application.asked("join")[-1]["memberData"] == {"seat": 1}
        assert (await ann.expect("user_joined"))["memberData"] == {"seat": 1}
        count = len(application.asked("join"))
        await bob.join(room)  # to recover
        assert len(application.asked("join")) == count
        await ann.ask("subscribe", channel=f"presence:{room}")
        await ann.expect("presence_list")
        application.misbehave(answers={"join": {"memberData": {"seat": 2}}})
        await bob.join(room, memberData={"seat": 7})
        assert (await ann.expect("user_online"))["user"]["memberData"] == {"seat": 2}
        application.misbehave(answers={"join": {"refuse": {}}})
        assert (await bob.ask("join_room", room=room, memberData=8))["code"] == "refused"
        assert (await bob.ask("room_message", room=room, content=1))["type"] == "ack"  # still a member


async def test_a_room_left_before_the_answer_is_not_joined(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    async with connected(gateways[0], "ann") as ann:
        application.misbehave(delay_s=0.3)
        await ann.send("join_room", room=room, id="j")
        assert (await ann.ask("leave_room", room=room))["type"] == "left_room"
        assert (await ann.expect("error", id="j"))["code"] == "conflict"


async def test_the_application_chooses_how_much_history_a_client_gets(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    async with http(gateways[0], "ann") as ann:
        for number in range(4):
            await ann.post(f"/api/rooms/{room}/messages", json={"content": number})
    application.misbehave(answers={"join": {"history": 2}})
    async with connected(gateways[1], "bob") as bob:
        joined = await bob.join(room, history=4)
        assert [message["content"] for message in joined["history"]] == [2, 3]
    async with event_source(gateways[1], headers=cookie("bob"), rooms=room) as stream:
        assert [(await stream.expect("room_message"))["content"] for _ in range(2)] == [2, 3]


# --- publish ---


async def test_the_application_decides_on_messages(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    async with connected(gateways[0], "ann") as ann, connected(gateways[1], "bob") as bob:
        await ann.join(room)
        await bob.join(room)
        ack = await ann.ask("room_message", room=room, content={"replace": {"clean": 1}})
        assert (ack["type"], "seq" in ack) == ("ack", True)
        skipped = await ann.ask("room_message", room=room, content={"skip": 1})
        assert (skipped["type"], "seq" in skipped) == ("ack", False)
        error = await ann.ask("room_message", room=room, content={"refuse": "rude"})
        assert (error["type"], error["code"], error["retryable"]) == ("error", "rude", False)
        assert (await ann.ask("direct_message", targetUserId="bob", content={"replace": "hi"}))[
            "type"
        ] == "ack"
        await ann.ask("room_message", room=room, content="last")
        assert (await bob.expect("room_message"))["content"] == {"clean": 1}
        assert (await bob.expect("room_message"))["content"] == "last"
        assert (await bob.expect("direct_message"))["content"] == "hi"
    async with http(gateways[0], "ann") as user:
        path = f"/api/rooms/{room}/messages"
        assert "seq" in (await user.post(path, json={"content": {"replace": 1}})).json()
        assert "seq" not in (await user.post(path, json={"content": {"skip": 1}})).json()
        refused = await user.post(path, json={"content": {"refuse": "rude"}})
        assert (refused.status_code, refused.json()["code"]) == (403, "rude")
        history = (await user.get(f"/api/rooms/{room}/history")).json()["messages"]
    assert [message["content"] for message in history] == [{"clean": 1}, "last", 1]


async def test_slow_answers_do_not_change_the_order(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    delays = [300, 0, 150, 20, 0, 90]
    async with connected(gateways[0], "ann") as ann, connected(gateways[1], "bob") as bob:
        await ann.join(room)
        await ann.join(f"{room}-2")
        await bob.join(room)
        for number, delay in enumerate(delays):
            await ann.send(
                "room_message", room=room, content={"delayMs": delay, "n": number}, id=f"m{number}"
            )
        other = await ann.ask("room_message", room=f"{room}-2", content={})
        assert other["type"] == "ack"  # another room does not wait
        assert [message["id"] for message in ann.inbox if message["type"] == "ack"] == []
        got = [(await bob.expect("room_message"))["content"]["n"] for _ in delays]
        acks = [(await ann.expect("ack"))["id"] for _ in delays]
    assert got == list(range(len(delays)))
    assert acks == [f"m{number}" for number in got]
    assert application.most_under_way >= 3  # at the same time


# --- failures ---


async def test_clients_are_told_while_the_application_fails(
    gateways: Gateways, application: HookApplication, room: str
) -> None:
    async with connected(gateways[1], "ann") as ann:
        await ann.join(room)
        application.misbehave(body="{")
        error = await ann.ask("room_message", room=room, content=1)
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        assert error["retryAfterMs"] > 0
        assert (await ann.ask("join_room", room="another"))["code"] == "unavailable"
        with pytest.raises(InvalidStatus) as caught:
            async with connected(gateways[1], "bob"):
                pass
        assert caught.value.response.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1
        application.behave()
        assert (await ann.ask("room_message", room=room, content=1))["type"] == "ack"


async def test_no_cookie_reaches_a_log(gateways: Gateways, application: HookApplication) -> None:
    secret = f"s3cret-{time.time_ns()}"
    for fault in ({}, {"body": "{"}, {"status": 500}, {"fault": "huge"}):
        application.misbehave(**fault)
        async with http(gateways[0], secret, Authorization=f"Bearer {secret}") as user:
            await user.get("/api/presence", params={"page": secret})
        application.behave()
    log = gateways[0].log_text()
    assert "a hook failed" in log
    assert secret not in log
    assert application.settings["hooks_secrets"] not in log


async def test_under_allow_a_failing_application_is_passed_over(
    deployment: Deployment, application: HookApplication, room: str
) -> None:
    gateway = deployment.extra_gateway("allowing", hooks_on_failure="allow", auth="open")
    application.misbehave(status=500)
    async with connected(gateway, "ann", "username=Zoe") as ann:
        assert ann.welcome["username"] == "Zoe"  # as without the hook
        await ann.join(room)
        assert (await ann.ask("room_message", room=room, content={"refuse": "x"}))["type"] == "ack"
    gateway.terminate()


async def test_an_application_in_node_is_as_good(deployment: Deployment, tmp_path: Path, room: str) -> None:
    script = Path(__file__).parents[2] / "support" / "hook_application.mjs"
    with HookApplication(tmp_path / "node.log", [need("node"), str(script)]) as application:
        gateway = deployment.extra_gateway("asks-node", **application.settings)
        async with connected(gateway, "ann") as ann:
            assert ann.welcome["username"] == "Ann"
            await ann.join(room)
            assert (await ann.ask("join_room", room="closed"))["code"] == "not_a_friend"
            assert (await ann.ask("room_message", room=room, content={"refuse": "rude"}))["code"] == "rude"
            for number, delay in enumerate([100, 0, 30]):
                await ann.send("room_message", room=room, content={"delayMs": delay}, id=f"m{number}")
            assert [(await ann.expect("ack"))["id"] for _ in range(3)] == ["m0", "m1", "m2"]
        with pytest.raises(InvalidStatus):
            async with client(gateway):
                pass
        gateway.terminate()


async def test_many_clients_at_once_are_a_limited_number_of_requests(
    deployment: Deployment, application: HookApplication
) -> None:
    gateway = deployment.extra_gateway("narrow", hooks_concurrency=2, hooks_timeout_s=10)
    application.misbehave(delay_s=0.02)

    async def status() -> int:
        async with http(gateway, "ann") as user:
            return (await user.get("/api/presence")).status_code

    statuses = await asyncio.gather(*[status() for _ in range(60)])
    assert set(statuses) == {200, 503}
    assert statuses.count(503) >= 60 - 2 - 2 * 16 - 10
    assert application.most_under_way <= 2
    gateway.terminate()
