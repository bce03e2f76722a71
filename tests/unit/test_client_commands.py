"""Commands of a client: checked and normalized, or refused, without I/O or clock."""

from functools import partial
from typing import Any

import msgspec
import pytest

from gateway.auth.identity import Identity
from gateway.channels.channel_names import parse_channel, presence_room
from gateway.client.commands import ClientState, CommandError
from gateway.delivery.streams import RoomRoute, route_of
from gateway.limits import TokenBucket
from services.settings import Settings
from services.wire import client
from services.wire.codec import JSON
from services.wire.codes import ErrorCode
from services.wire.grants import ALL, Grants, Patterns
from services.wire.records import Position, Status


def state(grants: Grants = ALL, **settings: Any) -> ClientState:
    chosen = Settings(**settings)
    return ClientState(Identity("u", "U", grants), chosen, partial(route_of, chosen, {}), 0.0)


def say(one: ClientState, now: float = 0.0, **message: Any) -> Any:
    return one.check(JSON.decode(msgspec.json.encode(message)), now)


def refusal(one: ClientState, now: float = 0.0, **message: Any) -> CommandError:
    with pytest.raises(CommandError) as refused:
        say(one, now, **message)
    return refused.value


def test_joining_and_leaving() -> None:
    one = state()
    assert say(one, type="join_room", room="r", id="1") == client.JoinRoom(room="r", id="1")
    assert one.rooms.keys() == {"r"}
    since = {"epoch": "e", "seq": 7}
    assert say(one, type="join_room", room="r", since=since) == client.JoinRoom(
        room="r", since=Position("e", 7)
    )
    assert say(one, type="leave_room", room="r", id="2") == client.LeaveRoom(room="r", id="2")
    assert one.rooms == {}
    assert say(one, type="leave_room", room="never in") == client.LeaveRoom(room="never in")


def test_the_route_of_a_room_is_resolved_once() -> None:
    resolved: list[str] = []

    def resolve(room: str) -> RoomRoute:
        resolved.append(room)
        return route_of(Settings(), {}, room)

    one = ClientState(Identity("u", "U", ALL), Settings(message_rate=0), resolve, 0.0)
    say(one, type="join_room", room="r")
    for _ in range(3):
        say(one, type="room_message", room="r", content=1)
    assert resolved == ["r"]
    assert one.rooms["r"].namespace == "default"


def test_names_are_normalized_everywhere() -> None:
    one = state()
    say(one, type="join_room", room="cafe\u0301")
    assert one.rooms.keys() == {"café"}
    published = say(one, type="room_message", room="cafe\u0301", content=1)
    assert published.room == "café"
    direct = say(one, type="direct_message", targetUserId="cafe\u0301", content=1)
    assert direct.target_user_id == "café"


@pytest.mark.parametrize("room", ["", "a\0", "x" * 129])
@pytest.mark.parametrize("type", ["join_room", "leave_room", "room_message"])
def test_names_that_are_none(type: str, room: str) -> None:
    refused = refusal(state(), type=type, room=room, content=1)
    assert (refused.code, refused.flood) == (ErrorCode.INVALID_NAME, False)


def test_publishing() -> None:
    one = state()
    say(one, type="join_room", room="r")
    published = say(one, type="room_message", room="r", content={"a": 1}, echo=True, id="1")
    assert (published.room, bytes(published.content), published.echo, published.id) == (
        "r",
        b'{"a":1}',
        True,
        "1",
    )
    assert isinstance(say(one, type="broadcast", content=1), client.PublishBroadcastCommand)


def test_a_message_without_membership_is_refused_before_any_other_check() -> None:
    one = state(Grants(join=Patterns(("r",))))
    assert refusal(one, type="room_message", room="r", content=1).code.code == "not_in_room"
    say(one, type="join_room", room="r")
    assert refusal(one, type="room_message", room="r", content=1).code.code == "forbidden"


def test_without_grants_nothing_is_allowed() -> None:
    one = state(Grants())
    for message in (
        {"type": "join_room", "room": "r"},
        {"type": "broadcast", "content": 1},
        {"type": "direct_message", "targetUserId": "u", "content": 1},
    ):
        assert refusal(one, **message).code.code == "forbidden"
    assert refusal(one, type="subscribe", channel="metrics").code.code == "unknown_channel"
    # Which one, where several are asked for; a room's presence reads the same whether there is such a room or not.
    assert "the channel metrics" in refusal(one, type="subscribe", channels=["inbox", "metrics"]).message
    assert "'presence:secret'; known are" in refusal(one, type="subscribe", channel="presence:secret").message
    assert "'" + "x" * 80 + "'" in refusal(one, type="subscribe", channel="x" * 500).message
    assert say(one, type="subscribe", channel="inbox").channels == ["inbox"]
    assert one.rooms == {}


READER = Grants(join=Patterns(["own"]), publish=Patterns([]))


def test_a_room_by_token() -> None:
    one = state(READER)
    assert refusal(one, type="join_room", room="r").code is ErrorCode.FORBIDDEN
    say(one, type="join_room", room="r", token="t")
    say(one, type="room_message", room="r", content=1)  # waits for what the token says
    one.grant_room("r", publish=False)
    assert refusal(one, type="room_message", room="r", content=1).code is ErrorCode.FORBIDDEN
    one.grant_room("r", publish=True)
    say(one, type="room_message", room="r", content=1)
    say(one, type="join_room", room="r")  # again, to recover
    assert one.update_grants(one.identity) == ([], [])
    assert one.rooms.keys() == {"r"}
    assert not one.withdraw_room("r")
    say(one, type="leave_room", room="r")
    assert refusal(one, type="join_room", room="r").code is ErrorCode.FORBIDDEN


def test_a_join_that_waits_for_its_token_gives_no_right() -> None:
    one = state(READER)
    say(one, type="join_room", room="r", token="not verified yet")
    assert refusal(one, type="join_room", room="r").code is ErrorCode.FORBIDDEN


def test_a_room_by_token_that_the_grants_allow_too() -> None:
    one = state(READER)
    say(one, type="join_room", room="own")
    one.grant_room("own", publish=True)
    say(one, type="room_message", room="own", content=1)
    assert one.withdraw_room("own")
    assert refusal(one, type="room_message", room="own", content=1).code is ErrorCode.FORBIDDEN


def test_a_room_that_the_application_names() -> None:
    one = state(READER)
    one.join_by_server("r")
    one.grant_room("r", publish=True)
    assert one.withdraw_room("r")  # stays by the application's word
    assert one.update_grants(one.identity) == ([], [])
    one.leave("r")
    assert one.update_grants(one.identity) == ([], [])
    assert refusal(one, type="join_room", room="r").code is ErrorCode.FORBIDDEN


def test_history_has_a_range() -> None:
    one = state(recovery_limit=10)
    assert say(one, type="join_room", room="r", history=10).history == 10
    for wrong in (-1, 11):
        assert refusal(one, type="join_room", room="s", history=wrong).code is ErrorCode.INVALID_FIELD
    assert one.rooms.keys() == {"r"}


def test_member_data_of_a_member_has_the_rate_of_presence() -> None:
    one = state(presence_rate=1)
    for number in range(3):
        say(one, type="join_room", room="r", memberData=number)
    assert refusal(one, type="join_room", room="r", memberData=3).code is ErrorCode.RATE_LIMITED
    say(one, type="join_room", room="r")


def test_presence() -> None:
    one = state()
    assert say(one, type="status_change", status="away", id="1").status is Status.AWAY
    assert bytes(say(one, type="presence_update", customData=[1]).custom_data) == b"[1]"


def test_heartbeat() -> None:
    assert say(state(), type="heartbeat", id="h") == client.Heartbeat(id="h")


def test_channels_are_followed_all_or_none() -> None:
    one = state()
    follow = say(one, type="subscribe", channels=["metrics", "presence", "metrics"], channel="logs", id="1")
    assert follow == client.Subscribe(channels=["metrics", "presence", "logs"], id="1")
    assert refusal(one, type="subscribe", channels=["alerts", "nonsense"]).code.code == "unknown_channel"
    assert one.channels == {"metrics", "presence", "logs"}
    assert say(one, type="unsubscribe", channel="logs") == client.Unsubscribe(channels=["logs"])
    assert one.channels == {"metrics", "presence"}
    for type in ("subscribe", "unsubscribe"):
        assert refusal(one, type=type).code.code == "invalid_field"
        assert refusal(one, type=type, channels=[]).code.code == "invalid_field"


def test_channels_named_when_connecting() -> None:
    one = state()
    assert one.subscribe(["presence", "inbox"]) == ["presence", "inbox"]
    with pytest.raises(CommandError, match="nonsense"):
        one.subscribe(["nonsense"])


def test_room_limit() -> None:
    one = state(max_rooms_per_connection=2)
    for room in ("a", "b", "a"):
        say(one, type="join_room", room=room)
    refused = refusal(one, type="join_room", room="c")
    assert refused.code is ErrorCode.TOO_MANY_ROOMS
    say(one, type="leave_room", room="a")
    say(one, type="join_room", room="c")
    for name in ("presence:1", "presence:2"):
        say(one, type="subscribe", channel=name)
    say(one, type="subscribe", channels=["presence", "metrics", "alerts", "logs", "inbox"])
    assert refusal(one, type="subscribe", channel="presence:3").code.code == "too_many_rooms"


def test_rate_limit_counts_what_is_no_message_too() -> None:
    one = state(message_rate=5)
    for _ in range(5):
        say(one, type="heartbeat")
        one.check_rates(0.0, 0)
    limited = refusal(one, type="heartbeat", id="1")
    assert (limited.code, limited.retry_after_ms) == (ErrorCode.RATE_LIMITED, 200)
    say(one, 0.2, type="heartbeat")
    unlimited = state(message_rate=0)
    for _ in range(1000):
        say(unlimited, type="heartbeat")


def test_a_bucket_allows_bursts_of_twice_its_rate() -> None:
    bucket = TokenBucket(10, 0.0)
    assert [bucket.consume(0.0) for _ in range(20)] == [0.0] * 20
    assert bucket.consume(0.0) == pytest.approx(0.1)
    assert bucket.consume(0.1) == 0.0
    assert bucket.consume(0.1) > 0
    assert [bucket.consume(100.0) for _ in range(20)] == [0.0] * 20
    assert bucket.consume(100.0) > 0


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
