"""Limits of streams: eviction, lowering a limit, and requests for many subjects at once."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.identity import Identity
from gateway.auth.revocation_log import RevocationLog
from gateway.auth.revocations import Revocations
from gateway.auth.tickets import TicketStore
from gateway.delivery.streams import Streams
from services.bus.ack_publisher import Stored
from services.bus.client import Bus
from services.bus.errors import BusError, Misconfigured
from services.bus.specs import REVOCATION_BYTES
from services.bus.streams import DurableLog
from services.settings import Settings
from services.wire.events import Revoked
from services.wire.grants import Grants
from tests.support.bus import Collected, ConnectBus, publishing, room_log, store
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.requires import need
from tidings_cli.local.servers import NatsServer

MIB = 1024 * 1024


class SmallStore(NatsServer):
    """A NATS with little room: streams of 4 MiB for a namespace, 2 MiB for inboxes, and that of the revocations."""

    def _configuration(self) -> str:
        room = REVOCATION_BYTES + 8 * MIB
        return (
            super()
            ._configuration()
            .replace(f"max_file_store: {self._store_bytes}", f"max_file_store: {room}")
        )


@pytest.fixture
def small(tmp_path: Path) -> Iterator[NatsServer]:
    need("nats-server")
    with SmallStore(tmp_path / "small") as server:
        yield server


def _settings(server: NatsServer, **changed: Any) -> Settings:
    return Settings(
        nats_url=server.url, **({"history_max_bytes": 4 * MIB, "inbox_max_bytes": 2 * MIB} | changed)
    )


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Bus]:
    bus = await Bus.connect(settings, "test")
    try:
        yield bus
    finally:
        await bus.close()


async def _config(bus: Bus, log: DurableLog) -> dict[str, Any]:
    answer = await bus.request(f"$JS.API.STREAM.INFO.{log.spec.name}", b"", timeout_s=PATIENCE_S)
    return dict(json.loads(answer.data))


async def test_a_full_store_blocks_nothing_else(small: NatsServer) -> None:
    """One user fills rooms and invented inboxes; other users still publish, get tickets, and can be revoked."""
    settings = _settings(small)
    subjects = settings.subjects
    async with _connected(settings) as bus:
        logs = Streams(bus, settings)
        await logs.open()
        revoked: list[Revoked] = []
        revocations = RevocationLog(bus, settings, Revocations(), lambda: 1.0, revoked.append)
        await revocations.open()
        rooms = logs.route("lobby").stream
        assert rooms is not None
        for number in range(300):  # 18 MB into each
            await store(rooms, subjects.room_in("default", f"room {number}"), bytes(60_000))
            await store(logs.inbox, subjects.user_in(f"nobody {number}"), bytes(60_000))
        state = (await _config(bus, rooms))["state"]
        assert 3 * MIB < state["bytes"] <= 4 * MIB
        assert state["last_seq"] == 300
        batch = await rooms.read_from(subjects.room_in("default", "room 299"), 1, 10)
        assert len(batch.messages) == 1  # the oldest have made room, the newest is there

        tickets = TicketStore(bus, settings)
        ticket, _ = await tickets.issue(Identity("ada", "Ada", Grants()), "")
        assert await tickets.redeem(ticket, None) is not None
        await revocations.publish(Revoked(until=1e12, user_id="mallory", issued_before=5.0))
        assert isinstance(await publishing(rooms, subjects.room_in("default", "lobby"), b"hello"), Stored)
        revocations.close()


async def test_a_store_that_is_too_small_is_reported_at_the_start(small: NatsServer) -> None:
    settings = _settings(small, history_max_bytes=200 * MIB)
    async with _connected(settings) as bus:
        log = Streams(bus, settings).all[0]
        with pytest.raises(Misconfigured, match=r"raise max_file_store, or lower TIDINGS_HISTORY_MAX_BYTES"):
            await log.open(timeout_s=2)


async def test_a_stream_without_a_limit_gets_one_where_nothing_is_lost(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings]
) -> None:
    bus, settings = await connect_bus(), make_settings()
    log = room_log(bus, settings, max_bytes=-1)
    await log.open()
    for _ in range(3):
        await store(log, settings.subjects.room_in("default", "a"), bytes(1000))
    tight = room_log(bus, settings, max_bytes=2000)
    await tight.open()
    assert tight.lowered == {"max_bytes": (-1, 2000)}
    fitting = room_log(bus, settings, max_bytes=10_000)
    await fitting.open()
    assert fitting.lowered == {}
    assert (await _config(bus, log))["config"]["max_bytes"] == 10_000


async def test_no_gateway_lowers_what_another_has_asked_for(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings]
) -> None:
    bus, settings = await connect_bus(), make_settings()
    large = room_log(bus, settings, max_per_subject=50, max_age_s=600, max_bytes=4 * MIB)
    small = room_log(bus, settings, max_per_subject=5, max_age_s=60, max_bytes=MIB, duplicate_window_s=10)
    await large.open()
    for number in range(20):
        await store(large, settings.subjects.room_in("default", "a"), b"%d" % number)
    updates = Collected()
    bus.subscribe(f"$JS.API.STREAM.UPDATE.{large.spec.name}", updates)
    await bus.flush()
    for _ in range(2):
        for log in (small, large):
            await log.open()
    await bus.flush()
    assert len(updates) == 0
    assert large.lowered == {}
    assert small.lowered == {
        "max_msgs_per_subject": (50, 5),
        "max_age": (600 * 10**9, 60 * 10**9),
        "max_bytes": (4 * MIB, MIB),
        "duplicate_window": (120 * 10**9, 10 * 10**9),
    }
    assert len((await large.read_from(settings.subjects.room_in("default", "a"), 1, 100)).messages) == 20
    # What it counts with is never more than its own settings say, so that lowering them is safe in that order.
    assert (small.max_per_subject, small.max_age_s) == (5, 60)
    larger = room_log(bus, settings, max_per_subject=80, max_age_s=900, max_bytes=8 * MIB)
    await larger.open()
    config = (await _config(bus, large))["config"]
    assert (config["max_msgs_per_subject"], config["max_bytes"]) == (80, 8 * MIB)


async def test_where_there_is_no_room_to_grow_it_goes_on_as_it_is(small: NatsServer) -> None:
    settings = _settings(small)
    async with _connected(settings) as bus:
        log = Streams(bus, settings).all[0]
        await log.open()
        wish = Streams(bus, _settings(small, history_max_bytes=300 * MIB)).all[0]
        await wish.open()
        assert wish.lowered == {"max_bytes": (4 * MIB, 300 * MIB)}
        await store(wish, settings.subjects.room_in("default", "a"), b"taken")


async def test_the_last_sequences_of_many_subjects_are_few_questions(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings]
) -> None:
    bus, settings = await connect_bus(), make_settings()
    other = await connect_bus()
    log = room_log(bus, settings)
    await log.open()
    subjects = [settings.subjects.room_in("default", f"room {number}") for number in range(1000)]
    stored: list[Stored | BusError] = []
    for subject in subjects[:900]:
        log.publish(subject, bytes(3000), message_id="", on_done=stored.append)
    await eventually(lambda: len(stored) == 900, "all are stored")
    asked = Collected()
    other.subscribe(f"$JS.API.DIRECT.GET.{log.spec.name}", asked)
    await other.flush()
    found = await log.lasts_of(subjects, await log.newest())
    assert found == {subject: number for number, subject in enumerate(subjects[:900], 1)}
    await other.flush()
    assert 1 < len(asked) <= 4  # 2.8 MB, a page of bytes at a time


async def test_a_stream_with_nothing_in_it_is_not_asked_for_subjects(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings]
) -> None:
    bus, settings = await connect_bus(), make_settings()
    log = room_log(bus, settings)
    await log.open()
    newest = await log.newest()
    assert newest.last_seq == 0
    assert await log.lasts_of([settings.subjects.room_in("default", "a")], newest) == {}


async def test_a_page_ends_with_the_message_that_goes_past_its_bytes(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings]
) -> None:
    bus, settings = await connect_bus(), make_settings()
    log = room_log(bus, settings)
    await log.open()
    room = settings.subjects.room_in("default", "a")
    for _ in range(20):
        await store(log, room, bytes(50_000))
    batch = await log.read_from(room, 1, 100, max_bytes=200_000)
    assert sum(len(message.data) for message in batch.messages) <= 250_000
    assert batch.pending == 20 - len(batch.messages) > 0


async def test_tidings_up_gives_its_own_nats_a_limit_that_fits(tmp_path: Path) -> None:
    need("nats-server")
    settings = Settings(history_max_bytes=8 * MIB, inbox_max_bytes=4 * MIB)
    with NatsServer(tmp_path / "own", settings=settings) as server:
        operator = settings.model_copy(update={"nats_url": server.url})
        async with _connected(operator) as bus:
            await Streams(bus, operator).open()
            revocations = RevocationLog(bus, operator, Revocations(), lambda: 1.0, lambda _: None)
            await revocations.open()
            too_much = room_log(bus, operator.model_copy(update={"prefix": "another"}), max_bytes=500 * MIB)
            with pytest.raises(Misconfigured, match="no room"):
                await too_much.open(timeout_s=2)
            revocations.close()
