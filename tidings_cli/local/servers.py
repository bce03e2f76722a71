"""NATS and Redis as child processes, for one machine and for tests (`child_server` has what they share)."""

import json
import socket
from pathlib import Path

from services.bus.specs import disk_specs
from services.permissions import OPERATOR, Role
from services.permissions.render import nats_users, redis_users
from services.settings import Settings
from tidings_cli.local.binaries import Binary, nats_binary, redis_binary
from tidings_cli.local.child_server import LocalServer

_PROBE_S = 0.5
_SPARE_BYTES = 64 * 1024 * 1024
_NO_LIMIT_BYTES = 2**44


def with_local_servers(settings: Settings) -> Settings:
    """Return settings in which servers without a URL are those of the last `tidings up` in the data directory."""

    def url(server: "type[LocalServer]", folder: str) -> str:
        directory = settings.data_dir / folder
        return server(directory).url if (directory / "state.json").is_file() else ""

    urls = {
        "nats_url": settings.nats_url or url(NatsServer, "nats"),
        "redis_url": settings.redis_url or url(RedisServer, "redis"),
    }
    return settings.model_copy(update=urls)


def _quoted(value: object) -> str:
    """Quote a string for both configuration languages."""
    return json.dumps(str(value), ensure_ascii=False)


class NatsServer(LocalServer):
    """A nats-server with JetStream. `extra_config` is appended to its configuration file."""

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
        super().__init__(directory, port=port, password=password, settings=settings)
        self.extra_config = extra_config

    @property
    def url(self) -> str:
        return f"nats://{OPERATOR}:{self.password}@127.0.0.1:{self.port}"

    def url_of(self, role: Role) -> str:
        return f"nats://{role}:{self._password_of(role)}@127.0.0.1:{self.port}"

    def binary(self) -> Binary:
        return nats_binary()

    def _configuration(self) -> str:
        return f"""\
server_name: tidings-local
host: "127.0.0.1"
port: {self.port}
{self._authorization()}
jetstream {{ store_dir: {_quoted(self.directory / "jetstream")}, max_file_store: {self._store_bytes} }}
{self.extra_config}
"""

    @property
    def _store_bytes(self) -> int:
        """The limits of all streams and a reserve, for any size of disk; without settings, no limit.

        JetStream reserves the limits of its streams, by default out of three quarters of the free space.
        """
        if self._settings is None:
            return _NO_LIMIT_BYTES
        needed = sum(spec.max_bytes for spec in disk_specs(self._settings))
        return needed + needed // 4 + _SPARE_BYTES

    def _authorization(self) -> str:
        if self._settings is None:
            return f"authorization {{ user: {OPERATOR}, password: {_quoted(self.password)} }}"
        return nats_users(self._settings, self._passwords() | {OPERATOR: self.password})

    def _command(self) -> list[str]:
        return [str(self.binary().path), "--config", str(self._config_path)]

    def ready(self) -> bool:
        """Return whether it accepts our credentials and answers PING (NATS client protocol)."""
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
    """A redis-server (or valkey-server) that appends every change to a file, synced each second."""

    name = "redis-server"

    def url_of(self, role: Role) -> str:
        return f"redis://{role}:{self._password_of(role)}@127.0.0.1:{self.port}/0"

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
        return redis_users(self._settings, self._passwords()) if self._settings else ""

    def _command(self) -> list[str]:
        return [str(self.binary().path), str(self._config_path)]

    def ready(self) -> bool:
        """Return whether it accepts our password, has loaded its data and answers PING (RESP inline commands)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), _PROBE_S) as connection:
                replies = connection.makefile("rb")
                connection.sendall(f"AUTH {_quoted(self.password)}\r\nPING\r\n".encode())
                return replies.readline() == b"+OK\r\n" and replies.readline() == b"+PONG\r\n"
        except OSError:
            return False
