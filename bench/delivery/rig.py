"""Gateways, NATS and raw clients."""

import asyncio
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from bench.single import keep
from tests.support.cluster import Cluster, ServiceProcess
from tidings_cli.gateways import socket_url

CONTENT = "x" * 150  # about 250 bytes on the wire

_ids = itertools.count()

# No limits, so that a run does not measure them.
_UNLIMITED = {
    "message_rate": "0",
    "message_bytes_rate": "0",
    "presence_rate": "0",
    "max_rooms_per_connection": "0",
}


@contextmanager
def running(*, gateways: int = 1, with_services: bool = False, **settings: str) -> Iterator[Cluster]:
    """Start a deployment, and end it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(
            Path(folder), gateways=gateways, with_services=with_services, **{**_UNLIMITED, **settings}
        ) as cluster,
    ):
        yield cluster


@asynccontextmanager
async def client(gateway: ServiceProcess, username: str) -> AsyncIterator[ClientConnection]:
    """Connect; the connection is welcomed."""
    url = socket_url(gateway.url, {"username": username})
    async with connect(url, max_size=None, compression=None, proxy=None, open_timeout=30) as connection:
        await connection.recv()
        yield connection


async def ask(connection: ClientConnection, **request: Any) -> dict[str, Any]:
    """Send a request with an id; return its answer and skip other messages."""
    await connection.send(json.dumps({"id": "asked", **request}))
    while True:
        answer: dict[str, Any] = json.loads(await connection.recv())
        if answer.get("id") == request.get("id", "asked"):
            return answer


async def publish(connection: ClientConnection, rooms: list[str], rounds: int) -> None:
    """Store `rounds` messages in each room, one per room outstanding."""
    for _ in range(rounds):
        wanted = set()
        for room in rooms:
            id = str(next(_ids))  # an equal id would be no new message
            wanted.add(id)
            message = {"type": "room_message", "room": room, "content": CONTENT, "id": id}
            await connection.send(json.dumps(message))
        while wanted:
            answer = json.loads(await connection.recv())
            if "id" in answer:
                assert answer["type"] == "ack", answer
                wanted.discard(answer["id"])


async def gather_in_slices(jobs: list[Any], at_once: int = 50) -> None:
    """Await coroutines, some at a time, so that not all handshakes are at once."""
    for start in range(0, len(jobs), at_once):
        await asyncio.gather(*jobs[start : start + at_once])


def keep_unpinned(case: str, figures: dict[str, Any]) -> None:
    """Print and keep figures of a run in which gateways, NATS and clients shared all cores."""
    keep(case, figures, server_cores=None, load_cores=None)
