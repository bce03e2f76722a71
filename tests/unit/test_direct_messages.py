"""A stored direct message is acknowledged, even if the look-up of its receiver fails."""

import asyncio
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.auth.identity import Identity
from gateway.delivery.counters import Counters
from gateway.delivery.streams import route_of
from gateway.ws.connection import Connection
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.codec import JSON
from services.wire.grants import DEFAULT, Grants
from services.wire.records import UNSET
from services.wire.server import Ack
from tests.support.deadline import eventually
from tests.support.delivery import messages_in


@pytest.mark.parametrize(
    ("answer", "online"), [(True, True), (UNSET, UNSET), (LookupError("broken"), UNSET)], ids=repr
)
async def test_a_stored_message_is_acknowledged(answer: Any, online: Any) -> None:
    written: list[bytes] = []

    async def is_online(_user_id: str, _asker: Grants) -> Any:
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def to_user(
        _sender: object, _user: str, _content: object, done: Callable[[Ack], None], *, id: str
    ) -> None:
        done(Ack(id=id, epoch="e", seq=1))

    settings = Settings(auth="open")
    gateway: Any = SimpleNamespace(
        tasks=TaskSet(),
        settings=settings,
        user_presence=SimpleNamespace(is_online=is_online),
        on_limit=lambda _limit: None,
        counters=Counters(),
        presence=SimpleNamespace(active=lambda _user_id: None),
        streams=SimpleNamespace(route=partial(route_of, settings, {})),
        user_publisher=SimpleNamespace(to_user=to_user),
    )
    connection = Connection(gateway, Identity("ada", "Ada", DEFAULT), JSON, "c1")
    connection._protocol = SimpleNamespace(write_soon=written.append)  # type: ignore[assignment]
    connection.on_message(b'{"type":"direct_message","targetUserId":"bob","content":1,"id":"m1"}', False)
    await eventually(lambda: written, "the acknowledgement")
    (ack,) = messages_in(written[0])
    assert (ack["id"], ack["seq"], ack.get("online", UNSET)) == ("m1", 1, online)
