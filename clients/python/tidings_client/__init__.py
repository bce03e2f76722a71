"""Tidings for asyncio: rooms, presence, direct messages, live metrics and alerts.

Begin with `TidingsClient`. Names that are not exported here are internal and may change.

    async with TidingsClient("https://tidings.example.com", username="Ada") as client:
        room = client.room("lobby")
        async for message in room:
            print(message.username, message.content)
"""

from tidings_client.channels import Following
from tidings_client.client import TidingsClient
from tidings_client.clock import Clock, SystemClock
from tidings_client.connection.backoff import Backoff
from tidings_client.connection.connection import ConnectionStatus
from tidings_client.errors import (
    AckTimeout,
    Blocked,
    Closed,
    ConnectionLost,
    LocalError,
    QueueFull,
    Removed,
    ServerError,
    TidingsError,
    Unsupported,
)
from tidings_client.events import Event, Stream
from tidings_client.generated.codes import ErrorCode
from tidings_client.generated.wire import (
    Ack,
    Alert,
    Broadcast,
    DirectMessage,
    LogEntry,
    MetricsRecord,
    Position,
    RoomMessage,
    RoomPast,
    ServerMessage,
    Status,
    User,
    UserJoined,
    UserLeft,
    Welcome,
)
from tidings_client.inbox import Inbox
from tidings_client.options import CredentialRequest, Options
from tidings_client.presence import Presence
from tidings_client.room import Gap, Joined, Removal, Room

__all__ = [
    "Ack",
    "AckTimeout",
    "Alert",
    "Backoff",
    "Blocked",
    "Broadcast",
    "Clock",
    "Closed",
    "ConnectionLost",
    "ConnectionStatus",
    "CredentialRequest",
    "DirectMessage",
    "ErrorCode",
    "Event",
    "Following",
    "Gap",
    "Inbox",
    "Joined",
    "LocalError",
    "LogEntry",
    "MetricsRecord",
    "Options",
    "Position",
    "Presence",
    "QueueFull",
    "Removal",
    "Removed",
    "Room",
    "RoomMessage",
    "RoomPast",
    "ServerError",
    "ServerMessage",
    "Status",
    "Stream",
    "SystemClock",
    "TidingsClient",
    "TidingsError",
    "Unsupported",
    "User",
    "UserJoined",
    "UserLeft",
    "Welcome",
]
