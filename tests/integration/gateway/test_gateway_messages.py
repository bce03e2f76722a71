"""Every message of the protocol, between clients on two gateways."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

import pytest

from tests.support.clients import Client, client
from tests.support.cluster import ServiceProcess, aside
from tests.support.deadline import eventually

Gateways = tuple[ServiceProcess, ServiceProcess]


async def test_welcome_names_user_and_gateway(gateways: Gateways) -> None:
    async with client(gateways[0], "username=Ann") as ann:
        welcome = ann.welcome
        assert set(welcome) == {
            "type", "protocol", "userId", "username", "connectionId", "gateway", "session", "inbox",
            "heartbeatInterval", "maxMessageBytes",
        }  # fmt: skip
        assert (welcome["protocol"], welcome["username"], welcome["gateway"]) == (1, "Ann", "gateway-1")
        assert (welcome["heartbeatInterval"], welcome["maxMessageBytes"]) == (25_000, 65_536)
        assert set(welcome["inbox"]) == {"epoch", "seq"}


async def test_a_session_brings_the_user_back_on_another_gateway(gateways: Gateways) -> None:
    async with client(gateways[0], "username=Ann") as first:
        session = first.welcome["session"]
        async with client(gateways[1], f"username=Annie&session={session}") as second:
            assert second.user == first.user
            assert second.welcome["username"] == "Annie"
        async with client(gateways[1], "session=forged.session") as stranger:
            assert stranger.user != first.user


@pytest.mark.parametrize("sender_codec", ["json", "msgpack"])
@pytest.mark.parametrize("receiver_codec", ["json", "msgpack"])
async def test_a_message_reaches_the_room_across_gateways(
    gateways: Gateways, room: str, sender_codec: str, receiver_codec: str
) -> None:
    content = {"text": "grüße 👋", "n": [1, 2.5, None, True], "deep": {"er": {}}}
    async with (
        client(gateways[0], "username=Ann", subprotocol=f"tidings.v1.{sender_codec}") as ann,
        client(gateways[1], "username=Bob", subprotocol=f"tidings.v1.{receiver_codec}") as bob,
    ):
        joined = await ann.join(room)
        assert set(joined) == {"type", "id", "room", "epoch", "seq"}
        await bob.join(room)
        before = time.time() * 1000
        ack = await ann.ask("room_message", room=room, content=content)
        assert set(ack) == {"type", "id", "epoch", "seq", "timestamp"}
        assert ack["type"] == "ack"
        assert abs(ack["timestamp"] - before) < 5000
        assert await bob.expect("room_message") == {
            "type": "room_message",
            "userId": ann.user,
            "username": "Ann",
            "room": room,
            "content": content,
            "timestamp": ack["timestamp"],
            "seq": ack["seq"],
        }
        await ann.nothing_of("room_message")


async def test_echo_and_the_senders_other_connections(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as one:
        session = one.welcome["session"]
        async with (
            client(gateways[0], f"session={session}") as here,
            client(gateways[1], f"session={session}") as there,
        ):
            for connection in (one, here, there):
                await connection.join(room)
            await one.ask("room_message", room=room, content="quiet")
            await one.ask("room_message", room=room, content="loud", echo=True)
            for connection in (here, there):
                assert (await connection.expect("room_message"))["content"] == "quiet"
                assert (await connection.expect("room_message"))["content"] == "loud"
            assert (await one.expect("room_message"))["content"] == "loud"


async def test_joins_and_leaves_are_by_user_and_skip_the_joining_user(gateways: Gateways, room: str) -> None:
    async def known(users: int, connections: int) -> None:
        """Wait for presence: a notice that is late finds members who came after it."""

        async def is_known() -> bool:
            status, rooms = await aside(lambda: gateways[0].get("/api/rooms"))
            expected = {"room": room, "users": users, "connections": connections}
            return status == 200 and expected in json.loads(rooms)

        await eventually(is_known, f"presence knows {connections} connections")

    async with client(gateways[0], "username=Ann") as ann, AsyncExitStack() as bobs:
        await ann.join(room)
        await known(1, 1)
        bob = await bobs.enter_async_context(client(gateways[1], "username=Bob"))
        await bob.join(room)
        joined = await ann.expect("user_joined")
        assert joined == {"type": "user_joined", "userId": bob.user, "username": "Bob", "room": room}
        second = await bobs.enter_async_context(
            client(gateways[0], f"username=Bob&session={bob.welcome['session']}")
        )
        await second.join(room)
        await known(2, 3)  # else the leave on one gateway may overtake the join on the other
        assert await bob.ask("leave_room", room=room, id="bye") == {
            "type": "left_room",
            "room": room,
            "id": "bye",
        }
        await second.ask("leave_room", room=room)
        left = await ann.expect("user_left")
        assert left == {"type": "user_left", "userId": bob.user, "username": "Bob", "room": room}
        await ann.nothing_of("user_joined", "user_left")
        await bob.nothing_of("user_joined")


async def test_a_socket_that_closes_leaves_its_rooms(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann:
        await ann.join(room)
        async with client(gateways[1]) as bob:
            await bob.join(room)
            await ann.expect("user_joined", userId=bob.user)
            bob.socket.transport.abort()
        await ann.expect("user_left", userId=bob.user)


async def test_a_client_outside_the_room_neither_publishes_nor_receives(
    gateways: Gateways, room: str
) -> None:
    async with client(gateways[0]) as member, client(gateways[1]) as stranger:
        await member.join(room)
        refused = await stranger.ask("room_message", room=room, content="let me in")
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", "not_in_room", False)
        await stranger.join(room)
        await stranger.ask("leave_room", room=room)
        assert (await stranger.ask("room_message", room=room, content="again"))["code"] == "not_in_room"
        await member.ask("room_message", room=room, content="secret")
        await member.nothing_of("room_message")
        await stranger.nothing_of("room_message")


async def test_equal_ids_are_one_message_per_user_and_room(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann, client(gateways[1]) as bob:
        for connection in (ann, bob):
            await connection.join(room)
            await connection.join(f"{room}-2")
        first = await ann.ask("room_message", room=room, content=1, id="same")
        again = await ann.ask("room_message", room=room, content=1, id="same")
        assert again["seq"] == first["seq"]
        other_user = await bob.ask("room_message", room=room, content=2, id="same")
        other_room = await ann.ask("room_message", room=f"{room}-2", content=3, id="same")
        assert len({first["seq"], other_user["seq"], other_room["seq"]}) == 3
        assert [(await bob.expect("room_message"))["content"] for _ in range(2)] == [1, 3]
        await bob.nothing_of("room_message")


async def test_messages_of_a_room_come_in_sequence_order(gateways: Gateways, room: str) -> None:
    async with (
        client(gateways[0]) as ann,
        client(gateways[1]) as bob,
        client(gateways[0]) as here,
        client(gateways[1]) as there,
    ):
        for connection in (ann, bob, here, there):
            await connection.join(room)
        for number in range(50):
            await ann.send("room_message", room=room, content=f"a{number}")
            await bob.send("room_message", room=room, content=f"b{number}")
        received = [
            [await connection.expect("room_message") for _ in range(100)] for connection in (here, there)
        ]
        assert [m["seq"] for m in received[0]] == sorted(m["seq"] for m in received[0])
        assert received[0] == received[1]
        for name in ("a", "b"):
            mine = [m["content"] for m in received[0] if m["content"].startswith(name)]
            assert mine == [f"{name}{n}" for n in range(50)]


async def test_ephemeral_rooms_have_no_positions(gateways: Gateways, room: str) -> None:
    room = f"live:{room}"
    async with client(gateways[0]) as ann, client(gateways[1]) as bob:
        assert set(await ann.join(room)) == {"type", "id", "room"}
        await bob.join(room)

        async def heard() -> (
            bool
        ):  # an accepted message is not promised to members whose subscription is not established yet
            ack = await ann.ask("room_message", room=room, content="cursor")
            assert set(ack) == {"type", "id", "timestamp"}
            await bob.ask("heartbeat")
            return any(m["type"] == "room_message" for m in bob.inbox)

        await eventually(heard)
        assert set(await bob.expect("room_message")) == {
            "type", "userId", "username", "room", "content", "timestamp",
        }  # fmt: skip


async def test_broadcast_reaches_every_connection_once(gateways: Gateways) -> None:
    async with (
        client(gateways[0], "username=Ann") as ann,
        client(gateways[1]) as bob,
        client(gateways[0]) as eve,
    ):
        ack = await ann.ask("broadcast", content={"all": 1})
        assert ack["type"] == "ack"
        for other in (bob, eve):
            message = await other.expect("broadcast", userId=ann.user)
            assert message == {
                "type": "broadcast",
                "userId": ann.user,
                "username": "Ann",
                "content": {"all": 1},
                "timestamp": ack["timestamp"],
            }
        await ann.nothing_of("broadcast")
        await ann.ask("broadcast", content=2, echo=True)
        assert (await ann.expect("broadcast"))["content"] == 2


async def test_direct_messages_reach_every_connection_of_the_user(gateways: Gateways) -> None:
    async with client(gateways[0], "username=Ann") as ann, client(gateways[0]) as bob:
        async with client(gateways[1], f"session={bob.welcome['session']}") as also_bob:
            ack = await ann.ask("direct_message", targetUserId=bob.user, content="psst")
            assert set(ack) == {"type", "id", "epoch", "seq", "timestamp", "online"}
            assert ack["online"] is True
            for connection in (bob, also_bob):
                assert await connection.expect("direct_message") == {
                    "type": "direct_message",
                    "fromUserId": ann.user,
                    "username": "Ann",
                    "content": "psst",
                    "timestamp": ack["timestamp"],
                    "seq": ack["seq"],
                }
        await ann.nothing_of("direct_message")


async def test_the_ack_of_a_direct_message_has_the_users_online_state_of_all_gateways(
    gateways: Gateways,
) -> None:
    async with client(gateways[0]) as ann, client(gateways[1]) as bob:

        async def known() -> bool:
            return bool((await ann.ask("direct_message", targetUserId=bob.user, content=1)).get("online"))

        await eventually(known, "presence knows the user on the other gateway")
        assert (await ann.ask("direct_message", targetUserId="nobody", content=1))["online"] is False


async def test_heartbeat_is_acknowledged(gateways: Gateways) -> None:
    async with client(gateways[0]) as ann:
        assert await ann.ask("heartbeat", id="h") == {"type": "heartbeat_ack", "id": "h"}
        await ann.send("heartbeat")
        assert await ann.receive() == {"type": "heartbeat_ack"}


async def test_unknown_fields_are_ignored(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann:
        assert (await ann.ask("join_room", room=room, colour="blue"))["type"] == "joined_room"


async def _missed_by(client_: Client, room: str, position: dict[str, object]) -> tuple[object, list[object]]:
    joined = await client_.join(room, since=position)
    return joined["recovered"], [message["content"] for message in joined["missed"]]


async def test_a_join_with_since_returns_what_was_missed(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann:
        await ann.join(room)
        async with client(gateways[1]) as bob:
            start = await bob.join(room)
            await ann.ask("room_message", room=room, content=0)
            seen = await bob.expect("room_message")
        for number in (1, 2, 3):
            await ann.ask("room_message", room=room, content=number)
        last_seen = {"epoch": start["epoch"], "seq": seen["seq"]}
        for gateway in gateways:
            async with client(gateway) as back:
                assert await _missed_by(back, room, last_seen) == (True, [1, 2, 3])
                await ann.ask("room_message", room=room, content="live")
                assert (await back.expect("room_message"))["content"] == "live"
                await ann.ask("room_message", room=room, content="more")
                last = await back.expect("room_message", content="more")
            last_seen = {"epoch": start["epoch"], "seq": last["seq"]}
            for number in (1, 2, 3):
                await ann.ask("room_message", room=room, content=number)


async def test_a_join_with_history_returns_the_newest_messages(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann:
        await ann.join(room)
        for number in range(5):
            await ann.ask("room_message", room=room, content=number)
        for protocol in ("tidings.v1.json", "tidings.v1.msgpack"):
            async with client(gateways[1], subprotocol=protocol) as bob:
                joined = await bob.join(room, history=3)
                assert {"recovered", "missed"}.isdisjoint(joined)
                assert [message["content"] for message in joined["history"]] == [2, 3, 4]
                assert joined["history"][-1]["seq"] == joined["seq"]
                assert joined["history"][0]["type"] == "room_message"
        async with client(gateways[1]) as bob:
            assert len((await bob.join(room, history=300))["history"]) == 5
            assert (await bob.join(room, history=0))["history"] == []
            assert "history" not in await bob.join(room)
            since = {"epoch": joined["epoch"], "seq": joined["seq"]}
            back = await bob.join(room, history=3, since=since)
            assert (back["recovered"], back["missed"]) == (True, [])
            assert "history" not in back
            assert (await bob.join(f"live:{room}", history=3))["history"] == []
            assert (await bob.join(f"{room}-empty", history=3))["history"] == []
            for wrong in (-1, 301, 10**20, 1.5, "3", True, None):
                error = await bob.ask("join_room", room=f"{room}-wrong", history=wrong)
                assert (error["type"], error["code"]) == ("error", "invalid_field"), wrong
            error = await bob.ask("room_message", room=f"{room}-wrong", content=1)
            assert error["code"] == "not_in_room"


async def test_history_and_live_messages_have_no_gap_and_no_double(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann:
        await ann.join(room)
        for number in range(10):
            await ann.ask("room_message", room=room, content=number)

        async def publish() -> None:
            for number in range(10, 60):
                await ann.ask("room_message", room=room, content=number)

        publishing = asyncio.create_task(publish())
        for _ in range(8):
            async with client(gateways[1]) as bob:
                joined = await bob.join(room, history=5)
                got = [message["content"] for message in joined["history"] if message["content"] is not None]
                await ann.send("room_message", room=room, content=None)
                while (content := (await bob.expect("room_message"))["content"]) is not None:
                    got.append(content)
                assert got == list(range(got[0], got[0] + len(got)))
                assert got
        await publishing


async def test_a_failed_recovery_is_reported(gateways: Gateways, room: str) -> None:
    async with client(gateways[0], "username=Ann") as ann, client(gateways[1]) as bob:
        start = await ann.join(room)
        position = {"epoch": start["epoch"], "seq": start["seq"]}
        for number in range(130):  # the room keeps 100
            await ann.send("room_message", room=room, content=number)
        await ann.ask("room_message", room=room, content="end")
        assert await _missed_by(bob, room, position) == (False, [])
        assert await _missed_by(bob, room, position | {"epoch": "another"}) == (False, [])
        assert await _missed_by(bob, room, position | {"seq": 10**9}) == (False, [])
        live = f"live:{room}"
        joined = await bob.ask("join_room", room=live, since=position)
        assert joined["recovered"] is False


async def test_an_empty_room_recovers_from_where_it_was_joined(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann:
        async with client(gateways[1]) as bob:
            start = await bob.join(room)
        await ann.join(room)
        await ann.ask("room_message", room=room, content="first ever")
        async with client(gateways[1]) as bob:
            position = {"epoch": start["epoch"], "seq": start["seq"]}
            assert await _missed_by(bob, room, position) == (True, ["first ever"])


async def test_the_inbox_recovers_what_came_while_away(gateways: Gateways) -> None:
    async with client(gateways[0]) as ann:
        async with client(gateways[1]) as bob:
            session, position = bob.welcome["session"], bob.welcome["inbox"]
        for number in (1, 2):
            await ann.ask("direct_message", targetUserId=bob.user, content=number)
        async with client(gateways[0], f"session={session}") as back:
            reply = await back.ask("subscribe", channel="inbox", since=position)
            assert (reply["type"], reply["channels"], reply["recovered"]) == ("subscribed", ["inbox"], True)
            assert [message["content"] for message in reply["missed"]] == [1, 2]
            assert reply["missed"][0]["type"] == "direct_message"
            await ann.ask("direct_message", targetUserId=bob.user, content=3)
            assert (await back.expect("direct_message"))["content"] == 3
            stale = await back.ask("subscribe", channel="inbox", since={"epoch": "old", "seq": 1})
            assert (stale["recovered"], stale["missed"]) == (False, [])


async def test_a_message_right_behind_a_join_does_not_overtake_it(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann:
        await ann.send("join_room", room=room, id="1")
        await ann.send("room_message", room=room, content="hello", echo=True, id="2")
        joined = await ann.expect("joined_room")
        ack = await ann.expect("ack")
        echo = await ann.expect("room_message")
        assert (ack["id"], echo["content"]) == ("2", "hello")
        assert joined["seq"] < ack["seq"] == echo["seq"]
