"""The session: what each message asks for, and what is refused, without I/O or clock."""

from typing import Any

import msgspec
import pytest

from gateway.auth.identity import Identity
from gateway.channels.channel_names import parse_channel, presence_room
from gateway.client import effects
from gateway.client.commands import ClientState
from gateway.limits import TokenBucket
from services.settings import Settings
from services.wire import server
from services.wire.codec import JSON, BadMessage
from services.wire.codes import ErrorCode
from services.wire.grants import ALL, Grants, Patterns
from services.wire.records import UNSET, Position, Status


def session(grants: Grants = ALL, **settings: Any) -> ClientState:
    return ClientState(Identity("u", "U", grants), Settings(**settings), 0.0)


def say(one: ClientState, now: float = 0.0, **message: Any) -> list[effects.Effect]:
    return one.receive(JSON.decode(msgspec.json.encode(message)), now)


def refusal(one: ClientState, now: float = 0.0, **message: Any) -> server.Error:
    effect = say(one, now, **message)[0]
    assert isinstance(effect, effects.Reply)
    assert isinstance(effect.message, server.Error), effect
    return effect.message


def test_joining_and_leaving() -> None:
    one = session()
    assert say(one, type="join_room", room="r", id="1") == [effects.EnterRoom("r", UNSET, "1")]
    assert one.rooms == {"r"}
    since = {"epoch": "e", "seq": 7}
    assert say(one, type="join_room", room="r", since=since) == [
        effects.EnterRoom("r", Position("e", 7), UNSET)
    ]
    assert say(one, type="leave_room", room="r", id="2") == [effects.ExitRoom("r", "2")]
    assert one.rooms == set()
    assert say(one, type="leave_room", room="never in") == [effects.ExitRoom("never in", UNSET)]


def test_names_are_normalized_everywhere() -> None:
    one = session()
    say(one, type="join_room", room="cafe\u0301")
    assert one.rooms == {"café"}
    (published,) = say(one, type="room_message", room="cafe\u0301", content=1)
    assert isinstance(published, effects.PublishToRoom)
    assert published.room == "café"
    (direct,) = say(one, type="direct_message", targetUserId="cafe\u0301", content=1)
    assert isinstance(direct, effects.PublishToUser)
    assert direct.user_id == "café"


@pytest.mark.parametrize("room", ["", "a\0", "x" * 129])
@pytest.mark.parametrize("type", ["join_room", "leave_room", "room_message"])
def test_names_that_are_none(type: str, room: str) -> None:
    assert refusal(session(), type=type, room=room, content=1, id="7") == server.Error(
        code="invalid_name",
        message=refusal(session(), type=type, room=room, content=1).message,
        retryable=False,
        id="7",
    )


def test_publishing() -> None:
    one = session()
    say(one, type="join_room", room="r")
    (published,) = say(one, type="room_message", room="r", content={"a": 1}, echo=True, id="1")
    assert isinstance(published, effects.PublishToRoom)
    assert (published.room, bytes(published.content), published.echo, published.id) == (
        "r",
        b'{"a":1}',
        True,
        "1",
    )
    (quiet,) = say(one, type="room_message", room="r", content=1)
    assert isinstance(quiet, effects.PublishToRoom)
    assert quiet.echo is False
    (broadcast,) = say(one, type="broadcast", content=1)
    assert isinstance(broadcast, effects.PublishToAll)


def test_a_publisher_outside_the_room_is_refused_first() -> None:
    one = session(Grants(join=Patterns(("r",))))
    assert refusal(one, type="room_message", room="r", content=1).code == "not_in_room"
    say(one, type="join_room", room="r")
    assert refusal(one, type="room_message", room="r", content=1).code == "forbidden"


def test_without_grants_nothing_is_allowed() -> None:
    one = session(Grants())
    for message in (
        {"type": "join_room", "room": "r"},
        {"type": "broadcast", "content": 1},
        {"type": "direct_message", "targetUserId": "u", "content": 1},
    ):
        assert refusal(one, **message).code == "forbidden"
    assert refusal(one, type="subscribe", channel="metrics").code == "unknown_channel"
    # Which one, where several are asked for; a room's presence reads the same whether there is such a room or not.
    assert "the channel metrics" in refusal(one, type="subscribe", channels=["inbox", "metrics"]).message
    assert "'presence:secret'; known are" in refusal(one, type="subscribe", channel="presence:secret").message
    assert "'" + "x" * 80 + "'" in refusal(one, type="subscribe", channel="x" * 500).message
    assert say(one, type="subscribe", channel="inbox") == [effects.Follow(["inbox"])]
    assert one.rooms == set()


def test_presence() -> None:
    one = session()
    assert say(one, type="status_change", status="away", id="1") == [effects.SetStatus(Status.AWAY, "1")]
    (update,) = say(one, type="presence_update", customData=[1])
    assert isinstance(update, effects.SetCustomData)


def test_heartbeat() -> None:
    assert say(session(), type="heartbeat", id="h") == [effects.Reply(server.HeartbeatAck(id="h"))]


def test_channels_are_subscribed_to_all_or_none() -> None:
    one = session()
    follow = say(one, type="subscribe", channels=["metrics", "presence", "metrics"], channel="logs", id="1")
    assert follow == [effects.Follow(["metrics", "presence", "logs"], id="1")]
    assert refusal(one, type="subscribe", channels=["alerts", "nonsense"]).code == "unknown_channel"
    assert one.followed == {"metrics", "presence", "logs"}
    assert say(one, type="unsubscribe", channel="logs") == [effects.Unfollow(["logs"], UNSET)]
    assert one.followed == {"metrics", "presence"}
    for type in ("subscribe", "unsubscribe"):
        assert refusal(one, type=type).code == "invalid_field"
        assert refusal(one, type=type, channels=[]).code == "invalid_field"


def test_channels_named_when_connecting() -> None:
    one = session()
    assert one.open_channels(["presence", "inbox"]) == [effects.Follow(["presence", "inbox"])]
    (reply,) = one.open_channels(["nonsense"])
    assert isinstance(reply, effects.Reply)


def test_room_limit() -> None:
    one = session(max_rooms_per_connection=2)
    for room in ("a", "b", "a"):
        assert isinstance(say(one, type="join_room", room=room)[0], effects.EnterRoom)
    refused = refusal(one, type="join_room", room="c")
    assert (refused.code, refused.retryable) == ("too_many_rooms", False)
    say(one, type="leave_room", room="a")
    assert isinstance(say(one, type="join_room", room="c")[0], effects.EnterRoom)
    for name in ("presence:1", "presence:2"):
        say(one, type="subscribe", channel=name)
    say(one, type="subscribe", channels=["presence", "metrics", "alerts", "logs", "inbox"])
    assert refusal(one, type="subscribe", channel="presence:3").code == "too_many_rooms"


def test_rate_limit_counts_what_is_no_message_too() -> None:
    one = session(message_rate=5)
    for _ in range(5):
        assert isinstance(say(one, type="heartbeat")[0], effects.Reply)
        one.malformed(BadMessage(ErrorCode.BAD_MESSAGE, "m"), 0.0)
    limited = refusal(one, type="heartbeat", id="1")
    assert (limited.code, limited.retryable, limited.retry_after_ms, limited.id) == (
        "rate_limited",
        True,
        200,
        "1",
    )
    assert isinstance(say(one, 0.2, type="heartbeat")[0], effects.Reply)
    unlimited = session(message_rate=0)
    for _ in range(1000):
        assert say(unlimited, type="heartbeat") == [effects.Reply(server.HeartbeatAck())]


def test_bytes_that_were_no_message_are_answered_with_their_id() -> None:
    (reply,) = session().malformed(BadMessage(ErrorCode.UNKNOWN_TYPE, "what?", "7"), 0.0)
    assert reply == effects.Reply(server.Error(code="unknown_type", message="what?", retryable=False, id="7"))


def test_a_bucket_allows_bursts_of_twice_its_rate() -> None:
    bucket = TokenBucket(10, 0.0)
    assert [bucket.take(0.0) for _ in range(20)] == [0.0] * 20
    assert bucket.take(0.0) == pytest.approx(0.1)
    assert bucket.take(0.1) == 0.0
    assert bucket.take(0.1) > 0
    assert [bucket.take(100.0) for _ in range(20)] == [0.0] * 20
    assert bucket.take(100.0) > 0


@pytest.mark.parametrize(
    ("name", "channel", "room"),
    [
        ("presence", "presence", ""),
        ("presence:r", "presence:r", "r"),
        ("presence:cafe\u0301", "presence:café", "café"),
        ("presence:a:b", "presence:a:b", "a:b"),
        ("metrics", "metrics", None),
        ("presence:", None, None),
        ("presence:\0", None, None),
        ("Presence", None, None),
        ("", None, None),
    ],
)
def test_channel_names(name: str, channel: str | None, room: str | None) -> None:
    assert parse_channel(name) == channel
    if channel is not None:
        assert presence_room(channel) == room
