"""Names of channels: `presence`, `presence:ROOM`, `metrics`, `alerts`, `logs`, `inbox`."""

from services.wire.names import InvalidName, normalize_name

PRESENCE = "presence"
METRICS = "metrics"
ALERTS = "alerts"
LOGS = "logs"
INBOX = "inbox"

PLAIN = frozenset({PRESENCE, METRICS, ALERTS, LOGS, INBOX})
ROOM_PRESENCE = "presence:"


def parse_channel(name: str) -> str | None:
    """Return the channel's one spelling, or None where there is no such channel."""
    if name in PLAIN:
        return name
    if name.startswith(ROOM_PRESENCE):
        try:
            return ROOM_PRESENCE + normalize_name(name[len(ROOM_PRESENCE) :], "room")
        except InvalidName:
            return None
    return None


def presence_room(channel: str) -> str | None:
    """Return the room whose presence a channel shows: "" for everyone's, None for channels of other things."""
    if channel == PRESENCE:
        return ""
    return channel[len(ROOM_PRESENCE) :] if channel.startswith(ROOM_PRESENCE) else None
