"""Thousands of clients whose gateway dies: `python -m bench delivery.crowd`.

Half of them are on each of two gateways, in 100 rooms, while messages are published. One gateway is killed, and its half
reconnects to the other one; it is restarted, the other is killed, and all reconnect. Each client reconnects with full
jitter, and after a rejection (the accept rate) not before its Retry-After. At the end every client must have every
acknowledged message of its room, once and in order.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import msgspec
from websockets.exceptions import WebSocketException

from bench.delivery.rig import ask, client, keep_unpinned, running
from tests.support.cluster import Cluster, aside

_ROOMS = 100
_PUBLISH_EVERY_S = 0.05
_ACCEPT_RATE = 500
_RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)


class _Said(msgspec.Struct):
    """The fields of a message that a client reads."""

    type: str
    seq: int = 0
    epoch: str = ""
    recovered: bool | None = None
    missed: list["_Said"] = []


_decode = msgspec.json.Decoder(_Said).decode


class CrowdClient:
    """One client over all its connections."""

    def __init__(self, crowd: "Crowd", room: str, index: int) -> None:
        self.crowd = crowd
        self.room = room
        self.index = index
        self.epoch = ""
        self.position = 0
        self.joined_at = 0
        self.received: list[int] = []
        self.inside = False
        self.attempts = 0

    async def connect(self) -> None:
        """Connect, or retry later."""
        loop = asyncio.get_running_loop()
        port = self.crowd.ports[self.index % len(self.crowd.ports)]
        try:
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
        except OSError:
            self.reconnect(0.0)

    def reconnect(self, retry_after_s: float) -> None:
        """Reconnect with full jitter, not before the gateway's Retry-After."""
        if self.inside:
            self.inside = False
            self.crowd.inside -= 1
        self.index += 1
        delay_s = retry_after_s + random.uniform(0, min(5.0, 0.2 * 2**self.attempts))  # jitter
        self.attempts += 1
        if not self.crowd.over:
            asyncio.get_running_loop().call_later(delay_s, self.crowd.spawn, self.connect)

    def on_message(self, said: _Said) -> None:
        """Handle one message."""
        if said.type == "room_message":
            self.received.append(said.seq)
            self.position = said.seq
        elif said.type == "joined_room":
            if said.recovered is None:
                self.joined_at = said.seq
            elif said.recovered:
                self.received += [missed.seq for missed in said.missed]
            else:
                self.crowd.counts["not recovered"] += 1
            self.epoch, self.position = said.epoch, said.seq
            self.inside, self.attempts = True, 0
            self.crowd.inside += 1

    def join_frame(self) -> bytes:
        """Return its join request, with its position."""
        request: dict[str, Any] = {"type": "join_room", "room": self.room}
        if self.epoch:
            request["since"] = {"epoch": self.epoch, "seq": self.position}
        return _masked(0x81, msgspec.json.encode(request))


class _Connection(asyncio.Protocol):
    """One connection of a client: the minimum of WebSocket."""

    def __init__(self, client: CrowdClient) -> None:
        self._client = client
        self._rest = b""
        self._upgraded = False
        self._retry_after_s = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            "GET /ws HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self._upgraded and not self._upgrade():
            return
        while (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == 1:
                self._client.on_message(_decode(payload))
            elif opcode == 9:
                self._transport.write(_masked(0x8A, payload))
            elif opcode == 8:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        self._client.reconnect(self._retry_after_s)

    def _upgrade(self) -> bool:
        head, end, rest = self._rest.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            self._client.crowd.counts[head[9:12].decode()] += 1
            found = _RETRY_AFTER.search(head)
            self._retry_after_s = float(found[1]) if found else 0.0
            self._transport.close()
            return False
        self._upgraded, self._rest = True, rest
        self._transport.write(self._client.join_frame())
        return True

    def _frame(self) -> tuple[int, bytes] | None:
        """Remove and return one received frame (RFC 6455, section 5.2; servers do not mask)."""
        rest = self._rest
        if len(rest) < 2:
            return None
        size, at = rest[1], 2
        if size == 126:
            size, at = int.from_bytes(rest[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(rest[2:10], "big"), 10
        if len(rest) < at + size:
            return None
        self._rest = rest[at + size :]
        return rest[0] & 0x0F, rest[at : at + size]


def _masked(first: int, payload: bytes) -> bytes:
    """Return a short frame; a mask of zeros is a mask."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


class Crowd:
    """All clients, and the number in their rooms."""

    def __init__(self, size: int, ports: list[int]) -> None:
        self.ports = ports
        self.inside = 0
        self.over = False
        self.counts: Counter[str] = Counter()
        self.clients = [CrowdClient(self, f"room-{n % _ROOMS}", n // _ROOMS) for n in range(size)]
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Callable[[], Any]) -> None:
        """Start a task, and keep it until it is done."""
        task = asyncio.ensure_future(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def all_joined(self, timeout_s: float = 180.0) -> float:
        """Wait until all clients are in their rooms; return the seconds."""
        begun = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while self.inside < len(self.clients):  # noqa: ASYNC110  # the clients join independently
                await asyncio.sleep(0.05)
        return time.monotonic() - begun


async def _publish(urls_of: Cluster, stored: dict[str, list[int]], over: asyncio.Event) -> None:
    """Publish to the rooms in turn through any running gateway, each message until it is acknowledged."""
    number, index = 0, 0
    while not over.is_set():
        try:
            async with client(urls_of.gateways[index % 2], "publisher") as connection:
                for room in {f"room-{n}" for n in range(_ROOMS)}:
                    await ask(connection, type="join_room", room=room)
                while not over.is_set():
                    room = f"room-{number % _ROOMS}"
                    answer = await ask(
                        connection, type="room_message", room=room, content=number, id=str(number)
                    )
                    if answer["type"] == "ack":
                        stored[room].append(answer["seq"])
                        number += 1
                    await asyncio.sleep(_PUBLISH_EVERY_S)
        except (OSError, WebSocketException):  # the next gateway is tried
            # An unacknowledged message is not repeated, because it could arrive twice, and is not counted.
            number, index = number + 1, index + 1
            await asyncio.sleep(0.2)


async def _fall_and_return(cluster: Cluster, crowd: Crowd, dying: int) -> dict[str, float]:
    refused = crowd.counts["503"]
    await aside(cluster.gateways[dying].kill)
    await asyncio.sleep(0.5)  # until the clients have noticed the loss
    away = len(crowd.clients) - crowd.inside
    took_s = await crowd.all_joined()
    return {
        "returned": away,
        "seconds_until_all_are_back": round(took_s + 0.5, 1),
        "turned_away_meanwhile": crowd.counts["503"] - refused,
    }


async def _measure(cluster: Cluster, size: int) -> dict[str, Any]:
    crowd = Crowd(size, [gateway.port for gateway in cluster.gateways])
    for one in crowd.clients:
        crowd.spawn(one.connect)
    came_s = await crowd.all_joined()
    stored: dict[str, list[int]] = {f"room-{n}": [] for n in range(_ROOMS)}
    over = asyncio.Event()
    publishing = asyncio.create_task(_publish(cluster, stored, over))
    await asyncio.sleep(3)
    falls = [await _fall_and_return(cluster, crowd, 0)]
    await aside(cluster.gateways[0].start)
    falls.append(await _fall_and_return(cluster, crowd, 1))
    await asyncio.sleep(3)
    over.set()
    await publishing
    await asyncio.sleep(2)  # for the last messages to arrive
    crowd.over = True
    lost = sum(
        len({seq for seq in stored[one.room] if seq > one.joined_at}.difference(one.received))
        for one in crowd.clients
    )
    doubled = sum(len(one.received) - len(set(one.received)) for one in crowd.clients)
    disordered = sum(one.received != sorted(one.received) for one in crowd.clients)
    return {
        "clients": size,
        "rooms": _ROOMS,
        "accept_rate_per_gateway": _ACCEPT_RATE,
        "seconds_until_all_were_in": round(came_s, 1),
        "falls": falls,
        "acknowledged": sum(map(len, stored.values())),
        "received": sum(len(one.received) for one in crowd.clients),
        "lost": lost,
        "duplicates": doubled,
        "clients_out_of_order": disordered,
        "told_not_recovered": crowd.counts["not recovered"],
    }


def main() -> None:
    """Measure, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    options = parser.parse_args()
    with running(gateways=2, with_services=True, accept_rate=json.dumps(_ACCEPT_RATE)) as cluster:
        figures = asyncio.run(_measure(cluster, options.clients))
    keep_unpinned("delivery_crowd", figures)


if __name__ == "__main__":
    main()
