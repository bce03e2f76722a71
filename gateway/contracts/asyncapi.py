"""WebSocket and Server-Sent Events as an AsyncAPI 3.0 document, from the gateway's side.

It *receives* what clients send and *sends* what they receive. Each request names its reply.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from gateway.api.endpoint import ANYONE, Call, endpoint
from gateway.contracts.schemas import (
    Schema,
    client_messages,
    component_name,
    components_of,
    info,
    server_messages,
    tag_of,
)
from services.wire import client, server
from services.wire.codec import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK
from services.wire.codes import CloseCode, ErrorCode

# Replies to requests that succeed, if not `ack`; those that fail are answered by `error`.
REPLIES: dict[type[client.ClientMessage], type[server.ServerMessage]] = {
    client.JoinRoom: server.JoinedRoom,
    client.LeaveRoom: server.LeftRoom,
    client.Heartbeat: server.HeartbeatAck,
    client.Subscribe: server.Subscribed,
    client.Unsubscribe: server.Unsubscribed,
    client.RpcCommand: server.RpcResult,
}

# Messages that no stream carries: replies to requests that only a WebSocket can send, and `welcome`.
_WEBSOCKET_ONLY = {
    server.Welcome,
    server.Ack,
    server.RpcResult,
    server.HeartbeatAck,
    server.LeftRoom,
    server.Unsubscribed,
}

_WS_QUERY = {
    "username": "Display name under `TIDINGS_AUTH=open`.",
    "session": "The `session` of an earlier `welcome`: this is that user again.",
    "ticket": "A one-time ticket from `POST /api/tickets`.",
    "channels": "Channels to follow from the start, comma-separated.",
}


@endpoint("GET", "/asyncapi.json", ANYONE, name="asyncapi")
async def serve_asyncapi(_call: Call) -> dict[str, Any]:
    """The same for WebSocket and Server-Sent Events."""
    return asyncapi()


@lru_cache(maxsize=1)
def asyncapi() -> Schema:
    """Return the document."""
    commands, answers = client_messages(), server_messages()
    _, schemas = components_of(commands, answers)
    streamed = [kind for kind in answers if kind not in _WEBSOCKET_ONLY]
    return {
        "asyncapi": "3.0.0",
        "info": info("Tidings over WebSocket and Server-Sent Events"),
        "defaultContentType": "application/json",
        "channels": {
            "websocket": _websocket([*commands, *answers]),
            "events": {
                "address": "/events",
                "title": "Server-Sent Events",
                "description": "The same messages as `event: TYPE`, beside `connected`, `heartbeat` and `reset`.",
                "messages": _message_refs(streamed),
                "bindings": {"http": {"bindingVersion": "0.3.0"}},
            },
        },
        "operations": {
            **{f"on_{tag_of(kind)}": _request(kind) for kind in commands},
            "send": _sends("websocket", answers),
            "stream": _sends("events", streamed),
        },
        "components": {
            "messages": {component_name(kind): _message(kind) for kind in [*commands, *answers]},
            "schemas": _plain_discriminators(schemas),
        },
        "x-error-codes": [
            {"code": it.code, "retryable": it.retryable, "httpStatus": it.http_status, "meaning": it.meaning}
            for it in (member.value for member in ErrorCode)
        ],
        "x-close-codes": [
            {"code": it.number, "reason": it.reason, "reconnect": it.reconnect, "meaning": it.meaning}
            for it in (member.value for member in CloseCode)
        ],
    }


def _plain_discriminators(schema: Any) -> Any:
    """Return schemas whose discriminators are names of properties: in AsyncAPI they have no mapping of values."""
    if isinstance(schema, list):
        return [_plain_discriminators(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value["propertyName"] if key == "discriminator" else _plain_discriminators(value)
        for key, value in schema.items()
    }


def _websocket(kinds: Sequence[type]) -> Schema:
    query = {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in _WS_QUERY.items()},
    }
    return {
        "address": "/ws",
        "title": "WebSocket",
        "description": f"Subprotocol `{SUBPROTOCOL_JSON}` (text frames, also when none is requested) or "
        f"`{SUBPROTOCOL_MSGPACK}` (the same objects in binary frames). `welcome` is the first message.",
        "messages": _message_refs(kinds),
        "bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}},
    }


def _message_refs(kinds: Sequence[type]) -> Schema:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in map(component_name, kinds)}


def _message(kind: type[msgspec.Struct]) -> Schema:
    name = component_name(kind)
    return {
        "name": tag_of(kind),
        "title": name,
        "summary": (kind.__doc__ or "").strip().partition("\n")[0],
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }


def _request(kind: type[client.ClientMessage]) -> Schema:
    replies: list[type[server.ServerMessage]] = [REPLIES.get(kind, server.Ack), server.Error]
    return {
        "action": "receive",
        "channel": {"$ref": "#/channels/websocket"},
        "messages": _messages_of("websocket", [kind]),
        "reply": {
            "channel": {"$ref": "#/channels/websocket"},
            "messages": _messages_of("websocket", replies),
        },
    }


def _sends(channel: str, kinds: Sequence[type[server.ServerMessage]]) -> Schema:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": _messages_of(channel, kinds),
    }


def _messages_of(channel: str, kinds: Sequence[type]) -> list[Schema]:
    return [{"$ref": f"#/channels/{channel}/messages/{component_name(kind)}"} for kind in kinds]
