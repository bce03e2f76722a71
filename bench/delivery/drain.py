"""Time for a gateway with clients to stop: `python -m bench delivery.drain`.

1,000 WebSocket clients, each in a room, 50 streams, and clients that read nothing; from SIGTERM to the process's end.
"""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from bench.delivery.rig import ask, client, gather_in_slices, keep_unpinned, running
from tests.support.cluster import ServiceProcess
from tests.support.stalled import StalledClient

_SOCKETS = 1000
_STREAMS = 50
_STALLED = 5
_ROOMS = 50


async def _stream(gateway: ServiceProcess, opened: asyncio.Event) -> bytes:
    """Follow `/events` until it ends; return its last bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /events?rooms=room-1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    await reader.readuntil(b"joined_room")
    opened.set()
    rest = await reader.read()
    writer.close()
    return rest


async def _measure(gateway: ServiceProcess) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        sockets = []

        async def connect(number: int) -> None:
            connection = await stack.enter_async_context(client(gateway, f"client-{number}"))
            await ask(connection, type="join_room", room=f"room-{number % _ROOMS}")
            sockets.append(connection)

        await gather_in_slices([connect(number) for number in range(_SOCKETS)])
        opened = [asyncio.Event() for _ in range(_STREAMS)]
        streams = [asyncio.create_task(_stream(gateway, event)) for event in opened]
        await asyncio.gather(*(event.wait() for event in opened))

        def clients_gone() -> float:
            return time.monotonic() - begun

        with ExitStack() as stalled:
            for number in range(_STALLED):
                stalled.enter_context(StalledClient(gateway.port, [f"room-{number}"]))
            begun = time.monotonic()
            gateway.terminate()
            ends = await asyncio.gather(*streams)
            await asyncio.gather(*(connection.wait_closed() for connection in sockets))
            clients_s = clients_gone()
            code = await asyncio.to_thread(gateway.wait, 30)
            took_s = time.monotonic() - begun
        return {
            "target": "1,000 WebSocket and 50 SSE clients in < 10 s, exit code 0",
            "sockets": _SOCKETS,
            "streams": _STREAMS,
            "clients_that_read_nothing": _STALLED,
            "exit_code": code,
            "seconds_until_clients_gone": round(clients_s, 2),
            "seconds_until_exit": round(took_s, 2),
            "close_codes": dict(Counter(str(connection.close_code) for connection in sockets)),
            "streams_told_and_ended": sum(
                b"event: disconnect" in end and end.endswith(b"0\r\n\r\n") for end in ends
            ),
        }


def main() -> None:
    """Measure, and keep the figures."""
    with running() as cluster:
        figures = asyncio.run(_measure(cluster.gateways[0]))
    keep_unpinned("delivery_drain", figures)


if __name__ == "__main__":
    main()
