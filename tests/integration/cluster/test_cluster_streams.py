"""Streams with three copies and a gateway with a lower setting; checks of many rooms over replicas."""

import asyncio
import json
from typing import Any

import pytest

from services.bus.ack_publisher import Stored
from services.bus.client import Bus
from services.bus.errors import BusError
from services.bus.streams import DurableLog
from services.settings import Settings
from tests.support.bus import room_log, store
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.nats_cluster import NatsCluster

pytestmark = pytest.mark.xdist_group("nats cluster")


async def _info(bus: Bus, log: DurableLog) -> dict[str, Any]:
    answer = await bus.request(f"$JS.API.STREAM.INFO.{log.spec.name}", b"", timeout_s=PATIENCE_S)
    return dict(json.loads(answer.data))


async def test_a_gateway_with_one_replica_configured_keeps_three(nats_cluster: NatsCluster) -> None:
    settings = Settings(nats_url=nats_cluster.url, prefix="copies")
    bus = await Bus.connect(settings, "test")
    try:
        three = room_log(bus, settings, replicas=3)
        await three.open(60)
        one = room_log(bus, settings, replicas=1)
        await one.open(60)
        info = await _info(bus, three)
        assert info["config"]["num_replicas"] == 3
        assert len(info["cluster"].get("replicas", ())) == 2
        assert one.lowered == {"num_replicas": (3, 1)}
        # It knows that there are replicas, which may lag: what is acknowledged is in what it reads.
        for number in range(20):
            stored = await store(one, settings.subjects.room_in("default", "a"), b"%d" % number)
            batch = await one.read_from(settings.subjects.room_in("default", "a"), stored.seq, 10)
            assert [message.seq for message in batch.messages] == [stored.seq]
    finally:
        await bus.close()


async def test_what_is_acknowledged_is_among_the_last_of_many(nats_cluster: NatsCluster) -> None:
    """Whichever replica answers."""
    settings = Settings(nats_url=nats_cluster.url, prefix="lasts")
    bus = await Bus.connect(settings, "test")
    try:
        log = room_log(bus, settings, replicas=3)
        await log.open(60)
        subjects = [settings.subjects.room_in("default", f"room {number}") for number in range(50)]
        known: dict[str, int] = {}

        def noted(subject: str, outcome: Stored | BusError) -> None:
            assert isinstance(outcome, Stored), outcome
            known[subject] = outcome.seq

        for turn in range(10):
            known.clear()
            for subject in subjects[turn:]:
                log.publish(
                    subject, b"x", message_id="", on_done=lambda outcome, at=subject: noted(at, outcome)
                )
            await eventually(lambda: len(known) == 50 - turn, "all are acknowledged")  # noqa: B023  # awaited here
            found = await log.lasts_of(subjects, await log.newest())
            assert {subject: found[subject] for subject in known} == known
    finally:
        await bus.close()
        await asyncio.sleep(0)
