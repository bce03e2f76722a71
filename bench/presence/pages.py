"""A page of 1,000 users out of 100,000, as a gateway gets it over the bus: `python -m bench presence.pages`."""

import asyncio
import random
import statistics
import time

from bench.presence.rig import report, running
from bench.single import percentiles
from services.bus import rpc
from services.wire.rpc import PRESENCE_LIST, PresenceQuery

ROUNDS = 9  # medians over rounds hide other work of the machine
REQUESTS = 150


async def main() -> None:
    """Measure pages from anywhere in the list, a room's list, and a lookup of 1,000 users by name."""
    random.seed(1)
    async with running() as rig:
        await rig.populate(100_000, rooms=100)
        await asyncio.sleep(3)
        subjects = rig.settings.subjects
        names = [one.user_id for gateway in rig.gateways for one in gateway.here.values()]
        queries = {
            "page_of_everyone": lambda: PresenceQuery(limit=1000, cursor=random.choice(names)),
            "page_of_a_room_of_1000": lambda: PresenceQuery(room=f"room-{random.randrange(100)}"),
            "lookup_of_1000": lambda: PresenceQuery(users=random.sample(names, 1000)),
        }
        figures = {}
        for name, make in queries.items():
            rounds, sizes, cpu = [], [], rig.cpu_s()
            for _ in range(ROUNDS):
                times = []
                for _ in range(REQUESTS):
                    query = make()
                    began = time.perf_counter()
                    page = await rpc.call(rig.bus, subjects, PRESENCE_LIST, query)
                    times.append((time.perf_counter() - began) * 1000)
                    sizes.append(len(page.users))
                rounds.append(percentiles(times))
            spent = {process: now - cpu[process] for process, now in rig.cpu_s().items()}
            figures[name] = {
                "ms_median_of_rounds": {
                    key: statistics.median(row[key] for row in rounds) for key in ("p50", "p95", "p99")
                },
                "p99_ms_of_each_round": [row["p99"] for row in rounds],
                "users_on_average": round(sum(sizes) / len(sizes)),
                "cpu_ms_per_request": {p: round(s * 1000 / REQUESTS / ROUNDS, 2) for p, s in spent.items()},
            }
    report("presence_pages", {"target": "page of 1,000 users, p99 < 20 ms", "users": 100_000, **figures})


if __name__ == "__main__":
    asyncio.run(main())
