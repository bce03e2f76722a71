"""Requests over HTTP, the tokens they show, the loop a client belongs to, and what it logs."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from rig.clock import settle
from rig.scenario import Faked
from rig.streams import refused

from tidings_client import Blocked, CredentialRequest, TidingsClient, TidingsError


class Doorkeeper:
    """A server that takes one token at a time, and an application that gives them one after another."""

    def __init__(self) -> None:
        self.valid = "token 1"
        self.asked: list[bool] = []
        self.held: asyncio.Event | None = None
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.client = TidingsClient("http://server", token=self.give, http=self.http)

    async def give(self, request: CredentialRequest) -> str:
        self.asked.append(request.refresh)
        token = f"token {len(self.asked)}"
        await (asyncio.sleep(0) if self.held is None else self.held.wait())
        return token

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        let_in = request.headers["Authorization"] == f"Bearer {self.valid}"
        return httpx.Response(200, json=[]) if let_in else refused("unauthorized", 401)

    async def ask_five_times(self) -> None:
        await asyncio.gather(*(self.client.request("GET /api/alerts") for _ in range(5)))


async def test_a_token_is_asked_for_once_however_many_wait() -> None:
    doorkeeper = Doorkeeper()
    await doorkeeper.ask_five_times()
    assert doorkeeper.asked == [False]
    doorkeeper.valid = "token 2"
    await doorkeeper.ask_five_times()
    assert doorkeeper.asked == [False, True]


async def test_a_token_that_came_since_is_not_thrown_away_by_a_late_refusal() -> None:
    asked: list[bool] = []
    late = asyncio.Event()

    def give(request: CredentialRequest) -> str:
        asked.append(request.refresh)
        return f"token {len(asked)}"

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["Authorization"] == "Bearer token 2":
            return httpx.Response(200, json=[])
        if request.url.path == "/api/rooms":
            await late.wait()
        return refused("unauthorized", 401)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    client = TidingsClient("http://server", token=give, http=http)
    slow = asyncio.create_task(client.request("GET /api/rooms"))
    await settle()
    await client.request("GET /api/alerts")
    late.set()
    await slow
    assert asked == [False, True]
    await http.aclose()


async def test_a_token_request_is_cancelled_when_no_caller_waits() -> None:
    doorkeeper = Doorkeeper()
    doorkeeper.held = asyncio.Event()
    first, second = (asyncio.create_task(doorkeeper.client.request("GET /api/alerts")) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert doorkeeper.asked == [False]
    second.cancel()
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    doorkeeper.held = None
    doorkeeper.valid = "token 2"
    assert await doorkeeper.client.request("GET /api/alerts") == []
    assert doorkeeper.asked == [False, False]


async def test_a_request_names_the_missing_part_of_its_path() -> None:
    client = TidingsClient("http://server")
    for path in ({}, {"room": ""}, {"name": "lobby"}):
        with pytest.raises(ValueError, match=r"GET /api/rooms/\{room\}/history needs 'room' in `path`"):
            await client.request("GET /api/rooms/{room}/history", path=path)
    with pytest.raises(ValueError, match="no such operation"):
        await client.request("GET /api/nothing")  # type: ignore[call-overload]


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 407])
async def test_an_answer_that_is_not_the_servers_is_blocked(status: int) -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(status, text="<h1>Sign in to this network</h1>"))
    async with httpx.AsyncClient(transport=page) as http:
        with pytest.raises(Blocked, match=f"something on the way answered {status}") as refusal:
            await TidingsClient("http://server", http=http).request("GET /api/alerts")
    assert (refusal.value.code, refusal.value.retryable) == ("blocked", True)


def _elsewhere(use: Callable[[], Any]) -> Any:
    """Run something in another thread, in an event loop of its own if it needs one; return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            made = use()
            if asyncio.iscoroutine(made):
                asyncio.run(made)
        except RuntimeError as fault:
            raised.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return raised


async def test_use_from_another_thread_names_the_clients_thread() -> None:
    faked = Faked({})
    async with faked.client as client:
        room = client.room("lobby")
        await room.join()
        following = client.metrics.follow()
        for use in (
            client.connect,
            client.close,
            client.wake,
            room.join,
            room.leave,
            room.stream,
            lambda: room.publish(1),
            lambda: client.send_direct("u", 1),
            lambda: client.request("GET /api/alerts"),
            client.alerts.follow,
            following.stop,
        ):
            (raised,) = await asyncio.to_thread(_elsewhere, use)
            assert "belongs to another event loop" in str(raised), use
        assert (client.is_up, room.state) == (True, "joined")
        assert (await room.publish(1)).seq == 1


def test_a_client_that_was_closed_may_be_used_in_another_loop() -> None:
    faked = Faked({})

    async def use() -> None:
        async with faked.client as client:
            assert (await client.send_direct("u", 1)).id is not None

    asyncio.run(use())
    asyncio.run(use())


async def test_errors_without_a_listener_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tidings_client")
    faked = Faked({})
    client = TidingsClient("http://me:secret@server:81", connect=faked.server.connect, clock=faked.clock)
    opening = asyncio.create_task(client.connect())
    await faked.clock.pass_()
    await opening
    faked.server.refuses_channels = ["logs"]
    client.logs.follow()
    await faked.clock.pass_()
    faked.server.last.disconnect(4502, reconnect=False)
    await faked.clock.pass_()
    await client.close()
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert ("INFO", "server:81: connected over websocket") in said
    assert ("WARNING", "server:81: channel logs: no (unknown_channel)") in said
    assert ("WARNING", "server:81: failed: reason 4502") in said
    assert "secret" not in caplog.text
    caplog.clear()
    faults: list[TidingsError] = []
    faked.client.errors.listen(faults.append)
    async with faked.client:
        faked.client.logs.follow()
        await faked.clock.pass_()
    assert [str(fault) for fault in faults] == ["channel logs: no"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
