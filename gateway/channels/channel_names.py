"""Names of channels: `presence`, `presence:ROOM`, `metrics`, `alerts`, `logs`, `inbox`.

A leaf: the client's commands check names without loading the channels.
"""

from contextlib import suppress

from services.wire.names import InvalidName, normalize_name

PRESENCE = "presence"
METRICS = "metrics"
ALERTS = "alerts"
LOGS = "logs"
INBOX = "inbox"

PLAIN = frozenset({PRESENCE, METRICS, ALERTS, LOGS, INBOX})
ROOM_PRESENCE = "presence:"

_KNOWN = "presence, presence:ROOM, metrics, alerts, logs, inbox"
_MAX_SHOWN = 80


def parse_channel(name: str) -> str | None:
    """Return the channel's normalized name, or None if there is no such channel."""
    if name in PLAIN:
        return name
    if name.startswith(ROOM_PRESENCE):
        with suppress(InvalidName):
            return ROOM_PRESENCE + normalize_name(name.removeprefix(ROOM_PRESENCE), "room")
    return None


def refusal(name: str) -> str:
    """Return why a channel is refused. The text for a forbidden room is that for an unknown channel."""
    if name in PLAIN:
        return f"these credentials do not allow the channel {name}"
    shown = name[:_MAX_SHOWN]
    return f"no such channel, or not for this user: {shown!r}; known are {_KNOWN}"


def presence_room(channel: str) -> str | None:
    """Return the room of a presence channel: "" for `presence`, None for other channels."""
    if channel == PRESENCE:
        return ""
    return channel.removeprefix(ROOM_PRESENCE) if channel.startswith(ROOM_PRESENCE) else None
