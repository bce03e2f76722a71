"""Credentials of open connections: expiry, renewal, and revocation on all gateways."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from gateway.auth.tokens import CLOCK_SKEW_S
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment
from tests.support.secured import SERVER, WITH_TOKENS, bearer, client, token
from tidings_cli.local.servers import NatsServer, RedisServer


@pytest.fixture(scope="module")
def gateways(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServiceProcess]]:
    settings: dict[str, object] = {
        **WITH_TOKENS,
        "nats_url": nats_server.url,
        "redis_url": redis_server.url,
        "prefix": "auth-live",
        "expiry_notice_s": 1,
    }
    with Deployment(tmp_path_factory.mktemp("auth-live"), services=False, **settings) as deployment:
        yield deployment.gateways
        assert deployment.faults() == []


def short_lived(**claims: object) -> str:
    """Return a token whose end, with the 5 s of tolerated skew, is 1.5 to 2.5 s away."""
    return token(life_s=-2.5, **claims)


@pytest.mark.timing
async def test_an_expired_token_ends_the_connection_after_a_warning(gateways: list[ServiceProcess]) -> None:
    async with client(gateways[0], short_lived()) as ada:
        welcome = ada.seen[0]
        assert await ada.closed() == 4002
        kinds = [message["type"] for message in ada.seen]
        assert kinds == ["welcome", "token_expiring", "disconnect"]
        assert ada.seen[1]["expiresAt"] == welcome["expiresAt"]
        assert (ada.seen[2]["reason"], ada.seen[2]["reconnect"]) == ("token expired", True)
        assert abs(time.time() - welcome["expiresAt"] / 1000) < 1.0


@pytest.mark.timing  # the renewal has a second
async def test_a_renewed_connection_outlives_its_first_token(gateways: list[ServiceProcess]) -> None:
    async with client(gateways[0], short_lived()) as ada:
        await ada.receive("token_expiring")
        answer = await ada.ask("refresh", token=token(life_s=60))
        assert answer["type"] == "ack"
        assert answer["expiresAt"] > time.time() * 1000 + 30_000
        await eventually(lambda: time.time() * 1000 > ada.seen[0]["expiresAt"] + 500, "the first token's end")
        assert await ada.is_open()


async def test_a_renewal_checks_all_permissions_again(gateways: list[ServiceProcess]) -> None:
    before = {"join": ["a", "b"], "publish": ["*"], "channels": ["presence", "presence:*"]}
    after = {"join": ["b"], "publish": [], "channels": ["presence"]}
    async with (
        client(gateways[0], token("ada", tidings=before)) as ada,
        client(gateways[1], token("bob", tidings=before)) as bob,
    ):
        for room in ("a", "b"):
            await ada.ask("join_room", room=room)
            await bob.ask("join_room", room=room)
        await ada.ask("subscribe", channels=["presence:a", "presence"])
        assert (await ada.ask("refresh", token=token("ada", tidings=after)))["type"] == "ack"
        told = [message for message in ada.seen if message["type"] in ("left_room", "unsubscribed")]
        assert [message.get("room") or message.get("channels") for message in told] == ["a", ["presence:a"]]

        assert (await ada.ask("join_room", room="a"))["code"] == "forbidden"
        assert (await ada.ask("room_message", room="b", content=1))["code"] == "forbidden"
        await bob.ask("room_message", room="a", content="not for ada")
        await bob.ask("room_message", room="b", content="for ada")
        assert (await ada.receive("room_message"))["content"] == "for ada"
        assert "not for ada" not in json.dumps(ada.seen)


async def test_a_refused_renewal_changes_nothing(gateways: list[ServiceProcess]) -> None:
    async with client(gateways[0], token("ada")) as ada:
        assert (await ada.ask("refresh", token=token("eve")))["code"] == "forbidden"
        assert (await ada.ask("refresh", token="nonsense"))["code"] == "unauthorized"
        assert (await ada.ask("refresh", ticket="nonsense"))["code"] == "unauthorized"
        assert (await ada.ask("refresh"))["code"] == "invalid_field"
        assert (await ada.ask("join_room", room="a"))["type"] == "joined_room"


async def test_a_renewal_by_ticket_which_is_spent(gateways: list[ServiceProcess]) -> None:
    async with (
        httpx.AsyncClient(base_url=gateways[1].url, timeout=PATIENCE_S) as http,
        client(gateways[0], token()) as ada,
    ):
        ticket = (await http.post("/api/tickets", headers=bearer(token()))).json()["ticket"]
        assert (await ada.ask("refresh", ticket=ticket))["type"] == "ack"
        assert (await ada.ask("refresh", ticket=ticket))["code"] == "unauthorized"


@pytest.mark.timing  # it must begin within 1.5 s
async def test_a_stream_ends_with_its_token(gateways: list[ServiceProcess]) -> None:
    async with (
        httpx.AsyncClient(base_url=gateways[0].url, timeout=20) as http,
        http.stream("GET", "/events", headers=bearer(short_lived())) as stream,
    ):
        events = [line async for line in stream.aiter_lines() if line.startswith("event:")]
    assert events[-2:] == ["event: token_expiring", "event: disconnect"]


async def refused(gateway: ServiceProcess, text: str) -> bool:
    try:
        async with client(gateway, text):
            return False
    except InvalidStatus as answer:
        return answer.response.status_code == 401


@pytest.mark.timing
async def test_a_revoked_user_is_out_everywhere_within_a_second(gateways: list[ServiceProcess]) -> None:
    old = token("rita")
    async with (
        httpx.AsyncClient(base_url=gateways[0].url, headers=SERVER, timeout=PATIENCE_S) as http,
        client(gateways[0], old) as here,
        client(gateways[1], old) as there,
        client(gateways[1], token("bob")) as bob,
    ):
        ends = [asyncio.create_task(one.closed_at()) for one in (here, there)]
        began = time.monotonic()
        answer = await http.request("DELETE", "/api/users/rita/connections?revoke=true&reason=bye")
        assert answer.status_code == 202
        for code, at in await asyncio.gather(*ends):
            assert code in (4500, 4502)
            assert at - began < 1.0
        for gateway in gateways:
            assert await refused(gateway, old)
        assert await bob.is_open()
        listed = (await http.get("/api/revocations")).json()
        assert [entry["userId"] for entry in listed if entry.get("userId") == "rita"] == ["rita"]
        # Issued later than the revocation by any clock that is believed, a token counts.
        await eventually(lambda: time.monotonic() > began + CLOCK_SKEW_S + 1, "a later second")
        assert not await refused(gateways[1], token("rita"))


async def test_a_revoked_token_is_one_token(gateways: list[ServiceProcess]) -> None:
    lost, kept = token("tom", jti="lost"), token("tom", jti="kept")
    async with (
        httpx.AsyncClient(base_url=gateways[0].url, headers=SERVER, timeout=PATIENCE_S) as http,
        client(gateways[1], lost) as thief,
        client(gateways[1], kept) as tom,
    ):
        answer = await http.post("/api/revocations", json={"tokenId": "lost"})
        assert answer.status_code == 201
        assert await thief.closed() == 4500
        assert await tom.is_open()
        assert await refused(gateways[1], lost)
        read = await http.get(f"{gateways[1].url}/api/presence", headers={"x-api-key": ""} | bearer(lost))
        assert read.status_code == 401
        await http.post("/api/revocations", json={"tokenId": "lost", "lift": True})

        async def back() -> bool:
            return not await refused(gateways[1], lost)

        await eventually(back, "the lifted token")


async def test_a_gateway_that_starts_later_knows(
    gateways: list[ServiceProcess], nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    old = token("zoe")
    async with httpx.AsyncClient(base_url=gateways[0].url, headers=SERVER, timeout=PATIENCE_S) as http:
        await http.post("/api/revocations", json={"userId": "zoe"})
    settings: dict[str, object] = {
        **WITH_TOKENS, "nats_url": nats_server.url, "redis_url": redis_server.url, "prefix": "auth-live",
    }  # fmt: skip
    with Deployment(tmp_path, gateways=1, services=False, **settings) as late:
        assert await refused(late.gateways[0], old)
        assert not await refused(late.gateways[0], token("yan"))


async def test_a_disconnected_user_may_reconnect(gateways: list[ServiceProcess]) -> None:
    async with (
        httpx.AsyncClient(base_url=gateways[0].url, headers=SERVER, timeout=PATIENCE_S) as http,
        client(gateways[1], token("kim")) as kim,
    ):
        async with http.stream(
            "GET", f"{gateways[1].url}/events", headers=bearer(token("kim")) | {"x-api-key": ""}
        ) as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: connected"
            await http.request("DELETE", "/api/users/kim/connections?reason=lunch")
            assert await kim.closed() == 4502
            assert kim.seen[-1]["reason"] == "lunch"
            assert any("disconnect" in line for line in [line async for line in lines])
        assert not await refused(gateways[0], token("kim"))


async def test_online_status_needs_the_right_to_see_presence(
    gateways: list[ServiceProcess],
) -> None:
    seeing, blind = {"direct": True, "channels": ["presence"]}, {"direct": True, "channels": ["presence:*"]}
    async with (
        client(gateways[0], token("kit")),
        client(gateways[0], token("liv", tidings=seeing)) as liv,
        client(gateways[0], token("mo", tidings=blind)) as mo,
    ):
        message = {"targetUserId": "kit", "content": 1}
        assert (await liv.ask("direct_message", **message))["online"] is True
        ack = await mo.ask("direct_message", **message)
        assert ack["type"] == "ack"
        assert "online" not in ack


async def test_no_user_is_named_server(gateways: list[ServiceProcess]) -> None:
    assert await refused(gateways[0], token("server"))
    assert not await refused(gateways[0], token("Server"))
