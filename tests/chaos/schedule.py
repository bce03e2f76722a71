"""A random but repeatable schedule of faults: every kind once a round, in an order from the seed."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tests.chaos.load import Load
from tests.support import faults
from tests.support.cluster import Cluster

Break = Callable[[Cluster], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault, and how long it lasts (seconds, at least and at most)."""

    name: str
    strike: Break
    shortest_s: float = 0.2
    longest_s: float = 2.0


@asynccontextmanager
async def _connections_reset(cluster: Cluster) -> AsyncIterator[None]:
    await faults.reset_connections(cluster.proxy)
    yield


KINDS = [
    Fault("gateway killed", lambda c: faults.killed(c.gateways[0])),
    Fault("other gateway killed", lambda c: faults.killed(c.gateways[1])),
    Fault("gateway stopped", lambda c: faults.stopped(c.gateways[0])),
    Fault("gateway frozen", lambda c: faults.paused(c.gateways[0]), 0.5, 3.0),
    Fault("NATS stopped", lambda c: faults.server_stopped(c.nats)),
    Fault("NATS killed", lambda c: faults.killed(c.nats)),
    Fault("NATS frozen", lambda c: faults.paused(c.nats), 0.5, 6.5),
    Fault("NATS wiped", lambda c: faults.store_wiped(c.nats)),
    Fault("NATS connections limited", lambda c: faults.connections_limited(c.nats, 1)),
    Fault("gateway cut off", lambda c: faults.partitioned(c.proxy), 0.5, 6.5),
    Fault("gateway's link half open", lambda c: faults.half_open(c.proxy), 0.5, 6.5),
    Fault("gateway's link reset", _connections_reset, 0.0, 0.1),
    Fault("gateway's link slow", lambda c: faults.delayed(c.proxy, 0.3)),
    Fault("Redis killed", lambda c: faults.killed(c.redis)),
    Fault("Redis frozen", lambda c: faults.paused(c.redis), 0.5, 3.0),
    Fault("presence killed", lambda c: faults.killed(c.presence)),
    Fault("metrics killed", lambda c: faults.killed(c.metrics)),
]


def drawn(randomness: random.Random, count: int) -> Iterator[Fault]:
    """Yield `count` faults: rounds of all kinds, each in another order."""
    round_: list[Fault] = []
    for _ in range(count):
        if not round_:
            round_ = randomness.sample(KINDS, len(KINDS))
        yield round_.pop()


async def run_schedule(
    cluster: Cluster,
    running: Load,
    seed: int,
    count: int,
    *,
    scale: float = 1.0,
    on_fault: Callable[[int, Fault], None] = lambda _number, _fault: None,
) -> Counter[str]:
    """Inject `count` faults, one after the other, waiting after each until all members are back.

    `scale` shortens how long they last. Return how many there were of each kind.
    """
    randomness = random.Random(seed)  # a schedule, no secret
    injected: Counter[str] = Counter()
    for number, fault in enumerate(drawn(randomness, count), start=1):
        on_fault(number, fault)
        async with fault.strike(cluster):
            await asyncio.sleep(scale * randomness.uniform(fault.shortest_s, fault.longest_s))
        injected[fault.name] += 1
        await running.everybody_in()
        await running.acknowledged(10)
    return injected
