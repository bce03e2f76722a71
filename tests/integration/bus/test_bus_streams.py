"""Durable logs on a real JetStream: storing, numbering, republishing, reading, and failures."""

import asyncio
import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from services.bus.ack_publisher import Stored
from services.bus.client import Bus
from services.bus.errors import Misconfigured, NoAnswer, PayloadTooLarge, RequestRefused, Unavailable
from services.bus.streams import DurableLog
from services.settings import Settings
from tests.support.bus import Collected, ConnectBus, freeze, publishing, room_log, store
from tests.support.deadline import PATIENCE_S, eventually
from tidings_cli.local.servers import NatsServer

StartNats = Callable[..., NatsServer]
MakeSettings = Callable[..., Settings]


async def _api(bus: Bus, verb: str, log: DurableLog, request: dict[str, Any] | None = None) -> dict[str, Any]:
    payload = json.dumps(request).encode() if request is not None else b""
    answer: dict[str, Any] = json.loads(
        (await bus.request(f"$JS.API.{verb}.{log.spec.name}", payload, timeout_s=PATIENCE_S)).data
    )
    assert "error" not in answer, answer
    return answer


@pytest.fixture
async def bus(connect_bus: ConnectBus) -> Bus:
    return await connect_bus()


@pytest.fixture
async def log(bus: Bus, make_settings: MakeSettings) -> DurableLog:
    log = room_log(bus, make_settings())
    await log.open()
    return log


@pytest.fixture
def room(make_settings: MakeSettings) -> Callable[[str], str]:
    subjects = make_settings().subjects
    return lambda name: subjects.room_in("default", name)


Room = Callable[[str], str]


async def test_stored_messages_are_republished_with_their_sequence_and_the_one_before(
    bus: Bus, log: DurableLog, room: Room, make_settings: MakeSettings
) -> None:
    got = Collected()
    bus.subscribe(make_settings().subjects.room_out("default", "a"), got)
    await bus.flush()
    stored = [await store(log, room(name), name.encode()) for name in ("a", "b", "a", "a")]
    await eventually(lambda: len(got) == 3)
    assert [outcome.seq for outcome in stored] == [1, 2, 3, 4]
    assert [(m.seq, m.last_seq, m.data) for m in got.messages] == [(1, 0, b"a"), (3, 1, b"a"), (4, 3, b"a")]
    assert bus.stats.stored == 4


async def test_publish_order_is_kept(log: DurableLog, room: Room) -> None:
    outcomes = await asyncio.gather(*(publishing(log, room("r"), b"%d" % n) for n in range(1000)))
    assert [outcome.seq for outcome in outcomes if isinstance(outcome, Stored)] == list(range(1, 1001))
    batch = await log.read_from(room("r"), 1, 1000)
    assert [m.data for m in batch.messages] == [b"%d" % n for n in range(900, 1000)]


async def test_equal_id_is_stored_once(log: DurableLog, room: Room) -> None:
    first = await store(log, room("r"), b"1", "id-1")
    again = await store(log, room("r"), b"2", "id-1")
    other = await store(log, room("r"), b"3", "id-2")
    assert (first, again, other) == (Stored(1, False), Stored(1, True), Stored(2, False))


@pytest.mark.parametrize(
    "ids", [["a b", "a%20b"], ["é", "e"], ["x\r\nNats-Rollup: all", "x"], [" a", "a", "a "], ["A", "a"]]
)
async def test_ids_are_any_text_and_never_confused(log: DurableLog, room: Room, ids: list[str]) -> None:
    for message_id in ids:
        assert not (await store(log, room("r"), b"", message_id)).duplicate
    for message_id in ids:
        assert (await store(log, room("r"), b"", message_id)).duplicate
    assert len((await log.read_from(room("r"), 1, 10)).messages) == len(ids)


async def test_outcome_comes_after_publish_returned(log: DurableLog, room: Room, bus: Bus) -> None:
    outcome = publishing(log, room("r"), b"x" * (bus.max_payload + 1))
    assert not outcome.done()
    assert isinstance(await outcome, PayloadTooLarge)
    assert bus.stats.not_stored == 1


async def test_without_a_stream_a_publish_fails_at_once(
    bus: Bus, make_settings: MakeSettings, room: Room
) -> None:
    log = room_log(bus, make_settings())
    assert isinstance(await publishing(log, room("r"), b""), NoAnswer)


async def test_what_the_stream_never_takes_is_refused(bus: Bus, log: DurableLog, room: Room) -> None:
    config = (await _api(bus, "STREAM.INFO", log))["config"]
    await _api(bus, "STREAM.UPDATE", log, config | {"max_msg_size": 10})
    with pytest.raises(RequestRefused) as refused:
        await store(log, room("r"), b"x" * 11)
    assert refused.value.code == "10054"


async def test_a_broken_callback_affects_no_other(bus: Bus, log: DurableLog, room: Room) -> None:
    def fail(_: object) -> None:
        raise LookupError("as planned")

    log.publish(room("r"), b"1", message_id="", on_done=fail)
    assert (await store(log, room("r"), b"2")).seq == 2
    assert bus.stats.callback_errors == 1


async def test_publish_to_a_wildcard_is_a_fault_of_the_caller(log: DurableLog) -> None:
    with pytest.raises(ValueError, match="subject"):
        publishing(log, "a.*", b"")


async def test_publishes_fail_promptly_when_the_server_goes_and_work_when_it_is_back(
    breakable_nats: StartNats, connect_bus: ConnectBus, make_settings: MakeSettings, room: Room
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    log = room_log(bus, make_settings(), publish_timeout_s=10 * PATIENCE_S)
    await log.open()
    epoch = log.epoch
    await store(log, room("r"), b"before")
    freeze(server)
    waiting = publishing(log, room("r"), b"during")
    server.kill()
    assert isinstance(await asyncio.wait_for(waiting, PATIENCE_S), Unavailable)
    assert isinstance(await publishing(log, room("r"), b"down"), Unavailable)

    server.start()
    await eventually(lambda: bus.connected)
    await log.open()
    assert log.epoch == epoch
    stored = await store(log, room("r"), b"after")
    batch = await log.read_from(room("r"), 1, 10)
    assert batch.messages[0].data == b"before"
    assert (batch.messages[-1].seq, batch.messages[-1].data) == (stored.seq, b"after")
    assert b"down" not in [m.data for m in batch.messages]


async def test_unacknowledged_publish_ends_at_its_deadline_and_only_once(
    breakable_nats: StartNats, connect_bus: ConnectBus, make_settings: MakeSettings, room: Room
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    log = room_log(bus, make_settings(), publish_timeout_s=2)
    await log.open()
    freeze(server)
    waiting = [publishing(log, room("r"), b"%d" % n) for n in range(10)]
    outcomes = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
    assert all(type(outcome) is Unavailable for outcome in outcomes)
    server.resume()  # the acknowledgements come now
    await bus.flush()
    assert bus.stats.callback_errors == 0
    assert bus.stats.not_stored == 10
    assert (await store(log, room("r"), b"next")).seq == 11
    await eventually(lambda: log._publisher._sweep is None, "the deadline of the last one has passed")
    assert bus.stats.callback_errors == 0


async def test_concurrent_opens_get_one_epoch(connect_bus: ConnectBus, make_settings: MakeSettings) -> None:
    logs = [room_log(await connect_bus(), make_settings()) for _ in range(6)]
    await asyncio.gather(*(log.open() for log in logs))
    assert len({log.epoch for log in logs}) == 1
    assert logs[0].epoch


async def test_epoch_changes_when_the_store_was_wiped(
    breakable_nats: StartNats, connect_bus: ConnectBus, make_settings: MakeSettings, room: Room
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    log = room_log(bus, make_settings())
    await log.open()
    epoch = log.epoch
    await store(log, room("r"), b"gone")

    server.kill()
    shutil.rmtree(server.directory / "jetstream")
    server.start()
    await eventually(lambda: bus.connected)
    await log.open()
    assert log.epoch not in ("", epoch)
    assert await log.last_of(room("r")) == (0, 0)


async def test_raised_limits_are_applied_and_the_rest_is_kept(
    bus: Bus, log: DurableLog, make_settings: MakeSettings, room: Room
) -> None:
    epoch = log.epoch
    await store(log, room("r"), b"kept")
    config = (await _api(bus, "STREAM.INFO", log))["config"]
    await _api(bus, "STREAM.UPDATE", log, config | {"description": "ours"})

    changed = room_log(bus, make_settings(), max_per_subject=700, max_age_s=6000)
    await changed.open()
    config = (await _api(bus, "STREAM.INFO", log))["config"]
    assert config["max_msgs_per_subject"] == 700
    assert config["max_age"] == 6000 * 10**9
    assert config["description"] == "ours"
    assert changed.epoch == epoch
    assert len((await changed.read_from(room("r"), 1, 10)).messages) == 1


async def test_jetstream_off_is_misconfigured(
    breakable_nats: StartNats, connect_bus: ConnectBus, make_settings: MakeSettings
) -> None:
    bus = await connect_bus(breakable_nats(extra_config="jetstream: disabled"))
    with pytest.raises(Misconfigured, match="JetStream is off"):
        await room_log(bus, make_settings()).open()


async def test_replicas_without_a_cluster_are_misconfigured(bus: Bus, make_settings: MakeSettings) -> None:
    with pytest.raises(Misconfigured, match="replicas"):
        await room_log(bus, make_settings(), replicas=3).open()


async def test_stream_that_cannot_be_made_to_fit_is_misconfigured(
    bus: Bus, make_settings: MakeSettings
) -> None:
    log = room_log(bus, make_settings())
    await _api(
        bus,
        "STREAM.CREATE",
        log,
        {"name": log.spec.name, "subjects": [log.spec.captured], "storage": "memory"},
    )
    with pytest.raises(Misconfigured, match="cannot be made to fit"):
        await log.open()


async def test_open_without_an_answer_keeps_its_deadline(
    breakable_nats: StartNats, connect_bus: ConnectBus, make_settings: MakeSettings
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    server.kill()
    await eventually(lambda: not bus.connected)
    with pytest.raises(Unavailable):
        await room_log(bus, make_settings()).open(timeout_s=0.5)


async def test_reading_back(log: DurableLog, room: Room) -> None:
    for number in range(6):
        await store(log, room("a" if number % 2 == 0 else "b"), b"%d" % number)  # a: 1 3 5, b: 2 4 6

    whole = await log.read_from(room("a"), 1, 10)
    assert [(m.seq, m.data, m.subject) for m in whole.messages] == [
        (1, b"0", room("a")),
        (3, b"2", room("a")),
        (5, b"4", room("a")),
    ]
    assert (whole.last_seq, whole.complete) == (5, True)

    part = await log.read_from(room("a"), 3, 1)
    assert ([m.seq for m in part.messages], part.last_seq, part.complete) == ([3], 3, False)
    exact = await log.read_from(room("a"), 3, 2)
    assert ([m.seq for m in exact.messages], exact.complete) == ([3, 5], True)
    between = await log.read_from(room("a"), 2, 10)
    assert [m.seq for m in between.messages] == [3, 5]
    from_zero = await log.read_from(room("a"), 0, 10)
    assert [m.seq for m in from_zero.messages] == [1, 3, 5]
    after = await log.read_from(room("a"), 6, 10)
    assert (after.messages, after.last_seq, after.complete) == ([], 6, True)
    never = await log.read_from(room("z"), 1, 10)
    assert (never.messages, never.last_seq, never.complete) == ([], 6, True)

    assert await log.last_of(room("a")) == (5, 6)
    assert await log.last_of(room("z")) == (0, 6)


async def test_reading_what_was_evicted_starts_later(log: DurableLog, room: Room) -> None:
    for number in range(103):
        publishing(log, room("r"), b"%d" % number)
    last = await store(log, room("r"), b"last")
    batch = await log.read_from(room("r"), 1, 300)
    assert (batch.messages[0].seq, batch.messages[-1].seq, len(batch.messages)) == (5, last.seq, 100)
    assert batch.complete


async def test_a_large_batch_arrives_completely(log: DurableLog, room: Room) -> None:
    for number in range(100):
        publishing(log, room("r"), b"%03d" % number + b"x" * 60_000)
    await eventually(lambda: log.last_of(room("r")))
    await store(log, room("other"), b"")
    batch = await log.read_from(room("r"), 1, 100, 10_000_000)
    assert [m.data[:3] for m in batch.messages] == [b"%03d" % number for number in range(100)]
    assert batch.complete


async def test_reading_while_writing_never_leaves_a_hole(log: DurableLog, room: Room) -> None:
    outcomes = [publishing(log, room("r"), b"%d" % number) for number in range(90)]
    position, seen = 1, []
    while len(seen) < 90:
        batch = await log.read_from(room("r"), position, 7)
        seen += [m.data for m in batch.messages]
        position = batch.last_seq + 1
    await asyncio.gather(*outcomes)
    assert seen == [b"%d" % number for number in range(90)]


async def test_reading_from_a_stream_that_is_not_there(bus: Bus, make_settings: MakeSettings) -> None:
    log = room_log(bus, make_settings())
    with pytest.raises(NoAnswer):
        await log.read_from("x.y", 1, 10)
    with pytest.raises(Unavailable, match="stream not found"):
        await log.last_of("x.y")


async def test_stream_deleted_under_us_is_made_again_with_another_epoch(
    bus: Bus, log: DurableLog, room: Room
) -> None:
    epoch = log.epoch
    await _api(bus, "STREAM.DELETE", log)
    assert isinstance(await publishing(log, room("r"), b""), NoAnswer)
    await log.open()
    assert log.epoch != epoch
    assert (await store(log, room("r"), b"")).seq == 1


async def test_closed_log_takes_nothing_more(bus: Bus, log: DurableLog, room: Room) -> None:
    waiting = publishing(log, room("r"), b"")
    log.close()
    assert isinstance(await waiting, Unavailable)


async def test_publish_without_permission_fails_at_once(
    breakable_nats: StartNats, connect_bus: ConnectBus, make_settings: MakeSettings, room: Room, prefix: str
) -> None:
    server = breakable_nats(
        password="secret",
        extra_config="authorization { users: [ { user: tidings, password: secret, "
        f'permissions: {{ publish: {{ deny: ["{prefix}.in.>"] }} }} }} ] }}',
    )
    bus = await connect_bus(server)
    log = room_log(bus, make_settings(), publish_timeout_s=10 * PATIENCE_S)
    await log.open()
    with pytest.raises(Misconfigured):
        await asyncio.wait_for(store(log, room("R"), b""), PATIENCE_S)
