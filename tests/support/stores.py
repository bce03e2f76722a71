"""Redis and Valkey, each separately: both are tested."""

from pathlib import Path

from services.servers import REDIS_MINIMUM
from tests.support.requires import need
from tidings_cli.local import binaries
from tidings_cli.local.binaries import Binary
from tidings_cli.local.servers import RedisServer


class ValkeyServer(RedisServer):
    """A valkey-server from PATH."""

    name = "valkey-server"

    def binary(self) -> Binary:
        path = Path(need("valkey-server", "Debian: apt-get install valkey-server"))
        version = binaries.version_of(path)
        assert version is not None
        return Binary(path, version, "PATH")


class PlainRedisServer(RedisServer):
    """A redis-server, also where a valkey-server on PATH would come first; that one where there is no other."""

    def binary(self) -> Binary:
        for path, origin in binaries.redis_candidates():
            version = binaries.version_of(path)
            if path.name == "redis-server" and version >= REDIS_MINIMUM:
                return Binary(path, version, origin)
        return super().binary()
