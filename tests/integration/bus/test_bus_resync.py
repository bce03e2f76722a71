"""A gateway with thousands of rooms after an election or a reconnect: few requests, and every room is current."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.delivery.counters import Counters
from gateway.delivery.inbox import Inboxes
from gateway.delivery.reads import Reads
from gateway.delivery.resync import check_all, resume_all
from gateway.delivery.rooms import RoomJoin, Rooms
from gateway.delivery.stream_subscription import DeliveryParts
from gateway.delivery.streams import Streams
from services.bus.ack_publisher import Stored
from services.bus.client import Bus, BusMessage
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.events import RoomPublished
from services.wire.records import UNSET
from tests.support.bus import ConnectBus
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.delivery import Recorder

ROOMS = 3000
MISSED = 40


class Rig:
    """A gateway's rooms on a real bus, and another connection that counts what is asked of JetStream."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self.bus = bus
        self.settings = settings
        self.tasks = TaskSet()
        self.counters = Counters()
        self.streams = Streams(bus, settings)
        reads = Reads(self.counters.limit_hit)
        parts = DeliveryParts(bus, self.streams, settings, self.tasks, self.counters, reads)
        self.rooms = Rooms(parts)
        self.inboxes = Inboxes(parts)
        self.members: dict[str, Recorder] = {}
        self.asked: Counter[str] = Counter()

    def count(self, message: BusMessage) -> None:
        self.asked[message.subject.removeprefix("$JS.API.").rpartition(".")[0]] += 1

    async def join(self, names: list[str]) -> None:
        joined: list[Any] = []
        for start in range(0, len(names), 200):
            for name in names[start : start + 200]:
                self.members[name] = Recorder(f"in {name}")
                self.rooms.join(self.members[name], name, UNSET, lambda: True, joined.append)
            await eventually(lambda: len(joined) == min(len(names), start + 200), "they are in")  # noqa: B023
        assert {type(answer) for answer in joined} == {RoomJoin}

    async def publish(self, names: list[str], content: str) -> None:
        log = self.streams.route("lobby").stream
        assert log is not None
        stored: list[object] = []
        for name in names:
            event = RoomPublished(
                user_id="u",
                username="U",
                room=name,
                content=msgspec.Raw(msgspec.json.encode(content)),
                timestamp=1,
            )
            subject = self.settings.subjects.room_in("default", name)
            log.publish(subject, msgspec.json.encode(event), message_id="", on_done=stored.append)
        await eventually(lambda: len(stored) == len(names), "all are stored")
        assert {type(outcome) for outcome in stored} <= {Stored}

    async def republish(self, wanted: bool) -> None:
        """Switch the stream's republishing on or off: off is like a leader that dies between storing and republishing."""
        name = self.settings.subjects.rooms_stream("default")
        info = json.loads(
            (await self.bus.request(f"$JS.API.STREAM.INFO.{name}", b"", timeout_s=PATIENCE_S)).data
        )
        config = {key: value for key, value in info["config"].items() if key != "republish"}
        log = self.streams.route("lobby").stream
        assert log is not None
        if wanted:
            config["republish"] = log.spec.config()["republish"]
        payload = json.dumps(config).encode()
        answer = await self.bus.request(f"$JS.API.STREAM.UPDATE.{name}", payload, timeout_s=PATIENCE_S)
        assert "error" not in json.loads(answer.data)

    def resync(self) -> None:
        """Do what `gateway.gateway` does when the bus is back, or another server leads."""
        for log, unsure in resume_all([*self.rooms.subscriptions, *self.inboxes.subscriptions]).items():
            self.tasks.spawn(check_all(log, unsure, self.bus.max_payload // 2), "check")

    def all_sure(self) -> bool:
        return not any(subscription.unsure for subscription in self.rooms.subscriptions) and not len(
            self.tasks
        )


async def test_thousands_of_rooms_are_looked_at_in_few_questions(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings()
    rig = Rig(await connect_bus(), settings)
    await rig.streams.open()
    names = [f"room {number:04}" for number in range(ROOMS)]
    spoken, missing = names[: ROOMS // 2], names[100 : 100 + MISSED] + names[-MISSED:]
    await rig.join(names)
    await rig.publish(spoken, "before")
    await eventually(lambda: all(rig.members[name].contents == ["before"] for name in spoken), "all heard it")
    await rig.republish(False)
    await rig.publish(missing, "told to nobody")
    await rig.republish(True)

    counting = await connect_bus()
    counting.subscribe(f"$JS.API.*.*.*.{settings.subjects.rooms_stream('default')}", rig.count)
    counting.subscribe(f"$JS.API.*.*.{settings.subjects.rooms_stream('default')}", rig.count)
    await counting.flush()
    rig.resync()
    # Live messages are not held meanwhile, where they follow what was delivered.
    await rig.publish([names[0]], "live")
    await eventually(rig.all_sure, "every room is known to be whole")
    expected = {
        name: ["before"] * (name in spoken) + ["told to nobody"] * (name in missing) for name in names
    }
    expected[names[0]].append("live")
    await eventually(
        lambda: all(rig.members[name].contents == contents for name, contents in expected.items()),
        "every room has all of its messages",
    )
    await counting.flush()
    # Three groups, one page more for what they bring along, and one read for each room that misses something.
    assert rig.asked["DIRECT.GET"] <= len(missing) + 5, rig.asked
    # Those that were empty before need to know what the stream still keeps, several in one question.
    assert rig.asked["STREAM.INFO"] <= MISSED // 2, rig.asked
    assert rig.asked["STREAM.MSG.GET"] <= 1, rig.asked
    assert rig.counters.unexpected == 0
    rig.rooms.close()
    await rig.tasks.close()


async def test_rooms_with_messages_meanwhile_are_not_requested(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings()
    rig = Rig(await connect_bus(), settings)
    await rig.streams.open()
    names = [f"room {number}" for number in range(50)]
    await rig.join(names)
    await rig.publish(names, "before")
    await eventually(lambda: all(member.contents == ["before"] for member in rig.members.values()), "heard")
    for subscription in rig.rooms.subscriptions:
        subscription.pause()
    await rig.publish(names, "while it was away")
    await asyncio.sleep(0.1)
    assert all(member.contents == ["before"] for member in rig.members.values())
    counting = await connect_bus()
    counting.subscribe("$JS.API.>", rig.count)
    await counting.flush()
    rig.resync()
    await eventually(
        lambda: all(member.contents == ["before", "while it was away"] for member in rig.members.values()),
        "what came is delivered",
    )
    await eventually(rig.all_sure)
    await counting.flush()
    assert rig.asked["DIRECT.GET"] == 0
    rig.rooms.close()
    await rig.tasks.close()
