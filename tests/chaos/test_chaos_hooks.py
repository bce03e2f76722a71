"""An application that is killed, paused and slow while clients publish, and gateways that end while it is being asked."""

import asyncio
import random
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.clients import Client, client
from tests.support.cluster import ServiceProcess, aside
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment
from tests.support.hook_application import HookApplication
from tidings_cli.local.servers import NatsServer, RedisServer

MESSAGES = 25
_NOTICE_S = 0.3


@pytest.fixture
def application(tmp_path: Path) -> Iterator[HookApplication]:
    with HookApplication(tmp_path / "application.log") as running:
        yield running


@pytest.fixture
def gateways(
    application: HookApplication, nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> Iterator[list[ServiceProcess]]:
    with Deployment(
        tmp_path,
        services=False,
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        prefix=f"c{secrets.token_hex(4)}",
        auth="jwt",
        hooks="connect,publish",
        hooks_timeout_s=0.5,
        **application.settings,  # type: ignore[arg-type]
    ) as deployment:
        yield deployment.gateways


async def connect(stack: AsyncExitStack, gateway: ServiceProcess, user: str) -> Client:
    return await stack.enter_async_context(
        client(gateway, additional_headers={"Cookie": f"sessionid={user}"})
    )


async def publish_until_stored(one: Client, room: str, id: str, content: Any) -> int:
    """Send a message, again while it is answered `unavailable`; return how often it was."""
    failures = 0
    while (answer := await one.ask("room_message", room=room, content=content, id=id))["type"] != "ack":
        assert (answer["code"], answer["retryable"]) == ("unavailable", True), answer
        assert 0 < answer["retryAfterMs"] <= 60_000
        failures += 1
        await asyncio.sleep(random.uniform(0.05, 0.15))
    return failures


async def flap(application: HookApplication) -> None:
    """Take the application away in each of the ways in which it can be."""
    faults = [
        (application.kill, application.start),
        (application.pause, application.resume),
        (lambda: application.misbehave(delay_s=2.0), lambda: application.misbehave(delay_s=0.0)),
        (lambda: application.misbehave(status=500), lambda: application.misbehave(status=200)),
    ]
    random.shuffle(faults)
    for fail, mend in faults:
        await aside(fail)
        await asyncio.sleep(random.uniform(_NOTICE_S, 3 * _NOTICE_S))
        await aside(mend)
        await asyncio.sleep(_NOTICE_S)


async def test_an_application_that_comes_and_goes_loses_doubles_and_reorders_nothing(
    application: HookApplication, gateways: list[ServiceProcess]
) -> None:
    room = f"room-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        reader = await connect(stack, gateways[0], "reader")
        await reader.join(room)
        publishers = [await connect(stack, gateways[turn % 2], f"user-{turn}") for turn in range(4)]
        for one in publishers:
            await one.join(room)
        flapping = asyncio.create_task(flap(application))

        async def publish_all(one: Client) -> int:
            failures = 0
            for number in range(MESSAGES):
                failures += await publish_until_stored(one, room, f"m{number}", number)
                await asyncio.sleep(0.05)
            return failures

        failures = await asyncio.gather(*map(publish_all, publishers))
        await flapping
        assert sum(failures) > 0
        got: dict[str, list[int]] = {one.user: [] for one in publishers}
        for _ in range(MESSAGES * len(publishers)):
            message = await reader.expect("room_message")
            got[message["userId"]].append(message["content"])
        assert got == {one.user: list(range(MESSAGES)) for one in publishers}
        await reader.nothing_of("room_message")
    metrics = [gateway.get("/metrics")[1].decode() for gateway in gateways]
    assert any('outcome="open"' in text for text in metrics)  # the breaker spared the application


async def history(gateway: ServiceProcess, room: str) -> list[Any]:
    async with httpx.AsyncClient(base_url=gateway.url, headers={"Cookie": "sessionid=reader"}) as http:
        answer = await http.get(f"/api/rooms/{room}/history", timeout=PATIENCE_S)
    return [message["content"] for message in answer.json()["messages"]]


@pytest.mark.parametrize("end", ["killed", "left by its client"])
async def test_a_message_whose_gateway_ends_while_it_waits_is_stored_once(
    application: HookApplication, gateways: list[ServiceProcess], end: str
) -> None:
    room = f"room-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack, AsyncExitStack() as first:
        ann = await connect(first, gateways[0], "ann")
        await ann.join(room)
        again = await connect(stack, gateways[1], "ann")
        await again.join(room)
        await ann.send("room_message", room=room, content={"delayMs": 300}, id="m1")
        await eventually(lambda: aside(lambda: application.asked("publish")), "the message to wait")
        if end == "killed":
            await aside(gateways[0].kill)
        else:
            await ann.socket.close()
        await publish_until_stored(again, room, "m1", {"delayMs": 300})
        await publish_until_stored(again, room, "m2", "the last")
        await asyncio.sleep(1.0)  # the first gateway's answer, if it lives
        assert await history(gateways[1], room) == [{"delayMs": 300}, "the last"]
        ids = {one["id"] for one in await aside(lambda: application.asked("publish"))}
        assert len(ids) >= 3  # it was asked about twice
