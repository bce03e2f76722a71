"""Messages a second by HTTP in batches: `python -m bench delivery.batch`.

One client posts batches of 1,000 messages to durable rooms, each message with an id, and waits for the answer with the
acknowledgement of each; four batches are outstanding, so the gateway always has work. What counts is the gateway's own
processor time: the rate of one core is the number of messages by the seconds of it. The latency is that of one batch.
"""

import asyncio
import itertools
import os
import time

import httpx

from bench.delivery.rig import CONTENT, keep_unpinned, running
from bench.single import quantile
from tests.support.cluster import ServiceProcess

_BATCH = 1000
_ROOMS = 100
_OUTSTANDING = 4
_WARM_UP = 8
_BATCHES = 60

_ids = itertools.count()


def _cpu_s(gateway: ServiceProcess) -> float:
    with open(f"/proc/{gateway.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _batch() -> list[dict[str, object]]:
    return [
        {"room": f"room-{number % _ROOMS}", "content": CONTENT, "id": str(next(_ids))}
        for number in range(_BATCH)
    ]


async def _post(http: httpx.AsyncClient, batches: int, took_ms: list[float]) -> None:
    for _ in range(batches):
        body = _batch()
        begun = time.perf_counter()
        answers = (await http.post("/api/publish", json=body)).json()
        took_ms.append(1000 * (time.perf_counter() - begun))
        assert [answer["type"] for answer in answers] == ["ack"] * _BATCH, answers


async def _measure(gateway: ServiceProcess) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        await _post(http, _WARM_UP, [])
        took_ms: list[float] = []
        cpu_before, begun = _cpu_s(gateway), time.perf_counter()
        await asyncio.gather(*(_post(http, _BATCHES // _OUTSTANDING, took_ms) for _ in range(_OUTSTANDING)))
        seconds, cpu_s = time.perf_counter() - begun, _cpu_s(gateway) - cpu_before
    messages = _BATCHES * _BATCH
    return {
        "messages_per_second": round(messages / seconds),
        "messages_per_core_second": round(messages / cpu_s),
        "batch_p50_ms": round(quantile(took_ms, 0.5), 1),
        "batch_p99_ms": round(quantile(took_ms, 0.99), 1),
    }


def main() -> None:
    """Run it and print the figures."""
    with running() as cluster:
        keep_unpinned("delivery_batch", asyncio.run(_measure(cluster.gateways[0])))


if __name__ == "__main__":
    main()
