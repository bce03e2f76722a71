"""Users who join and leave a room, on one replica and one core: `python -m bench presence.joins`."""

import asyncio
import time
from typing import Any

from bench.presence.rig import Here, Rig, report, running
from bench.single import percentiles
from services.wire.rpc import Disconnected

ONLINE = 50_000
SECONDS = 15.0
TICK_S = 0.01


async def _paced(rig: Rig, rate: int) -> dict[str, Any]:
    """Let `rate` users a second connect and join a room, and as many of the earlier ones leave."""
    for gateway in rig.gateways:
        gateway.times_ms.clear()
    cpu, began, joined, sequence = rig.cpu_s(), time.perf_counter(), 0, 0
    gone = [0] * len(rig.gateways)
    while (elapsed := time.perf_counter() - began) < SECONDS:
        while joined < rate * elapsed:
            number = joined % len(rig.gateways)
            gateway = rig.gateways[number]
            name = f"r{rate}n{sequence}"
            sequence += 1
            gateway.connect(Here(name, f"u-{name}", [f"room-{sequence % 1000}"]))
            if joined >= rate * 2:  # stays for two seconds
                leaving = f"r{rate}n{gone[number] * len(rig.gateways) + number}"
                gone[number] += 1
                if gateway.here.pop(leaving, None) is not None:
                    gateway.say(Disconnected(connection_id=leaving, clean=True))
            joined += 1
        await asyncio.sleep(TICK_S)
    waiting = sum(gateway.batches.waiting for gateway in rig.gateways)
    elapsed = time.perf_counter() - began
    shares = {name: round((now - cpu[name]) / elapsed, 3) for name, now in rig.cpu_s().items()}
    await asyncio.gather(*(gateway.settled() for gateway in rig.gateways))
    caught_up = time.perf_counter() - began
    return {
        "joins_per_s_asked": rate,
        "joins_per_s": round(joined / caught_up),
        "operations_waiting_at_end": waiting,
        "batch_answered_in_ms": percentiles([t for g in rig.gateways for t in g.times_ms]),
        "cpu_of_one_core": shares,
    }


async def _burst(rig: Rig, users: int) -> dict[str, Any]:
    """Let users join as fast as the replica accepts them."""
    cpu, began = rig.cpu_s(), time.perf_counter()
    for number, gateway in enumerate(rig.gateways):
        gateway.connect(
            *(
                Here(f"b{number}-{n}", f"b-{number}-{n}", [f"room-{n % 1000}"])
                for n in range(users // len(rig.gateways))
            )
        )
    await asyncio.gather(*(gateway.settled() for gateway in rig.gateways))
    elapsed = time.perf_counter() - began
    shares = {name: round((now - cpu[name]) / elapsed, 3) for name, now in rig.cpu_s().items()}
    return {"users": users, "joins_per_s": round(users / elapsed), "cpu_of_one_core": shares}


async def main() -> None:
    """Measure at rising rates, and without one."""
    async with running() as rig:
        await rig.populate(ONLINE)
        rig.watch_slow_scripts()
        rows = [await _paced(rig, rate) for rate in (1000, 2000, 4000)]
        burst = await _burst(rig, 40_000)
        scripts = rig.slowest_scripts_ms()
    report(
        "presence_joins",
        {
            "target": "2,000 joins/s sustained on one replica and core",
            "online_before": ONLINE,
            "a_join_is": "a connection of a new user, and its join of a room; as many leave",
            "paced": rows,
            "burst": burst,
            "scripts_over_1_ms": scripts,
        },
    )


if __name__ == "__main__":
    asyncio.run(main())
