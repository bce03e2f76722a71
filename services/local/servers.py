"""NATS and Redis as child processes, for one machine and for tests.

Synchronous, so that tests and the supervisor share them. A server lives in a directory: its configuration
(mode 0600, because it holds the password), data and log. Starting it again there keeps data, password and, if
still free, the port.
"""

import hmac
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, Self

import psutil

from services.local.binaries import Binary, nats_binary, redis_binary
from services.local.leash import leashed
from services.permissions.render import nats_users, redis_users
from services.permissions.roles import OPERATOR, Role
from services.settings import Settings

_START_S = 10.0
_STOP_S = 5.0
_POLL_S = 0.01
_PROBE_S = 0.5
_LOG_BYTES = 5_000_000  # a log grown larger is begun anew at the next start
_PORT_ATTEMPTS = 3  # another process may take a free port between our looking and the server's binding


class ServerFailed(RuntimeError):
    """A server did not start; the message ends with the tail of its log."""


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
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
        """Freeze it: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

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


def kept_url(data_dir: Path, which: Literal["nats", "redis"]) -> str:
    """Return the URL of the server that `tidings up` started last on a data directory, or nothing."""
    directory = data_dir / which
    if not (directory / "state.json").is_file():
        return ""
    return (NatsServer if which == "nats" else RedisServer)(directory).url


def _password_of(password: str, role: Role) -> str:
    """Return a role's password: it follows from the operator's, and tells nothing of it."""
    return hmac.digest(password.encode(), f"tidings {role}".encode(), "sha256").hex()


def _quoted(value: object) -> str:
    """Quote a string as both configuration languages understand it."""
    return json.dumps(str(value), ensure_ascii=False)


class NatsServer(LocalServer):
    """A nats-server with JetStream. `extra_config` is appended to its configuration file.

    With `settings` there is a user for each role that may do what these settings need (`services.permissions`),
    beside the operator's, which `url` names and which may do everything.
    """

    name = "nats-server"

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        password: str = "",
        extra_config: str = "",
        settings: Settings | None = None,
    ) -> None:
        super().__init__(directory, port=port, password=password)
        self.extra_config = extra_config
        self._settings = settings

    @property
    def url(self) -> str:
        return f"nats://{OPERATOR}:{self.password}@127.0.0.1:{self.port}"

    def url_of(self, role: Role) -> str:
        """Return the URL with which a role connects."""
        return f"nats://{role}:{_password_of(self.password, role)}@127.0.0.1:{self.port}"

    def binary(self) -> Binary:
        return nats_binary()

    def _configuration(self) -> str:
        return f"""\
server_name: tidings-local
host: "127.0.0.1"
port: {self.port}
{self._authorization()}
jetstream {{ store_dir: {_quoted(self.directory / "jetstream")} }}
{self.extra_config}
"""

    def _authorization(self) -> str:
        if self._settings is None:
            return f"authorization {{ user: {OPERATOR}, password: {_quoted(self.password)} }}"
        passwords = {role.value: _password_of(self.password, role) for role in Role}
        return nats_users(self._settings, passwords | {OPERATOR: self.password})

    def _command(self) -> list[str]:
        return [str(self.binary().path), "--config", str(self._config_path)]

    def ready(self) -> bool:
        """Whether it takes our credentials and answers PING (NATS client protocol)."""
        login = json.dumps({"verbose": False, "user": OPERATOR, "pass": self.password, "protocol": 1})
        hello = f"CONNECT {login}\r\nPING\r\n".encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), _PROBE_S) as connection:
                lines = connection.makefile("rb")
                if not lines.readline().startswith(b"INFO "):
                    return False
                connection.sendall(hello)
                return lines.readline() == b"PONG\r\n"
        except OSError:
            return False


class RedisServer(LocalServer):
    """A redis-server (or valkey-server) that appends every change to a file, synced each second.

    With `settings` there is a user for each role with state there, beside the one that `url` names, which may do
    everything.
    """

    name = "redis-server"

    def __init__(
        self, directory: Path, *, port: int = 0, password: str = "", settings: Settings | None = None
    ) -> None:
        super().__init__(directory, port=port, password=password)
        self._settings = settings

    def url_of(self, role: Role) -> str:
        """Return the URL with which a role connects."""
        return f"redis://{role}:{_password_of(self.password, role)}@127.0.0.1:{self.port}/0"

    @property
    def url(self) -> str:
        return f"redis://default:{self.password}@127.0.0.1:{self.port}/0"

    def binary(self) -> Binary:
        return redis_binary()

    def _configuration(self) -> str:
        return f"""\
bind 127.0.0.1
port {self.port}
requirepass {_quoted(self.password)}
dir {_quoted(self.directory)}
daemonize no
appendonly yes
appendfsync everysec
save ""
{self._users()}"""

    def _users(self) -> str:
        if self._settings is None:
            return ""
        passwords = {role.value: _password_of(self.password, role) for role in Role}
        return redis_users(self._settings, passwords)

    def _command(self) -> list[str]:
        return [str(self.binary().path), str(self._config_path)]

    def ready(self) -> bool:
        """Whether it takes our password, has loaded its data and answers PING (RESP inline commands)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), _PROBE_S) as connection:
                replies = connection.makefile("rb")
                connection.sendall(f"AUTH {_quoted(self.password)}\r\nPING\r\n".encode())
                return replies.readline() == b"+OK\r\n" and replies.readline() == b"+PONG\r\n"
        except OSError:
            return False
