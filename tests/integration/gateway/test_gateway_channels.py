"""Channels: presence of all users and of rooms, metrics, alerts and logs, across gateways."""

import asyncio
from typing import Any

import pytest

from tests.support.clients import Client, client
from tests.support.cluster import ServiceProcess

Gateways = tuple[ServiceProcess, ServiceProcess]


def user_ids(presence_list: dict[str, Any]) -> set[str]:
    return {user["userId"] for user in presence_list["users"]}


async def test_presence_begins_with_a_list_and_goes_on_with_changes(gateways: Gateways) -> None:
    async with client(gateways[0], "username=Ann&channels=presence") as ann:
        assert (await ann.expect("subscribed")) == {"type": "subscribed", "channels": ["presence"]}
        await ann.expect("presence_list")
        async with client(gateways[1], "username=Bob") as bob:
            online = await ann.expect("user_online", where=lambda m: m["user"]["userId"] == bob.user)
            assert online["user"] | {"lastSeen": 0} == {
                "userId": bob.user,
                "username": "Bob",
                "status": "online",
                "lastSeen": 0,
            }
            assert (await bob.ask("status_change", status="busy"))["type"] == "ack"
            changed = await ann.expect("status_changed", userId=bob.user)
            assert changed == {"type": "status_changed", "userId": bob.user, "status": "busy"}
            assert (await bob.ask("presence_update", customData={"mood": ["good", 1]}))["type"] == "ack"
            updated = await ann.expect("presence_updated", userId=bob.user)
            assert updated["customData"] == {"mood": ["good", 1]}
            async with client(gateways[1], "channels=presence", subprotocol="tidings.v1.msgpack") as eve:
                users = (await eve.expect("presence_list"))["users"]
                seen = next(user for user in users if user["userId"] == bob.user)
                assert (seen["status"], seen["customData"]) == ("busy", {"mood": ["good", 1]})
        assert await ann.expect("user_offline", userId=bob.user) == {
            "type": "user_offline",
            "userId": bob.user,
        }


async def test_a_user_goes_offline_with_the_last_connection(gateways: Gateways) -> None:
    async with client(gateways[0], "channels=presence") as ann:
        await ann.expect("presence_list")
        async with client(gateways[1]) as bob:
            await ann.expect("user_online", where=lambda m: m["user"]["userId"] == bob.user)
            async with client(gateways[0], f"session={bob.welcome['session']}") as second:
                await second.ask("heartbeat")
            await asyncio.sleep(1)  # twice the grace: time for the offline that must not come
            await ann.nothing_of("user_offline", userId=bob.user)
        await ann.expect("user_offline", userId=bob.user)


async def test_the_presence_of_one_room(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann, client(gateways[1], "username=Bob") as bob:
        reply = await ann.ask("subscribe", channel=f"presence:{room}")
        assert reply["channels"] == [f"presence:{room}"]
        assert await ann.expect("presence_list") == {"type": "presence_list", "users": [], "room": room}
        await bob.join(room)
        online = await ann.expect("user_online", room=room)
        assert online["user"]["userId"] == bob.user
        await bob.ask("status_change", status="away")
        assert (await ann.expect("status_changed"))["userId"] == bob.user
        await bob.ask("leave_room", room=room)
        assert (await ann.expect("user_offline", room=room))["userId"] == bob.user
        await ann.ask("unsubscribe", channel=f"presence:{room}")
        await bob.join(room)
        await bob.ask("direct_message", targetUserId=ann.user, content="joined")
        await ann.expect("direct_message")
        await ann.nothing_of("user_online")


async def test_metrics_and_alerts_share_one_snapshot(gateways: Gateways) -> None:
    async with client(gateways[0]) as ann:
        reply = await ann.ask("subscribe", channels=["metrics", "alerts"])
        assert reply["channels"] == ["metrics", "alerts"]
        state = await ann.expect("initial_state")
        assert set(state) == {"type", "history", "alerts"}
        records = [(await ann.expect("metrics_update"))["data"] for _ in range(2)]
        assert set(records[0]) == {
            "cpu", "memory", "disk", "network", "requests", "errors", "latencyP50", "latencyP95", "latencyP99",
            "timestamp",
        }  # fmt: skip
        assert records[0]["timestamp"] < records[1]["timestamp"]
        await ann.nothing_of("initial_state")
        assert (await ann.ask("unsubscribe", channels=["metrics", "alerts"]))["type"] == "unsubscribed"


async def test_the_log_stream(gateways: Gateways) -> None:
    async with client(gateways[0], "channels=logs") as ann:
        await ann.expect("subscribed")
        async with client(gateways[1], "username=Zed") as zed:
            await zed.ask("heartbeat")

        def about_zed(message: dict[str, Any]) -> bool:
            return bool(message["data"].get("fields", {}).get("user") == zed.user)

        line = (await ann.expect("log", where=about_zed))["data"]
        assert {"timestamp", "level", "source", "event"} <= set(line)
        assert line["source"] == "gateway-2"


async def refused(one: Client, type: str, **fields: Any) -> str:
    reply = await one.ask(type, **fields)
    assert reply["type"] == "error", reply
    return str(reply["code"])


async def test_channels_that_are_none(gateways: Gateways) -> None:
    async with client(gateways[0], "channels=presence,nonsense") as ann:
        assert (await ann.receive())["code"] == "unknown_channel"
        for type in ("subscribe", "unsubscribe"):
            for name in ("nonsense", "", "presence:", "Metrics", "presence:a\u0000b"):
                assert await refused(ann, type, channel=name) == "unknown_channel"
            assert await refused(ann, type) == "invalid_field"
            assert await refused(ann, type, channels=[]) == "invalid_field"
        # A request is carried out whole or not at all.
        assert await refused(ann, "subscribe", channels=["presence", "nonsense"]) == "unknown_channel"
        async with client(gateways[1]):
            await ann.nothing_of("presence_list", "user_online")


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_a_client_that_goes_while_everything_is_on_its_way(
    gateways: Gateways, room: str, codec: str
) -> None:
    for _ in range(20):
        async with client(gateways[0], subprotocol=f"tidings.v1.{codec}") as ann:
            position = {"epoch": ann.welcome["inbox"]["epoch"], "seq": ann.welcome["inbox"]["seq"]}
            await ann.send("join_room", room=room, since=position)
            await ann.send("join_room", room=f"{room}-new")
            await ann.send("subscribe", channels=["inbox", "presence", f"presence:{room}"], since=position)
            await ann.send("direct_message", targetUserId=ann.user, content=1)
            ann.socket.transport.abort()
    async with client(gateways[0]) as bob:
        await bob.join(room)
        assert (await bob.ask("room_message", room=room, content=1))["type"] == "ack"
