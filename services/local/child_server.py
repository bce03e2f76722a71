"""One server as a child process on this machine: started, probed, stopped, paused, and found again.

Synchronous, so that tests and the supervisor share it. A server lives in a directory: its configuration (mode 0600,
because it holds the password), data and log. Starting it again there keeps data, password and, if still free, the port.
`servers` says which servers there are.
"""

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import psutil

from services.local.binaries import Binary
from services.local.leash import leashed

_START_S = 10.0
_STOP_S = 5.0
_POLL_S = 0.01
_LOG_BYTES = 5_000_000  # a log grown larger is begun anew at the next start
_PORT_ATTEMPTS = 3  # another process may take a free port between our looking and the server's binding


class ServerFailed(RuntimeError):
    """A server did not start; the message ends with the tail of its log."""


def free_port() -> int:
    """Return a port that nothing uses now, and that this function returns to no process again for a minute.

    It lies below the ports that the kernel gives to outgoing connections, of which one from another loopback address
    would be in the way of a server on all addresses. A connection that ends here leaves it in TIME_WAIT: servers that set
    SO_REUSEADDR, as all do, may listen on it, and the first look here finds it in use.
    """
    while True:
        port = random.randrange(10_000, 32_768)  # noqa: S311  # of no consequence to security
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


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no obstacle to a server
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


class LocalServer(ABC):
    """One server program as a child process.

    Args:
        directory: where it keeps everything; made if missing.
        port: 0 keeps the directory's port or picks a free one.
        password: empty keeps the directory's password or makes one up.
    """

    name: str

    def __init__(self, directory: Path, *, port: int = 0, password: str = "") -> None:
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = self._kept()
        self._fixed_port = port
        self.port = port or int(kept.get("port", 0))
        self.password = password or str(kept.get("password", "")) or secrets.token_urlsafe(24)
        self._process: subprocess.Popen[bytes] | None = None

    # --- what differs between the two ---

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, with credentials."""

    @abstractmethod
    def binary(self) -> Binary:
        """The program to run."""

    @abstractmethod
    def _configuration(self) -> str:
        """The configuration file's text for the port and password in force."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The command line; never with a secret."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers a ping with our password now. Takes half a second at most."""

    # --- life ---

    def start(self) -> Self:
        """Start and wait until it answers.

        Raises:
            NoBinary: no usable server program on this machine.
            ServerFailed: it ended or did not answer in time.
        """
        for attempt in range(_PORT_ATTEMPTS):
            self.spawn()
            try:
                self.wait_ready()
            except ServerFailed:
                self.kill()
                taken = not self._fixed_port and not _is_free(self.port)
                if not taken or attempt == _PORT_ATTEMPTS - 1:
                    raise
            else:
                return self
        raise AssertionError("unreachable")

    def spawn(self, *, keep_port: bool = False) -> None:
        """Start without waiting. Call from a thread that lives as long as this process: they die together.

        `keep_port` takes the port of the last start or none.
        """
        if self.running:
            raise RuntimeError(f"{self.name} runs already (pid {self.pid})")
        self._end_orphan()
        if not keep_port:
            self.settle_port()
        write_private(self._config_path, self._configuration())
        command = leashed(self._command())
        mode = "wb" if self._log_path.exists() and self._log_path.stat().st_size > _LOG_BYTES else "ab"
        with self._log_path.open(mode) as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own command line
                command,
                cwd=self.directory,
                env={
                    name: value
                    for name, value in os.environ.items()
                    if not name.upper().startswith("TIDINGS_")
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C is the supervisor's to pass on, in order
            )
        state = {"port": self.port, "password": self.password, "pid": self._process.pid}
        write_private(self._state_path, json.dumps(state))

    def settle_port(self) -> None:
        """Keep the port of the last start if it is free, else pick one: from here on `url` holds."""
        self._end_orphan()
        if self._fixed_port == 0 and not (self.port and _is_free(self.port)):
            self.port = free_port()

    def wait_ready(self, timeout_s: float = _START_S) -> None:
        """Wait until it answers.

        Raises:
            ServerFailed: it ended or did not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if not self.running:
                code = self._process.returncode if self._process else None
                raise ServerFailed(
                    f"{self.name} ended with code {code}; its log ends with:\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                said = self.log_tail()
                raise ServerFailed(
                    f"{self.name} did not answer in {timeout_s:g} s; its log ends with:\n{said}"
                )
            time.sleep(_POLL_S)

    @property
    def running(self) -> bool:
        """Whether the process lives (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; of the last one, after it ended. 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def returncode(self) -> int | None:
        """How the process ended, None while it runs."""
        return self._process.poll() if self._process else None

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        self._signal(signal.SIGCONT)  # a paused process would not hear the other
        self._signal(signal.SIGTERM)

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """End it in order, by force after `timeout_s`. Idempotent; data stay."""
        if self._process is None:
            return
        self.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would. Idempotent; data stay."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing is answered. Returns when all its threads have stopped."""
        self._signal(signal.SIGSTOP)
        # The signal only asks. An end is awaited too: it may have died meanwhile, and stays to be collected by `poll`.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def log_tail(self, lines: int = 30) -> str:
        """Return the end of its log."""
        try:
            text = self._log_path.read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- its directory ---

    @property
    def _config_path(self) -> Path:
        return self.directory / f"{self.name}.conf"

    @property
    def _state_path(self) -> Path:
        return self.directory / "state.json"

    @property
    def _log_path(self) -> Path:
        return self.directory / f"{self.name}.log"

    def _kept(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._state_path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # first start, or a full disk cut it short
            return {}
        return kept if isinstance(kept, dict) else {}

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end_orphan(self) -> None:
        """End a server that outlived its parent on this directory (where there is no parent-death signal)."""
        pid = self._kept().get("pid")
        if not isinstance(pid, int):
            return
        try:
            process = psutil.Process(pid)
            if str(self._config_path) not in process.cmdline():
                return  # the pid is another program's now
            process.terminate()
            process.wait(_STOP_S)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            process.kill()
