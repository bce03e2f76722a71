"""Time for a client to recover 100 missed messages: `python -m bench delivery.resume`.

One connection resumes a room again and again: `join_room` with `since`, until the answer with its 100 messages has been
read and decoded. Warm: another member is in the room, as nearly always. Cold: the gateway has no member there, so it first
reads the room's position. New: a new connection each time, from the TCP handshake on.
"""

import asyncio
import time
from typing import Any

from websockets.asyncio.client import ClientConnection

from bench.delivery.rig import ask, client, keep_unpinned, publish, running
from bench.single import quantile
from tests.support.cluster import Cluster, ServiceProcess

_MISSED = 100
_ROUNDS = 500
_NEW_ROUNDS = 100


async def _timed(connection: ClientConnection, room: str, since: dict[str, Any]) -> float:
    begun = time.perf_counter()
    joined = await ask(connection, type="join_room", room=room, since=since)
    took_ms = 1000 * (time.perf_counter() - begun)
    assert joined["recovered"], joined
    assert len(joined["missed"]) == _MISSED
    await ask(connection, type="leave_room", room=room)
    return took_ms


async def _prepare(gateway: ServiceProcess, room: str) -> dict[str, Any]:
    """Store the messages to miss; return the position before them."""
    async with client(gateway, "publisher") as publisher:
        await ask(publisher, type="join_room", room=room)
        await publish(publisher, [room], 1)
        at = await ask(publisher, type="join_room", room=room)
        await publish(publisher, [room], _MISSED)
    return {"epoch": at["epoch"], "seq": at["seq"]}


async def _measure(gateway: ServiceProcess) -> dict[str, list[float]]:
    since = await _prepare(gateway, "resumed")
    cold, new = [], []
    async with client(gateway, "returning") as returning:
        async with client(gateway, "staying") as staying:
            await ask(staying, type="join_room", room="resumed")
            warm = [await _timed(returning, "resumed", since) for _ in range(_ROUNDS)]
        for number in range(_NEW_ROUNDS):
            # A room without members, now and lately, each time.
            room = f"quiet-{number}"
            before = await _prepare(gateway, room)
            await asyncio.sleep(0.06)  # longer than a room's subscription lingers here
            cold.append(await _timed(returning, room, before))
    for _ in range(_NEW_ROUNDS):
        begun = time.perf_counter()
        async with client(gateway, "new") as connection:
            await _timed(connection, "resumed", since)
            new.append(1000 * (time.perf_counter() - begun))
    return {"warm": warm, "cold": cold, "new connection": new}


def main() -> None:
    """Measure, and keep the figures."""
    with running(namespaces='{"default": {"history_size": 200}}', room_linger_s="0.05") as cluster:
        took = _run(cluster)
    figures: dict[str, Any] = {"target": "100 missed messages p99 < 50 ms on an idle machine"}
    for name, values in took.items():
        figures[name] = {
            "rounds": len(values),
            "p50_ms": round(quantile(values, 0.5), 2),
            "p99_ms": round(quantile(values, 0.99), 2),
            "max_ms": round(max(values), 2),
        }
    keep_unpinned("delivery_resume", figures)


def _run(cluster: Cluster) -> dict[str, list[float]]:
    return asyncio.run(_measure(cluster.gateways[0]))


if __name__ == "__main__":
    main()
