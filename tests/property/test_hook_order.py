"""Messages that wait for the application keep their order, whatever its answers and delays are."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.publisher import Publisher, PublishRefused, Sender
from gateway.delivery.streams import route_of
from gateway.hooks import publishing
from gateway.hooks.hooks import PublishDecision
from gateway.hooks.messages import HookRefused, HookUnavailable
from gateway.hooks.publishing import HookedPublisher
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.events import RoomPublished

SETTINGS = Settings()


@dataclass(frozen=True)
class Sent:
    connection: str
    room: str
    turns: int  # of the event loop, until the application has answered
    answer: str


SENT = st.builds(
    Sent,
    st.sampled_from(["c1", "c2"]),
    st.sampled_from(["live:a", "live:b"]),
    st.integers(0, 12),
    st.sampled_from(["allow", "replace", "skip", "refuse", "fail"]),
)


class Application:
    """Answers after as many turns as the message says."""

    def __init__(self, messages: list[Sent]) -> None:
        self._messages = messages

    async def publish(self, _sender: Sender, content: msgspec.Raw, **_target: Any) -> PublishDecision:
        sent = self._messages[msgspec.json.decode(content)]
        for _ in range(sent.turns):
            await asyncio.sleep(0)
        match sent.answer:
            case "refuse":
                raise HookRefused("refused", "no")
            case "fail":
                raise HookUnavailable("timeout", 100)
            case "skip":
                return PublishDecision(content, skip=True)
            case "replace":
                return PublishDecision(msgspec.Raw(b"[%b]" % bytes(content)))
        return PublishDecision(content)


async def run(messages: list[Sent]) -> tuple[list[RoomPublished], list[tuple[int, object]]]:
    published: list[RoomPublished] = []
    answered: list[tuple[int, object]] = []
    decode = msgspec.json.Decoder(RoomPublished).decode
    bus: Any = SimpleNamespace(publish=lambda _subject, payload: published.append(decode(payload)))
    streams: Any = SimpleNamespace()
    hooks: Any = Application(messages)
    tasks = TaskSet()
    inner = Publisher(bus, streams, SETTINGS, print)
    publisher = HookedPublisher(inner, bus, streams, SETTINGS, print, hooks, tasks)
    for number, sent in enumerate(messages):
        publisher.to_room(
            Sender("ann", "Ann", sent.connection),
            route_of(SETTINGS, {}, sent.room),
            msgspec.Raw(b"%d" % number),
            lambda outcome, number=number: answered.append((number, outcome)),  # type: ignore[misc]
        )
    while len(tasks):  # noqa: ASYNC110  # each turn counts
        await asyncio.sleep(0)
    assert not publisher._lines
    assert publisher._waiting_bytes == 0
    return published, answered


@given(st.lists(SENT, max_size=30))
def test_each_connection_keeps_its_order_in_each_room(messages: list[Sent]) -> None:
    published, answered = asyncio.run(run(messages))
    assert sorted(number for number, _ in answered) == list(range(len(messages)))  # each once
    for line in {(sent.connection, sent.room) for sent in messages}:
        mine = [number for number, sent in enumerate(messages) if (sent.connection, sent.room) == line]
        assert [number for number, _ in answered if number in mine] == mine
        wanted: list[object] = [
            [number] if messages[number].answer == "replace" else number
            for number in mine
            if messages[number].answer in ("allow", "replace")
        ]
        got = [
            msgspec.json.decode(event.content) for event in published if (event.origin, event.room) == line
        ]
        assert got == wanted
    for number, outcome in answered:
        if messages[number].answer in ("refuse", "fail"):
            assert isinstance(outcome, PublishRefused)
            assert outcome.code.retryable is (messages[number].answer == "fail")
        else:
            assert isinstance(outcome, server.Ack)


def test_few_messages_wait_for_one_room_and_more_are_refused_at_once() -> None:
    most = publishing.MAX_WAITING_PER_TARGET
    messages = [Sent("c1", "live:a", 3, "allow")] * (most + 2) + [Sent("c1", "live:b", 0, "allow")]
    published, answered = asyncio.run(run(messages))
    refused = [number for number, outcome in answered if isinstance(outcome, PublishRefused)]
    assert refused == [most, most + 1]
    assert len(published) == most + 1
