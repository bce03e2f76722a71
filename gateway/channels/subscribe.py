"""Following channels by name, the same for WebSocket connections and SSE streams.

The inbox is not here: it concerns one user, and everybody who is let in receives it.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from gateway.channels import channel_names
from gateway.delivery.fanout import Member

if TYPE_CHECKING:
    from gateway.gateway import Gateway


def follow(gateway: "Gateway", member: Member, names: Collection[str]) -> None:
    """Send the snapshots of these channels and what comes after them."""
    metrics, alerts = channel_names.METRICS in names, channel_names.ALERTS in names
    if metrics or alerts:  # one snapshot for both
        gateway.metrics_channel.follow(member, metrics=metrics, alerts=alerts)
    for name in names:
        if name == channel_names.LOGS:
            gateway.logs_channel.follow(member)
        elif (room := channel_names.presence_room(name)) is not None:
            gateway.presence_channels.follow(member, room)


def unfollow(gateway: "Gateway", connection_id: str, names: Collection[str]) -> None:
    """Stop sending these channels, as far as they are followed."""
    metrics, alerts = channel_names.METRICS in names, channel_names.ALERTS in names
    if metrics or alerts:
        gateway.metrics_channel.unfollow(connection_id, metrics=metrics, alerts=alerts)
    for name in names:
        if name == channel_names.LOGS:
            gateway.logs_channel.unfollow(connection_id)
        elif (room := channel_names.presence_room(name)) is not None:
            gateway.presence_channels.unfollow(connection_id, room)
