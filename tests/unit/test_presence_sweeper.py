"""Sweeping continues through faults, and knows whether the store is reachable."""

import asyncio

import pytest

from presence_svc import sweeper as module
from presence_svc.changes import Changes, PresenceStoreUnavailable, Sweep
from presence_svc.sweeper import Sweeper
from services.wire.rpc import PresenceStats
from services.wire.server import UserOffline
from tests.support.deadline import eventually


class Scripted:
    """A store whose sweeps are known beforehand; the last one repeats."""

    def __init__(self, *sweeps: Sweep | Exception) -> None:
        self.sweeps = list(sweeps)
        self.calls = 0

    async def sweep(self) -> Sweep:
        self.calls += 1
        step = self.sweeps.pop(0) if len(self.sweeps) > 1 else self.sweeps[0]
        if isinstance(step, Exception):
            raise step
        return step

    async def audit(self) -> int:
        return 0

    async def stats(self) -> PresenceStats:
        return PresenceStats(users=0, connections=0, rooms=0, gateways=0)


class Recorder:
    def __init__(self) -> None:
        self.announced: list[Changes] = []
        self.bus_healthy = True

    def announce(self, changes: Changes) -> None:
        self.announced.append(changes)


def step(version: int, *, more: bool = False) -> Sweep:
    return Sweep(Changes("e", version, users=[UserOffline(user_id=f"u{version}")]), more)


async def test_a_sweep_continues_while_more_is_due_and_publishes_each_step():
    recorder = Recorder()
    sweeper = Sweeper(Scripted(step(1, more=True), step(2, more=True), step(3)), recorder)
    assert not sweeper.store_healthy
    await sweeper.sweep()
    assert [changes.version for changes in recorder.announced] == [1, 2, 3]
    assert sweeper.store_healthy


async def test_a_store_out_of_reach_is_swept_again_when_it_is_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "INTERVAL_S", 0.001)
    store = Scripted(step(1), *[PresenceStoreUnavailable("away")] * 3, PresenceStoreUnavailable("away"))
    sweeper = Sweeper(store, Recorder())
    running = asyncio.create_task(sweeper.run())
    await eventually(lambda: store.calls > 3, "sweeps in spite of faults")
    assert not sweeper.store_healthy
    store.sweeps = [step(2)]
    await eventually(lambda: sweeper.store_healthy, "healthy again")
    running.cancel()
    await asyncio.wait([running])


async def test_a_store_that_has_not_answered_for_long_is_not_healthy():
    now = 1000.0
    sweeper = Sweeper(Scripted(step(1)), Recorder(), lambda: now)
    await sweeper.sweep()
    now += module.STALE_S - 0.1
    assert sweeper.store_healthy
    now += 0.2
    assert not sweeper.store_healthy
    await sweeper.sweep()
    assert sweeper.store_healthy


async def test_unacknowledged_commits_are_published():
    late = Changes("e", 1, users=[UserOffline(user_id="u")], commit_id=1)
    recorder = Recorder()
    await Sweeper(Scripted(Sweep(Changes("e", 2), more=False, unacked=[late])), recorder).sweep()
    assert late in recorder.announced


async def test_nothing_expires_while_gateways_cannot_report(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "INTERVAL_S", 0.001)
    store, recorder = Scripted(step(1)), Recorder()
    recorder.bus_healthy = False
    sweeper = Sweeper(store, recorder)
    running = asyncio.create_task(sweeper.run())
    await eventually(lambda: sweeper.store_healthy, "the store is checked all the same")
    assert store.calls == 0
    recorder.bus_healthy = True
    await eventually(lambda: store.calls > 0, "sweeps again")
    running.cancel()
    await asyncio.wait([running])
