"""Typed requests to services, through a real server."""

import asyncio
import json
from collections.abc import Callable

import pytest

from services import __version__
from services.bus.client import Bus
from services.bus.errors import NoAnswer, RequestRefused, Unavailable
from services.bus.rpc import MAX_RUNNING, MAX_WAITING, RpcRefusal, Service, call, call_all
from services.settings import Settings
from services.wire.codes import ErrorCode
from services.wire.rpc import (
    GATEWAY_STATS,
    PRESENCE_ROOMS,
    PRESENCE_STATS,
    Empty,
    PresenceStats,
    RoomsPage,
    RoomsQuery,
    RpcEndpoint,
)
from tests.support.bus import ConnectBus
from tests.support.deadline import PATIENCE_S, eventually

ANYONE = RpcEndpoint("presence", "stats", Empty, PresenceStats, timeout_s=2)


async def _empty_page(_: RoomsQuery) -> RoomsPage:
    return RoomsPage(rooms=[])


def _counts(users: int) -> PresenceStats:
    return PresenceStats(users=users, connections=0, rooms=0, gateways=0)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
async def asker(connect_bus: ConnectBus) -> Bus:
    return await connect_bus()


async def test_question_is_answered(connect_bus: ConnectBus, asker: Bus, settings: Settings) -> None:
    async def count(query: RoomsQuery) -> PresenceStats:
        return _counts(query.limit)

    service = Service(await connect_bus(), settings, "presence")
    endpoint = RpcEndpoint("presence", "rooms", RoomsQuery, PresenceStats)
    service.endpoint(endpoint, count)
    await service.start()
    answer = await call(asker, settings.subjects, endpoint, RoomsQuery(limit=42))
    assert answer == _counts(42)
    await service.stop()
    with pytest.raises(NoAnswer, match="no responders"):
        await call(asker, settings.subjects, endpoint, RoomsQuery(), timeout_s=30)


async def test_refusal_carries_code_and_message(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    async def refuse(_: RoomsQuery) -> RoomsPage:
        raise RpcRefusal(ErrorCode.FORBIDDEN, "not: for\r\nyou é")

    service = Service(await connect_bus(), settings, "presence")
    service.endpoint(PRESENCE_ROOMS, refuse)
    await service.start()
    with pytest.raises(RequestRefused) as refused:
        await call(asker, settings.subjects, PRESENCE_ROOMS, RoomsQuery())
    assert (refused.value.code, refused.value.message) == ("forbidden", "not: for  you é")
    raw = await asker.request(settings.subjects.service("presence", "rooms"), b"{}", timeout_s=PATIENCE_S)
    assert raw.header("Nats-Service-Error-Code") == "403"
    await service.stop()


async def test_handlers_fault_is_internal_without_details(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    async def fail(_: RoomsQuery) -> RoomsPage:
        raise LookupError("secret")

    service = Service(await connect_bus(), settings, "presence")
    service.endpoint(PRESENCE_ROOMS, fail)
    await service.start()
    with pytest.raises(RequestRefused) as refused:
        await call(asker, settings.subjects, PRESENCE_ROOMS, RoomsQuery())
    assert refused.value.code == "internal"
    assert "secret" not in refused.value.message
    await service.stop()


@pytest.mark.parametrize("payload", [b"", b"{", b'{"limit": "x"}', b"[" * 100_000, b"\xff"])
async def test_bad_request_is_invalid_field(
    connect_bus: ConnectBus, asker: Bus, settings: Settings, payload: bytes
) -> None:
    service = Service(await connect_bus(), settings, "presence")
    service.endpoint(PRESENCE_ROOMS, _empty_page)
    await service.start()
    answer = await asker.request(
        settings.subjects.service("presence", "rooms"), payload, timeout_s=PATIENCE_S
    )
    assert answer.header("Tidings-Error-Code") == "invalid_field"
    assert answer.header("Nats-Service-Error-Code") == "400"
    await service.stop()


async def test_answer_that_is_not_understood(connect_bus: ConnectBus, asker: Bus, settings: Settings) -> None:
    other = await connect_bus()
    other.subscribe(settings.subjects.service("presence", "rooms"), lambda m: other.publish(m.reply, b"[]"))
    await other.flush()
    with pytest.raises(RequestRefused) as refused:
        await call(asker, settings.subjects, PRESENCE_ROOMS, RoomsQuery())
    assert refused.value.code == "internal"


async def test_answer_over_the_limit_is_too_large(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    async def long_answer(_: RoomsQuery) -> str:
        return "x" * asker.max_payload

    service = Service(await connect_bus(), settings, "presence")
    endpoint = RpcEndpoint("presence", "rooms", RoomsQuery, str)
    service.endpoint(endpoint, long_answer)
    await service.start()
    with pytest.raises(RequestRefused) as refused:
        await call(asker, settings.subjects, endpoint, RoomsQuery())
    assert refused.value.code == "too_large"
    await service.stop()


async def test_slow_handler_does_not_hold_up_others(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    release = asyncio.Event()

    async def maybe_slow(query: RoomsQuery) -> RoomsPage:
        if query.limit == 1:
            await release.wait()
        return RoomsPage(rooms=[])

    service = Service(await connect_bus(), settings, "presence")
    service.endpoint(PRESENCE_ROOMS, maybe_slow)
    await service.start()
    slow = asyncio.ensure_future(
        call(asker, settings.subjects, PRESENCE_ROOMS, RoomsQuery(limit=1), timeout_s=30)
    )
    for _ in range(5):
        await call(asker, settings.subjects, PRESENCE_ROOMS, RoomsQuery(limit=2))
    assert not slow.done()
    release.set()
    assert await slow == RoomsPage(rooms=[])
    await service.stop()


async def test_handlers_are_bounded_and_what_exceeds_is_refused(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    release = asyncio.Event()
    running = most = 0

    async def slow(_: RoomsQuery) -> RoomsPage:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return RoomsPage(rooms=[])

    service = Service(await connect_bus(), settings, "presence")
    service.endpoint(PRESENCE_ROOMS, slow)
    await service.start()
    asking = [
        asyncio.ensure_future(call(asker, settings.subjects, PRESENCE_ROOMS, RoomsQuery(), timeout_s=30))
        for _ in range(MAX_RUNNING + MAX_WAITING + 5)
    ]
    await eventually(lambda: sum(task.done() for task in asking) == 5, "five are refused")
    release.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert most == MAX_RUNNING
    refused = [outcome for outcome in outcomes if isinstance(outcome, RequestRefused)]
    assert [outcome.code for outcome in refused] == ["unavailable"] * 5
    await service.stop()


async def test_replicas_share_questions_and_all_answer_when_all_are_asked(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    answered = [0, 0, 0]

    def numbered(number: int) -> Service:
        async def shared(_: RoomsQuery) -> RoomsPage:
            answered[number] += 1
            return RoomsPage(rooms=[])

        async def each(_: Empty) -> PresenceStats:
            if number == 2:
                raise RpcRefusal(ErrorCode.UNAVAILABLE, "not ready")
            return _counts(number)

        service = Service(buses[number], settings, "presence")
        service.endpoint(PRESENCE_ROOMS, shared)
        service.endpoint(ANYONE, each, queue=False)
        return service

    buses = [await connect_bus() for _ in range(3)]
    services = [numbered(number) for number in range(3)]
    for service in services:
        await service.start()
    for _ in range(30):
        await call(asker, settings.subjects, PRESENCE_ROOMS, RoomsQuery())
    assert sum(answered) == 30
    replies = await call_all(asker, settings.subjects, ANYONE, Empty())
    assert sorted(reply.users for reply in replies) == [0, 1]
    for service in services:
        await service.stop()
    assert await call_all(asker, settings.subjects, ANYONE, Empty()) == []


async def test_micro_protocol_sees_the_service_and_its_true_counts(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    async def refuse_some(query: RoomsQuery) -> RoomsPage:
        await asyncio.sleep(0.01)
        if query.limit == 1:
            raise RpcRefusal(ErrorCode.CONFLICT, "no")
        return RoomsPage(rooms=[])

    name = settings.prefix
    service = Service(await connect_bus(), settings, name)
    endpoint = RpcEndpoint(name, "rooms", RoomsQuery, RoomsPage)
    service.endpoint(endpoint, refuse_some)
    await service.start()
    for limit in (1, 2, 3):
        asking = call(asker, settings.subjects, endpoint, RoomsQuery(limit=limit))
        await asyncio.gather(asking, return_exceptions=True)

    def only(answer: bytes) -> dict[str, object]:
        found: dict[str, object] = json.loads(answer)
        return found

    ping = only((await asker.request(f"$SRV.PING.tidings-{name}", b"", timeout_s=PATIENCE_S)).data)
    info = only((await asker.request(f"$SRV.INFO.tidings-{name}", b"", timeout_s=PATIENCE_S)).data)
    stats = only((await asker.request(f"$SRV.STATS.tidings-{name}", b"", timeout_s=PATIENCE_S)).data)
    assert (ping["name"], ping["version"]) == (f"tidings-{name}", __version__)
    assert info["endpoints"][0]["subject"] == settings.subjects.service(name, "rooms")  # type: ignore[index]
    counted = stats["endpoints"][0]  # type: ignore[index]
    assert (counted["num_requests"], counted["num_errors"]) == (3, 1)
    assert counted["last_error"] == "conflict: no"
    assert counted["average_processing_time"] > 9_000_000
    await service.stop()


async def test_service_is_there_again_after_the_client_closed_for_good(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    bus = await connect_bus()
    service = Service(bus, settings, "presence")
    service.endpoint(PRESENCE_ROOMS, _empty_page)
    await service.start()
    bus._client._queue_command(b"NONSENSE\r\n")
    await eventually(lambda: bus.stats.rebuilds == 1)

    async def answered() -> bool:
        try:
            await call(asker, settings.subjects, PRESENCE_ROOMS, RoomsQuery())
        except Unavailable:
            return False
        return True

    await eventually(answered)
    await service.stop()


async def test_stop_waits_for_running_handlers(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    began = asyncio.Event()

    async def slow(_: RoomsQuery) -> RoomsPage:
        began.set()
        await asyncio.sleep(0.2)
        return RoomsPage(rooms=[])

    service = Service(await connect_bus(), settings, "presence")
    service.endpoint(PRESENCE_ROOMS, slow)
    await service.start()
    asking = asyncio.ensure_future(call(asker, settings.subjects, PRESENCE_ROOMS, RoomsQuery()))
    await began.wait()
    await service.stop()
    assert await asking == RoomsPage(rooms=[])


async def test_stop_without_a_connection(connect_bus: ConnectBus, settings: Settings) -> None:
    bus = await connect_bus()
    service = Service(bus, settings, "presence")
    service.endpoint(PRESENCE_ROOMS, _empty_page)
    await service.start()
    await bus.close()
    await service.stop()
    await service.stop()


async def test_misuse_is_reported(asker: Bus, settings: Settings) -> None:
    service = Service(asker, settings, "presence")
    with pytest.raises(ValueError, match="no endpoint of presence"):
        service.endpoint(GATEWAY_STATS, _empty_page)  # type: ignore[arg-type]
    await service.start()
    with pytest.raises(RuntimeError, match="before the service starts"):
        service.endpoint(PRESENCE_STATS, _empty_page)  # type: ignore[arg-type]
    await service.stop()


async def test_a_question_that_may_be_repeated_outlives_a_replica_that_is_frozen(
    connect_bus: ConnectBus, asker: Bus, settings: Settings
) -> None:
    patient = RpcEndpoint("presence", "stats", Empty, PresenceStats, timeout_s=6.0, tries=16)
    asked: list[str] = []
    never = asyncio.Event()

    async def hang(_: Empty) -> PresenceStats:
        asked.append("frozen")
        await never.wait()
        raise AssertionError("cancelled before")

    async def answer(_: Empty) -> PresenceStats:
        asked.append("well")
        return _counts(7)

    frozen, well = [Service(await connect_bus(), settings, "presence") for _ in range(2)]
    frozen.endpoint(patient, hang)
    well.endpoint(patient, answer)
    await frozen.start()
    with pytest.raises(NoAnswer, match="not within"):
        await call(asker, settings.subjects, patient, Empty(), timeout_s=0.5)
    assert len(asked) > 1
    assert set(asked) == {"frozen"}
    await well.start()
    for _ in range(4):
        assert await call(asker, settings.subjects, patient, Empty()) == _counts(7)
    await asyncio.gather(frozen.stop(), well.stop())
    with pytest.raises(NoAnswer, match="no responders"):
        await call(asker, settings.subjects, patient, Empty(), timeout_s=30)
