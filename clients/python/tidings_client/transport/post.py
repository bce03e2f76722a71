"""Messages of the client as requests over HTTP, for a client that receives by a stream."""

from collections.abc import Mapping
from dataclasses import dataclass

from tidings_client.generated.wire import (
    ClientBroadcast,
    ClientDirectMessage,
    ClientPresenceUpdate,
    ClientRoomMessage,
    ClientRpc,
    ClientStatusChange,
    CustomDataPut,
    MessagePost,
    RoomMessagePost,
    StatusPut,
)

_SEND_S = 10.0
_CALL_S = 60.0  # the application's time limit ends most calls before

# Messages that are sent over HTTP, one request each.
Sent = (
    ClientRoomMessage
    | ClientDirectMessage
    | ClientBroadcast
    | ClientStatusChange
    | ClientPresenceUpdate
    | ClientRpc
)


@dataclass(frozen=True, slots=True)
class Post:
    """One message as a request."""

    operation: str
    body: object
    path: Mapping[str, str]
    connection_id: str
    """The connection that gets no copy, and whose status and custom data are set; "" for none."""
    timeout: float
    """Time limit of the answer, in seconds."""


def post_of(message: Sent, connection_id: str) -> Post:
    """Return a message as a request. `connection_id` is that of the open stream."""
    path: dict[str, str] = {}
    timeout = _SEND_S
    match message:
        case ClientRoomMessage():
            operation, path = "POST /api/rooms/{room}/messages", {"room": message.room}
            body: object = RoomMessagePost(content=message.content, id=message.id, echo=message.echo)
        case ClientDirectMessage():
            operation, path = "POST /api/users/{userId}/messages", {"userId": message.target_user_id}
            body = MessagePost(content=message.content, id=message.id)
        case ClientBroadcast():
            operation, body = "POST /api/broadcast", MessagePost(content=message.content)
            if message.echo:
                connection_id = ""  # an unnamed connection gets a copy
        case ClientRpc():
            operation, body = "POST /api/rpc", {"method": message.method, "data": message.data}
            timeout = _CALL_S
        case ClientStatusChange():
            operation, body = "PUT /api/me/status", StatusPut(status=message.status)
        case ClientPresenceUpdate():
            operation, body = "PUT /api/me/data", CustomDataPut(custom_data=message.custom_data)
    return Post(operation, body, path, connection_id, timeout)
