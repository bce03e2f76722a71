"""All gateways have the same revocations: read completely at the start and after each reconnect of the bus."""

import asyncio
import secrets
import time
from collections.abc import Callable

import pytest

from gateway.auth.revocation_log import RevocationLog
from gateway.auth.revocations import Revocations
from services.bus.client import Bus
from services.bus.errors import Unavailable
from services.bus.streams import Batch
from services.settings import Settings
from services.wire.events import Revoked
from tests.support.bus import ConnectBus, connect_bus
from tests.support.deadline import eventually

__all__ = ["connect_bus"]


class Rig:
    """One gateway's list."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self.revocations = Revocations()
        self.new: list[str] = []
        self.log = RevocationLog(
            bus, settings, self.revocations, time.time, lambda revoked: self.new.append(revoked.user_id)
        )


@pytest.fixture
async def rig(connect_bus: ConnectBus, make_settings: Callable[..., Settings]) -> Rig:
    return Rig(await connect_bus(), make_settings(prefix=f"revo-{secrets.token_hex(4)}"))


def of(user_id: str) -> Revoked:
    now = time.time()
    return Revoked(until=now + 600, user_id=user_id, issued_before=now)


async def test_nothing_is_believed_before_all_was_read(rig: Rig) -> None:
    assert not rig.revocations.current
    await rig.log.open()
    assert rig.revocations.current
    rig.log.lost()
    assert not rig.revocations.current


async def test_what_cannot_be_read_is_not_current(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.log.open()
    rig.log.lost()

    async def fails(*_: object) -> Batch:
        raise Unavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(rig.log.durable_log, "read_from", fails)
        with pytest.raises(Unavailable):
            await rig.log.open()
        assert not rig.revocations.current
    await rig.log.open()
    assert rig.revocations.current


async def test_a_list_read_across_a_loss_is_not_current(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.log.open()
    read = rig.log.durable_log.read_from

    async def interrupted(subject: str, seq: int, limit: int) -> Batch:
        batch = await read(subject, seq, limit)
        rig.log.lost()
        return batch

    with monkeypatch.context() as broken:
        broken.setattr(rig.log.durable_log, "read_from", interrupted)
        await rig.log.open()
    assert not rig.revocations.current


async def test_what_is_known_is_not_new_when_it_is_read_again(rig: Rig) -> None:
    await rig.log.open()
    for number in range(20):
        await rig.log.publish(of(f"u{number}"))
    await eventually(lambda: len(rig.new) == 20)
    await rig.log.open()
    assert len(rig.new) == 20


async def test_two_may_ask_for_it_at_once(rig: Rig) -> None:
    await rig.log.open()
    await rig.log.publish(of("ada"))
    await asyncio.gather(*(rig.log.open() for _ in range(4)))
    assert rig.new == ["ada"]
