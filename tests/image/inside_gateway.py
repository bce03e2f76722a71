"""Runs in a gateway's container, with its settings: the copies of each stream, and the gateway's permissions."""

import asyncio
import json
from typing import Any

from services.bus.client import Bus
from services.bus.errors import BusError
from services.permissions import Role
from services.settings import Settings

STREAMS = ("rooms-default", "inbox", "tickets", "revocations")


async def main() -> None:
    """Print what was found as one JSON object."""
    found: dict[str, Any] = {}
    bus = await Bus.connect(Settings(), "test", role=Role.GATEWAY)
    for stream in STREAMS:
        answer = await bus.request(f"$JS.API.STREAM.INFO.tidings-{stream}", b"", timeout_s=30)
        info = json.loads(answer.data)
        if "config" not in info:
            raise SystemExit(f"{stream}: {info}")
        cluster = info.get("cluster", {})
        current = [one["name"] for one in cluster.get("replicas", []) if one["current"]]
        found[stream] = [info["config"]["num_replicas"], len(current), cluster.get("leader")]
    bus.publish("tidings.metrics.feed", b"not a gateway's to say")
    try:
        await bus.flush()
    except BusError as refused:
        found["refused"] = str(refused)
    await bus.close()
    print(json.dumps(found))  # noqa: T201  # what it is run for


asyncio.run(main())
