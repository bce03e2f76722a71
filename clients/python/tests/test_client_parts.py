"""The parts that do no I/O: the table of states, waits, the choice of transport, the watchdog, a room's log."""

import pickle
from pathlib import Path
from typing import get_args

import pytest

from tidings_client import AckTimeout, Backoff, LocalError, QueueFull, ServerError, TidingsError
from tidings_client.connection.backoff import delay_before
from tidings_client.connection.codes import may_reconnect
from tidings_client.connection.fallback import Fallback
from tidings_client.connection.machine import TABLE, State, advance
from tidings_client.connection.watchdog import Watchdog
from tidings_client.endpoint import Endpoint
from tidings_client.generated.wire import Ack, JoinedRoom, Position, RoomMessage
from tidings_client.roomlog import RoomLog
from tidings_client.transport.eventstream import EventStreamParser, StreamEvent

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_every_state_can_be_closed_and_connected_again() -> None:
    assert set(TABLE) == set(get_args(State))
    for state in TABLE:
        closing, connecting = advance(state, "close"), advance(state, "connect")
        assert state == "closed" or (closing is not None and closing.next == "closed")
        assert state in ("connecting", "connected") or (connecting and connecting.next == "connecting")


def test_a_transport_is_held_in_two_states_only() -> None:
    holding = {"connecting", "connected"}
    for state, steps in TABLE.items():
        for step in steps.values():
            drops = {"drop", "leave"} & set(step.actions)
            assert ("open" in step.actions or (state in holding and not drops)) == (step.next in holding)


def test_there_is_a_timer_while_suspended_and_only_then() -> None:
    for state, steps in TABLE.items():
        for given, step in steps.items():
            assert step.next != "suspended" or "wait" in step.actions
            assert state != "suspended" or given == "due" or "cancel" in step.actions


def test_the_table_of_states_is_that_of_the_docs() -> None:
    text = (DOCS / "clients-js.md").read_text(encoding="utf-8")
    for state, steps in TABLE.items():
        for given, step in steps.items():
            assert f"| {state} | {given} | {step.next} | {', '.join(step.actions)} |" in text


def test_codes_are_obeyed() -> None:
    assert not any(map(may_reconnect, [1000, 1002, 1003, 1007, 1009, 4500, 4501, 4999]))
    assert all(map(may_reconnect, [1001, 1005, 1006, 1011, 1012, 1013, 1014, 4000, 4001, 4499]))


def test_waits_any_time_up_to_a_doubling_limit_after_what_the_server_asked_for() -> None:
    limits = Backoff(0.5, 30.0)
    assert delay_before(0, 0, limits, lambda: 0) == 0
    assert delay_before(0, 0, limits, lambda: 0.999) < 0.5
    assert delay_before(3, 0, limits, lambda: 0.5) == 2.0
    assert delay_before(1000, 0.7, limits, lambda: 0.5) == 15.7


def test_a_stream_is_tried_after_two_failures_then_in_turns() -> None:
    fallback = Fallback(["websocket", "sse"])
    attempts = []
    for _ in range(6):
        attempts.append(fallback.choose())
        fallback.on_failed()
    assert attempts == ["websocket", "websocket", "sse", "websocket", "sse", "websocket"]
    fallback.on_worked("sse")
    assert fallback.choose() == "sse"  # what worked last
    fallback.on_failed()
    assert fallback.choose() == "websocket"


def test_an_attempt_begins_with_what_worked_before() -> None:
    assert Fallback(["websocket", "sse"], "sse").choose() == "sse"
    assert Fallback(["websocket"], "sse").choose() == "websocket"


def test_a_stream_is_tried_beside_a_websocket_only_where_that_has_not_worked() -> None:
    fallback = Fallback(["websocket", "sse"])
    assert (fallback.rival("websocket"), fallback.rival("sse")) == ("sse", None)
    fallback.on_worked("websocket")
    assert fallback.rival("websocket") is None
    assert Fallback(["websocket"]).rival("websocket") is None


def test_the_better_transport_is_tried_again_after_2_4_8_up_to_60_minutes() -> None:
    fallback = Fallback(["websocket", "sse"])
    pauses = []
    for _ in range(7):
        fallback.on_worked("sse")  # a new stream changes nothing about it
        pauses.append(fallback.pause / 60)
        fallback.on_probed()
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    for _ in range(2000):
        fallback.on_probed()
    assert fallback.pause == 3600
    fallback.on_worked("websocket")
    assert fallback.pause == 120


def test_websockets_are_trusted_longer_where_they_worked() -> None:
    fallback = Fallback(["websocket", "sse"])
    fallback.on_worked("websocket")
    for _ in range(4):
        assert fallback.choose() == "websocket"
        fallback.on_failed()
    assert fallback.choose() == "sse"
    assert Fallback(["sse"]).choose() == "sse"


def test_the_watchdog_probes_after_a_silent_interval_and_waits_for_the_answer() -> None:
    dog = Watchdog(0, 25, 5, probes=True)
    assert [dog.turn(second) for second in (5, 10, 15, 20, 25, 29)] == ["fine"] * 4 + ["probe", "fine"]
    assert dog.turn(30) == "dead"


def test_every_heartbeat_restarts_the_watchdog() -> None:
    dog = Watchdog(0, 25, 5, probes=True)
    dog.turn(25)
    dog.on_heard(26)
    assert dog.turn(31) == "fine"


def test_the_watchdog_believes_silence_only_once_its_own_turns_are_in_time() -> None:
    dog = Watchdog(0, 25, 5, probes=True)
    # Late again: the answer may wait in a queue behind us.
    assert [dog.turn(second) for second in (60, 120, 180)] == ["probe", "probe", "dead"]


def test_the_watchdog_gives_a_stream_three_intervals() -> None:
    dog = Watchdog(0, 5, 5, probes=False)
    assert [dog.turn(second) for second in (5, 10, 15, 20)] == ["fine"] * 3 + ["dead"]


@pytest.mark.parametrize(
    ("url", "http", "ws"),
    [
        ("http://host:8080", "http://host:8080/api", "ws://host:8080/ws"),
        ("https://host/", "https://host/api", "wss://host/ws"),
        ("wss://host/ws", "https://host/api", "wss://host/ws"),
        ("ws://host/base/ws?x=1#y", "http://host/base/api", "ws://host/base/ws"),
        ("https://[::1]:8443/tidings", "https://[::1]:8443/tidings/api", "wss://[::1]:8443/tidings/ws"),
    ],
)
def test_an_address_names_a_server(url: str, http: str, ws: str) -> None:
    endpoint = Endpoint(url)
    assert endpoint.http("/api", {"empty": "", "absent": None}) == http
    assert endpoint.ws() == ws
    assert endpoint.ws({"username": "Ä b"}) == f"{ws}?username=%C3%84+b"
    assert endpoint.http("/api", {"revoke": True, "limit": 5}) == f"{http}?revoke=true&limit=5"


@pytest.mark.parametrize("url", ["ftp://host", "host", "/", "http://"])
def test_what_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Endpoint(url)


def _joined(seq: int, **more: object) -> JoinedRoom:
    return JoinedRoom(**{"room": "r", "epoch": "e", "seq": seq, **more})  # type: ignore[arg-type]


def _message(seq: int) -> RoomMessage:
    return RoomMessage(user_id="u", username="u", room="r", content=0, timestamp=0, seq=seq)


def test_a_room_shows_each_message_once() -> None:
    log = RoomLog()
    assert not log.on_joined(_joined(5))
    assert [log.accept(_message(seq)) for seq in (5, 6, 6, 9)] == [False, True, False, True]
    assert log.position == Position(epoch="e", seq=9)


def test_an_own_message_does_not_move_past_others_that_may_still_come() -> None:
    log = RoomLog()
    log.on_joined(_joined(5))
    log.on_stored(Ack(epoch="e", seq=7), 1)
    assert log.accept(_message(6))
    assert log.since(5) == Position(epoch="e", seq=6)
    assert log.since(11) == Position(epoch="e", seq=7)


def test_own_messages_are_not_among_those_missed() -> None:
    log = RoomLog()
    log.on_joined(_joined(5))
    log.on_stored(Ack(epoch="e", seq=7), 1)
    log.on_stored(Ack(epoch="another", seq=6), 1)
    assert [log.accept(_message(seq)) for seq in (6, 7, 8)] == [True, False, True]


def test_a_gap_is_distinguished_from_a_recovery() -> None:
    log = RoomLog()
    log.on_joined(_joined(5))
    assert not log.on_joined(_joined(9, recovered=True))
    assert log.position == Position(epoch="e", seq=9)
    assert log.on_joined(_joined(20, recovered=False))
    assert log.on_joined(_joined(1, epoch="f", recovered=True))
    assert log.on_joined(_joined(1))
    assert not log.on_joined(JoinedRoom(room="r"))
    assert log.position is None


STREAM = (
    '\ufeffevent: connected\ndata: {"status":"connected"}\n\n: keep-alive\r\n\r\nid: 7\r\ndata: one\r\ndata:zwö\r\r'
    "data\nretry: 430\nretry: soon\nid: \0\n\nevent: nothing\n\n"
).encode()
EVENTS = [
    StreamEvent("connected", '{"status":"connected"}'),
    StreamEvent("message", "one\nzwö", "7"),
    StreamEvent("message", ""),
]


def test_an_event_stream_is_read_in_one_piece_byte_by_byte_and_in_any_two_pieces() -> None:
    parser = EventStreamParser()
    assert parser.push(STREAM) == EVENTS
    assert parser.retry == 0.43
    parser = EventStreamParser()
    assert [event for byte in STREAM for event in parser.push(bytes([byte]))] == EVENTS
    for cut in range(len(STREAM) + 1):
        parser = EventStreamParser()
        assert parser.push(STREAM[:cut]) + parser.push(STREAM[cut:]) == EVENTS
    assert EventStreamParser().push(b"data: half\n") == []


def test_errors_have_codes_and_can_be_pickled() -> None:
    assert issubclass(QueueFull, LocalError)
    assert issubclass(LocalError, TidingsError)
    for fault in (AckTimeout("late"), ServerError("no", code="rate_limited", retryable=True, retry_after=3)):
        copy = pickle.loads(pickle.dumps(fault))  # noqa: S301 - made here
        assert type(copy) is type(fault)
        assert (copy.code, copy.retryable, copy.retry_after, str(copy)) == (
            fault.code,
            fault.retryable,
            fault.retry_after,
            str(fault),
        )
