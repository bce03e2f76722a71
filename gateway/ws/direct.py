"""A direct message of one connection: stored, and acknowledged with whether whom it is for is online."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gateway.client.effects import PublishToUser
from gateway.delivery.publisher import PublishRefused, Sender
from services.wire import server
from services.wire.records import UnsetType

if TYPE_CHECKING:
    from gateway.gateway import Gateway
    from gateway.ws.connection import Connection


def publish_to_user(
    gateway: "Gateway",
    connection: "Connection",
    sender: Sender,
    effect: PublishToUser,
    content: msgspec.Raw,
    started: float,
) -> None:
    """Store the message and ask for the receiver at the same time; the answer waits for both."""
    grants = connection.identity.grants
    online = gateway.tasks.spawn(gateway.is_online(effect.user_id, grants), "is online")

    def done(outcome: server.Ack | PublishRefused) -> None:
        if isinstance(outcome, PublishRefused):
            connection.on_published(effect.id, started, outcome)
        else:
            online.add_done_callback(partial(_acknowledge, connection, outcome, started))

    gateway.publisher.to_user(sender, effect.user_id, content, done, id=effect.id)


def _acknowledge(
    connection: "Connection", ack: server.Ack, started: float, online: "asyncio.Task[bool | UnsetType]"
) -> None:
    if not online.cancelled() and online.exception() is None:  # else the message is stored all the same
        ack = msgspec.structs.replace(ack, online=online.result())
    connection.reply(ack, started)
