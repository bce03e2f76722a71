"""One replica of presence_svc as a process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.settings import Settings
from tests.support.deadline import PATIENCE_S
from tidings_cli.local.processes import free_port

QUICK = {"presence_lease_s": 3.0, "presence_grace_s": 1.0}
# For tests without renewals: a slow machine must not end a lease.
PATIENT = QUICK | {"presence_lease_s": 60.0}


@dataclass
class Replica:
    """One `python -m presence_svc`."""

    process: asyncio.subprocess.Process
    health_url: str
    log: Path

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)

    async def health(self, path: str = "/readyz") -> tuple[int, str]:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            try:
                answer = await client.get(self.health_url + path)
            except httpx.TransportError:
                return 0, self.log.read_text()[-2000:]
        return answer.status_code, answer.text

    async def ready(self) -> bool:
        assert self.process.returncode is None, self.log.read_text()
        return (await self.health())[0] == 200


def environment(settings: Settings, **more: str) -> dict[str, str]:
    named = ("nats_url", "redis_url", "prefix", "presence_lease_s", "presence_grace_s")
    chosen = {f"TIDINGS_{name.upper()}": str(getattr(settings, name)) for name in named}
    return {"PATH": os.environ["PATH"], "TIDINGS_LOG_FORMAT": "json", **chosen, **more}


@asynccontextmanager
async def replica(settings: Settings, tmp_path: Path, **more: str) -> AsyncIterator[Replica]:
    """Run a replica until the end of the block."""
    port = free_port()
    log = tmp_path / f"presence-{port}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "presence_svc",
            env=environment(settings, TIDINGS_HEALTH_PORT=str(port), **more),
            stdout=output,
            stderr=output,
        )
    running = Replica(process, f"http://127.0.0.1:{port}", log)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
