"""Reading the history of rooms: the requested part, without reading all of it."""

from collections.abc import Callable

import msgspec
import pytest

from gateway.delivery.counters import Counters
from gateway.delivery.history import History
from gateway.delivery.reads import Reads
from gateway.delivery.stream_subscription import DeliveryParts
from gateway.delivery.streams import Streams
from services.bus.client import Bus
from services.settings import Settings
from services.settings_values import Namespace
from services.tasks import TaskSet
from services.wire.events import RoomPublished
from tests.support.bus import ConnectBus
from tests.support.deadline import eventually

STORED = 3000


async def _room(bus: Bus, settings: Settings, room: str, size: int) -> History:
    """Store messages to a room, each after one to another room, and return the reader."""
    logs = Streams(bus, settings)
    await logs.open()
    log = logs.route("lobby").stream
    assert log is not None
    done: list[object] = []
    for number in range(STORED):
        content = msgspec.Raw(msgspec.json.encode([number, "x" * size]))
        event = RoomPublished(user_id="u", username="U", room=room, content=content, timestamp=1)
        log.publish(settings.subjects.room_in("default", "other"), b"", message_id="", on_done=lambda _: None)
        subject = settings.subjects.room_in("default", room)
        log.publish(subject, msgspec.json.encode(event), message_id="", on_done=done.append)
        if number % 500 == 499:
            await eventually(lambda: len(done) == number + 1, "they are stored")  # noqa: B023  # awaited here
    return History(DeliveryParts(bus, logs, settings, TaskSet(), Counters(), Reads(lambda _limit: None)))


@pytest.mark.parametrize("size", [10, 2000])
async def test_the_newest_of_a_long_past(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings], size: int
) -> None:
    bus = await connect_bus()
    settings = make_settings(namespaces={"default": Namespace(history_size=10_000)})
    history = await _room(bus, settings, "long", size)

    async def numbers(limit: int, before: int | None = None) -> list[int]:
        found = await history.room_history("long", limit=limit, before=before, since=None)
        assert found.last_seq == 2 * STORED
        return [msgspec.json.decode(message.content)[0] for message in found.messages]

    read_before = bus.stats.received_bytes
    assert await numbers(10) == list(range(STORED - 10, STORED))
    assert await numbers(10, before=2001) == list(range(990, 1000))
    if size > 1000:  # 6 MB, of which a page was read to begin with, and little more
        assert bus.stats.received_bytes - read_before < 5_000_000
    assert await numbers(400) == list(range(STORED - 400, STORED))
    assert await numbers(100, before=21) == list(range(10))
    assert await numbers(10, before=1) == []
    many = await numbers(1000)
    assert many == list(range(STORED - len(many), STORED))
    assert len(many) == 1000 if size < 1000 else len(many) > 450  # 1 MiB of them
