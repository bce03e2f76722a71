"""The snapshot of `metrics` and `alerts`: complete, bounded while it is fetched, and fetched again after an error."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from gateway.channels import metrics as module
from gateway.channels.metrics import MetricsChannel
from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage, Encoding
from services.bus.errors import Unavailable
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.records import Alert
from services.wire.rpc import MetricsState
from services.wire.server import AlertRaised, AlertResolved
from tests.support.deadline import eventually


def alert(id: str) -> Alert:
    return Alert(id=id, type="warning", metric="cpu", value=9.0, threshold=8.0, message="hot", timestamp=1)


class Metrics:
    """metrics_svc and the bus: each question waits until the test answers it, or fails."""

    def __init__(self) -> None:
        self.questions: list[asyncio.Future[MetricsState]] = []
        self.listeners: dict[str, Callable[[Any], None]] = {}

    def subscribe(self, subject: str, callback: Callable[[Any], None]) -> Any:
        self.listeners[subject] = callback

    async def call(self, *_: object) -> MetricsState:
        self.questions.append(asyncio.get_running_loop().create_future())
        return await self.questions[-1]

    def tell(self, event: AlertRaised | AlertResolved) -> None:
        self.listeners[Settings().subjects.alerts_feed](
            type("Message", (), {"data": msgspec.json.encode(event)})
        )

    async def asked(self, times: int) -> None:
        await eventually(lambda: len(self.questions) >= times, f"question {times}")

    def answer(self, *alerts: Alert) -> None:
        self.questions[-1].set_result(MetricsState(history=[], alerts=list(alerts)))


class Member:
    """A receiver."""

    encoding = Encoding.SSE
    user_id = "u"

    def __init__(self) -> None:
        self.connection_id = "c1"
        self.got: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        for event in data.decode().strip().split("\n\n"):
            self.got.append(msgspec.json.decode(event.partition("data: ")[2]))

    def accept_messages(self, _messages: list[EncodedMessage]) -> bool:
        return False


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def feed(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MetricsChannel]:
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    monkeypatch.setattr(module, "_RETRY_MAX_S", 0.01)
    tasks = TaskSet()
    yield MetricsChannel(metrics, metrics, Settings(), tasks, Counters())  # type: ignore[arg-type]
    await tasks.close()


def active(feed: MetricsChannel) -> list[str]:
    return sorted(feed._active)


async def test_messages_before_the_answer_count(metrics: Metrics, feed: MetricsChannel) -> None:
    await metrics.asked(1)
    metrics.tell(AlertRaised(data=alert("new")))
    metrics.tell(AlertResolved(data=alert("old")))
    metrics.answer(alert("old"), alert("other"))
    await eventually(lambda: feed._loaded)
    assert active(feed) == ["new", "other"]


async def test_an_alert_whose_end_was_missed_is_no_phantom(metrics: Metrics, feed: MetricsChannel) -> None:
    await metrics.asked(1)
    metrics.tell(AlertRaised(data=alert("gone")))
    metrics.questions[-1].set_exception(Unavailable("away"))
    await metrics.asked(2)  # its end was published meanwhile, and not heard
    metrics.answer()
    await eventually(lambda: feed._loaded)
    assert active(feed) == []


async def test_a_loss_of_the_bus_before_the_answer_repeats_the_request(
    metrics: Metrics, feed: MetricsChannel
) -> None:
    await metrics.asked(1)
    metrics.tell(AlertRaised(data=alert("gone")))
    feed.resync()
    metrics.answer()
    await metrics.asked(2)
    metrics.answer()
    await eventually(lambda: feed._loaded)
    assert active(feed) == []


async def test_what_is_kept_meanwhile_is_bounded_and_nothing_is_lost(
    metrics: Metrics, feed: MetricsChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_HELD_ALERTS", 10)
    await metrics.asked(1)
    for number in range(50):
        metrics.tell(AlertRaised(data=alert(f"a{number}")))
    assert len(feed._held_alerts) <= 10
    metrics.answer()
    await metrics.asked(2)
    metrics.answer(*(alert(f"a{number}") for number in range(50)))
    await eventually(lambda: feed._loaded)
    assert len(active(feed)) == 50


async def test_after_any_fault_the_next_follower_gets_a_snapshot(
    metrics: Metrics, feed: MetricsChannel
) -> None:
    await metrics.asked(1)
    metrics.questions[-1].set_exception(LookupError("broken"))
    await eventually(lambda: not feed._loading)
    member = Member()
    feed.follow(member, {"metrics", "alerts"})  # type: ignore[arg-type]
    await metrics.asked(2)
    metrics.answer(alert("a"))
    await eventually(lambda: member.got, "the snapshot")
    assert [one["id"] for one in member.got[0]["alerts"]] == ["a"]
