"""Time from the sample that crosses a threshold to the alert in a browser's socket.

`python -m bench metrics.alerts [--rounds 20]`. A machine reports its cpu ten times a second; at a random moment it jumps
over the threshold; a WebSocket client of a gateway follows `alerts`.
"""

import argparse
import asyncio
import random
import time

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from bench.metrics.rig import Rig, running
from bench.single import keep, quantile
from services.wire.events import MetricsReport
from tidings_cli.local.processes import free_port

_encode = msgspec.json.Encoder().encode


class Machine:
    """Reports a cpu ten times a second."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._seq = 0
        self.cpu = 5.0

    def report(self) -> None:
        self._seq += 1
        report = MetricsReport(
            source="machine", kind="agent", boot="b", seq=self._seq, timestamp=int(time.time() * 1000),
            gauges={"cpu": self.cpu},
        )  # fmt: skip
        self._rig.bus.publish(self._rig.settings.subjects.metrics_report, _encode(report))

    async def run(self) -> None:
        while True:
            self.report()
            await asyncio.sleep(0.1)


async def until(socket: ClientConnection, kind: str) -> None:
    async with asyncio.timeout(20):
        while msgspec.json.decode(await socket.recv())["type"] != kind:
            pass


async def main(rounds: int) -> None:
    """Measure `rounds` crossings."""
    port = free_port()
    random.seed(5)
    waits: list[float] = []
    async with (
        running(port) as rig,
        connect(f"ws://127.0.0.1:{port}/ws?username=bench&channels=alerts") as socket,
    ):
        await until(socket, "initial_state")
        machine = Machine(rig)
        reporting = asyncio.create_task(machine.run())
        for _ in range(rounds):
            await asyncio.sleep(1 + random.random())  # when in the second
            machine.cpu = 95.0
            machine.report()
            crossed = time.monotonic()
            await until(socket, "alert")
            waits.append(time.monotonic() - crossed)
            machine.cpu = 5.0
            await until(socket, "alert_resolved")
        reporting.cancel()
    figures = {"p50": quantile(waits, 0.5), "p95": quantile(waits, 0.95), "max": max(waits)}
    keep(
        "metrics_alerts",
        {
            "target": "alert on the wire at most 1.5 s after the sample",
            "crossings": rounds,
            "seconds": {name: round(value, 3) for name, value in figures.items()},
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    asyncio.run(main(parser.parse_args().rounds))
