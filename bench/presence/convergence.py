"""One of four gateways is killed, with 25,000 of 100,000 users; then Redis is killed and restarts without its data.

`python -m bench presence.convergence`
"""

import asyncio
import shutil
import time
from collections.abc import Callable
from typing import Any

from bench.presence.rig import Here, Rig, report, running
from services.bus.errors import RequestRefused
from services.wire.rpc import PresenceStats

USERS = 100_000
BACK = 20_000  # number of the killed gateway's users that reconnect elsewhere
AWAY_S = 4.0


async def _until(rig: Rig, condition: Callable[[PresenceStats], bool]) -> float:
    """Return the time at which the counts fulfil the condition."""
    while True:
        try:
            if condition(await rig.stats()):
                return time.perf_counter()
        except RequestRefused:
            pass  # Redis is not back yet
        await asyncio.sleep(0.05)


async def _kill_one(rig: Rig) -> dict[str, Any]:
    dying, *others = rig.gateways
    victims = list(dying.here.values())
    rig.watch_slow_scripts()
    dying.kill()
    died = time.perf_counter()
    for n, one in enumerate(victims[:BACK]):
        others[n % 3].connect(Here(f"back-{one.connection_id}", one.user_id, one.rooms))
    await asyncio.gather(*(gateway.settled() for gateway in others))
    back = time.perf_counter() - died
    connections = USERS - len(victims) + BACK
    gone = await _until(rig, lambda stats: stats.connections <= connections) - died
    offline = await _until(rig, lambda stats: stats.users <= connections) - died
    return {
        "users_of_the_killed_gateway": len(victims),
        "reconnected_elsewhere": BACK,
        "reconnections_taken_after_s": round(back, 2),
        "connections_gone_after_s": round(gone, 2),
        "others_offline_after_s": round(offline, 2),
        "scripts_over_1_ms": rig.slowest_scripts_ms(),
    }


async def _end_all(rig: Rig) -> dict[str, Any]:
    users = (await rig.stats()).users
    rig.watch_slow_scripts()
    began = time.perf_counter()
    for gateway in rig.gateways:
        gateway.kill()
    gone = await _until(rig, lambda stats: stats.connections == 0) - began
    offline = await _until(rig, lambda stats: stats.users == 0) - began
    return {
        "users": users,
        "connections_gone_after_s": round(gone, 2),
        "all_offline_after_s": round(offline, 2),
        "scripts_over_1_ms": rig.slowest_scripts_ms(),
    }


async def _lose_data(rig: Rig) -> dict[str, Any]:
    users = (await rig.stats()).users
    rig.redis.kill()
    shutil.rmtree(rig.redis.directory / "appendonlydir")
    await asyncio.sleep(AWAY_S)
    rig.redis.start()
    began = time.perf_counter()
    whole = await _until(rig, lambda stats: stats.users >= users) - began
    return {"users": users, "away_s": AWAY_S, "all_online_again_after_s": round(whole, 2)}


async def main() -> None:
    """Measure all three."""
    async with running() as rig:
        lease_s, grace_s = rig.settings.presence_lease_s, rig.settings.presence_grace_s
        announced = await rig.populate(USERS)
        await asyncio.sleep(3)
        killed = await _kill_one(rig)
        lost = await _lose_data(rig)
        await asyncio.sleep(5)
        ended = await _end_all(rig)
    report(
        "presence_convergence",
        {
            "users": USERS,
            "gateways": 4,
            "lease_s": lease_s,
            "grace_s": grace_s,
            "announced_in_s": round(announced, 2),
            "one_gateway_killed": killed,
            "redis_lost_its_data": lost,
            "all_gateways_killed": ended,
        },
    )


if __name__ == "__main__":
    asyncio.run(main())
