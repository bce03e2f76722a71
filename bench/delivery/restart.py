"""Time until all durable rooms are current after a restart of NATS: `python -m bench delivery.restart`.

Two gateways have members in the same rooms. One gateway is disconnected while five messages are stored in every room
through the other. Then NATS is killed, the link restored and NATS restarted on its data. Measured: from NATS's first
answer until the last member on the disconnected gateway has the last message of its room, and from then until a new
message in every room has reached all members.
"""

import asyncio
import json
import time
from typing import Any

from websockets.asyncio.client import ClientConnection

from bench.delivery.rig import ask, client, keep_unpinned, publish, running
from tests.support.cluster import Cluster, aside

_ROOMS = 500
_MISSED = 5
_RUNS = 5


async def _until_seen(connection: ClientConnection, rooms: list[str], each: int) -> None:
    """Read until `each` messages of every room have arrived."""
    owed = dict.fromkeys(rooms, each)
    while owed:
        message = json.loads(await connection.recv())
        if message["type"] == "room_message":
            room = message["room"]
            owed[room] -= 1
            if not owed[room]:
                del owed[room]


async def _one_run(cluster: Cluster, run: int) -> dict[str, float]:
    behind, ahead = cluster.gateways
    rooms = [f"run-{run}-room-{number}" for number in range(_ROOMS)]
    async with client(behind, "behind") as member, client(ahead, "ahead") as publisher:
        for connection in (member, publisher):
            for room in rooms:
                await ask(connection, type="join_room", room=room)
        cluster.proxy.half_open()
        await publish(publisher, rooms, _MISSED)
        await aside(cluster.nats.kill)
        cluster.proxy.heal()
        seen = asyncio.create_task(_until_seen(member, rooms, _MISSED))
        await aside(cluster.nats.start)
        begun = time.monotonic()
        await seen
        current_s = time.monotonic() - begun
        seen = asyncio.create_task(_until_seen(member, rooms, 1))
        await _publish_when_possible(publisher, rooms)
        await seen
        return {"current_s": current_s, "all_rooms_live_again_s": time.monotonic() - begun}


async def _publish_when_possible(publisher: ClientConnection, rooms: list[str]) -> None:
    while True:
        answer = await ask(publisher, type="room_message", room=rooms[0], content="", id="probe", echo=False)
        if answer["type"] == "ack":
            break
        await asyncio.sleep(0.05)
    await publish(publisher, rooms[1:], 1)


async def _measure(cluster: Cluster) -> list[dict[str, float]]:
    return [await _one_run(cluster, run) for run in range(_RUNS)]


def main() -> None:
    """Measure, and keep the figures."""
    with running(gateways=2) as cluster:
        runs = asyncio.run(_measure(cluster))
    figures: dict[str, Any] = {
        "target": "all durable rooms current in < 3 s",
        "rooms": _ROOMS,
        "missed_in_each": _MISSED,
        "runs": [{name: round(value, 3) for name, value in run.items()} for run in runs],
        "worst_current_s": round(max(run["current_s"] for run in runs), 3),
    }
    keep_unpinned("delivery_restart", figures)


if __name__ == "__main__":
    main()
