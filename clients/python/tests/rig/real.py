"""Carries out the rows of tests/fixtures/scenarios/real.json; the README beside it describes the steps."""

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from rig.fleet import Fleet
from rig.scenario import error_of, is_part
from tidings_client import Backoff, CredentialRequest, RoomMessage, TidingsClient, TidingsError

SECRET = "0123456789abcdef0123456789abcdef"
WAYS: dict[str, dict[str, Any]] = {
    "json": {"transports": ["websocket"]},
    "msgpack": {"codec": "msgpack", "transports": ["websocket"]},
    "sse": {"transports": ["sse"]},
}
_WAIT_S = 40.0
ALL = {"join": ["*"], "publish": ["*"], "admin": True}
LIMITED: dict[str, Any] = {"join": ["python-*"], "publish": ["python-*"], "channels": []}
_rooms = itertools.count()


class Actor:
    """One client of a row, and what it saw."""

    def __init__(self, url: str, name: str, room: str, options: dict[str, Any], way: str) -> None:
        self._name = name
        self.asked: list[bool] = []
        given: dict[str, Any] = {"username": name, "backoff": Backoff(0.2, 1.0), "connect_timeout": 2.0}
        if "tokens" in options:
            grants = LIMITED if options.get("limited") else ALL
            given["token"] = _token_giver(name, options["tokens"], self.asked, tidings=grants)
        self.client = TidingsClient(url, **given, **WAYS[way if options.get("way") else "json"])
        self.room = self.client.room(options.get("prefix", "") + room)
        self.seen: list[Any] = []
        self.inbox: list[Any] = []
        self.states: list[str] = []
        self.arrivals: dict[str, Any] = {}
        self.removals: list[str] = []
        self.asked_for_room: list[bool] = []
        self.user_id: str | None = None
        self.gateway: str | None = None
        for into, of in ((self.seen, self.room), (self.inbox, self.client.inbox)):
            of.messages.listen(lambda message, into=into: into.append(message.content))
            of.gaps.listen(lambda _, into=into: into.append("gap"))
        self.room.removals.listen(lambda removal: self.removals.append(removal.reason))
        self.room.user_joins.listen(lambda user: self.arrivals.update({user.username: user.member_data}))
        self.client.statuses.listen(lambda status: self.states.append(status.state))

    def room_tokens(self, seconds: list[int]) -> Callable[[CredentialRequest], str]:
        """Return a function that gives tokens for the room, valid for these times in turn."""
        return _token_giver(self._name, seconds, self.asked_for_room, room=self.room.name, publish=True)

    @property
    def membership(self) -> dict[str, str]:
        """Its room and user, as in the paths of the server's API."""
        return {"room": self.room.name, "userId": self.user_id or ""}

    async def connect(self) -> None:
        await self.client.connect()
        assert self.client.welcome is not None
        self.user_id, self.gateway = self.client.user_id, self.client.welcome.gateway


class Real:
    """One row."""

    def __init__(self, fleet: Fleet, way: str) -> None:
        self._fleet = fleet
        self._way = way
        self._room = f"python-{os.getpid()}-{next(_rooms)}"
        self._actors: dict[str, Actor] = {}
        self._results: dict[str, asyncio.Task[Any]] = {}
        self._paused: list[str] = []

    async def run(self, steps: list[list[Any]]) -> None:
        """Carry out the steps; raises AssertionError where one is not as it should be."""
        try:
            for number, (verb, *given) in enumerate(steps, 1):
                act: Callable[..., Any] | None = getattr(self, f"do_{verb.replace('-', '_')}", None)
                assert act is not None, f"step {number}: this runner does not know {verb!r}"
                try:
                    await act(*given)
                except (AssertionError, TidingsError) as wrong:
                    raise AssertionError(f"step {number}, {[verb, *given]}: {wrong}") from wrong
        finally:
            for process in list(self._paused):
                await self.do_resume(process)
            for task in self._results.values():
                task.cancel()
            await asyncio.gather(*self._results.values(), return_exceptions=True)
            await asyncio.gather(*(actor.client.close() for actor in self._actors.values()))

    async def do_connect(self, name: str, options: dict[str, Any]) -> None:
        self._actors[name] = Actor(self._fleet.url, name, self._room, options, self._way)
        await self._actors[name].connect()

    async def do_fail(self, name: str, options: dict[str, Any]) -> None:
        with pytest.raises(TidingsError):
            await self.do_connect(name, options)

    async def do_join(self, name: str, options: Any = None) -> None:
        given = dict(options or {})
        if "tokens" in given:
            given["token"] = self._actors[name].room_tokens(given.pop("tokens"))
        joining = self._results[f"join {name}"] = asyncio.create_task(self._actors[name].room.join(**given))
        await asyncio.shield(joining)

    async def do_refused(self, name: str, room: str, expected: Any = None) -> None:
        with pytest.raises(TidingsError) as refusal:
            async with asyncio.timeout(_WAIT_S):
                await self._actors[name].client.room(room).join()
        assert is_part(expected or {"code": "forbidden"}, error_of(refusal.value)), refusal.value

    async def do_admit(self, name: str, by: str) -> None:
        path = self._actors[name].membership
        await self._actors[by].client.request("PUT /api/rooms/{room}/users/{userId}", path=path)

    async def do_remove(self, name: str, by: str) -> None:
        path = self._actors[name].membership
        await self._actors[by].client.request("DELETE /api/rooms/{room}/users/{userId}", path=path)

    async def do_call(self, result: str, name: str, method: str, data: Any) -> None:
        async def call() -> list[Any]:
            return [await self._actors[name].client.call(method, data)]

        self._results[result] = asyncio.create_task(call())

    async def do_follow(self, name: str) -> None:
        self._actors[name].room.presence.follow()
        self._actors[name].client.metrics.follow()

    async def do_wake(self, name: str) -> None:
        self._actors[name].client.wake()

    async def do_publish(self, name: str, content: Any, options: Any = None) -> None:
        await self._actors[name].room.publish(content, **(options or {}))

    async def do_direct(self, name: str, to: str, content: Any) -> None:
        user_id = self._actors[to].user_id
        assert user_id is not None
        await self._actors[name].client.send_direct(user_id, content)

    async def do_begin(self, result: str, name: str, content: Any) -> None:
        self._results[result] = asyncio.create_task(self._actors[name].room.publish(content))

    async def do_publish_all(self, name: str, count: int, orders: dict[str, list[Any]]) -> None:
        answers = []
        for number in range(count):
            if str(number) in orders:
                verb, *given = orders[str(number)]
                await getattr(self, f"do_{verb}")(*given)
            answers.append(asyncio.create_task(self._actors[name].room.publish(number)))
            await asyncio.sleep(0.02)
        async with asyncio.timeout(_WAIT_S):
            await asyncio.gather(*answers)

    async def do_wait(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)

    async def do_kill(self, process: str) -> None:
        await self._order("kill", process)

    async def do_stop(self, process: str) -> None:
        await self._order("stop", process)

    async def do_pause(self, process: str) -> None:
        self._paused.append(await self._order("pause", process))

    async def do_resume(self, process: str) -> None:
        self._paused.remove(await self._order("resume", process))

    async def do_disconnect(self, name: str, by: str) -> None:
        user_id = self._actors[name].user_id
        assert user_id is not None
        operation = "DELETE /api/users/{id}/connections"
        await self._actors[by].client.request(operation, path={"id": user_id}, query={"reason": "bye"})

    async def do_stays(self, ms: int, name: str, state: str) -> None:
        actor = self._actors[name]
        actor.states.clear()
        await asyncio.sleep(ms / 1000)
        assert (actor.client.status.state, actor.states) == (state, [])

    async def do_until(self, name: str, expected: dict[str, Any]) -> None:
        deadline = time.monotonic() + _WAIT_S
        while wrong := await self._wrong(name, expected):
            assert time.monotonic() < deadline, f"still not so after {_WAIT_S:.0f} s: {wrong}"
            await asyncio.sleep(0.02)

    async def do_expect(self, name: str, expected: dict[str, Any]) -> None:
        wrong = await self._wrong(name, expected)
        assert not wrong, wrong

    async def _order(self, order: str, process: str) -> str:
        if process.startswith("gateway of "):
            welcome = self._actors[process.removeprefix("gateway of ")].client.welcome
            assert welcome is not None
            process = welcome.gateway
        await asyncio.to_thread(self._fleet.order, order, process)
        return process

    async def _wrong(self, name: str, expected: dict[str, Any]) -> str | None:
        """Return what is not as expected."""
        for what, value in expected.items():
            look = getattr(self, f"_see_{what}", None)
            assert look is not None, f"this runner does not know what {what!r} is"
            found = look(self._actors[name], value)
            if asyncio.iscoroutine(found):
                found = await found
            if found != value:
                return f"{what} is {found!r}"
        return None

    def _see_state(self, actor: Actor, _: Any) -> Any:
        return actor.client.status.state

    def _see_code(self, actor: Actor, _: Any) -> Any:
        return actor.client.status.code

    def _see_error(self, actor: Actor, _: Any) -> Any:
        fault = actor.client.status.error
        return fault and fault.code

    def _see_asked(self, actor: Actor, _: Any) -> Any:
        return actor.asked

    def _see_seen(self, actor: Actor, expected: Any) -> Any:
        if isinstance(expected, str):
            count = int(expected.split()[1].rstrip(","))
            seen = sorted(actor.seen) if expected.endswith("in any order") else actor.seen
            return expected if seen == list(range(count)) else actor.seen
        return actor.seen

    def _see_seenCount(self, actor: Actor, _: Any) -> Any:  # noqa: N802 - the names of the table
        return len(actor.seen)

    def _see_seenFirst(self, actor: Actor, _: Any) -> Any:  # noqa: N802
        return actor.seen[0] if actor.seen else None

    def _see_inbox(self, actor: Actor, _: Any) -> Any:
        return actor.inbox

    def _see_people(self, actor: Actor, expected: Any) -> Any:
        found = sorted({user.username for user in actor.room.presence.values()})
        return expected if is_part(sorted(expected), found) else found

    def _see_metrics(self, actor: Actor, _: Any) -> Any:
        return actor.client.metrics.latest is not None

    async def _see_stored(self, actor: Actor, _: Any) -> Any:
        return len((await actor.room.history()).messages)

    def _see_results(self, _: Actor, expected: Any) -> Any:
        return {name: "open" if not self._results[name].done() else self._outcome(name) for name in expected}

    def _outcome(self, name: str) -> Any:
        fault = self._results[name].exception()
        if isinstance(fault, TidingsError):
            return fault.code
        ok = self._results[name].result()
        if not isinstance(ok, list):
            return "ok"
        return [each.content if isinstance(each, RoomMessage) else each for each in ok]

    def _see_memberData(self, actor: Actor, expected: Any) -> Any:  # noqa: N802
        found = {user.username: user.member_data for user in actor.room.presence.values()}
        return expected if is_part(expected, found) else found

    def _see_arrivals(self, actor: Actor, expected: Any) -> Any:
        return expected if is_part(expected, actor.arrivals) else actor.arrivals

    def _see_room(self, actor: Actor, _: Any) -> Any:
        return actor.room.state

    def _see_removals(self, actor: Actor, _: Any) -> Any:
        return actor.removals

    def _see_askedForRoom(self, actor: Actor, _: Any) -> Any:  # noqa: N802
        return actor.asked_for_room

    def _see_sameUser(self, actor: Actor, _: Any) -> Any:  # noqa: N802
        return actor.client.user_id == actor.user_id

    def _see_gateway(self, actor: Actor, _: Any) -> Any:
        welcome = actor.client.welcome
        return "another" if welcome and welcome.gateway != actor.gateway else "the same"


def _token_giver(
    name: str, seconds: list[int], asked: list[bool], **more: Any
) -> Callable[[CredentialRequest], str]:
    def give(request: CredentialRequest) -> str:
        valid = seconds[min(len(asked), len(seconds) - 1)]
        asked.append(request.refresh)
        claims = {"sub": name, "exp": int(time.time()) + valid, "aud": "tidings"}
        return jwt.encode({**claims, **more}, SECRET, algorithm="HS256")

    return give
