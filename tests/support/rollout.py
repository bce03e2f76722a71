"""A Service and a Deployment of Kubernetes, simulated with processes: routing of connections, order of replacement.

The rules are those of `deploy/kubernetes/base`: one pod more than wanted at most and never one less (`maxSurge: 1`,
`maxUnavailable: 0`), a new one ready for a while before an old one goes (`minReadySeconds`), and before an old one is
told to stop, time in which everybody learns that it gets no new connections (`preStop`). The seconds are fewer.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.support.cluster import ServiceProcess, aside
from tests.support.faults import eventually_ended

_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take. `endpoints_s`: until the removal of an endpoint is known everywhere; less than `pre_stop_s`."""

    min_ready_s: float = 1.5
    endpoints_s: float = 0.7
    pre_stop_s: float = 1.5


@dataclass
class Service:
    """One address for several gateways: each new connection goes to any of the endpoints, and stays there."""

    endpoints: list[ServiceProcess]
    refused: int = 0  # connections that came to a gateway which took no more
    _server: asyncio.Server | None = None
    _passing: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0, backlog=512)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        endpoint = random.choice(self.endpoints)  # no secret
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        except OSError:
            self.refused += 1
            writer.close()
            return
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def replace_one_by_one(
    old: list[ServiceProcess],
    new: Callable[[int], ServiceProcess],
    service: Service | None = None,
    pace: Pace | None = None,
) -> list[ServiceProcess]:
    """Replace processes as a Deployment does, and return the new ones; each old one must end with code 0 and in time."""
    pace = pace or Pace()
    made: list[ServiceProcess] = []
    leaving: list[asyncio.Task[None]] = []
    try:
        for number, process in enumerate(old):
            fresh = new(number)
            made.append(fresh)
            await aside(fresh.start)
            if service is not None:
                service.endpoints.append(fresh)
            await asyncio.sleep(pace.min_ready_s)
            # Whether it is gone is not waited for: a pod that is being ended does not count any more.
            leaving.append(asyncio.create_task(_end(process, service, pace)))
        await asyncio.gather(*leaving)
    except BaseException:
        for process in made:
            await aside(process.kill)
        raise
    return made


async def _end(process: ServiceProcess, service: Service | None, pace: Pace) -> None:
    if service is not None:
        await asyncio.sleep(pace.endpoints_s)
        service.endpoints.remove(process)
        await asyncio.sleep(pace.pre_stop_s - pace.endpoints_s)
    process.terminate()
    code = await eventually_ended(process)
    assert code == 0, f"{process.name} ended with {code}:\n{process.log_tail()}"
