"""A direct message that was stored is acknowledged, whatever becomes of the question whether its receiver is online."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gateway.client.effects import PublishToUser
from gateway.delivery.publisher import Sender
from gateway.ws.direct import publish_to_user
from services.tasks import TaskSet
from services.wire.grants import DEFAULT, Grants
from services.wire.records import UNSET
from services.wire.server import Ack
from tests.support.deadline import eventually


@pytest.mark.parametrize(
    ("answer", "online"), [(True, True), (UNSET, UNSET), (LookupError("broken"), UNSET)], ids=repr
)
async def test_a_stored_message_is_acknowledged(answer: Any, online: Any) -> None:
    replies: list[Ack] = []

    async def is_online(_user_id: str, _asker: Grants) -> Any:
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def to_user(
        _sender: object, _user: str, _content: object, done: Callable[[Ack], None], *, id: str
    ) -> None:
        done(Ack(id=id, epoch="e", seq=1))

    gateway: Any = SimpleNamespace(
        tasks=TaskSet(), is_online=is_online, publisher=SimpleNamespace(to_user=to_user)
    )
    connection: Any = SimpleNamespace(
        identity=SimpleNamespace(grants=DEFAULT),
        reply=lambda ack, _started: replies.append(ack),
    )
    effect = PublishToUser("bob", msgspec.Raw(b"1"), "m1")
    publish_to_user(gateway, connection, Sender("ada", "Ada", "c1"), effect, msgspec.Raw(b"1"), 0.0)
    await eventually(lambda: replies, "the acknowledgement")
    assert [(ack.id, ack.seq, ack.online) for ack in replies] == [("m1", 1, online)]
