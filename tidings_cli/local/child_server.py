"""A server as a child process on this machine: started, probed, stopped, paused, and found again.

Synchronous, so that tests and the supervisor share it. A server lives in a directory: its configuration (mode 0600,
because it holds the password), data and log. A restart there keeps data, password and, if still free, the port.
`servers` has the two servers.
"""

import hmac
import json
import os
import secrets
import signal
import subprocess
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import psutil

from services.permissions import Role
from services.settings import Settings
from tidings_cli.local.binaries import Binary
from tidings_cli.local.processes import TAIL_LINES, ChildProcess, free_port, port_fault

_START_S = 10.0
_STOP_S = 5.0
_POLL_S = 0.01
_LOG_BYTES = 5_000_000  # a larger log is overwritten at the next start


class ServerFailed(RuntimeError):
    """A server did not start; the message ends with the tail of its log."""


def write_private(path: Path, text: str | bytes, mode: int = 0o600) -> None:
    """Replace a file, whole or not at all. Until it is complete only its owner may read it."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
    draft.chmod(mode)
    draft.replace(path)


class LocalServer(ChildProcess):
    """One server program as a child process.

    Args:
        directory: where it keeps everything; made if missing.
        port: 0 keeps the directory's port or picks a free one.
        password: empty keeps the directory's password or makes one up.
        settings: each role that needs the server gets a user with the permissions that these settings need
            (`services.permissions`). `url` is the operator's, with all permissions.
    """

    stop_s = 1.5

    def __init__(
        self, directory: Path, *, port: int = 0, password: str = "", settings: Settings | None = None
    ) -> None:
        super().__init__()
        self._settings = settings
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._config_path = self.directory / f"{self.name}.conf"
        self._state_path = self.directory / "state.json"
        self._log_path = self.directory / f"{self.name}.log"
        kept = self._kept()
        self._fixed_port = port
        self.port = port or int(kept.get("port", 0))
        self.password = password or str(kept.get("password", "")) or secrets.token_urlsafe(24)

    # --- what differs between the two ---

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients, with credentials."""

    @abstractmethod
    def binary(self) -> Binary:
        """Return the program to run."""

    @abstractmethod
    def _configuration(self) -> str:
        """Return the configuration file's text for the current port and password."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command line; never with a secret."""

    def _password_of(self, role: Role) -> str:
        """Return a role's password: derived from the operator's, which it does not reveal."""
        return hmac.digest(self.password.encode(), f"tidings {role}".encode(), "sha256").hex()

    def _passwords(self) -> dict[str, str]:
        return {role.value: self._password_of(role) for role in Role}

    # --- life ---

    def start(self) -> Self:
        """Start and wait until it answers.

        Raises:
            NoBinary: no usable server program on this machine.
            ServerFailed: it ended or did not answer in time.
        """
        self.spawn()
        try:
            self.wait_ready()
        except ServerFailed:
            self.kill()
            raise
        return self

    def spawn(self) -> None:
        if self.running:
            raise RuntimeError(f"{self.name} runs already (pid {self.pid})")
        self._end_orphan()
        self._choose_port()
        write_private(self._config_path, self._configuration())
        mode = "wb" if self._log_path.exists() and self._log_path.stat().st_size > _LOG_BYTES else "ab"
        environment = {
            name: value for name, value in os.environ.items() if not name.upper().startswith("TIDINGS_")
        }
        with self._log_path.open(mode) as log:
            process = self._popen(self._command(), environment, log, self.directory)
        state = {"port": self.port, "password": self.password, "pid": process.pid}
        write_private(self._state_path, json.dumps(state))

    def fix_port(self) -> None:
        """Keep the port of the last start if it is free, else pick one. From here on `url` is valid."""
        self._end_orphan()
        self._choose_port()
        self._fixed_port = self.port

    def _choose_port(self) -> None:
        if self._fixed_port == 0 and not (self.port and port_fault("127.0.0.1", self.port) is None):
            self.port = free_port()

    def wait_ready(self) -> None:
        """Wait until it answers.

        Raises:
            ServerFailed: it ended or did not answer in time.
        """
        deadline = time.monotonic() + _START_S
        while not self.ready():
            how = (
                f"did not answer in {_START_S:g} s" if self.running else f"ended with code {self.returncode}"
            )
            if not self.running or time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} {how}; its log ends with:\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it in order, by force after `_STOP_S`. Idempotent; data remain."""
        if self._process is None:
            return
        self.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would. Idempotent; data remain."""
        super().kill()
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """Freeze it: connections remain open and get no answers. Returns when all its threads have stopped."""
        self._signal(signal.SIGSTOP)
        # The signal only asks. An exit ends the wait too, and remains for `poll` to collect.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Continue a paused server."""
        self._signal(signal.SIGCONT)

    def log_tail(self) -> str:
        try:
            text = self._log_path.read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-TAIL_LINES:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- its directory ---

    def _kept(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._state_path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # first start, or a full disk cut it short
            return {}
        return kept if isinstance(kept, dict) else {}

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
