"""Cost of presence without changes, by the number of users: `python -m bench presence.heartbeat`."""

import asyncio
import time
from typing import Any

from bench.presence.rig import Rig, report, running

MEASURED_S = 30.0
ACTIVE_SHARE = 0.05  # of all users, active between two renewals


async def _measure(rig: Rig, *, active: bool = False) -> dict[str, float]:
    """Return traffic and cost per second."""
    traffic, cpu, began = rig.traffic(), rig.cpu_s(), time.perf_counter()
    while (elapsed := time.perf_counter() - began) < MEASURED_S:
        if active:
            for gateway in rig.gateways:
                count = int(len(gateway.here) * ACTIVE_SHARE)
                for one in list(gateway.here.values())[:count]:
                    gateway.batches.active(one.user_id)
        await asyncio.sleep(min(rig.settings.presence_renew_s, MEASURED_S - elapsed))
    elapsed = time.perf_counter() - began
    per_s = {f"{name}_per_s": (now - traffic[name]) / elapsed for name, now in rig.traffic().items()}
    share = {f"{name}_cpu_of_one_core": (now - cpu[name]) / elapsed for name, now in rig.cpu_s().items()}
    return {name: round(value, 4) for name, value in (per_s | share).items()}


async def main() -> None:
    """Measure without users, and with rising numbers."""
    rows: list[dict[str, Any]] = []
    async with running() as rig:
        for users in (0, 10_000, 50_000, 100_000):
            took = await rig.populate(users)
            await asyncio.sleep(5)
            row = {"users": (await rig.stats()).users, "announced_in_s": round(took, 2)}
            rows.append(row | await _measure(rig))
        rows.append(
            {"users": (await rig.stats()).users, "active_share": ACTIVE_SHARE}
            | await _measure(rig, active=True)
        )
        with rig.client() as client:
            memory = client.info("memory")["used_memory"]
    report(
        "presence_heartbeat",
        {
            "gateways": 4,
            "renewed_every_s": 3,
            "rows": rows,
            "redis_bytes_per_user": round(memory / 100_000),
        },
    )


if __name__ == "__main__":
    asyncio.run(main())
