"""Child processes: what all have in common (`ChildProcess`), and those of our own programs (`ProcessChild`)."""

import asyncio
import http.client
import os
import random
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tidings_cli import health
from tidings_cli.local.die_with_parent import die_with_parent

_CHUNK_BYTES = 65_536
_LONGEST_LINE = 16_384
TAIL_LINES = 30

ShowLine = Callable[[str, str], None]


def free_port() -> int:
    """Return a port that nothing uses now, and that no process gets from this function again for a minute.

    It lies below the ports of outgoing connections: one of those, from another loopback address, would be in the way of a
    server on all addresses. A connection that ends here leaves the port in TIME_WAIT: this function then finds it in use,
    and servers that set SO_REUSEADDR, as all do, may listen on it.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        try:
            with socket.socket() as probe:
                probe.bind(("", port))
            with (
                socket.create_server(("127.0.0.1", port)) as listener,
                socket.create_connection(("127.0.0.1", port)),
            ):
                listener.accept()[0].close()  # the side that closes first has the TIME_WAIT
        except OSError:
            continue
        return port


def port_fault(host: str, port: int) -> OSError | None:
    """Return the fault of an exclusive bind to an address, None without one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # TIME_WAIT is no obstacle to a server.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)  # fails also beside a process that would share the port (SO_REUSEPORT)
    except OSError as fault:
        return fault
    return None


class ChildProcess(ABC):
    """A program as a child process. `stop_s` is its time to end before it is killed."""

    name: str
    stop_s: float

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def spawn(self) -> None:
        """Start without waiting. Call from a thread that lives as long as this process: they die together."""

    @abstractmethod
    def ready(self) -> bool:
        """Return whether it answers now. Blocks for a short time."""

    @abstractmethod
    def log_tail(self) -> str:
        """Return its last output, for an error message."""

    async def output_shown(self) -> None:  # noqa: B027  # a server's output goes to a file
        """Wait until all output of the ended process was shown."""

    @property
    def pid(self) -> int:
        """The process id; of the last one, after it ended. 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """Whether the process lives (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit code (negative: the signal that killed it), None while it runs."""
        return self._process.poll() if self._process else None

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        self._signal(signal.SIGCONT)  # a paused process does not handle the other
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it by force. Idempotent."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _popen(
        self, command: list[str], env: dict[str, str], stdout: "int | IO[bytes]", cwd: Path | None = None
    ) -> "subprocess.Popen[bytes]":
        self._process = subprocess.Popen(  # noqa: S603  # our own command line
            die_with_parent(command),
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the supervisor passes the terminal's Ctrl-C on, in order
        )
        return self._process


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A program to keep running.

    It inherits our environment without the variables in `withheld` (upper case), plus `environment`, which has all the
    secrets that it needs: every user of the machine can read arguments. The program answers `/readyz` on
    TIDINGS_HEALTH_PORT, which is set for each start.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 5.0
    withheld: Set[str] = frozenset()


class ProcessChild(ChildProcess):
    """One of our processes. Its output goes to `show` line by line; its last lines are kept."""

    def __init__(self, spec: ProcessSpec, show: ShowLine) -> None:
        super().__init__()
        self.name = spec.name
        self.stop_s = spec.stop_s
        self._spec = spec
        self._show = show
        self._health_port = 0
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader: asyncio.Task[None] | None = None

    def spawn(self) -> None:
        self._health_port = free_port()
        own = {"TIDINGS_INSTANCE": self.name, "TIDINGS_HEALTH_PORT": str(self._health_port)}
        # Settings are read in upper and lower case, and no file may add to those that we set.
        without = self._spec.withheld | self._spec.environment.keys() | own.keys()
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not without & {name.upper(), name.upper().removesuffix("_FILE")}
        }
        environment = {**inherited, "PYTHONUNBUFFERED": "1", **self._spec.environment, **own}
        process = self._popen(self._spec.command, environment, subprocess.PIPE)
        self._reader = asyncio.create_task(self._read_output(process), name=f"output of {self.name}")

    def ready(self) -> bool:
        try:
            return health.get("127.0.0.1", self._health_port, "/readyz")[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def log_tail(self) -> str:
        return "\n".join(self._tail)

    async def output_shown(self) -> None:
        if self._reader is not None:
            await self._reader

    async def _read_output(self, process: "subprocess.Popen[bytes]") -> None:
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
                    self._on_line(line)
                if len(rest) > _LONGEST_LINE:
                    self._on_line(rest)
                    rest = b""
            if rest:
                self._on_line(rest)
        finally:
            transport.close()

    def _on_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._tail.append(text)
        self._show(self.name, text)
