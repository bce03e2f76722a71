"""A closed gateway leaves no subscription on the bus, with any channels of its connections."""

import secrets
from collections.abc import Callable
from typing import Any, cast

from gateway.delivery.encoded_message import EncodedMessage, Encoding
from gateway.gateway import Gateway
from services.settings import Settings
from tests.support.bus import ConnectBus, connect_bus
from tests.support.deadline import eventually

__all__ = ["connect_bus"]


class Member:
    """A receiver."""

    encoding = Encoding.SSE
    connection_id = "c1"
    user_id = "ada"
    sent_before = 0

    def write(self, _data: bytes) -> None: ...

    def accept_messages(self, _messages: list[EncodedMessage]) -> bool:
        return True


async def test_closing_ends_everything_once(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings]
) -> None:
    bus = await connect_bus()
    subscriptions = bus.connection._subscriptions
    before = len(subscriptions)
    settings = make_settings(prefix=f"closing-{secrets.token_hex(4)}")
    faults: list[BaseException] = []
    gateway = Gateway(bus, settings, "g", faults.append)
    await gateway.open()
    member = cast(Any, Member())
    gateway.channels.follow(member, ["presence", "presence:lobby", "metrics", "alerts", "logs"])
    opened: list[object] = []
    gateway.inboxes.open(member, opened.append)
    await eventually(lambda: bool(opened), "the inbox is open")
    assert len(subscriptions) > before
    await gateway.close()
    await gateway.close()
    # What is left belongs to the bus itself: the inboxes of questions, and where acknowledgements arrive.
    left = [one._subject for one in subscriptions if settings.prefix in one._subject]
    assert left == []
    assert faults == []
