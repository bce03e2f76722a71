"""Every message of the protocol as it is on the wire, in both encodings."""

from typing import Any

import msgspec
import pytest

from services.wire import client, records, server
from services.wire.codec import CODECS, JSON, MSGPACK
from services.wire.records import Position, Status, User

SINCE = {"epoch": "e", "seq": 7}

CLIENT_MESSAGES: list[tuple[dict[str, Any], client.AnyClientMessage]] = [
    ({"type": "join_room", "room": "r"}, client.JoinRoom(room="r")),
    (
        {"type": "join_room", "room": "r", "since": SINCE, "id": "1"},
        client.JoinRoom(room="r", since=Position("e", 7), id="1"),
    ),
    ({"type": "leave_room", "room": "r"}, client.LeaveRoom(room="r")),
    ({"type": "heartbeat", "id": "h"}, client.Heartbeat(id="h")),
    ({"type": "status_change", "status": "busy"}, client.StatusChange(status=Status.BUSY)),
    ({"type": "subscribe", "channel": "presence"}, client.Subscribe(channel="presence")),
    (
        {"type": "subscribe", "channels": ["inbox", "logs"], "since": SINCE},
        client.Subscribe(channels=["inbox", "logs"], since=Position("e", 7)),
    ),
    ({"type": "unsubscribe", "channels": ["logs"]}, client.Unsubscribe(channels=["logs"])),
]

RAW_MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"type": "room_message", "room": "r", "content": {"a": 1}, "echo": True}, "content"),
    ({"type": "room_message", "room": "r", "content": None}, "content"),
    ({"type": "broadcast", "content": [1], "echo": False}, "content"),
    ({"type": "direct_message", "targetUserId": "u", "content": "hi"}, "content"),
    ({"type": "presence_update", "customData": {"mood": 1}}, "customData"),
    ({"type": "rpc", "method": "prices.quote", "data": {"symbol": "X"}}, "data"),
]

USER = User(user_id="u", username="U", status=Status.AWAY, last_seen=5)
WIRE_USER = {"userId": "u", "username": "U", "status": "away", "lastSeen": 5}
RECORD = records.MetricsRecord(
    cpu=1, memory=2, disk=3, network=records.Network(in_=4, out=5), requests=6, errors=7, latency_p50=8,
    latency_p95=9, latency_p99=10, timestamp=11,
)  # fmt: skip
WIRE_RECORD = {
    "cpu": 1, "memory": 2, "disk": 3, "network": {"in": 4, "out": 5}, "requests": 6, "errors": 7, "latencyP50": 8,
    "latencyP95": 9, "latencyP99": 10, "timestamp": 11,
}  # fmt: skip
ALERT = records.Alert(
    id="cpu-alert", type="critical", metric="cpu", value=95, threshold=90, message="m", timestamp=1
)
WIRE_ALERT = {
    "id": "cpu-alert", "type": "critical", "metric": "cpu", "value": 95, "threshold": 90, "message": "m",
    "timestamp": 1,
}  # fmt: skip
WHO: dict[str, Any] = {"user_id": "u", "username": "U"}
WIRE_WHO = {"userId": "u", "username": "U"}

SERVER_MESSAGES: list[tuple[server.ServerMessage, dict[str, Any]]] = [
    (
        server.Welcome(
            protocol=1, **WHO, connection_id="c", gateway="g", session="s", inbox=Position("e", 7),
            heartbeat_interval=25_000, max_message_bytes=65_536,
        ),
        {
            "type": "welcome", "protocol": 1, **WIRE_WHO, "connectionId": "c", "gateway": "g", "session": "s",
            "inbox": SINCE, "heartbeatInterval": 25_000, "maxMessageBytes": 65_536,
        },
    ),
    (
        server.Error(code="rate_limited", message="m", retryable=True, retry_after_ms=10, id="1"),
        {"type": "error", "code": "rate_limited", "message": "m", "retryable": True, "retryAfterMs": 10, "id": "1"},
    ),
    (server.RpcResult(data=[1], id="1"), {"type": "rpc_result", "data": [1], "id": "1"}),
    (
        server.Disconnect(code=1012, reason="service restart", reconnect=True, retry_after_ms=5),
        {"type": "disconnect", "code": 1012, "reason": "service restart", "reconnect": True, "retryAfterMs": 5},
    ),
    (server.Ack(), {"type": "ack"}),
    (
        server.Ack(id="1", epoch="e", seq=7, timestamp=5, online=True),
        {"type": "ack", "id": "1", "epoch": "e", "seq": 7, "timestamp": 5, "online": True},
    ),
    (server.HeartbeatAck(id="h"), {"type": "heartbeat_ack", "id": "h"}),
    (
        server.RoomMessage(**WHO, room="r", content={"a": 1}, timestamp=5, seq=7),
        {"type": "room_message", **WIRE_WHO, "room": "r", "content": {"a": 1}, "timestamp": 5, "seq": 7},
    ),
    (server.JoinedRoom(room="r"), {"type": "joined_room", "room": "r"}),
    (
        server.JoinedRoom(room="r", epoch="e", seq=7, recovered=False, missed=[], id="1"),
        {"type": "joined_room", "room": "r", "epoch": "e", "seq": 7, "recovered": False, "missed": [], "id": "1"},
    ),
    (server.LeftRoom(room="r"), {"type": "left_room", "room": "r"}),
    (server.UserJoined(**WHO, room="r"), {"type": "user_joined", **WIRE_WHO, "room": "r"}),
    (server.UserLeft(**WHO, room="r"), {"type": "user_left", **WIRE_WHO, "room": "r"}),
    (
        server.Broadcast(**WHO, content="c", timestamp=5),
        {"type": "broadcast", **WIRE_WHO, "content": "c", "timestamp": 5},
    ),
    (
        server.DirectMessage(from_user_id="u", username="U", content="c", timestamp=5, seq=7),
        {"type": "direct_message", "fromUserId": "u", "username": "U", "content": "c", "timestamp": 5, "seq": 7},
    ),
    (server.Subscribed(channels=["logs"]), {"type": "subscribed", "channels": ["logs"]}),
    (server.Unsubscribed(channels=["logs"], id="1"), {"type": "unsubscribed", "channels": ["logs"], "id": "1"}),
    (server.PresenceList(users=[USER]), {"type": "presence_list", "users": [WIRE_USER]}),
    (server.UserOnline(user=USER, room="r"), {"type": "user_online", "user": WIRE_USER, "room": "r"}),
    (server.UserOffline(user_id="u"), {"type": "user_offline", "userId": "u"}),
    (
        server.StatusChanged(user_id="u", status=Status.ONLINE),
        {"type": "status_changed", "userId": "u", "status": "online"},
    ),
    (
        server.PresenceUpdated(user_id="u", custom_data=[1]),
        {"type": "presence_updated", "userId": "u", "customData": [1]},
    ),
    (
        server.InitialState(history=[RECORD], alerts=[ALERT]),
        {"type": "initial_state", "history": [WIRE_RECORD], "alerts": [WIRE_ALERT]},
    ),
    (server.MetricsUpdate(data=RECORD), {"type": "metrics_update", "data": WIRE_RECORD}),
    (server.AlertRaised(data=ALERT), {"type": "alert", "data": WIRE_ALERT}),
    (server.AlertResolved(data=ALERT), {"type": "alert_resolved", "data": WIRE_ALERT}),
    (
        server.Log(data=records.LogEntry(timestamp=1, level="info", source="s", event="e")),
        {"type": "log", "data": {"timestamp": 1, "level": "info", "source": "s", "event": "e"}},
    ),
]  # fmt: skip


def tag(message: object) -> str:
    return str(message.__struct_config__.tag)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("message", "wire"), SERVER_MESSAGES, ids=[tag(m) for m, _ in SERVER_MESSAGES])
def test_what_a_client_receives(message: server.ServerMessage, wire: dict[str, Any]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(message)) == wire
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message)) == wire


@pytest.mark.parametrize(("wire", "message"), CLIENT_MESSAGES, ids=[w["type"] for w, _ in CLIENT_MESSAGES])
def test_what_a_client_may_send(wire: dict[str, Any], message: client.AnyClientMessage) -> None:
    assert JSON.decode(msgspec.json.encode(wire)) == message
    assert MSGPACK.decode(msgspec.msgpack.encode(wire)) == message
    assert JSON.decode(msgspec.json.encode(wire | {"colour": "blue", "nested": {"type": 1}})) == message


@pytest.mark.parametrize(("wire", "field"), RAW_MESSAGES)
def test_content_is_unchanged(wire: dict[str, Any], field: str) -> None:
    name = {"customData": "custom_data"}.get(field, field)
    text = JSON.decode(msgspec.json.encode(wire))
    binary = MSGPACK.decode(msgspec.msgpack.encode(wire))
    assert tag(text) == tag(binary) == wire["type"]
    assert msgspec.json.decode(getattr(text, name)) == wire[field]
    assert msgspec.msgpack.decode(getattr(binary, name)) == wire[field]


def test_every_message_has_an_example() -> None:
    sent = {wire["type"] for wire, _ in [*CLIENT_MESSAGES, *RAW_MESSAGES]}
    assert sent | {"refresh"} == {tag(member) for member in client.AnyClientMessage.__args__}
    received = {type(message) for message, _ in SERVER_MESSAGES}
    bases = {server.ServerMessage, server.Reply}
    known = {
        one for one in vars(server).values()
        if isinstance(one, type) and issubclass(one, server.ServerMessage) and one not in bases
    }  # fmt: skip
    assert known - received <= {server.TokenExpiring}


def test_subprotocols() -> None:
    assert {name: codec.binary for name, codec in CODECS.items()} == {
        "tidings.v1.json": False,
        "tidings.v1.msgpack": True,
    }
