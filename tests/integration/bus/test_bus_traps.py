"""One test for each trap of nats-py, named for it, against a real server."""

import asyncio
from collections.abc import Callable
from urllib.parse import quote

import pytest
from nats.errors import OutboundBufferLimitError

from services.bus.client import Bus
from services.bus.connection import BusConnection
from services.bus.errors import Misconfigured, PayloadTooLarge, Unavailable
from services.bus.nats_client import LeanClient
from services.settings import Settings
from tests.support.bus import Collected, ConnectBus, freeze, publishing, room_log
from tests.support.deadline import PATIENCE_S, eventually
from tidings_cli.local.servers import NatsServer

StartNats = Callable[..., NatsServer]
MakeSettings = Callable[..., Settings]


def _users(password: str, permissions: str) -> str:
    """Configuration that replaces the plain authorization block."""
    return (
        "authorization { users: [ { user: tidings, "
        f'password: "{password}", permissions: {{ {permissions} }} }} ] }}'
    )


async def _echoes(bus: Bus, subject: str) -> bool:
    got = Collected()
    subscription = bus.subscribe(subject, got)
    try:
        bus.publish(subject, b"x")
        await bus.flush()
    except Unavailable:
        return False
    finally:
        subscription.close()
    return len(got) == 1


async def _flood(bus: Bus, subject: str, messages: int) -> None:
    for _ in range(messages):
        bus.publish(subject, b"x" * 500_000)
        await asyncio.sleep(0)  # let the flusher fill the socket


async def test_exception_in_error_callback_would_kill_the_read_loop(
    breakable_nats: StartNats, connect_bus: ConnectBus, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = breakable_nats(
        password="secret", extra_config=_users("secret", 'publish: { deny: ["forbidden.>"] }')
    )
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))

    def fail(*_: object) -> None:
        raise LookupError("as planned")

    monkeypatch.setattr(BusConnection, "_note_error", fail)
    bus = await connect_bus(server)
    bus.publish("forbidden.x", b"")
    await eventually(lambda: faults, "the fault is reported")
    assert isinstance(faults[0], LookupError)
    assert await _echoes(bus, f"{prefix}.x")


async def test_server_error_closes_the_client_for_good(connect_bus: ConnectBus, prefix: str) -> None:
    bus = await connect_bus()
    got, returns = Collected(), []

    async def note_return() -> None:
        returns.append(True)

    bus.on_reconnect(note_return)
    bus.subscribe(f"{prefix}.kept", got)
    bus.subscribe(f"{prefix}.mute", lambda _: None)
    waiting = asyncio.ensure_future(bus.request(f"{prefix}.mute", b"", timeout_s=30))
    await bus.flush()
    closed_client = bus._client
    closed_client._queue_command(b"NONSENSE\r\n")  # -ERR 'Unknown Protocol Operation'

    with pytest.raises(Unavailable):
        await waiting
    await eventually(lambda: returns, "a new client took over")
    assert closed_client.is_closed
    bus.publish(f"{prefix}.kept", b"again")
    await bus.flush()
    assert got.data == [b"again"]
    assert bus.stats.rebuilds == 1
    assert (await bus.request("$JS.API.INFO", b"", timeout_s=PATIENCE_S)).data


@pytest.mark.parametrize("slow", ["hook", "barrier"])
async def test_a_return_is_announced_however_long_a_new_client_takes_to_settle(
    connect_bus: ConnectBus, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    bus = await connect_bus()
    returns, tries = [], list[LeanClient]()

    async def note_return() -> None:
        returns.append(len(tries))

    async def settle(client: LeanClient, *_: object) -> None:
        tries.append(client)
        if client is not first and tries.count(client) < 3:
            raise Unavailable("the server is slow")

    first = bus._client
    bus.on_reconnect(note_return)
    if slow == "hook":
        await bus.connection.add_hook(settle)
    else:
        monkeypatch.setattr(LeanClient, "barrier", settle)
    first._queue_command(b"NONSENSE\r\n")  # -ERR, which ends the client

    await eventually(lambda: returns, "the return")
    assert tries.count(bus._client) == 3
    assert len(returns) == 1


async def test_permission_violations_reach_only_the_error_callback(
    breakable_nats: StartNats, connect_bus: ConnectBus, prefix: str
) -> None:
    server = breakable_nats(
        password="secret",
        extra_config=_users(
            "secret", 'publish: { deny: ["Forbidden.>"] }, subscribe: { deny: ["Secret.>"] }'
        ),
    )
    bus = await connect_bus(server)

    with pytest.raises(Misconfigured, match="publish"):
        await bus.request("Forbidden.x", b"", timeout_s=30)
    bus.publish("Forbidden.y", b"")
    with pytest.raises(Misconfigured, match="publish"):
        await bus.flush()
    bus.subscribe("Secret.x", Collected())
    with pytest.raises(Misconfigured, match="subscription"):
        await bus.flush()
    assert bus.stats.permission_violations == 3
    assert await _echoes(bus, f"{prefix}.x")


async def test_forbidden_inbox_is_reported_at_connect(
    breakable_nats: StartNats, connect_bus: ConnectBus
) -> None:
    server = breakable_nats(
        password="secret", extra_config=_users("secret", 'subscribe: { deny: ["_INBOX.>"] }')
    )
    with pytest.raises(Misconfigured, match="_inbox"):
        await connect_bus(server)


async def test_first_connect_would_loop_for_ever_on_a_wrong_password(
    nats_server: NatsServer, make_settings: MakeSettings
) -> None:
    url = nats_server.url.replace(nats_server.password, "wrong")
    with pytest.raises(Misconfigured, match="credentials") as refused:
        async with asyncio.timeout(PATIENCE_S):
            await Bus.connect(make_settings(nats_url=url, bus_connect_s=10 * PATIENCE_S), "test")
    assert "wrong" not in str(refused.value)


async def test_first_connect_would_loop_for_ever_without_a_server(
    breakable_nats: StartNats, make_settings: MakeSettings
) -> None:
    server = breakable_nats()
    settings = make_settings(nats_url=server.url, bus_connect_s=0.7)
    server.kill()
    with pytest.raises(Unavailable, match="cannot be reached"):
        async with asyncio.timeout(PATIENCE_S):
            await Bus.connect(settings, "test")


async def test_first_connect_waits_for_a_server_that_comes_late(
    breakable_nats: StartNats, make_settings: MakeSettings
) -> None:
    server = breakable_nats()
    settings = make_settings(nats_url=server.url)
    server.kill()
    connecting = asyncio.ensure_future(Bus.connect(settings, "test"))
    await asyncio.to_thread(server.start)
    bus = await connecting
    assert bus.healthy
    await bus.close()


async def test_first_connect_to_a_frozen_server_keeps_its_deadline(
    breakable_nats: StartNats, make_settings: MakeSettings
) -> None:
    server = breakable_nats()
    freeze(server)
    with pytest.raises(Unavailable):
        await Bus.connect(make_settings(nats_url=server.url, bus_connect_s=0.5), "test")


async def test_publishes_while_down_would_be_sent_late(
    breakable_nats: StartNats, connect_bus: ConnectBus, prefix: str
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    got = Collected()
    bus.subscribe(f"{prefix}.x", got)
    await bus.flush()
    server.kill()
    await eventually(lambda: not bus.connected)
    with pytest.raises(Unavailable):
        bus.publish(f"{prefix}.x", b"late")
    with pytest.raises(OutboundBufferLimitError):  # the way nats.micro answers
        await bus._client.publish(f"{prefix}.x", b"late")
    server.start()
    await eventually(lambda: bus.stats.reconnects == 1)
    bus.publish(f"{prefix}.x", b"new")
    await bus.flush()
    assert got.data == [b"new"]


async def test_queued_when_the_connection_broke_would_be_sent_late(
    breakable_nats: StartNats, connect_bus: ConnectBus, prefix: str
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    got = Collected()
    bus.subscribe(f"{prefix}.x", got)
    await bus.flush()
    freeze(server)
    with pytest.raises(Unavailable, match="does not keep up"):
        await _flood(bus, f"{prefix}.x", 200)
    server.kill()
    await eventually(lambda: not bus.connected)
    assert bus.stats.discarded > 0
    server.start()
    await eventually(lambda: bus.stats.reconnects == 1)
    bus.publish(f"{prefix}.x", b"new")
    await bus.flush()
    assert got.data == [b"new"]


async def test_drain_raises_while_reconnecting(breakable_nats: StartNats, connect_bus: ConnectBus) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    server.kill()
    await eventually(lambda: not bus.connected)
    await bus.close()


async def test_close_does_not_wait_for_a_frozen_server(
    breakable_nats: StartNats, connect_bus: ConnectBus, prefix: str
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    freeze(server)
    await _flood(bus, f"{prefix}.x", 10)
    began = asyncio.get_running_loop().time()
    await bus.close()
    assert asyncio.get_running_loop().time() - began < 5


async def test_default_ping_interval_notices_a_frozen_server_after_minutes(
    breakable_nats: StartNats, connect_bus: ConnectBus
) -> None:
    server = breakable_nats()
    assert (await connect_bus(server))._client.options["ping_interval"] == 10
    bus = await connect_bus(server, ping_interval_s=0.1)
    freeze(server)
    await eventually(lambda: not bus.connected, "two pings go unanswered")
    server.resume()
    await eventually(lambda: bus.connected)


async def test_frozen_server_with_unsent_bytes_would_keep_the_client_from_another_server(
    breakable_nats: StartNats, make_settings: MakeSettings, prefix: str
) -> None:
    servers = [breakable_nats(name, password="secret") for name in ("one", "two")]
    settings = make_settings(nats_url=",".join(server.url for server in servers))
    bus = await Bus.connect(settings, "test", ping_interval_s=0.2)
    got = Collected()
    bus.subscribe(f"{prefix}.x", got)
    frozen = next(server for server in servers if server.port == bus._client.connected_url.port)
    freeze(frozen)
    await _flood(bus, f"{prefix}.x", 12)
    await eventually(lambda: bus.stats.reconnects == 1, "the other server took over")
    bus.publish(f"{prefix}.x", b"new")
    await bus.flush()
    assert got.data == [b"new"]
    await bus.close()


async def test_stalled_reader_loses_messages_without_an_error(
    breakable_nats: StartNats, connect_bus: ConnectBus, prefix: str
) -> None:
    server = breakable_nats(extra_config='max_pending: 2MB\nwrite_deadline: "100ms"\n')
    reader, writer = await connect_bus(server), await connect_bus(server)
    got, returns = Collected(), []

    async def note_return() -> None:
        returns.append(len(got))

    reader.on_reconnect(note_return)
    reader.subscribe(f"{prefix}.flood", got)
    await reader.flush()
    transport = reader._client._transport._io_writer.transport
    transport.pause_reading()
    for _ in range(60):
        writer.publish(f"{prefix}.flood", b"x" * 500_000)
        await writer.flush()
    transport.resume_reading()
    await eventually(lambda: returns, "the loss is announced by on_reconnect")
    assert len(got) < 60
    assert await _echoes(reader, f"{prefix}.x")


async def test_pending_limits_would_drop_the_newest(connect_bus: ConnectBus, prefix: str) -> None:
    reader, writer = await connect_bus(), await connect_bus()
    got = Collected()
    reader.subscribe(f"{prefix}.many", got)
    await reader.flush()
    for number in range(30_000):
        writer.publish(f"{prefix}.many", b"%d" % number)
        if number % 5000 == 0:
            await writer.flush()
    await writer.flush()
    await reader.flush(10)
    assert len(got) == 30_000
    assert got.data == [b"%d" % number for number in range(30_000)]
    assert reader.stats.slow_consumers == 0


async def test_subscriptions_cost_no_task(connect_bus: ConnectBus, prefix: str) -> None:
    bus = await connect_bus()
    got = Collected()
    before = len(asyncio.all_tasks())
    for number in range(100):
        bus.subscribe(f"{prefix}.{number}", got)
        bus.publish(f"{prefix}.{number}", b"")
    await bus.flush()
    assert len(got) == 100
    assert len(asyncio.all_tasks()) == before


async def test_publish_async_would_leak_its_slot_when_publish_raises(
    connect_bus: ConnectBus, make_settings: MakeSettings
) -> None:
    bus = await connect_bus()
    settings = make_settings()
    log = room_log(bus, settings)
    await log.open()
    room = settings.subjects.room_in("default", "r")
    assert isinstance(await publishing(log, room, b"x" * (bus.max_payload + 1)), PayloadTooLarge)
    assert len(log._publisher._inbox) == 0


async def test_late_pong_would_kill_the_read_loop(
    breakable_nats: StartNats, connect_bus: ConnectBus, prefix: str
) -> None:
    server = breakable_nats()
    bus = await connect_bus(server)
    freeze(server)
    with pytest.raises(Unavailable, match="ping"):
        await bus.flush(0.1)
    server.resume()
    await bus.flush()
    assert await _echoes(bus, f"{prefix}.x")
    assert bus.stats.rebuilds == bus.stats.reconnects == 0


async def test_flush_would_overtake_what_was_published_before_it(
    connect_bus: ConnectBus, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await connect_bus()
    transport, written = bus._client._transport, bytearray()
    write, write_lines = transport.write, transport.writelines

    def recorded(data: bytes) -> None:
        written.extend(data)
        write(data)

    def recorded_lines(lines: list[bytes]) -> None:
        written.extend(b"".join(lines))
        write_lines(lines)

    monkeypatch.setattr(transport, "write", recorded)
    monkeypatch.setattr(transport, "writelines", recorded_lines)
    bus.publish(f"{prefix}.x", b"before")
    await bus.flush()
    assert written.index(b"before") < written.index(b"PING")


@pytest.mark.parametrize("task", ["_reading_task", "_flusher_task"])
async def test_client_whose_tasks_ended_stays_connected_for_ever(
    connect_bus: ConnectBus, prefix: str, task: str
) -> None:
    bus = await connect_bus(probe_interval_s=0.1)
    getattr(bus._client, task).cancel()
    await eventually(lambda: bus.stats.rebuilds == 1, "the stuck client is replaced")
    assert await _echoes(bus, f"{prefix}.x")


async def test_escapes_in_the_password_are_not_decoded(
    breakable_nats: StartNats, make_settings: MakeSettings
) -> None:
    password = "p@ss/w:rd%41"
    server = breakable_nats(password=password)
    url = server.url.replace(password, quote(password, safe=""))
    bus = await Bus.connect(make_settings(nats_url=url), "test")
    await bus.close()


async def test_tls_url_is_no_demand(nats_server: NatsServer, make_settings: MakeSettings) -> None:
    settings = make_settings(nats_url=nats_server.url.replace("nats://", "tls://"))
    with pytest.raises(Misconfigured, match="does not offer TLS"):
        await Bus.connect(settings, "test")
