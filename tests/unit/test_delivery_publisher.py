"""What a publish is answered with while the streams are away."""

from types import SimpleNamespace
from typing import Any

import msgspec
import structlog

from gateway.delivery.publisher import Publisher, PublishRefused, Sender
from gateway.limits import Limit
from services.bus.errors import StoreFull, Unavailable
from services.settings import Settings
from services.settings_values import Namespace
from services.wire.codes import ErrorCode

_ANN = Sender("u-ann", "Ann", "c1")
_CONTENT = msgspec.Raw(b"1")


class _ClosedLogs:
    """Streams of a bus that has come back, and whose streams may be others than before."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.inbox = self.of_namespace("default")

    def of_namespace(self, _name: str) -> Any:
        return SimpleNamespace(
            epoch="before", publish=lambda subject, *_args, **_named: self.stored.append(subject)
        )

    def require_open(self) -> None:
        raise Unavailable("the streams are not open again yet")


def test_nothing_is_stored_before_the_epoch_is_known_again() -> None:
    logs = _ClosedLogs()
    publisher = Publisher(SimpleNamespace(), logs, Settings(), lambda: 0, print)  # type: ignore[arg-type]
    outcomes: list[object] = []
    publisher.to_room(_ANN, "lobby", _CONTENT, outcomes.append, id="1")
    publisher.to_user(_ANN, "u-bob", _CONTENT, outcomes.append, id="2")
    assert logs.stored == []
    assert [outcome.code for outcome in outcomes if isinstance(outcome, PublishRefused)] == [
        ErrorCode.UNAVAILABLE,
        ErrorCode.UNAVAILABLE,
    ]


def test_content_that_cannot_be_sanitized_is_refused_and_counted() -> None:
    sent: list[dict[str, Any]] = []
    limits: list[str] = []
    bus = SimpleNamespace(publish=lambda _subject, payload: sent.append(msgspec.json.decode(payload)))
    settings = Settings(namespaces={"safe": Namespace(sanitize=True, durable=False)}, max_message_bytes=6000)
    logs = SimpleNamespace(of_namespace=lambda _name: None)
    publisher = Publisher(bus, logs, settings, lambda: 0, limits.append)  # type: ignore[arg-type]
    outcomes: list[object] = []
    eve = Sender("u-eve", "<img src=x onerror=alert(1)>", "c1")
    for text in ("<b>fine</b>", "<b>" * 1001, "<div>" * 900):
        publisher.to_room(eve, "safe:1", msgspec.Raw(msgspec.json.encode(text)), outcomes.append)
    refused = [outcome.code for outcome in outcomes if isinstance(outcome, PublishRefused)]
    assert refused == [ErrorCode.INVALID_FIELD, ErrorCode.TOO_LARGE]
    assert limits == [Limit.MARKUP, Limit.MESSAGE_BYTES]
    assert [(event["username"], event["content"]) for event in sent] == [('<img src="x">', "<b>fine</b>")]


def test_a_full_store_is_not_asked_again_at_once() -> None:
    """Within a second nothing has expired; the log has it once, not with every message."""

    def refuse(_subject: str, _payload: bytes, *, message_id: str, on_done: Any) -> None:
        on_done(StoreFull("JetStream: insufficient resources (10023)"))

    durable_log = SimpleNamespace(epoch="e", publish=refuse, spec=SimpleNamespace(name="rooms"))
    logs = SimpleNamespace(of_namespace=lambda _name: durable_log, require_open=lambda: None)
    publisher = Publisher(SimpleNamespace(), logs, Settings(), lambda: 0, print)  # type: ignore[arg-type]
    outcomes: list[object] = []
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            publisher.to_room(_ANN, "lobby", _CONTENT, outcomes.append)
    refused = [outcome for outcome in outcomes if isinstance(outcome, PublishRefused)]
    assert [(one.code, one.retry_after_ms) for one in refused] == [(ErrorCode.UNAVAILABLE, 30_000)] * 5
    assert [line["event"] for line in lines] == ["JetStream's store is full"]
