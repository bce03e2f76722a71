"""The table of scenarios against real gateways, a real NATS and a real Redis."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from rig.fleet import Fleet
from rig.real import Real
from rig.scenario import rows

from tidings_client import Backoff, TidingsClient
from tidings_client.transport.socket import Socket, SocketClosed, connect

KINDS = ("open", "tokens", "application")
ROWS = rows("real")
CASES = [
    # One deployment for all rows of a kind, in one worker where there are several.
    pytest.param(
        row,
        way,
        id=f"{row['name']} ({way})",
        marks=pytest.mark.xdist_group(f"python client, {kind}"),
    )
    for kind in KINDS
    for row in ROWS
    if row.get("server", "open") == kind
    for way in row.get("ways", ["json"])
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("row", "way"), CASES)
async def test_scenario(row: dict[str, Any], way: str, fleet_of: Callable[[str], Fleet]) -> None:
    await Real(fleet_of(row.get("server", "open")), way).run(row["steps"])


def test_every_row_is_carried_out() -> None:
    assert {row.get("server", "open") for row in ROWS} <= set(KINDS)


class Way:
    """What WebSockets go through: open or blocked. Once it is `cutting`, the next `ack` is lost, and all is blocked."""

    def __init__(self) -> None:
        self.is_open = True
        self.cutting = False

    async def connect(self, url: str, **given: Any) -> Socket:
        if not self.is_open:
            raise OSError("blocked")
        return Cut(self, await connect(url, **given))


class Cut:
    """One WebSocket on that way."""

    def __init__(self, way: Way, socket: Socket) -> None:
        self._way = way
        self._socket = socket
        self.send = socket.send
        self.close = socket.close

    async def recv(self) -> str | bytes:
        frame = await self._socket.recv()
        if self._way.cutting and '"type":"ack"' in str(frame):
            self._way.cutting = self._way.is_open = False
            raise SocketClosed
        return frame


@pytest.mark.timeout(120)
@pytest.mark.xdist_group("python client, open")
async def test_a_user_is_the_same_on_a_stream_and_back_on_a_websocket(
    fleet_of: Callable[[str], Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_client.connection.fallback._PAUSE_S", 1.0)
    url, way = fleet_of("open").url, Way()
    ada = TidingsClient(url, username="ada", connect=way.connect, backoff=Backoff(0.05, 0.2))
    grace = TidingsClient(url, username="grace")
    seen: dict[str, list[Any]] = {"ada": [], "grace": [], "gone": []}
    async with asyncio.timeout(60), ada, grace:
        mine, theirs = ada.room("python-one-user"), grace.room("python-one-user")
        for name, room in (("ada", mine), ("grace", theirs)):
            room.messages.listen(lambda message, name=name: seen[name].append(message.content))
            await room.join()
        user_id = ada.user_id
        with theirs.presence.follow():
            while user_id not in theirs.presence:
                await theirs.presence.changes.next()
            for leaves in (theirs.user_leaves, theirs.presence.leaves):
                leaves.listen(lambda user: seen["gone"].append(user.username))

            way.cutting = True
            await mine.publish("its answer is lost", id="one")
            assert (ada.status.transport, ada.user_id) == ("sse", user_id)
            await mine.publish("over http")
            await ada.set_status("busy")
            while theirs.presence[str(user_id)].status != "busy":
                await theirs.presence.changes.next()

            way.is_open = True
            while ada.status.transport != "websocket":
                await ada.statuses.next()
            await mine.publish("over a websocket again")
            while len(seen["grace"]) < 3:
                await theirs.messages.next()
            await asyncio.sleep(1.5)  # until the stream is gone as well
        past = await mine.history()
    said = ["its answer is lost", "over http", "over a websocket again"]
    assert [(message.content, message.user_id) for message in past.messages] == [
        (each, user_id) for each in said
    ]
    assert seen == {"ada": [], "grace": said, "gone": []}
    assert ada.user_id == user_id
