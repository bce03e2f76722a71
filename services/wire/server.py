"""What a client may receive: one object per message, tagged by `type` (protocol version 1).

The names are fixed: clients exist. Fields that do not apply (`epoch` and `seq` of an ephemeral room, `id` of a
request that carried none) are absent, never null.
"""

from typing import Any

import msgspec

from services.wire.client import snake_tag
from services.wire.records import (
    UNSET,
    Alert,
    LogEntry,
    MetricsRecord,
    Position,
    Status,
    UnsetType,
    User,
)


class ServerMessage(
    msgspec.Struct, rename="camel", tag_field="type", tag=snake_tag, kw_only=True, frozen=True
):
    """Base of everything a server may send."""


class Reply(ServerMessage, frozen=True, kw_only=True):
    """Base of what answers a request: `id` echoes the request's."""

    id: str | UnsetType = UNSET


class Welcome(ServerMessage, frozen=True, kw_only=True):
    """First on every connection. `session` restores this user; `heartbeat_interval` is in ms.

    `expires_at` (ms since 1970) is when the connection ends unless it is refreshed.
    """

    protocol: int
    user_id: str
    username: str
    connection_id: str
    gateway: str
    session: str | UnsetType = UNSET
    inbox: Position | UnsetType = UNSET
    heartbeat_interval: int
    max_message_bytes: int
    expires_at: int | UnsetType = UNSET


class Error(Reply, frozen=True, kw_only=True):
    """Answers a request that was not carried out, or bytes that were no request. See `codes.ErrorCode`."""

    code: str
    message: str
    retryable: bool
    retry_after_ms: int | UnsetType = UNSET


class Disconnect(ServerMessage, frozen=True, kw_only=True):
    """Last before a close that the server starts; says whether and when to reconnect."""

    code: int
    reason: str
    reconnect: bool
    retry_after_ms: int | UnsetType = UNSET


class TokenExpiring(ServerMessage, frozen=True, kw_only=True):
    """The connection's token ends soon (`expires_at`, ms since 1970), and the connection with it: `refresh`."""

    expires_at: int


class Ack(Reply, frozen=True, kw_only=True):
    """Answers a message. Durable: `epoch` and `seq` say where it is stored. `online` is for direct messages.

    `expires_at` (ms since 1970) answers `refresh`: when the connection ends now. `answers` are those of a publish over
    HTTP to several rooms or users, in their order.
    """

    epoch: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    timestamp: int | UnsetType = UNSET
    online: bool | UnsetType = UNSET
    expires_at: int | UnsetType = UNSET
    answers: "list[Ack | Error] | UnsetType" = UNSET


class RpcResult(Reply, frozen=True, kw_only=True):
    """Answers `rpc`, with what the application returned."""

    data: Any


class HeartbeatAck(Reply, frozen=True, kw_only=True):
    """Answers `heartbeat`."""


class RoomMessage(ServerMessage, frozen=True, kw_only=True):
    """A message in a room. Without `seq` the room is ephemeral."""

    user_id: str
    username: str
    room: str
    content: Any
    timestamp: int
    seq: int | UnsetType = UNSET


class JoinedRoom(Reply, frozen=True, kw_only=True):
    """Answers `join_room`: live messages after (`epoch`, `seq`) follow, in order.

    With `since`: `recovered` says whether `missed` is everything after that position; if not, it is empty.
    `history` has the newest stored messages up to the position, oldest first, if it was asked for.
    """

    room: str
    epoch: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    missed: list[RoomMessage] | UnsetType = UNSET
    history: list[RoomMessage] | UnsetType = UNSET


class LeftRoom(Reply, frozen=True, kw_only=True):
    """Answers `leave_room`. Without `id` the server ended the membership, for a `reason`: `removed` or `expired`."""

    room: str
    reason: str | UnsetType = UNSET


class UserJoined(ServerMessage, frozen=True, kw_only=True):
    """A user's first connection came into a room. `member_data` is what the user shows there."""

    user_id: str
    username: str
    room: str
    member_data: Any | UnsetType = UNSET


class UserLeft(ServerMessage, frozen=True, kw_only=True):
    """A user's last connection is gone from a room."""

    user_id: str
    username: str
    room: str


class Broadcast(ServerMessage, frozen=True, kw_only=True):
    """A message to every connection."""

    user_id: str
    username: str
    content: Any
    timestamp: int


class DirectMessage(ServerMessage, frozen=True, kw_only=True):
    """A message to every connection of one user."""

    from_user_id: str
    username: str
    content: Any
    timestamp: int
    seq: int | UnsetType = UNSET


class Subscribed(Reply, frozen=True, kw_only=True):
    """Answers `subscribe`; snapshots follow. `recovered` and `missed` answer `inbox` with `since`."""

    channels: list[str]
    recovered: bool | UnsetType = UNSET
    missed: list[DirectMessage] | UnsetType = UNSET


class Unsubscribed(Reply, frozen=True, kw_only=True):
    """Answers `unsubscribe`."""

    channels: list[str]


class PresenceList(ServerMessage, frozen=True, kw_only=True):
    """Snapshot of `presence` (no `room`) or `presence:ROOM`; it replaces what the client had of that channel.

    A long list comes in parts: all but the last have `more`; those after the first have `part` (2, 3 ...) and add to
    those before. A scope with too many users has none in the list but their `count`, which comes again when it changed.
    """

    users: list[User]
    room: str | UnsetType = UNSET
    count: int | UnsetType = UNSET
    more: bool | UnsetType = UNSET
    part: int | UnsetType = UNSET


class UserOnline(ServerMessage, frozen=True, kw_only=True):
    """A user came online (or into the room whose presence is followed)."""

    user: User
    room: str | UnsetType = UNSET


class UserOffline(ServerMessage, frozen=True, kw_only=True):
    """A user went offline (or out of the room whose presence is followed)."""

    user_id: str
    room: str | UnsetType = UNSET


class StatusChanged(ServerMessage, frozen=True, kw_only=True):
    """A user's status changed."""

    user_id: str
    status: Status


class PresenceUpdated(ServerMessage, frozen=True, kw_only=True):
    """A user's custom data changed."""

    user_id: str
    custom_data: Any


class InitialState(ServerMessage, frozen=True, kw_only=True):
    """Snapshot of `metrics` and `alerts`: the last 100 records, oldest first, and the active alerts."""

    history: list[MetricsRecord]
    alerts: list[Alert]


class MetricsUpdate(ServerMessage, frozen=True, kw_only=True):
    """The record of the last second."""

    data: MetricsRecord


class AlertRaised(ServerMessage, frozen=True, kw_only=True, tag="alert"):
    """An alert is new or changed severity."""

    data: Alert


class AlertResolved(ServerMessage, frozen=True, kw_only=True):
    """An alert ended."""

    data: Alert


class Log(ServerMessage, frozen=True, kw_only=True):
    """One line of the log stream."""

    data: LogEntry
