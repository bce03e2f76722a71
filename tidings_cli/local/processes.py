"""One child of the supervisor: how it is started, asked whether it is ready, and ended.

Two kinds behind one interface: a Python process with `/readyz` on a loopback port (`ProcessChild`), and an
embedded broker (`ServerChild`).
"""

import asyncio
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from tidings_cli.local.die_with_parent import leashed
from tidings_cli.local.servers import LocalServer, free_port

_PROBE_S = 2.0
_CHUNK_BYTES = 65_536
_LONGEST_LINE = 16_384
_TAIL_LINES = 30

ShowLine = Callable[[str, str], None]


class Child(Protocol):
    """What the supervisor asks of a child. `stop_s` is how long it may take to end before it is killed."""

    name: str
    stop_s: float

    def spawn(self) -> None:
        """Start a process, without waiting. The one before has ended."""

    async def ready(self) -> bool:
        """Whether it is up now."""

    @property
    def pid(self) -> int:
        """The process id, 0 before the first start."""

    @property
    def returncode(self) -> int | None:
        """How the process ended (negative: by that signal), None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it by force."""

    def log_tail(self) -> str:
        """Return the last of what it said, for an error message."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A program to keep running.

    `environment` is added to ours, of which the variables in `withheld` are left out (names in upper case), and with
    it every secret the program needs: arguments are readable by all users of the machine. The program answers `/readyz` on TIDINGS_HEALTH_PORT, which is set for each start.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 5.0
    withheld: Set[str] = frozenset()


class ProcessChild:
    """A process of ours. What it prints goes to `show` line by line, and its last lines are kept."""

    def __init__(self, spec: ProcessSpec, show: ShowLine) -> None:
        self.name = spec.name
        self.stop_s = spec.stop_s
        self._spec = spec
        self._show = show
        self._health_port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process id, 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def returncode(self) -> int | None:
        return self._process.poll() if self._process else None

    def spawn(self) -> None:
        self._health_port = free_port()
        own = {"TIDINGS_INSTANCE": self.name, "TIDINGS_HEALTH_PORT": str(self._health_port)}
        # Names of settings are read in upper and lower case, and what we give may come from no file besides.
        without = self._spec.withheld | self._spec.environment.keys() | own.keys()
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not without & {name.upper(), name.upper().removesuffix("_FILE")}
        }
        self._process = subprocess.Popen(  # noqa: S603  # our own command line
            leashed(self._spec.command),
            env={**inherited, "PYTHONUNBUFFERED": "1", **self._spec.environment, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is the supervisor's to pass on, in order
        )
        self._reader = asyncio.create_task(self._read_output(self._process), name=f"output of {self.name}")

    async def ready(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_S):
                return await _answers_ready(self._health_port)
        except (OSError, TimeoutError):
            return False

    def terminate(self) -> None:
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def log_tail(self) -> str:
        return "\n".join(self._tail)

    async def output_shown(self) -> None:
        """Wait until everything the ended process printed was shown."""
        if self._reader is not None:
            await self._reader

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def _read_output(self, process: subprocess.Popen[bytes]) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        rest = b""
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._say(line)
                if len(rest) > _LONGEST_LINE:
                    self._say(rest)
                    rest = b""
            if rest:
                self._say(rest)
        finally:
            transport.close()

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._tail.append(text)
        self._show(self.name, text)


class ServerChild:
    """An embedded broker. It logs to a file in its directory."""

    stop_s = 1.5

    def __init__(self, server: LocalServer) -> None:
        self.name = server.name
        self._server = server

    @property
    def pid(self) -> int:
        """The process id, 0 before the first start."""
        return self._server.pid

    @property
    def returncode(self) -> int | None:
        return self._server.returncode

    def spawn(self) -> None:
        # The others were told the port: there is no choice any more.
        self._server.spawn(keep_port=True)

    async def ready(self) -> bool:
        return await asyncio.to_thread(self._server.ready)

    def terminate(self) -> None:
        self._server.terminate()

    def kill(self) -> None:
        self._server.kill()

    def log_tail(self) -> str:
        return self._server.log_tail()


async def _answers_ready(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        status_line = await reader.readline()
        return status_line.split(b" ")[1:2] == [b"200"]
    finally:
        writer.close()
