"""What a client may send: one object per message, tagged by `type` (protocol version 1).

The names are fixed: clients exist. Every message may carry `id` (at most 64 characters), which its reply echoes.
`content` and `customData` stay raw bytes in the connection's codec: checked for syntax, never looked into.
"""

from typing import Annotated

import msgspec

from services.wire.names import MAX_METHOD_LENGTH, METHOD_NAME
from services.wire.records import UNSET, Position, Status, UnsetType

MAX_MEMBER_DATA_BYTES = 1024

# The check of the name is `names.is_method`.
Method = Annotated[
    str,
    msgspec.Meta(extra_json_schema={"pattern": f"^{METHOD_NAME.pattern}$", "maxLength": MAX_METHOD_LENGTH}),
]
MessageId = Annotated[str, msgspec.Meta(max_length=64)]


def snake_tag(name: str) -> str:
    """Spell a class name as the wire does: JoinRoom is `join_room`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class ClientMessage(
    msgspec.Struct, rename="camel", tag_field="type", tag=snake_tag, kw_only=True, frozen=True
):
    """Base of everything a client may send."""

    id: MessageId | UnsetType = UNSET


class JoinRoom(ClientMessage, frozen=True, kw_only=True):
    """Become a member; with `since`, also receive what came after that position.

    `history` asks for so many of the newest stored messages; `since` wins over it. `member_data` is what the user shows
    in the room. `token` is a room token: it allows what the grants do not.
    """

    room: str
    since: Position | UnsetType = UNSET
    history: int | UnsetType = UNSET
    member_data: msgspec.Raw | UnsetType = UNSET
    token: str | UnsetType = UNSET


class LeaveRoom(ClientMessage, frozen=True, kw_only=True):
    """Stop being a member, at once and without grace."""

    room: str


class PublishRoomCommand(ClientMessage, frozen=True, kw_only=True, tag="room_message"):
    """Publish to a room the connection is a member of.

    `echo` asks for a copy on the sending connection; unset, the room's namespace decides.
    """

    room: str
    content: msgspec.Raw
    echo: bool | UnsetType = UNSET


class PublishBroadcastCommand(ClientMessage, frozen=True, kw_only=True, tag="broadcast"):
    """Publish to every connection."""

    content: msgspec.Raw
    echo: bool = False


class PublishDirectCommand(ClientMessage, frozen=True, kw_only=True, tag="direct_message"):
    """Send to every connection of one user, now or later through their inbox."""

    target_user_id: str
    content: msgspec.Raw


class Heartbeat(ClientMessage, frozen=True, kw_only=True):
    """Ask for a `heartbeat_ack`: for clients that cannot see WebSocket pings."""


class StatusChange(ClientMessage, frozen=True, kw_only=True):
    """Set the user's availability."""

    status: Status


class PresenceUpdate(ClientMessage, frozen=True, kw_only=True):
    """Replace the user's custom data, shown to everyone who sees their presence."""

    custom_data: msgspec.Raw


class Subscribe(ClientMessage, frozen=True, kw_only=True):
    """Follow one or several channels; `since` resumes the inbox."""

    channel: str | UnsetType = UNSET
    channels: list[str] | UnsetType = UNSET
    since: Position | UnsetType = UNSET


class Unsubscribe(ClientMessage, frozen=True, kw_only=True):
    """Stop following channels."""

    channel: str | UnsetType = UNSET
    channels: list[str] | UnsetType = UNSET


class Refresh(ClientMessage, frozen=True, kw_only=True):
    """Go on with a new token, shown itself or by a ticket (exactly one of them), before the old one expires."""

    token: str | UnsetType = UNSET
    ticket: str | UnsetType = UNSET


class RpcCommand(ClientMessage, frozen=True, kw_only=True, tag="rpc"):
    """Call a method of the application. `data` is any JSON; unset, the application receives `null`."""

    method: Method
    data: msgspec.Raw | UnsetType = UNSET


AnyClientMessage = (
    JoinRoom
    | LeaveRoom
    | PublishRoomCommand
    | PublishBroadcastCommand
    | PublishDirectCommand
    | Heartbeat
    | StatusChange
    | PresenceUpdate
    | Subscribe
    | Unsubscribe
    | Refresh
    | RpcCommand
)
