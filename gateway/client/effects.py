"""What a session asks its connection to do."""

import msgspec

from services.wire.codes import CloseCode
from services.wire.records import UNSET, Position, Status, UnsetType
from services.wire.server import ServerMessage


class Effect(msgspec.Struct, frozen=True, gc=False):
    """Base of effects."""


class Reply(Effect, frozen=True):
    """Send a message to this connection."""

    message: ServerMessage


class EnterRoom(Effect, frozen=True):
    """Become a member and answer `joined_room`."""

    room: str
    since: Position | UnsetType
    id: str | UnsetType


class ExitRoom(Effect, frozen=True):
    """Stop being a member and answer `left_room`."""

    room: str
    id: str | UnsetType


class PublishToRoom(Effect, frozen=True):
    """Publish, and answer `ack` when stored."""

    room: str
    content: msgspec.Raw
    echo: bool
    id: str | UnsetType


class PublishToUser(Effect, frozen=True):
    """Publish to a user's inbox, and answer `ack` when stored."""

    user_id: str
    content: msgspec.Raw
    id: str | UnsetType


class PublishToAll(Effect, frozen=True):
    """Publish to everyone, and answer `ack`."""

    content: msgspec.Raw
    echo: bool
    id: str | UnsetType


class SetStatus(Effect, frozen=True):
    """Tell presence the user's status, and answer `ack`."""

    status: Status
    id: str | UnsetType


class SetCustomData(Effect, frozen=True):
    """Tell presence the user's custom data, and answer `ack`."""

    custom_data: msgspec.Raw
    id: str | UnsetType


class Follow(Effect, frozen=True):
    """Follow channels, answer `subscribed` and send their snapshots."""

    channels: list[str]
    since: Position | UnsetType = UNSET
    id: str | UnsetType = UNSET


class Renew(Effect, frozen=True):
    """Verify new credentials, and answer `ack` with when they end."""

    token: str
    ticket: str
    id: str | UnsetType


class Expel(Effect, frozen=True):
    """Say `disconnect` and close."""

    code: CloseCode


class Unfollow(Effect, frozen=True):
    """Stop following channels and answer `unsubscribed`."""

    channels: list[str]
    id: str | UnsetType
