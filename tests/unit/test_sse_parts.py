"""SSE without a server: positions in ids, the bounded buffer, events made from messages."""

import asyncio
import base64
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.identity import Identity
from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage, Encoding
from gateway.sse.event_id import MAX_ID_LENGTH, BadPosition, decode_id, encode_id, longest_id
from gateway.sse.stream import Buffer, EventStream, MetricsStream, Stream
from services.wire import server
from services.wire.codes import CloseCode
from services.wire.grants import ALL
from services.wire.records import MetricsRecord, Network, Position
from services.wire.rpc import Connected, DataSet, Joined, StatusSet
from tests.support.deadline import PATIENCE_S
from tests.support.delivery import said


@pytest.mark.parametrize(
    "positions",
    [
        {},
        {"r": Position("e", 7)},
        {"": Position("e", 0), "a,b ü\u2028": Position("x", 2**53)},
        {str(number): Position("e" * 16, number) for number in range(100)},
    ],
)
def test_ids_carry_every_position(positions: dict[str, Position]) -> None:
    event_id = encode_id(positions)
    assert decode_id(event_id, [*positions, "another"]) == positions
    assert not set(event_id) & set("\r\n\0 :=")


@pytest.mark.parametrize(
    "event_id",
    ["nonsense", "!", "e30", "W1tdXQ", "bnVsbA", "W1siYSIsImIiLCJjIl1d", "x" * (MAX_ID_LENGTH + 1), "ü"],
)
def test_ids_of_others(event_id: str) -> None:
    with pytest.raises(BadPosition):
        decode_id(event_id, ["a"])


def test_clients_find_their_inbox_in_a_short_id() -> None:
    """They take the first [topic, epoch, seq] whose topic is empty, as in an id with names in full."""
    positions = {f"room {number} {'x' * 40}": Position("e" * 16, number) for number in range(50)}
    positions[""] = Position("f" * 16, 7)
    event_id = encode_id(positions)
    triples = json.loads(base64.urlsafe_b64decode(event_id + "=" * (-len(event_id) % 4)))
    assert [(epoch, seq) for topic, epoch, seq in triples if topic == ""] == [("f" * 16, 7)]
    assert decode_id(event_id, positions) == positions
    positions[""] = Position("e" * 16, 7)  # of the same epoch as the rooms
    event_id = encode_id(positions)
    triples = json.loads(base64.urlsafe_b64decode(event_id + "=" * (-len(event_id) % 4)))
    assert [(epoch, seq) for topic, epoch, seq in triples if topic == ""] == [("e" * 16, 7)]
    assert decode_id(event_id, positions) == positions


def test_ids_with_all_names_in_full_are_understood() -> None:
    """Those of an earlier version, and those that clients make, however many rooms they have."""
    triples = [[f"room {number} {'x' * 40}", "e", number] for number in range(100)]
    full = base64.urlsafe_b64encode(json.dumps(triples).encode()).decode().rstrip("=")
    assert decode_id(full, [str(topic) for topic, _, _ in triples]) == {
        str(topic): Position("e", int(str(number))) for topic, _, number in triples
    }


def test_an_id_of_a_hundred_long_names_is_short() -> None:
    """As many rooms as a connection may have, with names as long as they may be: the browser sends it in a header."""
    positions = {
        f"{number:03}" + "\N{SNOWMAN}" * 41: Position("e" * 16, 10**9 + number) for number in range(100)
    }
    event_id = encode_id(positions)
    assert len(event_id) < 4096
    assert len(event_id) <= longest_id(100, 1)
    assert decode_id(event_id, positions) == positions


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.builds(Position, st.text("abcdef", min_size=16, max_size=16), st.integers(0, 2**63)),
    )
)
def test_no_id_is_longer_than_promised(positions: dict[str, Position]) -> None:
    event_id = encode_id(positions)
    assert len(event_id) <= longest_id(
        len(positions), len({position.epoch for position in positions.values()})
    )


def test_a_recovery_may_be_larger_than_what_may_wait() -> None:
    buffer = Buffer(10)
    assert buffer.put_recovery(b"x" * 15)
    assert buffer.put(b"y" * 10)
    assert not buffer.put(b"z")


async def test_the_buffer_is_bounded_and_ends() -> None:
    buffer = Buffer(10)
    assert buffer.put(b"12345")
    assert not buffer.put(b"678901")
    assert buffer.overflowed
    assert buffer.put(b"67890")
    assert await buffer.get(1) == b"1234567890"
    assert buffer.put(b"x")
    ends: list[bool] = []
    buffer.on_end = lambda: ends.append(buffer.ended)
    buffer.end(b"bye")
    buffer.end(b"again")
    assert ends == [True]
    assert not buffer.put(b"late")
    assert await buffer.get(1) == b"xbye"
    async with asyncio.timeout(PATIENCE_S):  # an ended buffer does not wait
        assert await buffer.get(2 * PATIENCE_S) == b""


async def test_the_buffer_waits_for_something() -> None:
    buffer = Buffer(10)
    assert await buffer.get(0.01) == b""
    asyncio.get_running_loop().call_soon(buffer.put, b"x")
    assert await buffer.get(5) == b"x"


def event_stream(limit: int = 100_000) -> EventStream:
    return EventStream(Identity("u", "U", ALL), limit, Counters(), lambda: 5)


async def events(stream: Stream) -> list[tuple[str, str, Any]]:
    """Return (event, id, data) of everything in the buffer."""
    found = []
    for block in (await stream.buffer.get(0.01)).decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event", ""), fields.get("id", ""), msgspec.json.decode(fields["data"])))
    return found


async def test_messages_of_logs_carry_ids_and_others_do_not() -> None:
    stream = event_stream()
    notice = EncodedMessage(server.JoinedRoom(room="r", epoch="e", seq=3))
    stream.start_topic("r", Position("e", 3), [said("missed", 2)], notice)
    stream.accept_messages(
        [said("live", 4), EncodedMessage(server.UserLeft(user_id="u", username="U", room="r"))]
    )
    got = await events(stream)
    assert [(event, decode_id(event_id, ["r"]) if event_id else None) for event, event_id, _ in got] == [
        ("room_message", {"r": Position("e", 2)}),
        ("joined_room", {"r": Position("e", 3)}),
        ("room_message", {"r": Position("e", 4)}),
        ("user_left", None),
    ]


async def test_lost_messages_are_a_reset() -> None:
    stream = event_stream()
    stream.positions = {"r": Position("e", 3), "other": Position("e", 9)}
    stream.accept_messages(
        [EncodedMessage(server.JoinedRoom(room="r", epoch="f", seq=0, recovered=False, missed=[]), "r")]
    )
    stream.accept_messages([said("after", 1)])
    reset, joined, message = await events(stream)
    assert reset[0] == "reset"
    assert reset[2]["topics"] == ["r"]
    assert decode_id(joined[1], ["r", "other"]) == {"r": Position("f", 0), "other": Position("e", 9)}
    assert decode_id(message[1], ["r"])["r"] == Position("f", 1)


async def test_personal_messages_wait_for_the_missed_ones() -> None:
    stream = event_stream()

    def direct(seq: int) -> EncodedMessage:
        message = server.DirectMessage(from_user_id="a", username="A", content=seq, timestamp=1, seq=seq)
        return EncodedMessage(message, "", seq)

    stream.hold_inbox()
    assert stream.accept_messages([direct(5)])
    subscribed = EncodedMessage(server.Subscribed(channels=["inbox"]))
    stream.start_topic("", Position("e", 4), [direct(3), direct(4)], subscribed)
    stream.release_inbox()
    assert [event[2].get("content", event[0]) for event in await events(stream)] == [3, 4, "subscribed", 5]


async def test_what_a_stream_shows_is_announced_again() -> None:
    stream = EventStream(Identity("ada", "Ada", ALL), 10_000, Counters(), lambda: 0)
    assert stream.chosen() is None  # no rooms and no inbox: presence knows nothing of it
    stream.announced = True
    stream.rooms.add("den")
    assert list(stream.presence_ops()) == [
        Connected(connection_id=stream.connection_id, user_id="ada", username="Ada"),
        Joined(connection_id=stream.connection_id, room="den"),
    ]
    chosen = stream.chosen()
    assert chosen is not None
    chosen.status = "busy"
    chosen.custom_data, chosen.custom_data_at = {"page": 1}, time.monotonic() - 60
    *_, status, data = stream.presence_ops()
    assert status == StatusSet(connection_id=stream.connection_id, status="busy")
    assert isinstance(data, DataSet)
    assert (data.custom_data, data.age_ms >= 60_000) == ({"page": 1}, True)


async def test_a_stream_without_positions_shares_bytes() -> None:
    assert not event_stream().accept_messages([said("x")])


async def test_a_slow_reader_is_notified_and_closed() -> None:
    stream = event_stream(limit=2000)
    while not stream.buffer.ended:
        stream.write(said("x" * 100).encode(Encoding.SSE))
    got = await events(stream)
    assert got[-1][0] == "disconnect"
    assert got[-1][2]["code"] == CloseCode.SLOW_CLIENT.number


async def test_records_come_bare() -> None:
    stream = MetricsStream(Identity("", "", ALL), 10_000, Counters())
    record = MetricsRecord(
        cpu=1, memory=2, disk=3, network=Network(), requests=4, errors=5, latency_p50=6, latency_p95=7, latency_p99=8,
        timestamp=9,
    )  # fmt: skip
    assert stream.accept_messages(
        [EncodedMessage(server.MetricsUpdate(data=record)), EncodedMessage(server.HeartbeatAck())]
    )
    ((event, event_id, data),) = await events(stream)
    assert (event, event_id, data["timestamp"]) == ("", "", 9)
    stream.disconnect(CloseCode.DRAIN, retry_after_ms=70)
    assert await stream.buffer.get(1) == b"retry: 70\n\n"
