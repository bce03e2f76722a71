"""Publishing by servers to several targets and in batches, with what members then receive."""

import asyncio
from typing import Any

import httpx

from tests.support.clients import client, event_source
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S

Gateways = tuple[ServiceProcess, ServiceProcess]


async def publish(gateway: ServiceProcess, body: object) -> Any:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        answer = await http.post("/api/publish", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_same_message_to_several_rooms_and_users(gateways: Gateways, room: str) -> None:
    here, there = gateways
    rooms = [f"{room}-{name}" for name in "abc"]
    async with client(here) as ann, client(there) as bob:
        await ann.join(rooms[0])
        await bob.join(rooms[1])
        ack = await publish(here, {"rooms": rooms, "content": "hi", "id": "m1"})
        assert [answer["type"] for answer in ack["answers"]] == ["ack"] * 3
        for member, name, answer in ((ann, rooms[0], ack["answers"][0]), (bob, rooms[1], ack["answers"][1])):
            message = await member.expect("room_message")
            assert (message["room"], message["content"], message["userId"]) == (name, "hi", "server")
            assert message["seq"] == answer["seq"]
        await publish(there, {"userIds": [ann.user, bob.user], "content": "both"})
        for member in (ann, bob):
            assert (await member.expect("direct_message"))["content"] == "both"


async def test_a_retried_batch_is_stored_once(gateways: Gateways, room: str) -> None:
    batch = [{"room": room, "content": number, "id": f"b{number}"} for number in range(300)]
    async with client(gateways[1]) as member:
        await member.join(room)
        first = await publish(gateways[0], batch)
        again = await publish(gateways[1], batch)
        assert [answer["seq"] for answer in first] == [answer["seq"] for answer in again]
        received = [(await member.expect("room_message"))["content"] for _ in batch]
        assert received == list(range(300))
        await member.nothing_of("room_message")


async def test_an_excluded_connection_gets_no_copy_whichever_user_it_is(
    gateways: Gateways, room: str
) -> None:
    here, there = gateways
    live = f"live:{room}"
    async with (
        client(here) as ann,
        client(there) as bob,
        event_source(there, rooms=f"{room},{live}") as stream,
    ):
        _, greeting = await stream.next()
        await stream.expect("joined_room")
        await stream.expect("joined_room")
        for member in (ann, bob):
            for name in (room, live):
                await member.join(name)
        for excluded in (ann.welcome["connectionId"], greeting["connectionId"]):
            await publish(here, {"rooms": [room, live], "content": excluded, "exclude": excluded})
        await publish(there, {"rooms": [room, live], "content": "all"})
        seen: dict[str, list[Any]] = {"ann": [], "bob": [], "stream": []}
        async with asyncio.timeout(PATIENCE_S):
            for name, member in (("ann", ann), ("bob", bob)):
                while seen[name].count("all") < 2:
                    seen[name].append((await member.expect("room_message"))["content"])
            while seen["stream"].count("all") < 2:
                seen["stream"].append((await stream.expect("room_message"))["content"])
        not_ann, not_stream = ann.welcome["connectionId"], greeting["connectionId"]
        assert sorted(seen["ann"]) == sorted([not_stream, not_stream, "all", "all"])
        assert sorted(seen["stream"]) == sorted([not_ann, not_ann, "all", "all"])
        assert len(seen["bob"]) == 6

        await publish(here, {"userId": ann.user, "content": 1, "exclude": not_ann})
        await publish(here, {"broadcast": True, "content": 2, "exclude": not_ann})
        assert (await bob.expect("broadcast"))["content"] == 2
        await ann.nothing_of("direct_message", "broadcast")
