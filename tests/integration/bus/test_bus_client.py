"""Publishing, subscribing and requests through a real server, and reconnecting after it was down."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from services.bus.client import Bus
from services.bus.errors import NoAnswer, PayloadTooLarge, Unavailable
from services.settings import Settings
from tests.support.bus import Collected, ConnectBus, freeze
from tests.support.deadline import PATIENCE_S, eventually
from tidings_cli.local.servers import NatsServer


async def test_messages_arrive_in_order_with_headers(connect_bus: ConnectBus, prefix: str) -> None:
    sender, receiver = await connect_bus(), await connect_bus()
    got = Collected()
    receiver.subscribe(f"{prefix}.room.*", got)
    await receiver.flush()

    for number in range(2000):
        sender.publish(
            f"{prefix}.room.{number % 7}", b"%d" % number, headers={"Nats-Sequence": str(number), "Name": "é"}
        )
    await sender.flush()
    await receiver.flush()

    assert got.data == [b"%d" % number for number in range(2000)]
    assert [message.seq for message in got.messages] == list(range(2000))
    assert got.messages[3].subject == f"{prefix}.room.3"
    assert got.messages[3].header("Name") == "é"
    assert got.messages[3].header("name") is None
    assert sender.stats.published == 2000 + 1  # and a probe
    assert receiver.stats.received == 2000 + 1


async def test_queue_group_shares_messages(connect_bus: ConnectBus, prefix: str) -> None:
    buses = [await connect_bus() for _ in range(2)]
    got = Collected()
    for bus in buses:
        bus.subscribe(f"{prefix}.work", got, queue="workers")
        await bus.flush()
    for number in range(50):
        buses[0].publish(f"{prefix}.work", b"%d" % number)
    for bus in buses:
        await bus.flush()
    assert sorted(got.data, key=int) == [b"%d" % number for number in range(50)]


async def test_closed_subscription_receives_nothing_more(connect_bus: ConnectBus, prefix: str) -> None:
    bus = await connect_bus()
    got = Collected()
    subscription = bus.subscribe(f"{prefix}.x", got)
    bus.publish(f"{prefix}.x", b"1")
    await bus.flush()
    subscription.close()
    subscription.close()
    bus.publish(f"{prefix}.x", b"2")
    await bus.flush()
    assert got.data == [b"1"]


async def test_a_callback_that_raises_is_counted_and_affects_no_other(
    connect_bus: ConnectBus, prefix: str
) -> None:
    bus = await connect_bus()
    got = Collected()

    def fail(_: object) -> None:
        raise LookupError("as planned")

    bus.subscribe(f"{prefix}.x", fail)
    bus.subscribe(f"{prefix}.x", got)
    for _ in range(3):
        bus.publish(f"{prefix}.x", b"")
    await bus.flush()
    assert len(got) == 3
    assert bus.stats.callback_errors == 3


async def test_oversize_is_refused_before_sending(connect_bus: ConnectBus, prefix: str) -> None:
    bus = await connect_bus()
    limit = bus.max_payload
    with pytest.raises(PayloadTooLarge) as refused:
        bus.publish(f"{prefix}.x", b"x" * (limit + 1))
    assert (refused.value.size, refused.value.limit) == (limit + 1, limit)
    with pytest.raises(PayloadTooLarge):
        bus.publish(f"{prefix}.x", b"x" * limit, headers={"A": "b"})
    with pytest.raises(PayloadTooLarge):
        await bus.request(f"{prefix}.x", b"x" * (limit + 1), timeout_s=1)
    bus.publish(f"{prefix}.x", b"x" * limit)
    await bus.flush()
    assert bus.stats.publish_refused == 3
    assert bus.stats.rebuilds == bus.stats.reconnects == 0


async def test_request_is_answered(connect_bus: ConnectBus, prefix: str) -> None:
    asker, service = await connect_bus(), await connect_bus()
    service.subscribe(f"{prefix}.double", lambda m: service.publish(m.reply, m.data * 2))
    await service.flush()
    answers = await asyncio.gather(
        *(asker.request(f"{prefix}.double", b"%d" % n, timeout_s=PATIENCE_S) for n in range(50))
    )
    assert [answer.data for answer in answers] == [b"%d" % n * 2 for n in range(50)]


async def test_request_without_responders_fails_at_once(connect_bus: ConnectBus, prefix: str) -> None:
    bus = await connect_bus()
    with pytest.raises(NoAnswer, match="no responders"):
        await bus.request(f"{prefix}.nobody", b"", timeout_s=30)
    with pytest.raises(NoAnswer, match="no responders"):
        await bus.request_many(f"{prefix}.nobody", b"", timeout_s=30)
    assert bus.stats.unanswered == 2


async def test_request_has_a_deadline(connect_bus: ConnectBus, prefix: str) -> None:
    bus = await connect_bus()
    bus.subscribe(f"{prefix}.mute", lambda _: None)
    with pytest.raises(NoAnswer, match=r"not within 0\.1 s"):
        await bus.request(f"{prefix}.mute", b"", timeout_s=0.1)


async def test_request_many_ends_as_requested(connect_bus: ConnectBus, prefix: str) -> None:
    bus = await connect_bus()

    def answer(message: object) -> None:
        for number in range(3):
            bus.publish(message.reply, b"%d" % number)  # type: ignore[attr-defined]

    bus.subscribe(f"{prefix}.three", answer)
    never_s = 10 * PATIENCE_S
    async with asyncio.timeout(PATIENCE_S):
        by_until = await bus.request_many(
            f"{prefix}.three", b"", timeout_s=never_s, until=lambda m: m.data == b"1"
        )
        by_stall = await bus.request_many(f"{prefix}.three", b"", timeout_s=never_s, stall_s=1)
        by_time = await bus.request_many(f"{prefix}.three", b"", timeout_s=1)
    assert [m.data for m in by_until][:2] == [b"0", b"1"]
    assert [m.data for m in by_stall] == [m.data for m in by_time] == [b"0", b"1", b"2"]


async def test_subscriptions_survive_a_killed_server(
    breakable_nats: Callable[..., NatsServer], connect_bus: ConnectBus, prefix: str
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    got, returns = Collected(), []
    kept = bus.subscribe(f"{prefix}.kept", got)
    closed = bus.subscribe(f"{prefix}.kept", got)

    async def note_return() -> None:
        returns.append(bus.connected)

    bus.on_reconnect(note_return)
    await bus.flush()

    server.kill()
    await eventually(lambda: not bus.connected, "the loss is noticed")
    closed.close()
    made_while_down = bus.subscribe(f"{prefix}.new", got)
    server.start()
    await eventually(lambda: returns == [True], "the callback ran once")

    bus.publish(f"{prefix}.kept", b"kept")
    bus.publish(f"{prefix}.new", b"new")
    await bus.flush()
    assert got.data == [b"kept", b"new"]
    assert (bus.stats.disconnects, bus.stats.reconnects, bus.stats.rebuilds) == (1, 1, 0)
    kept.close()
    made_while_down.close()


async def test_waiting_requests_fail_promptly_when_the_server_goes(
    breakable_nats: Callable[..., NatsServer], connect_bus: ConnectBus, prefix: str
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    bus.subscribe(f"{prefix}.mute", lambda _: None)
    waiting = [
        asyncio.ensure_future(bus.request(f"{prefix}.mute", b"", timeout_s=30)),
        asyncio.ensure_future(bus.request_many(f"{prefix}.mute", b"", timeout_s=30)),
    ]
    await bus.flush()
    server.kill()
    done, _ = await asyncio.wait(waiting)
    for task in done:
        assert type(task.exception()) is Unavailable  # at their deadline they would end with NoAnswer
    with pytest.raises(Unavailable):
        await bus.request(f"{prefix}.mute", b"", timeout_s=30)
    with pytest.raises(Unavailable):
        await bus.flush()


async def test_health_follows_the_probe_while_the_server_is_frozen(
    breakable_nats: Callable[..., NatsServer], connect_bus: ConnectBus
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server, probe_interval_s=0.05, probe_stale_s=0.5)
    assert bus.healthy
    freeze(server)
    await eventually(lambda: not bus.healthy, "frozen server is noticed")
    assert bus.connected  # which is why the client's word is not asked
    server.resume()
    await eventually(lambda: bus.healthy, "health returns")
    server.kill()
    await eventually(lambda: not bus.healthy, "killed server is noticed")
    server.start()
    await eventually(lambda: bus.healthy, "health returns")


async def test_a_server_that_was_behind_gets_all_in_order(
    breakable_nats: Callable[..., NatsServer], connect_bus: ConnectBus, prefix: str
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server, ping_interval_s=60)
    got = Collected()
    bus.subscribe(f"{prefix}.x", got)
    await bus.flush()
    sent: list[bytes] = []

    def publish() -> None:
        message = b"%d " % len(sent) + b"x" * 20_000
        bus.publish(f"{prefix}.x", message)
        sent.append(message)

    async def publish_until_refused() -> None:
        while True:
            publish()
            await asyncio.sleep(0)

    freeze(server)
    with pytest.raises(Unavailable, match="does not keep up"):
        await publish_until_refused()
    server.resume()
    while len(got) < 100:  # while it catches up, by whichever way each of them goes
        with suppress(Unavailable):
            publish()
        await asyncio.sleep(0)
    await bus.flush(20)
    assert got.data == sent
    assert bus.stats.disconnects == 0


async def test_close_is_idempotent_and_sends_what_is_queued(connect_bus: ConnectBus, prefix: str) -> None:
    leaving, staying = await connect_bus(), await connect_bus()
    got = Collected()
    staying.subscribe(f"{prefix}.bye", got)
    await staying.flush()
    leaving.publish(f"{prefix}.bye", b"last words")
    await leaving.close()
    await leaving.close()
    await staying.flush()
    assert got.data == [b"last words"]
    assert not leaving.healthy
    with pytest.raises(Unavailable):
        leaving.publish(f"{prefix}.bye", b"")


async def test_two_buses_of_one_process_do_not_answer_each_others_probes(
    connect_bus: ConnectBus, make_settings: Callable[..., Settings]
) -> None:
    first = await connect_bus(probe_interval_s=0.05)
    second = await connect_bus(probe_interval_s=0.05)
    await eventually(lambda: first.stats.published > 5 and second.stats.published > 5)
    await first.flush()
    assert abs(first.stats.received - first.stats.published) <= 1
    assert isinstance(second, Bus)
