"""Keys and commands of each role that has state in Redis. Gateways and agents have no user there at all."""

from dataclasses import dataclass

from services.permissions import Role
from services.settings import Settings

# Data types by category, so that a new command of a type we use needs no new permission; nothing that reaches beyond
# the role's own keys (no KEYS, FLUSHALL, CONFIG, MIGRATE, SUBSCRIBE). The order counts: `-@dangerous` takes away from
# what comes before it.
_COMMANDS = (
    "-@all +@hash +@sortedset +@set +@list +@string +@transaction +@connection "
    "+eval +evalsha +script|load +script|exists +exists +del +unlink +expire +pexpire +ttl +pttl +type +time "
    "-@dangerous +client|setname +info +cluster|slots +cluster|shards +cluster|myid +readonly +asking"
)

# One of each kind that is used, to ask the server about: `KEY` stands for a key of the role.
PROBES: tuple[tuple[str, ...], ...] = (
    ("HSET", "KEY", "f", "v"),
    ("HGETALL", "KEY"),
    ("ZADD", "KEY", "1", "m"),
    ("ZRANGEBYSCORE", "KEY", "0", "1"),
    ("SADD", "KEY", "m"),
    ("RPUSH", "KEY", "v"),
    ("LRANGE", "KEY", "0", "1"),
    ("SET", "KEY", "v"),
    ("GET", "KEY"),
    ("DEL", "KEY"),
    ("EXISTS", "KEY"),
    ("EXPIRE", "KEY", "1"),
    ("PTTL", "KEY"),
    ("TIME",),
    ("MULTI",),
    ("EXEC",),
    ("EVALSHA", "0" * 40, "0"),
    ("SCRIPT", "LOAD", "return 1"),
    ("INFO",),
)

ROLES = (Role.PRESENCE, Role.METRICS)

# For health checks: whether a server has its data, and whether its master is in reach. No password, and nothing else.
PROBE_USER = "user probe on nopass resetchannels -@all +ping +role\n"


@dataclass(frozen=True, slots=True)
class RedisRights:
    """Rights of a role: keys that begin with `key_prefix`, by these ACL rules."""

    key_prefix: str
    commands: str

    @property
    def rules(self) -> str:
        """The rules as Redis and Valkey take them, but for the password."""
        return f"resetchannels ~{self.key_prefix}* {self.commands}"


def access_of(role: Role, settings: Settings) -> RedisRights:
    """Return the rights that a role needs.

    Raises:
        KeyError: the role has nothing in Redis.
    """
    key_prefix = {
        Role.PRESENCE: f"{{{settings.prefix}:presence}}",
        Role.METRICS: f"{{{settings.prefix}:metrics}}",
    }[role]
    return RedisRights(key_prefix, _COMMANDS)
