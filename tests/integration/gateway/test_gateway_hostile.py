"""Bad input: each kind gets its error or close code, affects no other client, and is not logged as an error."""

import json
from collections.abc import AsyncIterator

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.clients import Client, client, event_source
from tests.support.cluster import ServiceProcess
from tests.support.deployment import websocket_url

Gateways = tuple[ServiceProcess, ServiceProcess]

HOSTILE_NAMES = [
    "a.b", "a.*", "*", ">", "a.>", "$SYS.REQ", "$JS.API.STREAM.LIST", " ", "a b", "=2E", "a/b", "'; DROP TABLE", "..",
    "<script>alert(1)</script>", "\u202eabc", "\U0001f600" * 32, "Ä", "ẞ", "x" * 128, "a,b", "%2e%2e", "{{wildcard(1)}}",
]  # fmt: skip


@pytest.fixture
async def bystanders(gateways: Gateways, room: str) -> AsyncIterator[tuple[Client, Client]]:
    """Two members of a room on two gateways, which exchange messages before and after."""
    async with client(gateways[0]) as ann, client(gateways[1]) as bob:
        for one in (ann, bob):
            await one.join(room)

        async def talk() -> None:
            ack = await ann.ask("room_message", room=room, content="are you there?")
            assert (await bob.expect("room_message"))["seq"] == ack["seq"]

        await talk()
        yield ann, bob
        await talk()
        for one in (ann, bob):
            await one.nothing_of("error", "disconnect", "room_message")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("", "bad_message"),
        ("{", "bad_message"),
        ("nonsense", "bad_message"),
        ('"text"', "bad_message"),
        ("[]", "bad_message"),
        ("null", "bad_message"),
        ('{"type":"heartbeat"}{}', "bad_message"),
        (nested(30_000), "bad_message"),
        ('{"type":"room_message","room":"x","content":' + nested(30_000) + "}", "bad_message"),
        ('{"x":' * 10_000, "bad_message"),
        ("{}", "unknown_type"),
        ('{"type":null}', "unknown_type"),
        ('{"type":{"a":1}}', "unknown_type"),
        ('{"type":"explode"}', "unknown_type"),
        ('{"type":"join_room"}', "invalid_field"),
        ('{"type":"join_room","room":7}', "invalid_field"),
        ('{"type":"join_room","room":null}', "invalid_field"),
        ('{"type":"join_room","room":"x","since":{"epoch":1,"seq":"a"}}', "invalid_field"),
        ('{"type":"heartbeat","id":7}', "invalid_field"),
        ('{"type":"heartbeat","id":"' + "x" * 65 + '"}', "invalid_field"),
        ('{"type":"status_change","status":"asleep"}', "invalid_field"),
        ('{"type":"room_message","room":"x"}', "invalid_field"),
        ('{"type":"join_room","room":""}', "invalid_name"),
        ('{"type":"join_room","room":"' + "x" * 129 + '"}', "invalid_name"),
        ('{"type":"join_room","room":"a\\u0000b"}', "invalid_name"),
        ('{"type":"join_room","room":"a\\nb"}', "invalid_name"),
        ('{"type":"direct_message","targetUserId":"","content":1}', "invalid_name"),
        ('{"type":"presence_update","customData":"' + "x" * 5000 + '"}', "too_large"),
        ('{"type":"direct_message","targetUserId":"x","content":' + nested(65) + "}", "invalid_field"),
        ('{"type":"direct_message","targetUserId":"x","content":1e999}', "invalid_field"),
        ('{"type":"direct_message","targetUserId":"x","content":' + "9" * 5000 + "}", "invalid_field"),
        ('{"type":"presence_update","customData":' + nested(65) + "}", "invalid_field"),
    ],
)
@pytest.mark.usefixtures("bystanders")
async def test_messages_that_are_none(gateways: Gateways, sent: str, code: str) -> None:
    async with client(gateways[0]) as hostile:
        await hostile.send_raw(sent)
        error = await hostile.receive()
        assert (error["type"], error["code"], error["retryable"]) == ("error", code, False)
        assert (await hostile.ask("heartbeat"))["type"] == "heartbeat_ack"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "bad_message"),
        (b"\xc1", "bad_message"),
        (b"\x91" * 30_000 + b"\x90", "bad_message"),
        (b"\xdf\xff\xff\xff\xff", "bad_message"),
        (msgspec.msgpack.encode({"type": "heartbeat"}) + b"\x00", "bad_message"),
        (msgspec.msgpack.encode(["type"]), "bad_message"),
        (b"\x81\xa4type\xa2\xff\xfe", "bad_message"),
        (msgspec.msgpack.encode({"type": "explode"}), "unknown_type"),
        (
            msgspec.msgpack.encode(
                {"type": "direct_message", "targetUserId": "x", "content": msgspec.msgpack.Ext(5, b"x")}
            ),
            "invalid_field",
        ),
        (
            msgspec.msgpack.encode({"type": "direct_message", "targetUserId": "x", "content": {(1, 2): 3}}),
            "invalid_field",
        ),
        (b"\x83\xa4type\xaedirect_message\xactargetUserId\xa1x\xa7content\xa2\xff\xfe", "invalid_field"),
    ],
)
@pytest.mark.usefixtures("bystanders")
async def test_messagepack_that_is_none(gateways: Gateways, sent: bytes, code: str) -> None:
    async with client(gateways[0], subprotocol="tidings.v1.msgpack") as hostile:
        await hostile.send_raw(sent)
        error = await hostile.receive()
        assert (error["type"], error["code"]) == ("error", code), error
        assert (await hostile.ask("heartbeat"))["type"] == "heartbeat_ack"


@pytest.mark.parametrize(
    ("codec", "sent", "code"),
    [
        ("json", b"\x00\x01\x02", 1003),
        ("msgpack", '{"type":"heartbeat"}', 1003),
        ("json", '{"pad":"' + "x" * 65_536 + '"}', 1009),
    ],
)
@pytest.mark.usefixtures("bystanders")
async def test_frames_that_end_the_connection(
    gateways: Gateways, codec: str, sent: str | bytes, code: int
) -> None:
    async with client(gateways[0], subprotocol=f"tidings.v1.{codec}") as hostile:
        await hostile.send_raw(sent)
        said = await hostile.expect("disconnect")
        assert (said["code"], said["reconnect"]) == (code, False)
        close = await hostile.closed()
        assert close is not None
        assert close.code == code


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_hostile_names_are_rooms_like_any_other(
    gateways: Gateways, bystanders: tuple[Client, Client], name: str
) -> None:
    async with client(gateways[0]) as one, client(gateways[1]) as other:
        for member in (one, other):
            assert (await member.join(name))["room"] == name
            await member.ask("subscribe", channel=f"presence:{name}")
        ack = await one.ask("room_message", room=name, content=name)
        message = await other.expect("room_message")
        assert (message["room"], message["content"], message["seq"]) == (name, name, ack["seq"])
        await one.ask("direct_message", targetUserId=name, content="who are you?")
    for bystander in bystanders:
        await bystander.nothing_of("room_message", "direct_message")


async def test_composed_and_decomposed_are_one_room(gateways: Gateways) -> None:
    async with client(gateways[0]) as one, client(gateways[1]) as other:
        assert (await one.join("cafe\u0301"))["room"] == "caf\u00e9"
        await other.join("caf\u00e9")
        await one.ask("room_message", room="cafe\u0301", content=1)
        assert (await other.expect("room_message"))["room"] == "caf\u00e9"


async def test_content_arrives_as_it_was_sent_whatever_it_is(gateways: Gateways, room: str) -> None:
    contents = [
        "</script>", "\u2028\u2029\r\n\t", "\x7f", "\U0001f600", 0, -(2**63), 2**64 - 1, 1.5e300, None, True, [], {},
        {"type": "room_message", "": {"": []}}, json.loads(nested(64)), "x" * 60_000,
    ]  # fmt: skip
    async with (
        client(gateways[0]) as one,
        client(gateways[1]) as text,
        client(gateways[1], subprotocol="tidings.v1.msgpack") as binary,
        event_source(gateways[1], rooms=room) as stream,
    ):
        for member in (one, text, binary):
            await member.join(room)
        await stream.expect("joined_room")
        for content in contents:
            await one.ask("room_message", room=room, content=content)
        await one.send_raw(f'{{"type":"room_message","room":"{room}","content":\r\n{{\n"a" :\r[1 ,\n2]}}}}')
        contents.append({"a": [1, 2]})
        for content in contents:
            assert (await text.expect("room_message"))["content"] == content
            assert (await binary.expect("room_message"))["content"] == content
            assert (await stream.expect("room_message"))["content"] == content


async def test_handshakes_that_are_refused(gateways: Gateways) -> None:
    for query, status in (
        ("username=a%00b", 400),
        ("username=" + "x" * 129, 400),
        ("ticket=nonsense", 401),
    ):
        with pytest.raises(InvalidStatus) as refusal:
            async with client(gateways[0], query):
                pass
        assert refusal.value.response.status_code == status
        assert "retryable" in json.loads(refusal.value.response.body)
    with pytest.raises(InvalidStatus) as refusal:
        async with client(gateways[0], origin="https://evil.example"):
            pass
    assert refusal.value.response.status_code == 403
    assert websocket_url(gateways[0]).endswith("/ws")


async def test_subprotocols(gateways: Gateways) -> None:
    async with client(gateways[0], subprotocol="chat.v9") as one:
        assert one.socket.subprotocol is None
        assert (await one.ask("heartbeat"))["type"] == "heartbeat_ack"
    async with client(gateways[0], subprotocol="tidings.v1.msgpack") as one:
        assert one.socket.subprotocol == "tidings.v1.msgpack"


async def test_too_many_rooms_and_too_many_messages(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as one:
        for number in range(100):
            await one.join(f"{room}-{number}")
        refused = await one.ask("join_room", room=room)
        assert (refused["code"], refused["retryable"]) == ("too_many_rooms", False)
        assert (await one.ask("join_room", room=f"{room}-7"))["type"] == "joined_room"
        await one.ask("leave_room", room=f"{room}-0")
        await one.join(room)
    async with client(gateways[0]) as one:
        for _ in range(300):
            await one.send("heartbeat")
        limited = await one.expect("error")
        assert (limited["code"], limited["retryable"]) == ("rate_limited", True)
        assert 0 < limited["retryAfterMs"] <= 20


async def test_content_that_grows_as_json(
    gateways: Gateways, room: str, bystanders: tuple[Client, Client]
) -> None:
    async with client(gateways[0], subprotocol="tidings.v1.msgpack") as eve:
        await eve.join(room)
        refused = await eve.ask("direct_message", targetUserId=eve.user, content=[None] * 30_000)
        assert (refused["type"], refused["code"]) == ("error", "too_large")
        assert (await eve.ask("direct_message", targetUserId=eve.user, content=[None] * 10_000))[
            "type"
        ] == "ack"
        refused = await eve.ask("presence_update", customData=[None] * 1000)
        assert (refused["type"], refused["code"]) == ("error", "too_large")


async def test_a_position_that_no_stream_has(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as eve:
        for seq in (-1, 2**63, 2**64, 2**80):
            refused = await eve.ask("join_room", room=room, since={"epoch": "e", "seq": seq})
            assert (refused["code"], refused["retryable"]) == ("invalid_field", False)
        joined = await eve.ask("join_room", room=room, since={"epoch": "e", "seq": 2**63 - 1})
        assert (joined["type"], joined["recovered"]) == ("joined_room", False)
