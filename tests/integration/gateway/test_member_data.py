"""What users show in rooms, as members and followers of presence see it."""

from typing import Any

import httpx

from tests.support.clients import client
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S

Gateways = tuple[ServiceProcess, ServiceProcess]


# --- member data ---


async def shown(gateway: ServiceProcess, room: str) -> dict[str, Any]:
    """Return what the members of a room show, by their display names."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        users = (await http.get("/api/presence", params={"room": room})).json()
    return {user["username"]: user.get("memberData", "nothing") for user in users}


async def test_member_data_is_shown_to_members_and_followers(gateways: Gateways, room: str) -> None:
    async with (
        client(gateways[0], "username=Ann") as ann,
        client(gateways[1], "username=Bob") as bob,
        client(gateways[1], "username=Eve", subprotocol="tidings.v1.msgpack") as eve,
    ):
        await ann.join(room)
        await eve.ask("subscribe", channel=f"presence:{room}")
        assert [user["username"] for user in (await eve.expect("presence_list"))["users"]] == ["Ann"]
        await bob.join(room, memberData={"seat": 4})
        assert (await ann.expect("user_joined"))["memberData"] == {"seat": 4}
        online = await eve.expect("user_online")
        assert (online["room"], online["user"]["memberData"]) == (room, {"seat": 4})
        assert await shown(gateways[0], room) == {"Ann": "nothing", "Bob": {"seat": 4}}

        async with client(gateways[0], f"session={bob.welcome['session']}&username=Bob") as tab:
            await tab.join(room, memberData=None)  # the newest join, and null is a value
            assert (await eve.expect("user_online"))["user"]["memberData"] is None
            await ann.ask("subscribe", channel=f"presence:{room}")
            users = (await ann.expect("presence_list"))["users"]
            assert [user.get("memberData", "nothing") for user in users if user["username"] == "Bob"] == [
                None
            ]
            await ann.nothing_of("user_joined")  # Bob was there already
            await bob.ask("leave_room", room=room)
        await eve.expect("user_offline")
        await bob.join(room)
        assert "memberData" not in await ann.expect("user_joined")


async def test_member_data_is_limited(gateways: Gateways, room: str) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    async with client(gateways[0]) as ann:
        await ann.join(room, memberData="x" * 1022)
        for wrong, code in (
            ("x" * 1023, "too_large"),
            (deep, "invalid_field"),
            ({"n": 10**400}, "invalid_field"),
        ):
            error = await ann.ask("join_room", room=f"{room}-b", memberData=wrong)
            assert error["code"] == code
            error = await ann.ask("room_message", room=f"{room}-b", content=1)
            assert error["code"] == "not_in_room"
            assert (await ann.ask("join_room", room=room, memberData=wrong))["code"] == code
            assert (await ann.ask("room_message", room=room, content=1))["type"] == "ack"
        answers = [await ann.ask("join_room", room=room, memberData=number) for number in range(30)]
        assert {answer.get("code") for answer in answers} == {None, "rate_limited"}


async def test_a_removed_user_shows_nothing_afterwards(gateways: Gateways, room: str) -> None:
    async with (
        client(gateways[0], "username=Ann") as ann,
        client(gateways[1], "username=Bob") as bob,
        httpx.AsyncClient(base_url=gateways[1].url, timeout=PATIENCE_S) as http,
    ):
        await bob.join(room)
        await ann.join(room, memberData=1)
        assert (await bob.expect("user_joined"))["memberData"] == 1
        user_id = ann.welcome["userId"]
        assert (await http.delete(f"/api/rooms/{room}/users/{user_id}")).is_success
        assert await ann.expect("left_room") == {"type": "left_room", "room": room, "reason": "removed"}
        assert (await bob.expect("user_left"))["userId"] == user_id  # without a grace
        await ann.join(room)
        assert "memberData" not in await bob.expect("user_joined")
