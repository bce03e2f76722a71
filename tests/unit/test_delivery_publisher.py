"""Answers to a publish while the streams are unavailable."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import structlog

from gateway.delivery.publisher import Publisher, PublishRefused, Sender
from gateway.delivery.streams import RoomRoute, route_of
from gateway.limits import Limit
from services.bus.errors import StoreFull
from services.settings import Settings
from services.settings_values import Namespace
from services.wire.codes import ErrorCode
from services.wire.events import RoomPublished
from services.wire.records import UNSET, UnsetType

_ANN = Sender("u-ann", "Ann", "c1")
_CONTENT = msgspec.Raw(b"1")


def route(room: str, settings: Settings, stream: Any) -> RoomRoute:
    """Return the route of a room whose namespace has this stream, or none."""
    return route_of(settings, {settings.namespace_of(room): stream} if stream else {}, room)


def published_echo(room: str, echo: bool | UnsetType) -> bool:
    """Return the `echo` of the event that a message becomes."""
    sent: list[RoomPublished] = []
    decode = msgspec.json.Decoder(RoomPublished).decode
    bus = SimpleNamespace(publish=lambda _subject, payload: sent.append(decode(payload)))
    settings = Settings(namespaces={"loud": Namespace(echo=True)})
    publisher = Publisher(bus, SimpleNamespace(), settings, print)  # type: ignore[arg-type]
    publisher.to_room(_ANN, route(room, settings, None), _CONTENT, lambda _: None, echo=echo)
    return sent[0].echo


@pytest.mark.parametrize(
    ("room", "asked", "echo"),
    [("loud:a", UNSET, True), ("loud:a", False, False), ("a", UNSET, False), ("a", True, True)],
)
def test_the_namespace_decides_on_echo_unless_the_message_does(
    room: str, asked: bool | UnsetType, echo: bool
) -> None:
    assert published_echo(room, asked) is echo


def test_nothing_is_stored_before_the_epoch_is_known_again() -> None:
    stored: list[str] = []
    stream = SimpleNamespace(epoch="before", publish=lambda subject, *_args, **_named: stored.append(subject))
    streams = SimpleNamespace(is_open=False, inbox=stream)
    publisher = Publisher(SimpleNamespace(), streams, Settings(), print)  # type: ignore[arg-type]
    outcomes: list[object] = []
    publisher.to_room(_ANN, route("lobby", Settings(), stream), _CONTENT, outcomes.append, id="1")
    publisher.to_user(_ANN, "u-bob", _CONTENT, outcomes.append, id="2")
    assert stored == []
    assert [outcome.code for outcome in outcomes if isinstance(outcome, PublishRefused)] == [
        ErrorCode.UNAVAILABLE,
        ErrorCode.UNAVAILABLE,
    ]


def test_content_that_cannot_be_sanitized_is_refused_and_counted() -> None:
    sent: list[dict[str, Any]] = []
    limits: list[str] = []
    bus = SimpleNamespace(publish=lambda _subject, payload: sent.append(msgspec.json.decode(payload)))
    settings = Settings(namespaces={"safe": Namespace(sanitize=True, durable=False)}, max_message_bytes=6000)
    publisher = Publisher(bus, SimpleNamespace(), settings, limits.append)  # type: ignore[arg-type]
    outcomes: list[object] = []
    eve = Sender("u-eve", "<img src=x onerror=alert(1)>", "c1")
    safe = route("safe:1", settings, None)
    for text in ("<b>fine</b>", "<b>" * 1001, "<div>" * 900):
        publisher.to_room(eve, safe, msgspec.Raw(msgspec.json.encode(text)), outcomes.append)
    refused = [outcome.code for outcome in outcomes if isinstance(outcome, PublishRefused)]
    assert refused == [ErrorCode.INVALID_FIELD, ErrorCode.TOO_LARGE]
    assert limits == [Limit.MARKUP, Limit.MESSAGE_BYTES]
    assert [(event["username"], event["content"]) for event in sent] == [('<img src="x">', "<b>fine</b>")]


def test_a_full_store_is_not_asked_again_at_once() -> None:
    """Within a second nothing has expired; the log has it once, not with every message."""

    def refuse(_subject: str, _payload: bytes, *, message_id: str, on_done: Any) -> None:
        on_done(StoreFull("JetStream: insufficient resources (10023)"))

    durable_log = SimpleNamespace(epoch="e", publish=refuse, spec=SimpleNamespace(name="rooms"))
    streams = SimpleNamespace(is_open=True)
    publisher = Publisher(SimpleNamespace(), streams, Settings(), print)  # type: ignore[arg-type]
    outcomes: list[object] = []
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            publisher.to_room(_ANN, route("lobby", Settings(), durable_log), _CONTENT, outcomes.append)
    refused = [outcome for outcome in outcomes if isinstance(outcome, PublishRefused)]
    assert [(one.code, one.retry_after_ms) for one in refused] == [(ErrorCode.UNAVAILABLE, 30_000)] * 5
    assert [line["event"] for line in lines] == ["JetStream's store is full"]
