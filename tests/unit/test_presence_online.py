"""Lookups of online users by many callers: few requests, bounded, always answered."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.presence import online as module
from gateway.presence.online import OnlineLookup
from services.bus.errors import Unavailable
from services.tasks import TaskSet
from services.wire.records import UNSET, Status, User
from services.wire.rpc import PresencePage, PresenceQuery


class Presence:
    """presence_svc: some are online, and a page holds few of them."""

    def __init__(self) -> None:
        self.online = {f"on-{number:03}" for number in range(300)}
        self.asked: list[PresenceQuery] = []
        self.running = self.most_at_once = 0
        self.page = 10
        self.fault: Exception | None = None

    async def call(self, _endpoint: object, query: PresenceQuery, *, timeout_s: float) -> PresencePage:
        assert timeout_s <= 1.0
        self.asked.append(query)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if self.fault is not None:
            raise self.fault
        assert isinstance(query.users, list)
        found = sorted(name for name in self.online.intersection(query.users) if name > query.cursor)
        shown = found[: self.page]
        users = [User(user_id=name, username=name, status=Status.ONLINE, last_seen=1) for name in shown]
        cursor = shown[-1] if len(found) > self.page else ""
        return PresencePage(epoch="e", version=1, users=users, count=300, cursor=cursor)


@pytest.fixture
def presence() -> Presence:
    return Presence()


@pytest.fixture
async def lookup(presence: Presence) -> AsyncIterator[OnlineLookup]:
    tasks = TaskSet()
    yield OnlineLookup(presence, tasks)  # type: ignore[arg-type]
    await tasks.close()


async def asked(lookup: OnlineLookup, *users: str) -> list[Any]:
    return await asyncio.gather(*(lookup.ask(user) for user in users))


async def test_many_questions_are_few_requests_one_at_a_time(
    presence: Presence, lookup: OnlineLookup
) -> None:
    presence.page = 1000
    users = [f"on-{number:03}" for number in range(200)] + ["off-1", "off-2"]
    assert await asked(lookup, *users, *users) == ([True] * 200 + [False] * 2) * 2
    assert presence.most_at_once == 1
    assert len(presence.asked) == 3


async def test_an_answer_in_pages(presence: Presence, lookup: OnlineLookup) -> None:
    users = [f"on-{number:03}" for number in range(35)]
    assert await asked(lookup, *users, "off-1") == [True] * 35 + [False]


@pytest.mark.parametrize("fault", [Unavailable("away"), LookupError("broken")])
async def test_online_is_absent_if_presence_does_not_answer(
    presence: Presence, lookup: OnlineLookup, fault: Exception
) -> None:
    presence.fault = fault
    assert await asked(lookup, "on-001", "off-1") == [UNSET, UNSET]
    presence.fault = None
    assert await asked(lookup, "on-001") == [True]


async def test_what_waits_is_bounded_in_number_and_time(
    presence: Presence, lookup: OnlineLookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.05)
    monkeypatch.setattr(module, "_MAX_WAITING", 10)

    async def never(*_: object, **__: object) -> PresencePage:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    monkeypatch.setattr(presence, "call", never)
    answers = asyncio.ensure_future(asked(lookup, *(f"on-{number:03}" for number in range(100))))
    await asyncio.sleep(0)
    assert len(lookup._waiting) <= 10
    assert await answers == [UNSET] * 100
