"""The walk of a room message: which functions of ours it passes, followed at run time (`docs/architecture.md`)."""

import asyncio
import contextlib
import json
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

import pytest
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import ClientConnection, connect

from gateway import __main__ as process
from services import health
from services.lifecycle import Lifecycle, run_main
from services.settings import Settings
from tests.support.deadline import PATIENCE_S, eventually
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer

ROOT = Path(__file__).resolve().parents[3]
OURS = tuple(f"{ROOT / package}/" for package in ("gateway", "services"))

MOST_IN = 18
MOST_OUT = 10

# Where the loop enters our code on behalf of a message.
IN, SENT, RECEIVED, WRITTEN = (
    "WebSocketProtocol.data_received",
    "LeanClient._flush_soon",
    "LeanClient._process_msg",
    "Fanout.flush",
)


class Walks:
    """What the loop entered, in order: each time, the functions of ours that were called, once each."""

    def __init__(self) -> None:
        self.entered: list[list[str]] = []
        self._depth = 0

    def __call__(self, frame: FrameType, event: str, _arg: object) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(OURS) or code.co_name[0] == "<":
            return
        if event == "return":
            self._depth = max(0, self._depth - 1)
        elif self._depth or code.co_qualname in (IN, SENT, RECEIVED, WRITTEN):
            if not self._depth:
                self.entered.append([])
            self._depth += 1
            if (place := place_of(code)) not in self.entered[-1]:
                self.entered[-1].append(place)

    def first(self, entrance: str, through: str = "", after: int = 0) -> int:
        """Return the index of the first time that the loop entered there, and came through a function."""
        return next(
            index
            for index, walk in enumerate(self.entered)
            if index >= after
            and walk[0].endswith(entrance)
            and any(place.endswith(through) for place in walk)
        )


def place_of(code: CodeType) -> str:
    """Return a function as the docs write it."""
    return f"{Path(code.co_filename).relative_to(ROOT)} {code.co_qualname}"


@contextlib.contextmanager
def followed() -> Iterator[Walks]:
    """Follow all calls of this thread."""
    walks = Walks()
    sys.setprofile(walks)
    try:
        yield walks
    finally:
        sys.setprofile(None)


async def told(client: ClientConnection, kind: str) -> None:
    """Wait for a message of a type."""
    async with asyncio.timeout(PATIENCE_S):
        while json.loads(await client.recv())["type"] != kind:
            pass


async def joined(port: int, name: str) -> ClientConnection:
    """Connect and join the room."""
    url = f"ws://127.0.0.1:{port}/ws?username={name}"
    client = await connect(url, compression=None)
    await client.send('{"type":"join_room","room":"lobby"}')
    await told(client, "joined_room")
    return client


async def test_the_walk_of_a_room_message(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (process, health):  # a test process may have registered them already
        monkeypatch.setattr(module, "REGISTRY", CollectorRegistry())
    settings = Settings(
        nats_url=nats_server.url, prefix=f"walk-{secrets.token_hex(4)}", port=free_port(), drain_s=0
    )
    server = asyncio.ensure_future(run_main(process.main, settings, Lifecycle(10)))
    try:
        clients: list[ClientConnection] = []

        async def can_join() -> bool:
            with contextlib.suppress(OSError):
                clients.append(await joined(settings.port, "ann"))
            return bool(clients)

        await eventually(can_join, "the gateway serves")
        ann, bob = clients[0], await joined(settings.port, "bob")
        for id in ("first", "second"):  # what is remembered from the first message on is part of no walk
            with followed() as walks:
                await ann.send(
                    f'{{"type":"room_message","room":"lobby","content":"hi","echo":true,"id":"{id}"}}'
                )
                await told(bob, "room_message")
            await told(ann, "ack")
        at_in = walks.first(IN, "Connection.on_message")
        at_out = walks.first(RECEIVED, "StreamSubscription.__call__")
        sent = walks.first(SENT, after=at_in)
        written = walks.first(WRITTEN, "FrameWriter._write_direct", at_out)
        way_in = [*walks.entered[at_in], *walks.entered[sent]]
        way_out = [*walks.entered[at_out], *walks.entered[written]]
        for client in (ann, bob):
            await client.close()
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
    with capsys.disabled():
        sys.stdout.write("\n  ".join(("\nin:", *way_in, "out:", *way_out)) + "\n")
    assert len(way_in) <= MOST_IN
    assert len(way_out) <= MOST_OUT
    page = (ROOT / "docs/architecture.md").read_text()
    section = page.partition("## The walk of a room message\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\d+\. `(\S+)` `(\S+)`", section, re.M) == [
        tuple(place.split()) for place in (*way_in, *way_out)
    ]
