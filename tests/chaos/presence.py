"""Observers of presence during faults: a follower that records changes, and users in a room."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from tests.support.clients import Client, client
from tests.support.cluster import ServiceProcess, aside

# With the default settings, a renewal every 3 s included.
LEASE_S, GRACE_S, HEAL_S = 9.0, 5.0, 5.0
# Longer than a lease and the grace together.
OUTAGE_S = 16.0
# What a loaded machine adds: a poll of ours, a sweep that waits for its turn.
SLACK_S = 1.5


class Watcher:
    """A follower of all users' presence; records enters and leaves with their times."""

    def __init__(self, follower: Client, online: dict[str, Any]) -> None:
        self.follower = follower
        self.online = online
        self.went: dict[str, float] = {}
        self.came: dict[str, float] = {}
        self.times_told = Counter[tuple[str, str]]()
        self.errors: list[str] = []

    async def watch(self) -> None:
        while True:
            message = await self.follower.receive(3600)
            match message["type"]:
                case "user_online":
                    self.times_told["online", message["user"]["userId"]] += 1
                    self.came[message["user"]["userId"]] = time.monotonic()
                    self.online[message["user"]["userId"]] = message["user"]
                case "user_offline":
                    self.times_told["offline", message["userId"]] += 1
                    self.went[message["userId"]] = time.monotonic()
                    self.online.pop(message["userId"], None)
                case "error":
                    self.errors.append(message["code"])


@asynccontextmanager
async def watching(gateway: ServiceProcess) -> AsyncIterator[Watcher]:
    async with client(gateway, "username=Watcher&channels=presence") as follower:
        listed = await follower.expect("presence_list")
        watcher = Watcher(follower, {one["userId"]: one for one in listed["users"]})
        task = asyncio.ensure_future(watcher.watch())
        try:
            yield watcher
        finally:
            task.cancel()
            await asyncio.wait([task])


async def get(gateway: ServiceProcess, path: str) -> tuple[int, Any]:
    status, body = await aside(lambda: gateway.get(path, 5.0))
    return status, msgspec.json.decode(body) if body else None


async def online_at(gateway: ServiceProcess) -> set[str]:
    status, users = await get(gateway, "/api/presence")
    return {user["userId"] for user in users} if status == 200 else set()


async def are_online(gateway: ServiceProcess, users: set[str]) -> bool:
    return users <= await online_at(gateway)


async def are_members(gateway: ServiceProcess, room: str, users: set[str]) -> bool:
    status, found = await get(gateway, f"/api/presence?room={room}")
    return status == 200 and users <= {user["userId"] for user in found}


async def are_counted(gateway: ServiceProcess, connections: int) -> bool:
    status, stats = await get(gateway, "/api/presence/stats")
    return status == 200 and stats["connections"] == connections


@asynccontextmanager
async def users_on(gateway: ServiceProcess, room: str, *names: str) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(client(gateway, f"username={name}")) for name in names]
        for one in made:
            await one.join(room)
        yield made
