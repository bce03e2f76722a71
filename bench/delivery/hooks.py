"""What a `publish` hook adds to each message: `python -m bench delivery.hooks`.

Twenty clients of one gateway publish 2,000 messages a second together, each to an ephemeral room of its own, at fixed times
whether or not answers have come. Once without hooks, once with an application that answers after 5 ms. What counts is the
time from sending to the acknowledgement, and the gateway's processor time for one message.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from typing import Any, cast

import uvloop
from websockets.asyncio.client import ClientConnection

from bench.delivery.rig import CONTENT, client, keep_unpinned, running
from bench.single import quantile
from tests.support.cluster import ServiceProcess
from tests.support.deadline import wait_until
from tidings_cli.local.processes import free_port

_CLIENTS = 20
_RATE = 2000
_SECONDS = 15
_WARM_UP_S = 2.0
_APPLICATION_S = 0.005
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class _Application(asyncio.Protocol):
    """Answers each request of a connection after 5 ms: as cheap as possible, because it shares the machine."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._data += data
        head, complete, body = self._data.partition(b"\r\n\r\n")
        if complete and len(body) >= int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]):
            self._data = b""
            asyncio.get_running_loop().call_later(_APPLICATION_S, self._transport.write, _ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Application, "127.0.0.1", port)
    await server.serve_forever()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _cpu_s(gateway: ServiceProcess) -> float:
    with open(f"/proc/{gateway.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _load(connection: ClientConnection, room: str, took_ms: list[float]) -> None:
    await connection.send(json.dumps({"type": "join_room", "room": room}))
    sent: dict[str, float] = {}
    count = (_SECONDS * _RATE) // _CLIENTS

    async def send() -> None:
        begun = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(begun + number * _CLIENTS / _RATE - time.perf_counter())
            sent[str(number)] = time.perf_counter()
            message = {"type": "room_message", "room": room, "content": CONTENT, "id": str(number)}
            await connection.send(json.dumps(message))

    sending = asyncio.create_task(send())
    answered = 0
    while answered < count:
        answer = json.loads(await connection.recv())
        if answer.get("id") in sent:
            assert answer["type"] == "ack", answer
            answered += 1
            at = sent.pop(answer["id"])
            if int(answer["id"]) >= _WARM_UP_S * _RATE / _CLIENTS:
                took_ms.append(1000 * (time.perf_counter() - at))
    await sending


async def _measure(gateway: ServiceProcess) -> dict[str, float]:
    took_ms: list[float] = []

    async def one(number: int) -> None:
        async with client(gateway, f"user-{number}") as connection:
            await _load(connection, f"live:{number}", took_ms)

    before, begun = _cpu_s(gateway), time.perf_counter()
    await asyncio.gather(*map(one, range(_CLIENTS)))
    cpu_s, seconds = _cpu_s(gateway) - before, time.perf_counter() - begun
    return {
        "messages_per_second": round(_RATE * _SECONDS / seconds),
        "p50_ms": round(quantile(took_ms, 0.5), 2),
        "p99_ms": round(quantile(took_ms, 0.99), 2),
        "gateway_cpu_us_per_message": round(1e6 * cpu_s / (_RATE * _SECONDS)),
    }


def main() -> None:
    """Run both and print the figures."""
    with running() as cluster:
        without = uvloop.run(_measure(cluster.gateways[0]))
    port = free_port()
    application = subprocess.Popen([sys.executable, "-m", "bench.delivery.hooks", str(port)])
    try:
        wait_until(partial(_accepts, port), "the application to listen")
        settings: dict[str, Any] = {
            "hooks": "publish",
            "hooks_url": f"http://127.0.0.1:{port}/",
            "hooks_secrets": "secret",
        }
        with running(**settings) as cluster:
            hooked = uvloop.run(_measure(cluster.gateways[0]))
    finally:
        application.kill()
        application.wait()
    figures: dict[str, Any] = {
        "without": without,
        "with_hook": hooked,
        "added_p99_ms": round(hooked["p99_ms"] - without["p50_ms"], 2),
    }
    keep_unpinned("delivery_hooks", figures)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].isdigit():
        uvloop.run(_serve(int(sys.argv[1])))
    else:
        main()
