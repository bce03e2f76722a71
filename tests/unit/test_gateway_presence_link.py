"""Reports to presence: bounded and repeated batches, and an outage that costs no memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest

from gateway.presence import batch_queue as batches_module
from gateway.presence import reporter as link_module
from gateway.presence.reporter import PresenceReporter
from services.bus.errors import BusError, PayloadTooLarge, RequestRefused, Unavailable
from services.settings import Settings
from services.wire.rpc import AnyPresenceOp, Connected, DataSet, Disconnected, PresenceApplied, PresenceBatch
from tests.support.deadline import eventually


class Presence:
    """presence_svc, as far as batches are concerned."""

    def __init__(self) -> None:
        self.batches: list[PresenceBatch] = []
        self.fault: BusError | None = None
        self.known = True

    async def call(self, _endpoint: object, batch: PresenceBatch, *, bypass_breaker: bool) -> PresenceApplied:
        assert bypass_breaker
        await asyncio.sleep(0)
        self.batches.append(batch)
        if self.fault is not None:
            raise self.fault
        return PresenceApplied(known=self.known, epoch="e", version=1)

    @property
    def ops(self) -> list[AnyPresenceOp]:
        return [op for batch in self.batches for op in batch.ops]


class Here:
    """A connection that exists."""

    def __init__(self, connection_id: str) -> None:
        self.connection_id = connection_id

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        yield Connected(connection_id=self.connection_id, user_id="u", username="U")


class Rig:
    def __init__(self, presence: Presence) -> None:
        self.presence = presence
        self.here: list[Here] = []
        settings = Settings(presence_renew_s=0.05)
        self.link = PresenceReporter(cast(Any, presence), settings, "g", "boot", lambda: self.here)
        self.task: asyncio.Task[None] | None = None

    def run(self) -> None:
        self.task = asyncio.ensure_future(self.link.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    presence = Presence()
    monkeypatch.setattr(link_module, "_RETRY_S", 0.02)
    monkeypatch.setattr(link_module, "_RETRY_MAX_S", 0.06)
    monkeypatch.setattr(link_module, "ANNOUNCE_WITHIN_S", 0.01)
    made = Rig(presence)
    yield made
    await made.stop()


async def test_the_first_batch_announces_and_later_ones_renew(rig: Rig) -> None:
    rig.here = [Here("1"), Here("2")]
    rig.link.report(Connected(connection_id="1", user_id="u", username="U"))  # part of the announcement
    rig.run()
    await eventually(lambda: len(rig.presence.batches) >= 3)
    first, second, *_ = rig.presence.batches
    assert (first.fresh, first.batch, len(first.ops)) == (True, 1, 2)
    assert (second.fresh, second.batch, second.ops) == (False, 2, [])
    rig.link.active("u")
    rig.link.report(Disconnected(connection_id="1", clean=True))
    await eventually(lambda: Disconnected(connection_id="1", clean=True) in rig.presence.ops)


async def test_an_unanswered_batch_is_repeated_as_it_was(rig: Rig) -> None:
    rig.presence.fault = Unavailable("away")
    rig.link.active("u")
    rig.run()
    await eventually(lambda: len(rig.presence.batches) >= 2)
    rig.presence.fault = None
    await eventually(lambda: rig.link.reachable)
    repeated = [batch for batch in rig.presence.batches if batch.batch == 1]
    assert len(repeated) >= 3
    assert all(batch == repeated[0] for batch in repeated)


async def test_an_unknown_gateway_announces_all(rig: Rig) -> None:
    rig.run()
    await eventually(lambda: rig.presence.batches)
    rig.here = [Here("1")]
    rig.presence.known = False
    await eventually(lambda: rig.presence.batches[-1].fresh and rig.presence.batches[-1].batch > 1)
    rig.presence.known = True
    await eventually(lambda: Connected(connection_id="1", user_id="u", username="U") in rig.presence.ops)


async def test_a_long_outage_costs_bounded_memory_and_ends_in_an_announcement(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MAX_WAITING", 50)
    monkeypatch.setattr(batches_module, "MAX_ACTIVE_WAITING", 50)
    rig.run()
    await eventually(lambda: rig.link.reachable)
    rig.presence.fault = Unavailable("away")
    rig.here = [Here("last")]
    for number in range(300):
        rig.link.report(Connected(connection_id=str(number), user_id="u", username="U"))
        rig.link.active(f"user-{number}")
        rig.link.report(Disconnected(connection_id=str(number), clean=False))
        if number % 30 == 0:
            seen = len(rig.presence.batches)
            await eventually(lambda: len(rig.presence.batches) > seen)  # noqa: B023  # awaited at once
        assert len(rig.link._queue._active) <= 50
    await eventually(lambda: rig.link._queue.waiting <= 50)
    rig.presence.fault = None
    await eventually(lambda: rig.presence.batches[-1].batch > 2)
    fresh = next(batch for batch in reversed(rig.presence.batches) if batch.fresh)
    assert fresh.ops == [Connected(connection_id="last", user_id="u", username="U")]


async def test_batches_fit_the_bus_with_any_input_of_clients(rig: Rig) -> None:
    data = msgspec.Raw(msgspec.json.encode("x" * 4000))
    rig.run()
    await eventually(lambda: rig.presence.batches)
    for number in range(400):
        rig.link.report(DataSet(connection_id=str(number), custom_data=data))
    for number in range(5000):
        rig.link.active(f"user-{number}")
    await eventually(lambda: len(rig.presence.ops) == 400)
    await eventually(lambda: sum(len(batch.active) for batch in rig.presence.batches) == 5000)
    assert max(len(msgspec.json.encode(batch)) for batch in rig.presence.batches) < 400_000


async def test_what_is_too_large_for_the_bus_is_not_repeated_for_ever(rig: Rig) -> None:
    rig.run()
    await eventually(lambda: rig.presence.batches)
    rig.presence.fault = PayloadTooLarge(2_000_000, 1_000_000)
    rig.link.report(Connected(connection_id="1", user_id="u", username="U"))
    await eventually(lambda: rig.presence.ops)
    rig.presence.fault = None
    rig.link.report(Connected(connection_id="2", user_id="u", username="U"))
    await eventually(lambda: Connected(connection_id="2", user_id="u", username="U") in rig.presence.ops)


async def test_a_superseded_boot_announces_under_a_lease_of_its_own(rig: Rig) -> None:
    rig.here = [Here("1")]
    rig.run()
    await eventually(lambda: rig.presence.batches)
    rig.presence.fault = RequestRefused("conflict", "superseded")
    await eventually(lambda: rig.presence.batches[-1].batch > 1)
    rig.presence.fault = None
    await eventually(lambda: rig.presence.batches[-1].gateway.startswith("g~"))
    own = [batch for batch in rig.presence.batches if batch.gateway.startswith("g~")]
    assert (own[0].batch, own[0].fresh, len(own[0].ops)) == (1, True, 1)


@pytest.mark.parametrize("answered", [True, False])
async def test_closing_sends_unanswered_and_queued_changes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    rig.run()
    await eventually(lambda: rig.link.reachable)
    entered = asyncio.Event()
    call: Callable[..., Any] = rig.presence.call

    async def never(*_: object, **__: object) -> PresenceApplied:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    monkeypatch.setattr(rig.presence, "call", never)
    rig.link.report(Disconnected(connection_id="1", clean=True))
    await entered.wait()
    rig.link.report(Disconnected(connection_id="2", clean=True))
    await rig.stop()
    monkeypatch.setattr(rig.presence, "call", call)
    rig.presence.fault = None if answered else Unavailable("away")
    rig.presence.batches.clear()
    await rig.link.close()
    said = [op.connection_id for op in rig.presence.ops]
    assert said == (["1", "2"] if answered else ["1"])
